"""Model text as HTML that stays text: whatever a model wrote, a page only ever shows it."""

from __future__ import annotations

import html
import re

from bgkit.texts import visible

_MATHEMATICS = re.compile(r"[$\\]")


def safe(text: object) -> str:
    """Text for HTML: markup escaped, control and bidirectional characters made visible.

    Notebooks typeset formulas in HTML; a dollar or a backslash of its own element is none.

    >>> safe("<img src=x onerror=alert(1)>\\x1b[31m")
    '&lt;img src=x onerror=alert(1)&gt;⟨U+001B⟩[31m'
    >>> safe("$x$")
    '<span>$</span>x<span>$</span>'
    """
    return _MATHEMATICS.sub(r"<span>\g<0></span>", html.escape(visible(text)))
