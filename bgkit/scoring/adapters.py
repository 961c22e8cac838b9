"""Guards made of other things: of functions, of scikit-learn classifiers, and of guards."""

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


class CallableGuard:
    """A guard made of a function ``(prompts, responses) -> n probabilities``.

    It may return whatever :func:`bgkit.scoring.scorer.as_numbers` takes. ``label`` says which label
    is read as unsafe, where that is known.

    >>> guard = CallableGuard(lambda prompts, responses: ["!" in r for r in responses], "loud")
    >>> guard.score(["a", "b"], ["no", "yes!"]).tolist()
    [0.0, 1.0]
    """

    def __init__(self, function: Callable, name: str, label: str = "") -> None:
        self.function, self.name, self.label = function, name, label
        self.checked = {"name": name, "unsafe_label": label} if label else None

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) probabilities; raises BgkitError if there are not n, or not in [0, 1]."""
        if not len(responses):
            return np.zeros(0, dtype=np.float32)
        values = self.function(list(prompts), list(responses))
        return as_probabilities(values, len(responses), self.name)


class CalibratedGuard:
    """A guard whose probabilities are scaled: t' = sigmoid(logit(t) / temperature).

    See :func:`bgkit.scoring.temperature.with_temperature`.
    """

    def __init__(self, guard: Scorer, temperature: float) -> None:
        checks.require_positive(temperature=temperature)
        self.guard, self.temperature = guard, float(temperature)
        self.name = f"{name_of(guard)} at T = {temperature:.3g}"
        self.checked = getattr(guard, "checked", None)
        self.model = getattr(guard, "model", None)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) scaled probabilities; raises BgkitError where the guard's are none."""
        t = guard_scores(self.guard, prompts, responses)
        return with_temperature(t, self.temperature).astype(np.float32)


def as_guard(thing: object, name: str = "", unsafe: object = None) -> Scorer:
    """A guard of whatever a user has.

    Taken are: anything with ``score(prompts, responses)``, as it is; a fitted scikit-learn
    classifier or pipeline (``predict_proba`` of the responses; the words of ``classes_`` tell
    which one is unsafe, or ``unsafe`` names it); a function, see :class:`CallableGuard`. Raises
    BgkitError for anything else.
    """
    name = name or getattr(thing, "__name__", name_of(thing))
    if hasattr(thing, "predict_proba"):
        labels = np.asarray(getattr(thing, "classes_", (0, 1))).tolist()
        column = unsafe_column(labels, unsafe, "as_guard(model, unsafe={!r})")
        label = str(labels[column])
        return CallableGuard(
            lambda _, r: np.asarray(thing.predict_proba(r))[:, column], name, label
        )
    model = hasattr(thing, "save_pretrained") or (
        hasattr(thing, "fit") and hasattr(thing, "predict")
    )
    if hasattr(thing, "score") and not model:
        return thing
    if not model and _takes_two(thing):
        return CallableGuard(thing, name)
    raise BgkitError(
        f"A {type(thing).__name__} can not be read as a guard: give an object with score or "
        "predict_proba, a function from prompts and responses to probabilities, or the guard that "
        "bgkit.load_guard(NAME) makes of a folder or hub name."
    )


def _takes_two(thing: object) -> bool:
    """Whether something can be called with two lists, as far as it says."""
    with contextlib.suppress(ValueError):  # a function without a signature
        try:
            inspect.signature(thing).bind([], [])
        except TypeError:
            return False
    return True
