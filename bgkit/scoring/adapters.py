"""Guards made from functions, from scikit-learn classifiers and from other guards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.scoring.labels import unsafe_column
from bgkit.scoring.scorer import Scorer, as_probabilities, guard_scores, name_of
from bgkit.scoring.temperature import with_temperature


class CallableGuard:
    """A guard made from a function ``(prompts, responses) -> n probabilities``.

    The function may return anything that :func:`bgkit.scoring.scorer.as_numbers` accepts.
    ``label`` is the label that is read as unsafe, where known.

    >>> guard = CallableGuard(lambda prompts, responses: ["!" in r for r in responses], "loud")
    >>> guard.score(["a", "b"], ["no", "yes!"]).tolist()
    [0.0, 1.0]
    """

    def __init__(self, function: Callable, name: str, label: str = "") -> None:
        self.function, self.name, self.label = function, name, label
        self.test_outcome = {"name": name, "unsafe_label": label} if label else None

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) probabilities; raises BgkitError if there are not n, or not in [0, 1]."""
        if isinstance(prompts, str) or len(prompts) != len(responses):
            raise BgkitError(f"{self.name} scores a list of prompts and one of as many responses.")
        if not len(responses):
            return np.zeros(0)
        values = self.function(list(prompts), list(responses))
        return as_probabilities(values, len(responses), self.name)


class CalibratedGuard:
    """A guard with rescaled probabilities: t' = sigmoid(logit(t) / temperature).

    All other attributes are those of ``guard``; :mod:`bgkit.scoring.temperature` has the formula.
    """

    def __init__(self, guard: Scorer, temperature: float) -> None:
        checks.require_positive(temperature=temperature)
        self.guard, self.temperature = guard, float(temperature)
        self.name = f"{name_of(guard)} at T = {temperature:.3g}"

    def __getattr__(self, name: str) -> object:
        if name == "guard":  # not set yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.guard, name)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) rescaled probabilities; raises BgkitError if the guard's are not in [0, 1]."""
        t = guard_scores(self.guard, prompts, responses)
        return t if self.temperature == 1 else with_temperature(t, self.temperature)


def as_guard(candidate: object, unsafe: object = None) -> Scorer:
    """Turn an object, a classifier or a function into a guard.

    Accepted are: anything with ``score(prompts, responses)``, returned as it is; a fitted
    scikit-learn classifier or pipeline (``predict_proba`` of the responses; the unsafe class is
    read from the words of ``classes_``, or named by ``unsafe``); a function, see
    :class:`CallableGuard`. Raises BgkitError for anything else.
    """
    if isinstance(candidate, CalibratedGuard):  # which has its guard's attributes
        return candidate
    name = getattr(candidate, "__name__", name_of(candidate))
    is_classifier = hasattr(candidate, "predict") and hasattr(candidate, "predict_proba")
    is_model = hasattr(candidate, "save_pretrained") or (  # whose score() is something else
        hasattr(candidate, "predict") and (is_classifier or hasattr(candidate, "fit"))
    )
    if hasattr(candidate, "score") and not is_model:
        return candidate
    if hasattr(candidate, "predict_proba"):
        labels = np.asarray(getattr(candidate, "classes_", (0, 1))).tolist()
        column = unsafe_column(labels, unsafe, "as_guard(model, unsafe={!r})")

        def unsafe_probability(_: Sequence[str], responses: Sequence[str]) -> np.ndarray:
            table = np.asarray(candidate.predict_proba(responses))
            if table.shape[1:] != (len(labels),):
                raise BgkitError(
                    f"predict_proba of {name} returned the shape {table.shape}, not a column for "
                    f"each of {len(labels)} classes; give it classes_, their labels."
                )
            return table[:, column]

        return CallableGuard(unsafe_probability, name, str(labels[column]))
    if not is_model and _accepts_two_lists(candidate):
        return CallableGuard(candidate, name)
    raise BgkitError(
        f"A {type(candidate).__name__} cannot be used as a guard: give an object with score or "
        "predict_proba, a function from prompts and responses to probabilities, or the guard that "
        "bgkit.load_guard(NAME) loads from a folder or hub name."
    )


def _accepts_two_lists(candidate: object) -> bool:
    try:
        inspect.signature(candidate).bind([], [])
    except (TypeError, ValueError) as error:
        return isinstance(error, ValueError)  # a function without a signature
    return True
