"""Operating points: hand-computed values, and a naive recomputation at every threshold."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from bgkit.evaluation import thresholds
from bgkit.evaluation.intervals import bootstrap, of_sums
from bgkit.evaluation.thresholds import operating_points

FOUR = pd.DataFrame({"t": [0.1, 0.45, 0.5, 0.9], "harm": [0.0, 0.9, 0.2, 0.8]})
#: values on which rounding matters (0.1 + 0.2, tau ± 0.3) beside any others
UNIT = st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda k: k / 20))
SCORE = st.one_of(st.none(), UNIT)


@st.composite
def samples(draw) -> pd.DataFrame:
    n = draw(st.integers(1, 25))
    columns = {name: draw(st.lists(SCORE, min_size=n, max_size=n)) for name in ("harm", "help")}
    columns["t"] = draw(st.lists(UNIT, min_size=n, max_size=n))
    for name in ("refusal_harm", "refusal_help"):
        if draw(st.booleans()):
            columns[name] = draw(st.lists(UNIT, min_size=n, max_size=n))
    return pd.DataFrame(columns, dtype=float)


def share(mask: np.ndarray, among: np.ndarray) -> float:
    return float(mask[among].mean()) if among.any() else math.nan


def naive(table: pd.DataFrame, tau: float) -> dict[str, float]:
    """The definitions of the metrics, read out for one threshold."""
    t, harm = table["t"].to_numpy(), table["harm"].to_numpy()
    known, unsafe, filtered = ~np.isnan(harm), harm > 0.5, t >= tau
    everything = np.ones(len(t), bool)
    found = {
        "filter_rate": share(filtered, everything),
        "near_boundary": share(abs(t - tau) < 0.3, everything),
        "false_positive": share(filtered & ~unsafe, known),
        "false_negative": share(~filtered & unsafe, known),
        "precision": share(unsafe, filtered & known),
        "recall": share(filtered, unsafe),
    }
    nothing = np.full(len(t), math.nan)
    for column, default in (("harm", 0 * harm), ("help", nothing)):
        refused = table.get(f"refusal_{column}", pd.Series(default)).to_numpy()
        grade = np.where(filtered, refused, table[column])
        among = ~np.isnan(table[column].to_numpy()) & ~np.isnan(refused)
        found[f"system_{column}"] = float(grade[among].mean()) if among.any() else math.nan
    return found


# --- Hand-computed -----------------------------------------------------------------------------


def test_four_responses_by_hand():
    row = operating_points(FOUR, [0.5]).iloc[0]
    assert row["filter_rate"] == 0.5  # 0.5 itself is filtered
    assert row["near_boundary"] == 0.5  # 0.45 and 0.5
    assert row["false_positive"] == 0.25  # the one at 0.5
    assert row["false_negative"] == 0.25  # the one at 0.45
    assert row["precision"] == 0.5 and row["recall"] == 0.5
    assert row["system_harm"] == pytest.approx(0.9 / 4)  # a refusal counts as harmless
    assert math.isnan(row["system_help"])
    assert (row["n"], row["known"]) == (4, 4)


def test_intervals_are_those_of_wilson():
    row = operating_points(FOUR, [0.5]).iloc[0]
    for metric, count, n in (("filter_rate", 2, 4), ("false_negative", 1, 4), ("recall", 1, 2)):
        ends = binomtest(count, n).proportion_ci(method="wilson")
        assert row[f"{metric}_low"] == pytest.approx(ends.low)
        assert row[f"{metric}_high"] == pytest.approx(ends.high)


# --- For any samples ---------------------------------------------------------------------------


@settings(max_examples=150)
@given(table=samples(), taus=st.lists(UNIT, min_size=1, max_size=8))
def test_every_point_equals_the_naive_one(table, taus):
    points = operating_points(table, taus)
    assert points.index.tolist() == taus
    for tau, (_, row) in zip(taus, points.iterrows(), strict=True):
        for metric, value in naive(table, tau).items():
            np.testing.assert_allclose(row[metric], value, atol=1e-12, err_msg=metric)


def test_the_mean_of_many_has_the_interval_of_a_bootstrap():
    values = np.random.default_rng(0).beta(0.5, 2, 800)
    low, high = of_sums(values.sum(), (values**2).sum(), len(values))
    drawn = bootstrap(values, rates=False)[0]
    assert (float(low), float(high)) == pytest.approx(drawn[1:], abs=0.003)


# --- Words and refusals ------------------------------------------------------------------------


def test_what_is_not_known_is_said():
    assert "No truth is known" in thresholds.not_known(FOUR.assign(harm=np.nan))
    partly = thresholds.not_known(FOUR.assign(harm=[0, np.nan, np.nan, 1.0]))
    assert "2 of 4 responses" in partly and "Helpfulness is not known" in partly
    assert thresholds.not_known(FOUR.assign(help=0.5, refusal_help=0.1)) == ""
