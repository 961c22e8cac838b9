"""Guards made of functions, pipelines, other kits' objects, and of guards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bgkit import adapters
from bgkit.adapters import CalibratedGuard, CallableGuard, EnsembleGuard, as_guard
from bgkit.errors import BgkitError

PROMPTS, RESPONSES = ["a", "b", "c"], ["fine", "bad", "bad bad"]


def fixed(*values: float) -> CallableGuard:
    return CallableGuard(lambda p, r: values, "fixed")


def test_a_function_of_both_sides() -> None:
    guard = as_guard(
        lambda prompts, responses: [
            len(p + r) / 10 for p, r in zip(prompts, responses, strict=True)
        ]
    )
    np.testing.assert_allclose(guard.score(PROMPTS, RESPONSES), [0.5, 0.4, 0.8], atol=1e-6)


def test_an_object_with_score_is_taken_as_it_is() -> None:
    guard = fixed(0.1, 0.2, 0.3)
    assert as_guard(guard) is guard


def test_a_fitted_classifier_with_predict_proba() -> None:
    class Pipeline:
        def score(self, texts, labels):  # scikit-learn's accuracy, not ours
            raise AssertionError

        def predict_proba(self, texts):
            bad = np.array([text.count("bad") / 4 for text in texts])
            return np.c_[1 - bad, bad]

    assert as_guard(Pipeline()).score(PROMPTS, RESPONSES).tolist() == [0.0, 0.25, 0.5]


def test_an_any_guardrail_object_with_and_without_a_score() -> None:
    scored = SimpleNamespace(validate=lambda text: SimpleNamespace(valid=True, score=len(text) / 8))
    assert as_guard(scored, "g").score(PROMPTS, RESPONSES).tolist() == [0.5, 0.375, 0.875]
    verdict = SimpleNamespace(validate=lambda text: SimpleNamespace(valid="bad" not in text))
    assert as_guard(verdict, "g").score(PROMPTS, RESPONSES).tolist() == [0.0, 1.0, 1.0]


def test_guardbench_moderate_as_function_and_as_method() -> None:
    def moderate(conversations):
        assert [message["role"] for message in conversations[0]] == ["user", "assistant"]
        return [
            float(conversation[1]["content"].startswith("bad")) for conversation in conversations
        ]

    for thing in (moderate, SimpleNamespace(moderate=moderate)):
        assert as_guard(thing).score(PROMPTS, RESPONSES).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.1, 0.2), r"values of shape \(2,\) for 3 responses"),
        ((0.1, 1.2, 0.3), r"returned 1\.2\d* for response 1"),
        ((0.1, 0.2, float("nan")), "returned nan for response 2"),
    ],
)
def test_what_is_no_probability_is_refused(values, message) -> None:
    with pytest.raises(BgkitError, match=message):
        fixed(*values).score(PROMPTS, RESPONSES)


def test_what_is_no_guard_is_refused() -> None:
    with pytest.raises(BgkitError, match="A dict is no guard"):
        as_guard({})


def test_temperature_by_hand() -> None:
    guard = CalibratedGuard(fixed(0.5, 0.9, 0.1), 2.0)
    np.testing.assert_allclose(guard.score(PROMPTS, RESPONSES), [0.5, 0.75, 0.25], atol=1e-6)
    assert guard.name == "fixed at T = 2"
    with pytest.raises(BgkitError, match="above 0, not -1"):
        CalibratedGuard(guard, -1)


def test_temperature_is_found_on_labelled_data() -> None:
    """An overconfident guard, whose logits are three times too large, gets its three."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 4000)
    harmful = rng.random(4000) < 1 / (1 + np.exp(-logits))
    t = 1 / (1 + np.exp(-3 * logits))
    texts = [""] * 4000
    guard = CalibratedGuard.fit(CallableGuard(lambda p, r: t, "sure"), texts, texts, harmful)
    assert guard.temperature == pytest.approx(3.0, rel=0.15)


def test_ensembles_by_hand() -> None:
    guards = [fixed(0.0, 0.5, 1.0), fixed(0.4, 0.1, 0.0)]
    mean, most = (EnsembleGuard(guards, how).score(PROMPTS, RESPONSES) for how in adapters.COMBINE)
    np.testing.assert_allclose(mean, [0.2, 0.3, 0.5], atol=1e-6)
    np.testing.assert_allclose(most, [0.4, 0.5, 1.0], atol=1e-6)
    for how, parts in (("median", guards), ("mean", [])):
        with pytest.raises(BgkitError, match="one guard or more and mean or maximum"):
            EnsembleGuard(parts, how)
