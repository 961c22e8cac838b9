"""Which of a classifier's labels means *unsafe*: read from its name, never from its place.

scikit-learn sorts its classes, so "harmful" stands before "harmless"; a transformers classifier
may have "unsafe" first as well as last. Of two labels one known name tells; else the user is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bgkit.errors import BgkitError
from bgkit.testbed.store import read_data

_SAFE, _UNSAFE = (set(words.split()) for words in read_data("words.yaml")["labels"].values())


def _name(label: object) -> str:
    """A label as text: 1.0 and 1 are the same one."""
    return re.sub(r"(?<=\d)\.0$", "", str(label).strip().lower())


def meaning(label: object) -> bool | None:
    """Whether a label means unsafe; None where its name, and what it negates, is not known.

    >>> [meaning(label) for label in ("Unsafe", "hateSpeech", "LABEL_1", 1.0, True)]
    [True, True, True, True, True]
    >>> [meaning(label) for label in ("safe", "0", -1, "not_harmful", "positive", 2)]
    [False, False, False, False, None, None]
    """
    name = re.sub(r"(?<=[a-z])[\W_]+", "", _name(label))
    if name in _UNSAFE:
        return True
    negated = re.fullmatch("(?:not|non|no|un)(.+)", name)
    return False if name in _SAFE or (negated and negated[1] in _UNSAFE) else None


def unsafe_column(labels: Sequence[object], unsafe: object = None, how: str = "unsafe={!r}") -> int:
    """Place of the label that means unsafe.

    ``unsafe`` names it. Without that there must be two, and the name of one or of both must tell
    (:func:`meaning`). Raises BgkitError otherwise; ``how`` says how to name it, with {} for a name.

    >>> unsafe_column(["harmful", "not_harmful"]), unsafe_column(["safe", "borderline"])
    (0, 1)
    >>> unsafe_column(["H", "OK", "S"], "s")
    2
    """
    names, told = list(map(_name, labels)), list(map(meaning, labels))
    if unsafe is not None and names.count(_name(unsafe)) == 1:
        return names.index(_name(unsafe))
    number = any(
        name[-1:].isdigit() for name, says in zip(names, told, strict=True) if says is None
    )
    if unsafe is None and len(told) == 2 and told[0] != told[1] and not number:
        return told.index(True) if True in told else told.index(None)
    fault = "can not be told from their names" if unsafe is None else f"is not {unsafe!r}"
    raise BgkitError(
        f"Which of the labels {', '.join(map(str, labels))} means unsafe {fault}; name it, as in "
        f"{how.format(str(labels[-1]))}."
    )
