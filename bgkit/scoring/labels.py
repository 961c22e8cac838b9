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
    spaced = re.sub("([a-z])([A-Z])", r"\1 \2", str(label))
    words = re.findall("[a-z]+", spaced.lower())
    told = {_of_word(word) for word in words} - {None}
    if len(told) != 1:
        return None
    negated = sum(word in _NOT for word in words) % 2 == 1
    return told.pop() != negated


def _of_word(word: str) -> bool | None:
    if _SAFE.fullmatch(word):
        return False
    if _UNSAFE.fullmatch(word):
        return True
    rests = (_of_word(word.removeprefix(p)) for p in _PREFIXES if word.startswith(p) and word != p)
    return next((not rest for rest in rests if rest is not None), None)


def unsafe_columns(
    labels: Sequence[object], unsafe: object = None, how: str = "unsafe={!r}"
) -> list[int]:
    """Places of the labels that mean unsafe.

    ``unsafe`` names one, or several in a list or parted by commas. Without it there must be two
    labels, and the words of one or of both must tell (:func:`meaning`). Raises BgkitError
    otherwise; ``how`` says how to name it, with {} where the name goes.

    >>> unsafe_columns(["harmful", "harmless"]), unsafe_columns(["safe", "borderline"])
    ([0], [1])
    >>> unsafe_columns(["H", "OK", "S"], "s,h")
    [0, 2]
    """
    names = [_name(label) for label in labels]
    listed = ", ".join(map(str, labels))
    remedy = how.format(str(labels[-1]))
    if unsafe is not None:
        asked = list(unsafe) if isinstance(unsafe, list | tuple | set) else [unsafe]
        if isinstance(unsafe, str) and _name(unsafe) not in names:
            asked = unsafe.split(",")
        chosen = {_name(name) for name in asked}
        found = [i for i, name in enumerate(names) if name in chosen]
        if len(found) == len(chosen) and (0 < len(found) < len(names) or len(names) == 1):
            return found
        raise BgkitError(
            f"{unsafe!r} does not name the unsafe one of the labels {listed}; give it as {remedy}."
        )
    told = [meaning(label) for label in labels]
    numbers = [bool(re.fullmatch(r"-?[\d.]+", name)) for name in names]
    if len(names) == 2 and numbers[0] == numbers[1] and not (all(numbers) and None in told):
        unsafe_ones, safe_ones = ([i for i in (0, 1) if told[i] is kind] for kind in (True, False))
        if len(unsafe_ones) == 1:
            return unsafe_ones
        if len(safe_ones) == 1 and not unsafe_ones:
            return [1 - safe_ones[0]]
    raise BgkitError(
        f"Which of the labels {listed} means unsafe can not be told from their words; name it, as "
        f"in {remedy}."
    )
