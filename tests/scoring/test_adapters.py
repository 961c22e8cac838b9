"""Guards made of functions, of classifiers, and of guards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.scoring.adapters import CalibratedGuard, as_guard
from bgkit.scoring.scorer import guard_scores

PROMPTS, RESPONSES = ["a", "b", "c"], ["fine", "bad", "bad bad"]


class Fitted:
    """What as_guard sees of a fitted scikit-learn classifier; its last class is never likely."""

    def __init__(self, *classes) -> None:
        self.classes_ = np.array(classes)

    predict = score = None

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
        ((3, 4, 5), 4, "4", 1),
    ],
)
def test_the_classes_of_a_classifier_tell_the_unsafe_one(classes, unsafe, label, column) -> None:
    guard = as_guard(Fitted(*classes), unsafe)
    expected = [[1.0, 0.75, 0.5], [0.0, 0.25, 0.5]][column]
    assert guard.score(PROMPTS, RESPONSES).tolist() == expected
    assert guard.test_outcome == {"name": "Fitted", "unsafe_label": label}


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Fitted("grey", "safe", "unsafe"), r"labels grey, safe, unsafe .*unsafe='LABEL'"),
        (Fitted("left", "right"), r"left, right .*as_guard\(model, unsafe='LABEL'\)"),
        (Fitted(1, 2), "unclear which of the labels 1, 2 means unsafe"),
        (SimpleNamespace(fit=0, predict=0, score=0), "cannot be used as a guard.*predict_proba"),
        (SimpleNamespace(save_pretrained=print, score=print), "cannot be used.*load_guard"),
        (lambda texts: texts, "a function from prompts and responses"),
        ({}, "A dict cannot be used as a guard"),
    ],
)
def test_what_can_not_be_read_is_refused(thing, message) -> None:
    with pytest.raises(BgkitError, match=message):
        as_guard(thing)


def test_a_score_of_two_texts_is_taken_before_probabilities_of_one() -> None:
    own = SimpleNamespace(score=lambda p, r: [0.95] * len(r), predict_proba=lambda r: [[0.3, 0.7]])
    assert as_guard(own) is own
    nameless = SimpleNamespace(predict_proba=lambda texts: np.full((len(texts), 3), 1 / 3))
    with pytest.raises(BgkitError, match=r"shape \(3, 3\), not a column for each of 2 classes"):
        as_guard(nameless).score(PROMPTS, RESPONSES)
    for texts in (("abc", RESPONSES), (PROMPTS[:1], RESPONSES)):
        with pytest.raises(BgkitError, match="a list of prompts and one of as many responses"):
            as_guard(lambda p, r: [0.1] * len(r)).score(*texts)


@given(st.floats(0, 1))
def test_a_score_keeps_its_value_whatever_the_threshold(t: float) -> None:
    assert guard_scores(as_guard(lambda p, r: [t]), ["a"], ["b"])[0] == t


def test_what_a_function_may_return() -> None:
    t = torch.tensor([0.0, 0.25, 0.5])
    column = pd.Series([0.0, 0.25, 0.5], index=[7, 8, 9])
    grown = t.bfloat16().requires_grad_()[:, None]
    for output in (grown, list(t), column, iter([0, 0.25, np.float16(0.5)])):
        guard = as_guard(lambda p, r, output=output: output)
        assert guard.score(PROMPTS, RESPONSES).tolist() == [0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(3, 2), r"shape \(3, 2\) for 3"),
        (None, "for 3 responses"),
        ([0.1, None, 0.2], "returned nan for response 1"),
        ([{"label": "toxic", "score": 0.9}] * 3, r"'label'.* \(dict\).* must be a number"),
    ],
    ids=str,
)
def test_what_a_function_must_not_return(output, message) -> None:
    with pytest.raises(BgkitError, match=message):
        as_guard(lambda p, r: output).score(PROMPTS, RESPONSES)


def test_a_temperature_by_hand_whatever_else_its_guard_can_do() -> None:
    inner = Fitted("fine", "bad")
    inner.score = lambda prompts, responses: (0.5, 0.9, 0.1)
    guard = as_guard(CalibratedGuard(inner, 2.0))
    np.testing.assert_allclose(guard.score(PROMPTS, RESPONSES), [0.5, 0.75, 0.25], atol=1e-6)
    assert guard.name == "Fitted at T = 2"
    assert CalibratedGuard(as_guard(lambda p, r: [0.9]), 1.0).score(["a"], ["b"])[0] == 0.9
    with pytest.raises(BgkitError, match="above 0, not -1"):
        CalibratedGuard(guard, -1)
