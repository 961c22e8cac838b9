"""Model text as HTML that stays text: whatever a model wrote, a page only ever shows it."""

from __future__ import annotations

import html

from bgkit.texts import visible

#: Classes of an element in which MathJax finds no formulas: JupyterLab and Colab typeset HTML.
NO_MATH = "mathjax_ignore tex2jax_ignore"


def safe(text: object) -> str:
    """Text for HTML: markup escaped, control and bidirectional characters made visible.

    >>> safe("<img src=x onerror=alert(1)>\\x1b[31m")
    '&lt;img src=x onerror=alert(1)&gt;⟨U+001B⟩[31m'
    """
    return html.escape(visible(text))
