"""Which of a classifier's labels means *unsafe*: read from its name, never from its position.

scikit-learn sorts its classes, so "harmful" comes before "harmless"; a transformers classifier may
have "unsafe" first or last. Of two labels, one known name is enough; otherwise the user must say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bgkit.data import read_data
from bgkit.errors import BgkitError

_SAFE, _UNSAFE = (set(words.split()) for words in read_data("words.yaml")["labels"].values())


def _normalise(label: object) -> str:
    """A label as text; 1.0 and 1 are the same."""
    return re.sub(r"(?<=\d)\.0$", "", str(label).strip().lower())


def means_unsafe(label: object) -> bool | None:
    """Whether a label means unsafe; None where neither its name nor what it negates is known.

    >>> [means_unsafe(label) for label in ("Unsafe", "hateSpeech", "LABEL_1", 1.0, True)]
    [True, True, True, True, True]
    >>> [means_unsafe(label) for label in ("safe", "0", -1, "not_harmful", "positive", 2)]
    [False, False, False, False, None, None]
    """
    name = re.sub(r"(?<=[a-z])[\W_]+", "", _normalise(label))
    if name in _UNSAFE:
        return True
    negated = re.fullmatch("(?:not|non|no|un)(.+)", name)
    return False if name in _SAFE or (negated and negated[1] in _UNSAFE) else None


def unsafe_column(labels: Sequence[object], unsafe: object = None, how: str = "unsafe={!r}") -> int:
    """Index of the label that means unsafe.

    ``unsafe`` names it. Without it there must be two labels, at least one of which has a known name
    (:func:`means_unsafe`). Raises BgkitError otherwise; ``how`` shows how to name a label, with {}
    in its place.

    >>> unsafe_column(["harmful", "not_harmful"]), unsafe_column(["safe", "borderline"])
    (0, 1)
    >>> unsafe_column(["H", "OK", "S"], "s")
    2
    """
    names, verdicts = list(map(_normalise, labels)), list(map(means_unsafe, labels))
    listing, example = ", ".join(map(str, labels)), how.format("LABEL")
    if unsafe is not None:
        if names.count(_normalise(unsafe)) == 1:
            return names.index(_normalise(unsafe))
        raise BgkitError(
            f"{unsafe!r} is not one of the labels {listing}; name one, as in {example}."
        )
    numbered = any(n[-1:].isdigit() for n, v in zip(names, verdicts, strict=True) if v is None)
    if len(names) == 2 and verdicts[0] != verdicts[1] and not numbered:
        return verdicts.index(True if True in verdicts else None)
    raise BgkitError(
        f"It is unclear which of the labels {listing} means unsafe; name it, as in {example}."
    )
