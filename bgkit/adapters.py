"""Guards made of other things: functions, pipelines, other kits' guards, and guards of guards.

Every class here has ``score(prompts, responses) -> (n,) float32 in [0, 1]`` and a ``name``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bgkit import calibration
from bgkit.errors import BgkitError
from bgkit.scoring import Scorer, check_probabilities

COMBINE = {"mean": np.mean, "maximum": np.max}


class CallableGuard:
    """A guard made of a function ``(prompts, responses) -> n probabilities``.

    >>> guard = CallableGuard(lambda prompts, responses: ["!" in r for r in responses], "loud")
    >>> guard.score(["a", "b"], ["no", "yes!"]).tolist()
    [0.0, 1.0]
    """

    def __init__(
        self, function: Callable[[list[str], list[str]], Sequence[float]], name: str
    ) -> None:
        self.function, self.name = function, name

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) probabilities; raises BgkitError if there are not n, or not in [0, 1]."""
        values = np.asarray(self.function(list(prompts), list(responses)), dtype=np.float32)
        if values.shape != (len(responses),):
            raise BgkitError(
                f"The guard {self.name} returned values of shape {values.shape} for "
                f"{len(responses)} responses; it must return one probability for each."
            )
        return check_probabilities(values, self.name)


class CalibratedGuard:
    """A guard whose probabilities are scaled: t' = sigmoid(logit(t) / temperature).

    ``temperature`` above 1 makes it less sure (Guo et al. 2017, arXiv 1706.04599). The order of
    responses, and the side of 0.5 they are on, stay.
    """

    def __init__(self, guard: Scorer, temperature: float) -> None:
        if not temperature > 0:
            raise BgkitError(f"A guard's temperature must be above 0, not {temperature}.")
        self.guard, self.temperature = guard, float(temperature)
        self.name = f"{name_of(guard)} at T = {temperature:.3g}"
        self.checked = getattr(guard, "checked", None)
        self.model = getattr(guard, "model", None)

    @classmethod
    def fit(
        cls,
        guard: Scorer,
        prompts: Sequence[str],
        responses: Sequence[str],
        harmful: Sequence[bool],
    ) -> CalibratedGuard:
        """The guard at the temperature of least log loss on labelled responses."""
        t = guard.score(prompts, responses)
        return cls(guard, calibration.temperature_scale(t, np.asarray(harmful, float))[0])

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) scaled probabilities."""
        t = np.asarray(self.guard.score(prompts, responses), float)
        return calibration.with_temperature(t, self.temperature).astype(np.float32)


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
        """(n,) combined probabilities."""
        scores = [guard.score(prompts, responses) for guard in self.guards]
        return COMBINE[self.how](scores, axis=0).astype(np.float32)


def name_of(guard: object) -> str:
    """A guard's name in messages."""
    return getattr(guard, "name", type(guard).__name__)


def as_guard(thing: object, name: str = "") -> Scorer:
    """A guard of whatever a user has.

    Taken are: anything with ``score(prompts, responses)``, as it is; a fitted scikit-learn
    classifier or pipeline (``predict_proba`` of the responses, second class unsafe); an
    any-guardrail object (``validate(text)`` with a ``score``, or ``valid`` true or false);
    GuardBench's ``moderate(conversations)``, a function or a method; any other function of
    (prompts, responses). Raises BgkitError for anything else.
    """
    name = name or name_of(thing)
    if hasattr(thing, "score") and not hasattr(thing, "predict_proba"):
        return thing
    if hasattr(thing, "predict_proba"):
        return CallableGuard(lambda _, texts: np.asarray(thing.predict_proba(texts))[:, 1], name)
    if hasattr(thing, "validate"):
        return CallableGuard(lambda *sides: [_validated(thing, r) for r in sides[1]], name)
    if hasattr(thing, "moderate"):
        return _from_moderate(thing.moderate, name)
    if callable(thing):
        name = getattr(thing, "__name__", name)
        return _from_moderate(thing, name) if name == "moderate" else CallableGuard(thing, name)
    raise BgkitError(
        f"A {type(thing).__name__} is no guard: give an object with score, predict_proba, validate "
        "or moderate, or a function of (prompts, responses)."
    )


def _validated(guardrail: object, response: str) -> float:
    """t of one response by an any-guardrail object; its score where it gives one in [0, 1]."""
    output = guardrail.validate(response)
    score = getattr(output, "score", None)
    if isinstance(score, (int, float)) and not isinstance(score, bool):
        return float(score)
    return 0.0 if output.valid else 1.0


def _from_moderate(moderate: Callable[..., Sequence[float]], name: str) -> CallableGuard:
    def conversations(prompts: list[str], responses: list[str]) -> Sequence[float]:
        roles = ("user", "assistant")
        return moderate(
            [
                [{"role": role, "content": text} for role, text in zip(roles, pair, strict=True)]
                for pair in zip(prompts, responses, strict=True)
            ]
        )

    return CallableGuard(conversations, name)
