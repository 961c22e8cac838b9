"""Guards made of other things: functions, pipelines, other kits' guards, and guards of guards.

Every class here has ``score(prompts, responses) -> (n,) float32 in [0, 1]`` and a ``name``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.scoring import outputs
from bgkit.scoring.labels import unsafe_columns
from bgkit.scoring.scorer import Scorer, check_probabilities, guard_scores, name_of
from bgkit.scoring.temperature import temperature_scale, with_temperature

ROUNDING = 1e-3  # of the sum of a classifier's probabilities, in 16 bits
COMBINE = {"mean": np.mean, "maximum": np.max}


class CallableGuard:
    """A guard made of a function ``(prompts, responses) -> n probabilities``.

    It may return whatever :mod:`bgkit.scoring.outputs` takes; of a pipeline's labels ``unsafe``
    names the unsafe one where their words do not tell. ``label`` says which label is read as
    unsafe, where that is known.

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
        values = self.function(list(prompts), list(responses))
        values = outputs.of_pipeline(values, self.unsafe)
        values = outputs.as_numbers(values, len(responses), f"The guard {self.name}")
        return check_probabilities(values, self.name)


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

    @classmethod
    def fit(
        cls,
        guard: Scorer,
        prompts: Sequence[str],
        responses: Sequence[str],
        harmful: Sequence[bool],
    ) -> CalibratedGuard:
        """The guard at the temperature of least log loss on labelled responses.

        Raises the errors of :func:`bgkit.scoring.temperature.temperature_scale`.
        """
        t = guard_scores(guard, prompts, responses)
        return cls(guard, temperature_scale(t, harmful)[0])

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
    label, or several in a list, where words do not tell. Raises BgkitError for anything else.
    """
    name = name or name_of(thing)
    if hasattr(thing, "predict_proba"):
        return _of_classifier(thing, name, unsafe)
    if hasattr(thing, "save_pretrained"):
        raise BgkitError(
            f"How a {type(thing).__name__} is asked can not be told; save model and tokenizer in a "
            "folder for bgkit.load_guard, or give a function around it, such as lambda prompts, "
            "responses: pipe(responses, top_k=None)."
        )
    if hasattr(thing, "fit") and hasattr(thing, "predict"):
        raise BgkitError(
            f"{name} gives no probabilities (predict_proba); fit it within scikit-learn's "
            "CalibratedClassifierCV, or take a classifier that has them."
        )
    if hasattr(thing, "score"):
        return thing
    if hasattr(thing, "validate"):
        return CallableGuard(lambda *sides: [_validated(thing, r) for r in sides[1]], name)
    if hasattr(thing, "moderate"):
        return _from_moderate(thing.moderate, name)
    if callable(thing):
        name = getattr(thing, "__name__", name)
        if name == "moderate":
            return _from_moderate(thing, name)
        _require_two_sides(thing, name)
        return CallableGuard(thing, name, unsafe)
    raise BgkitError(
        f"A {type(thing).__name__} is no guard: give an object with score, predict_proba, validate "
        "or moderate, or a function of (prompts, responses)."
    )


def _require_two_sides(function: Callable, name: str) -> None:
    try:
        inspect.signature(function).bind([], [])
    except TypeError as error:
        raise BgkitError(
            f"The guard {name} can not be called with two lists ({error}); give a function of "
            "(prompts, responses)."
        ) from error
    except ValueError:  # one without a signature
        pass


def _of_classifier(model: object, name: str, unsafe: object) -> CallableGuard:
    """A guard of a classifier with ``predict_proba``, read at its unsafe classes."""
    if hasattr(model, "fit") and getattr(model, "classes_", None) is None:
        raise BgkitError(f"The classifier {name} has no classes_: fit it first.")
    classes = getattr(model, "classes_", (0, 1))
    if any(np.ndim(one) for one in classes):
        raise BgkitError(
            f"The classifier {name} has several outputs, each with classes of its own; give one "
            "that says safe or unsafe only."
        )
    labels = np.asarray(classes).tolist()
    columns = unsafe_columns(labels, unsafe, outputs.NAME_IT)

    def read(_: list[str], texts: list[str]) -> np.ndarray:
        p = checks.as_numbers(model.predict_proba(texts), f"The classifier {name} returned")
        if p.shape != (len(texts), len(labels)):
            raise BgkitError(
                f"The classifier {name} returned probabilities of shape {p.shape} for "
                f"{len(texts)} texts and {len(labels)} classes."
            )
        if len(columns) > 1 and np.abs(p.sum(axis=1) - 1).max() > ROUNDING:
            raise BgkitError(
                f"The probabilities of the classifier {name} do not sum to 1 (its labels do not "
                "exclude each other), so that those of several can not be added; name one label."
            )
        return outputs.sums(p, columns)

    return CallableGuard(read, name, label=", ".join(str(labels[i]) for i in columns))


def _validated(guardrail: object, response: str) -> object:
    """t of one response by an any-guardrail object; its score where it gives one in [0, 1]."""
    output = guardrail.validate(response)
    score = getattr(output, "score", None)
    if score is None or isinstance(score, bool):
        return 0.0 if output.valid else 1.0
    return score


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
