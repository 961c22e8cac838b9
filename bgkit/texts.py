"""Untrusted text, such as a model's, made fit to be shown and written."""

from __future__ import annotations

import html
import unicodedata

#: Classes of an element in which MathJax finds no formulas: JupyterLab and Colab typeset HTML.
NO_MATH = "mathjax_ignore tex2jax_ignore"
LONG = 300  # characters of a text that are shown before the rest is folded


def visible(text: object) -> str:
    """Return ``text`` with control, bidirectional and other unseen characters made visible.

    Line breaks and tabs stay; every other one becomes its code point, also a surrogate, which no
    UTF-8 file can hold.

    >>> visible("a\\x1b[31mb\\u202ec")
    'a⟨U+001B⟩[31mb⟨U+202E⟩c'
    """

    def show(character: str) -> str:
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
            return character
        return f"⟨U+{ord(character):04X}⟩"

    return "".join(map(show, str(text).replace("\r\n", "\n")))


def words(name: object) -> str:
    """A name to show where no HTML is read: :func:`visible`, with spaces for underscores."""
    return visible(name).replace("_", " ")


def safe(text: object) -> str:
    """Text for HTML: :func:`visible`, with markup escaped.

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


def encodable(text: str) -> str:
    """A text with "?" for each lone surrogate (half an emoji), which no UTF-8 file can hold.

    >>> encodable("half \\ud83d, whole \\U0001f600")
    'half ?, whole 😀'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
