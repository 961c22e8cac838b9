"""Model text as HTML that stays text: whatever a model wrote, a page only ever shows it."""

from __future__ import annotations

import html

from bgkit.texts import visible

#: Classes of an element in which MathJax finds no formulas: JupyterLab and Colab typeset HTML.
NO_MATH = "mathjax_ignore tex2jax_ignore"
LONG = 300  # characters of a text that are shown before the rest is folded


def safe(text: object) -> str:
    """Text for HTML: markup escaped, control and bidirectional characters made visible.

    >>> safe("<img src=x onerror=alert(1)>\\x1b[31m")
    '&lt;img src=x onerror=alert(1)&gt;⟨U+001B⟩[31m'
    """
    return html.escape(visible(text))


def folded(text: object, limit: int = LONG) -> str:
    """:func:`safe`, with what stands behind ``limit`` characters folded away until it is clicked.

    >>> folded("short"), folded("a word and more", 8)
    ('short', 'a word<details><summary>…</summary> and more</details>')
    """
    whole = visible(text)
    if len(whole) <= limit:
        return html.escape(whole)
    lead = whole[: whole.rfind(" ", 0, limit) if " " in whole[1:limit] else limit]
    rest = html.escape(whole[len(lead) :])
    return f"{html.escape(lead)}<details><summary>…</summary>{rest}</details>"
