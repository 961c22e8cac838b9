"""Untrusted text, such as a model's, made fit to be shown and written."""

from __future__ import annotations

import unicodedata


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


def encodable(text: str) -> str:
    """A text with "?" for each lone surrogate (half an emoji), which no UTF-8 file can hold.

    >>> encodable("half \\ud83d, whole \\U0001f600")
    'half ?, whole 😀'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
