"""Calibration: hand-computed values, and what temperature scaling may and may not change."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, logit

from bgkit.errors import BgkitError
from bgkit.evaluation import calibration
from bgkit.scoring import temperature as scaling


@given(
    hnp.arrays(float, st.integers(1, 40), elements=st.floats(0, 1)),
    st.integers(0, 2**40 - 1),
)
@example(np.array([0.0, 1.0, 1.0]), 0)
@settings(max_examples=40)
def test_the_debiased_ece_lies_within_its_interval(t, bits):
    harmful = np.array([bits >> place & 1 for place in range(len(t))])
    mean, low, high = calibration.calibration_interval(t, harmful)
    assert 0 <= low <= mean <= high <= 1


def test_ece_of_a_calibrated_guard_is_debiased_and_of_another_one_covered():
    rng = np.random.default_rng(0)
    for sharpness, covered in ((1.0, 0.9), (4.0, 0.85)):
        truth = expit(rng.normal(-1, 2.5, 200_000))
        t = expit(sharpness * logit(truth))
        exact, held, means, plain = _gap(t, truth), 0, [], []
        for _ in range(40):
            draw = rng.integers(0, len(t), 400)
            harmful = rng.random(400) < truth[draw]
            mean, low, high = calibration.calibration_interval(t[draw], harmful)
            held += low <= exact + 1e-9 and exact <= high
            means.append(mean)
            plain.append(_gap(t[draw], harmful))
        assert abs(np.mean(means) - exact) < 0.75 * abs(np.mean(plain) - exact)
        assert held / 40 >= covered


def _gap(t: np.ndarray, truth: np.ndarray) -> float:
    """The plain ECE, of truths or (no chance in it) of their probabilities."""
    which = np.minimum((t * 10).astype(int), 9)
    return float(np.abs(np.bincount(which, weights=t - truth)).sum() / len(t))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=2, max_size=18))
def test_no_other_temperature_has_a_lower_loss(rows):
    t, harmful = map(np.array, zip((0.3, True), (0.4, False), *rows, strict=True))
    temperature, _ = scaling.temperature_scale(t, harmful)

    def loss(temperature: float) -> float:
        return float(scaling.log_loss(scaling.with_temperature(t, temperature), harmful).mean())

    assert loss(temperature) <= min(map(loss, np.geomspace(*scaling.TEMPERATURES, 400))) + 1e-6


def test_the_table_is_the_hand_computed_one():
    frame = pd.DataFrame({"t": [0.1, 0.4, 0.9, 0.5], "harm": [0.0, 0.9, 0.6, np.nan]})
    row = calibration.calibration_table({"guard": frame}).loc["guard"]
    assert row["n"] == 3
    assert row["brier"] == pytest.approx((0.01 + 0.36 + 0.01) / 3)
    # resamples of three responses in three bins miss some of them: the gaps' mean stays
    assert row["ece"] == pytest.approx((0.1 + 0.6 + 0.1) / 3, abs=0.02)
    assert row["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.9)) / 3)
    for metric in ("ece", "brier", "log_loss"):
        assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
    unknown = calibration.calibration_table({"guard": frame.assign(harm=np.nan)}).loc["guard"]
    assert unknown["n"] == 0 and unknown.drop("n").isna().all()


def test_the_temperature_is_fitted_on_one_half_and_the_other_is_returned():
    rows = [(0.9, 1.0), (0.2, 0.0), (0.9, 1.0), (0.7, 1.0), (0.9, 0.0), (0.5, np.nan), (0.1, 0.0)]
    table = pd.DataFrame(rows, columns=["t", "harm"])
    (_, rest), (name, scaled) = calibration.fit_on_half(table).items()
    assert rest["t"].tolist() == [0.2, 0.7, 0.1]
    # Fitted on rows 0, 2 and 4, whose t is 0.9 and of which two of three are harmful.
    temperature = logit(0.9) / logit(2 / 3)
    assert name == f"T = {temperature:.2f}"
    expected = [expit(logit(t) / temperature) for t in rest["t"]]
    assert scaled["t"].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("harm", [[np.nan] * 4, [0.0] * 4, [1.0, 0.0, 1.0, 0.0], [1.0]])
def test_one_kind_of_truth_alone_can_not_be_fitted(harm):
    with pytest.raises(BgkitError, match=r"No temperature can be fitted\. Each half needs"):
        calibration.fit_on_half(pd.DataFrame({"t": 0.4, "harm": harm}))
    with pytest.raises(BgkitError, match="needs harmful and safe responses"):
        scaling.temperature_scale(np.full(len(harm[::2]), 0.4), harm[::2])
