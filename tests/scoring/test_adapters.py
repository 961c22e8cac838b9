"""Guards made of functions, pipelines, other kits' objects, and of guards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from bgkit.errors import BgkitError
from bgkit.scoring import adapters
from bgkit.scoring.adapters import CalibratedGuard, CallableGuard, EnsembleGuard, as_guard

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


class Fitted:
    """What as_guard sees of a fitted scikit-learn classifier; its last class is never likely."""

    def __init__(self, classes) -> None:
        self.classes_ = classes if isinstance(classes, list) else np.array(classes)

    def fit(self, texts, labels):
        raise AssertionError

    def score(self, texts, labels):
        raise AssertionError

    def predict_proba(self, texts):
        bad = np.array([text.count("bad") / 4 for text in texts])
        return np.c_[1 - bad, bad, 0 * bad][:, : len(self.classes_)]


@pytest.mark.parametrize(
    ("classes", "unsafe", "label", "column"),
    [
        (("abusive", "fine"), None, "abusive", 0),
        (("hate", "nothate"), None, "hate", 0),
        ((False, True), None, "True", 1),
        ((-1, 1), None, "1", 1),
        (("0", "1"), None, "1", 1),
        (("off", "on"), "Off", "off", 0),
        ((3, 4, 5), 4, "4", 1),
    ],
)
def test_the_classes_of_a_classifier_tell_the_unsafe_one(classes, unsafe, label, column) -> None:
    guard = as_guard(Fitted(classes), "g", unsafe)
    expected = [[1.0, 0.75, 0.5], [0.0, 0.25, 0.5]][column]
    assert guard.score(PROMPTS, RESPONSES).tolist() == expected
    assert guard.checked == {"name": "g", "unsafe_label": label}


def test_several_classes_are_summed() -> None:
    guard = as_guard(Fitted(("a", "b", "c")), unsafe=["a", "c"])
    assert guard.score(PROMPTS, RESPONSES).tolist() == [1.0, 0.75, 0.5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.4, 0.3]] * 3, "do not sum to 1"),
        ([["a", "b", "c"]] * 3, "M returned 'a'"),
        ([[0.5], [0.5, 0.5], []], "M returned no plain numbers"),
    ],
)
def test_what_a_classifier_must_not_return(rows, message) -> None:
    model = SimpleNamespace(classes_=[*"abc"], predict_proba=lambda texts: rows)
    with pytest.raises(BgkitError, match=message):
        as_guard(model, "M", unsafe=["a", "c"]).score(PROMPTS, RESPONSES)


def without(*names: str) -> object:
    methods = {name: lambda *_: None for name in ("fit", "predict", "decision_function", "score")}
    return SimpleNamespace(**{n: method for n, method in methods.items() if n not in names})


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Fitted(("grey", "safe", "unsafe")), r"labels grey, safe, unsafe .*unsafe='unsafe'"),
        (Fitted(("left", "right")), r"left, right .*as_guard\(model, unsafe='right'\)"),
        (Fitted((1, 2)), "labels 1, 2 means unsafe can not be told"),
        (Fitted([np.array([0, 1]), np.array([0, 1])]), "has several outputs"),
        (without(), r"no probabilities \(predict_proba\)"),
        (SimpleNamespace(fit=print, predict_proba=print), "fit it first"),
        (SimpleNamespace(save_pretrained=print, score=print), "can not be told; save model and"),
        (lambda texts: texts, r"a function of \(prompts, responses\)"),
    ],
)
def test_a_model_that_can_not_be_read_is_refused(thing, message) -> None:
    with pytest.raises(BgkitError, match=message):
        as_guard(thing)


def one(label: str, score: float) -> dict:
    return {"label": label, "score": score}


T = torch.tensor([0.0, 0.25, 0.5])


@pytest.mark.parametrize(
    "output",
    [
        T.bfloat16(),
        T.clone().requires_grad_()[:, None],
        list(T.half()),
        [[0.0], [0.25], [0.5]],
        pd.Series([0.0, 0.25, 0.5], index=[7, 8, 9]),
        iter([0, 0.25, np.float16(0.5)]),
        [one("clean", 1.0), one("clean", 0.75), one("toxic", 0.5)],
        [[one("toxic", p), one("neutral", 1 - p)] for p in T.tolist()],
    ],
    ids="bfloat16 gradients halves lists series iterator labels top_k".split(),
)
def test_what_a_function_may_return(output) -> None:
    assert as_guard(lambda p, r: output).score(PROMPTS, RESPONSES).tolist() == [0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "a NoneType for 3 responses"),
        (T[:2], r"shape \(2,\) for 3"),
        (torch.zeros(3, 2), r"shape \(3, 2\) for 3"),
        (0.5, r"shape \(\) for 3"),
        ([0.1, None, 0.2], "with None in it"),
        (["0.1", "0.2", "0.3"], "with '0.1' in it"),
        ({"scores": [0.1, 0.2, 0.3]}, "a dict for 3"),
        ([[0.1], [0.1, 0.2], [0.3]], "a list for 3"),
        (T * 8, "returned 2.0 for response 1"),
        ([one("POSITIVE", 0.9)] * 3, "top_k=None"),
        ([one("safe", 0.4)] * 3, "top_k=None"),  # there must be a third label
        ([[one("a", 0.5), one("b", 0.3), one("c", 0.2)]] * 3, r"a, b, c .*unsafe='c'"),
    ],
    ids=str,
)
def test_what_a_function_must_not_return(output, message) -> None:
    with pytest.raises(BgkitError, match=message):
        as_guard(lambda p, r: output).score(PROMPTS, RESPONSES)


def test_one_number_for_one_response_and_none_for_none() -> None:
    guard = as_guard(lambda p, r: torch.tensor(0.5))
    assert guard.score(["a"], ["b"]).tolist() == [0.5] and guard.score([], []).shape == (0,)


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
