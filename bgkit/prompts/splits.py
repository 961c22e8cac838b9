"""Assignment of prompts to training, validation or test by a hash of their text.

The split depends only on the normalised text, so a prompt is in the same split in every set, and
train, validation and test cannot share one.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate, combinations

from bgkit.errors import BgkitError
from bgkit.prompts.tables import short_repr

#: Shares for sets without predefined splits. The sets are small: 30 % of XSTest are 135 prompts,
#: with which a rate of 0.2 has an interval of about 0.14 to 0.28.
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


@functools.cache
def _normalise_character(character: str) -> str:
    """A character as nothing, a blank, or itself."""
    category = unicodedata.category(character)
    if category == "Cf":  # zero-width characters, direction marks, soft hyphens
        return ""
    return " " if category[0] in "PZ" or category == "Cc" else character


def normalise(text: str) -> str:
    """The text that decides whether two prompts are the same.

    NFKC and case folding; punctuation and white space become single blanks, invisible characters
    are removed. A text with nothing else is only stripped.

    >>> normalise("  How do I  KILL a\\tprocess?!") == normalise("how do i kill a process")
    True
    >>> normalise("?!")
    '?!'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(map(_normalise_character, folded)).split()) or text.strip()


def digest(text: str, salt: str = "") -> str:
    """The sha256 of a text in hex; lone surrogates are allowed."""
    return hashlib.sha256(f"{salt}{text}".encode("utf-8", "surrogatepass")).hexdigest()


def split_of(text: str) -> str:
    """The split of a prompt, by a hash of its normalised text.

    >>> split_of("What is a stoat?") == split_of("what is a  STOAT")
    True
    """
    uniform = int(digest(normalise(text))[:13], 16) / 16**13
    return [*SHARES][bisect_right([*accumulate(SHARES.values())][:-1], uniform)]


def check_leakage(splits: Mapping[str, Iterable[str]], where: str) -> None:
    """Raise BgkitError with the first prompt that two of the splits (name -> texts) share."""
    keys = {name: {normalise(text): text for text in splits[name]} for name in splits}
    for first, second in combinations(keys, 2):
        shared = [key for key in keys[second] if key in keys[first]]
        if shared:
            raise BgkitError(
                f"The splits {first!r} and {second!r} of {where} share {len(shared)} prompt(s), "
                f"first {short_repr(keys[second][shared[0]])}; delete them from one of the two."
            )
