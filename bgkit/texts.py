"""Make untrusted text, such as model output, safe to display and to write."""

from __future__ import annotations

import html
import unicodedata

#: Classes that keep MathJax from typesetting an element in JupyterLab and Colab.
NO_MATH = "mathjax_ignore tex2jax_ignore"
LONG = 300  # characters shown before the remainder is folded


def clean_text(text: object) -> str:
    """Replace control, bidirectional and other invisible characters by their code points.

    Line breaks and tabs stay. Lone surrogates, which UTF-8 cannot encode, are replaced too.

    >>> clean_text("a\\x1b[31mb\\u202ec")
    'a⟨U+001B⟩[31mb⟨U+202E⟩c'
    """

    def escape(character: str) -> str:
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
            return character
        return f"⟨U+{ord(character):04X}⟩"

    return "".join(map(escape, str(text).replace("\r\n", "\n")))


def plain_name(name: object) -> str:
    """A name for plain text: :func:`clean_text`, with spaces for underscores."""
    return clean_text(name).replace("_", " ")


def html_text(text: object) -> str:
    """Text for HTML: :func:`clean_text`, with markup escaped.

    >>> html_text("<img src=x onerror=alert(1)>\\x1b[31m")
    '&lt;img src=x onerror=alert(1)&gt;⟨U+001B⟩[31m'
    """
    return html.escape(clean_text(text))


def fold_html(text: object, limit: int = LONG) -> str:
    """:func:`html_text`, with text beyond ``limit`` characters folded until it is clicked.

    >>> fold_html("short"), fold_html("a word and more", 8)
    ('short', 'a word<details><summary>…</summary> and more</details>')
    """
    whole = clean_text(text)
    if len(whole) <= limit:
        return html.escape(whole)
    lead = whole[: whole.rfind(" ", 0, limit) if " " in whole[1:limit] else limit]
    hidden = html.escape(whole[len(lead) :])
    return f"{html.escape(lead)}<details><summary>…</summary>{hidden}</details>"


def replace_surrogates(text: str) -> str:
    """Replace each lone surrogate (half an emoji), which UTF-8 cannot encode, by "?".

    >>> replace_surrogates("half \\ud83d, whole \\U0001f600")
    'half ?, whole 😀'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
