"""Which of a classifier's labels mean *unsafe*: read from their words, never from their place.

scikit-learn sorts its classes, so "harmful" stands before "harmless"; a transformers classifier
may have "unsafe" first as well as last. Where words do not tell, the user is asked for the name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bgkit.errors import BgkitError

_SAFE = re.compile(
    "(safe|harmless|benign|neutral|normal|clean|acceptable|appropriate|allow|innocuous|legit|permit|"
    "decent|ethical|civil|polite|respectful|inoffensive)[a-z]*|sfw|ok|okay|good|ham"
)
_UNSAFE = re.compile(
    "(harm|toxi|hat(e|red)|abus|offens|malicious|jailbr|inject|violen|violat|danger|threat|insult|"
    "obscen|profan|explicit|sexual|racis|sexis|attack|illegal|flagged|blocked|adversarial|risk|"
    "inappropriate|indecent|impolite|disrespect|disallow)[a-z]*|nsfw|bad|spam"
)
_PREFIXES = ("non", "not", "no", "un")
_NOT = {*_PREFIXES, "never", "without", "free", "isn", "false"}
_NUMBERED = {"1": True, "true": True, "0": False, "-1": False, "false": False}
_NUMBERED |= {"label_1": True, "label_0": False}  # what transformers writes where nobody names them


def _name(label: object) -> str:
    """A label as text: 1.0 and 1 are the same one."""
    return re.sub(r"(?<=\d)\.0$", "", str(label).strip().lower())


def meaning(label: object) -> bool | None:
    """Whether a label means unsafe; None where its words do not tell.

    Of numbers and truth values 1 and True mean unsafe.

    >>> [meaning(label) for label in ("Unsafe", "toxic", "hateSpeech", "LABEL_1", 1.0, True)]
    [True, True, True, True, True, True]
    >>> [meaning(label) for label in ("safe", "not_harmful", "non-toxic", "unharmful", "0", -1)]
    [False, False, False, False, False, False]
    >>> [meaning(label) for label in ("positive", "class 1", "safety violation", 2)]
    [None, None, None, None]
    """
    if (name := _name(label)) in _NUMBERED:
        return _NUMBERED[name]
    words = re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", str(label)).lower())
    told = {_of_word(word) for word in words} - {None}
    if len(told) != 1:
        return None
    negated = sum(word in _NOT for word in words) % 2 == 1
    return told.pop() != negated


def _of_word(word: str) -> bool | None:
    if _SAFE.fullmatch(word) or _UNSAFE.fullmatch(word):
        return not _SAFE.fullmatch(word)
    rests = (_of_word(word.removeprefix(p)) for p in _PREFIXES if word.startswith(p) and word != p)
    return next((not rest for rest in rests if rest is not None), None)


def unsafe_column(labels: Sequence[object], unsafe: object = None, how: str = "unsafe={!r}") -> int:
    """Place of the label that means unsafe.

    ``unsafe`` names it. Without that there must be two, and the words of one or of both must tell
    (:func:`meaning`). Raises BgkitError otherwise; ``how`` says how to name it, with {} for a name.

    >>> unsafe_column(["harmful", "harmless"]), unsafe_column(["safe", "borderline"])
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
    fault = "can not be told from their words" if unsafe is None else f"is not {unsafe!r}"
    raise BgkitError(
        f"Which of the labels {', '.join(map(str, labels))} means unsafe {fault}; name it, as in "
        f"{how.format(str(labels[-1]))}."
    )
