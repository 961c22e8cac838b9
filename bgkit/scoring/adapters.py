"""Guards made of other things: functions, pipelines, other kits' guards, and guards of guards.

Every class here has ``score(prompts, responses) -> (n,) float32 in [0, 1]`` and a ``name``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence

import numpy as np

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.scoring.labels import unsafe_column
from bgkit.scoring.scorer import Scorer, as_probabilities, guard_scores, name_of
from bgkit.scoring.temperature import with_temperature

COMBINE = {"mean": np.mean, "maximum": np.max}
NAME_IT = "as_guard(model, unsafe={!r})"


class CallableGuard:
    """A guard made of a function ``(prompts, responses) -> n probabilities``.

    It may return whatever :func:`bgkit.scoring.scorer.as_numbers` takes, or what a transformers
    pipeline does with ``top_k=None``, where ``unsafe`` names the unsafe label if words do not
    tell. ``label`` says which label is read as unsafe, where that is known.

    >>> guard = CallableGuard(lambda prompts, responses: ["!" in r for r in responses], "loud")
    >>> guard.score(["a", "b"], ["no", "yes!"]).tolist()
    [0.0, 1.0]
    """

    def __init__(
        self,
        function: Callable[[list[str], list[str]], object],
        name: str,
        unsafe: object = None,
        label: str = "",
    ) -> None:
        self.function, self.name, self.unsafe, self.label = function, name, unsafe, label
        self.checked = {"name": name, "unsafe_label": label} if label else None

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) probabilities; raises BgkitError if there are not n, or not in [0, 1]."""
        if not len(responses):
            return np.zeros(0, dtype=np.float32)
        values = _of_pipeline(self.function(list(prompts), list(responses)), self.unsafe)
        return as_probabilities(values, len(responses), self.name)


def _of_pipeline(output: object, unsafe: object) -> object:
    """Probabilities of the dicts of label and score that pipelines return; all else as it is."""
    rows = output if isinstance(output, list | tuple) and output else [output]
    rows = [row if isinstance(row, list | tuple) else [row] for row in rows]
    if not all(
        isinstance(one, dict) and {"label", "score"} <= {*one} for row in rows for one in row
    ):
        return output
    tables = [{str(one["label"]): one["score"] for one in row} for row in rows]
    labels = sorted({label for table in tables for label in table})
    if len(labels) < 2 or any(len(table) < len(labels) for table in tables):
        raise BgkitError(
            f"A pipeline that returns only some of its labels ({', '.join(labels)}) does not tell "
            "how likely the unsafe one is; let it return all of them (top_k=None)."
        )
    label = labels[unsafe_column(labels, unsafe, NAME_IT)]
    return [table[label] for table in tables]


class CalibratedGuard:
    """A guard whose probabilities are scaled: t' = sigmoid(logit(t) / temperature).

    ``temperature`` above 1 makes it less sure (Guo et al. 2017, arXiv 1706.04599). The order of
    responses, and the side of 0.5 they are on, stay.
    """

    def __init__(self, guard: Scorer, temperature: float) -> None:
        checks.positive(temperature=temperature)
        self.guard, self.temperature = guard, float(temperature)
        self.name = f"{name_of(guard)} at T = {temperature:.3g}"
        self.checked = getattr(guard, "checked", None)
        self.model = getattr(guard, "model", None)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) scaled probabilities; raises BgkitError where the guard's are none."""
        t = guard_scores(self.guard, prompts, responses)
        return with_temperature(t, self.temperature).astype(np.float32)


class EnsembleGuard:
    """The mean, or the maximum, of several guards' probabilities."""

    def __init__(self, guards: Sequence[Scorer], how: str = "mean") -> None:
        if how not in COMBINE or not guards:
            raise BgkitError(
                f"An ensemble takes one guard or more and {' or '.join(COMBINE)}, not {how!r} of "
                f"{len(guards)}."
            )
        self.guards, self.how = list(guards), how
        self.name = f"{how} of {', '.join(map(name_of, guards))}"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) combined probabilities; raises BgkitError where a guard's are none."""
        scores = [guard_scores(guard, prompts, responses) for guard in self.guards]
        return COMBINE[self.how](scores, axis=0).astype(np.float32)


def as_guard(thing: object, name: str = "", unsafe: object = None) -> Scorer:
    """A guard of whatever a user has.

    Taken are: anything with ``score(prompts, responses)``, as it is; a fitted scikit-learn
    classifier or pipeline (``predict_proba`` of the responses; the words of ``classes_`` tell
    which one is unsafe); an any-guardrail object (``validate(text)`` with a ``score``, or
    ``valid`` true or false); GuardBench's ``moderate(conversations)``, a function or a method; any
    other function of (prompts, responses), see :class:`CallableGuard`. ``unsafe`` names the unsafe
    label where words do not tell. Raises BgkitError for anything else.
    """
    name = name or getattr(thing, "__name__", name_of(thing))
    if hasattr(thing, "predict_proba"):
        return _of_classifier(thing, name, unsafe)
    model = hasattr(thing, "save_pretrained") or (
        hasattr(thing, "fit") and hasattr(thing, "predict")
    )
    if hasattr(thing, "score") and not model:
        return thing
    if hasattr(thing, "validate"):
        return CallableGuard(lambda *sides: [_validated(thing, r) for r in sides[1]], name)
    if hasattr(thing, "moderate") or name == "moderate":
        return CallableGuard(_conversations(getattr(thing, "moderate", thing)), name)
    if not model and _takes_two(thing):
        return CallableGuard(thing, name, unsafe)
    raise BgkitError(
        f"A {type(thing).__name__} can not be read as a guard: give an object with score, "
        "predict_proba, validate or moderate, a folder by bgkit.load_guard, or a function of two "
        "lists, as in lambda prompts, responses: pipe(responses, top_k=None)."
    )


def _takes_two(thing: object) -> bool:
    """Whether something can be called with two lists, as far as it says."""
    with contextlib.suppress(ValueError):  # a function without a signature
        try:
            inspect.signature(thing).bind([], [])
        except TypeError:
            return False
    return True


def _of_classifier(model: object, name: str, unsafe: object) -> CallableGuard:
    """A guard of a classifier with ``predict_proba``, read at its unsafe class."""
    labels = np.asarray(getattr(model, "classes_", (0, 1))).tolist()
    column = unsafe_column(labels, unsafe, NAME_IT)

    def read(_: list[str], texts: list[str]) -> np.ndarray:
        return np.asarray(model.predict_proba(texts))[:, column]

    return CallableGuard(read, name, label=str(labels[column]))


def _validated(guardrail: object, response: str) -> object:
    """t of one response by an any-guardrail object; its score where it gives one."""
    output = guardrail.validate(response)
    score = getattr(output, "score", None)
    if score is None or isinstance(score, bool):
        return 0.0 if output.valid else 1.0
    return score


def _conversations(moderate: Callable) -> Callable[[list[str], list[str]], Sequence[float]]:
    def asked(prompts: list[str], responses: list[str]) -> Sequence[float]:
        sides = ("user", prompts), ("assistant", responses)
        said = [[{"role": role, "content": text} for text in texts] for role, texts in sides]
        return moderate(list(map(list, zip(*said, strict=True))))

    return asked
