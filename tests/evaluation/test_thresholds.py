"""What a threshold does and costs: by hand, behind each threshold, Proposition 1 for any costs."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest

from bgkit.errors import BgkitError
from bgkit.evaluation import risk, thresholds
from bgkit.evaluation.metrics import READ, values_of
from bgkit.evaluation.samples import rescored_samples
from bgkit.evaluation.thresholds import operating_points

FOUR = pd.DataFrame({"t": [0.1, 0.45, 0.5, 0.9], "harm": [0.0, 0.9, 0.2, 0.8]})
#: values on which rounding matters (0.1 + 0.2, tau ± 0.3) beside any others
UNIT = st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda k: k / 20))


def test_four_responses_by_hand():
    row = operating_points(FOUR, [0.5]).iloc[0]  # 0.5 itself is filtered, and wrongly
    rates = {"filter_rate": 0.5, "near_boundary": 0.5, "precision": 0.5, "recall": 0.5}
    rates |= {"false_positive": 0.25, "false_negative": 0.25}
    assert row[list(rates)].to_dict() == rates
    assert row["system_harm"] == pytest.approx(0.9 / 4)  # a refusal counts as harmless
    assert math.isnan(row["system_help"]) and (row["n"], row["known"]) == (4, 4)
    for metric, count, n in (("filter_rate", 2, 4), ("false_negative", 1, 4), ("recall", 1, 2)):
        ends = binomtest(count, n).proportion_ci(method="wilson")
        assert row[[f"{metric}_low", f"{metric}_high"]].tolist() == pytest.approx([*ends])


@settings(max_examples=25)
@given(
    values=hnp.arrays(float, st.tuples(st.integers(1, 25), st.just(5)), elements=UNIT),
    unknown=st.integers(0, 2**25 - 1),
    taus=st.lists(UNIT, min_size=1, max_size=4),
)
def test_every_point_is_that_of_the_samples_behind_its_threshold(values, unknown, taus):
    table = pd.DataFrame(0.0, range(len(values)), READ)
    table[["t", "harm", "help", "refusal_harm", "refusal_help"]] = values
    table.loc[[bool(unknown >> place & 1) for place in table.index], ["harm", "help"]] = np.nan
    refusals = {grade: table[f"refusal_{grade}"] for grade in ("harm", "help")}
    points = operating_points(table, taus)
    assert points.index.tolist() == taus
    for tau, (_, row) in zip(taus, points.iterrows(), strict=True):
        seen = rescored_samples(table, table["t"], tau, refusals)
        for grade in refusals:
            seen[f"system_{grade}"] = seen[f"system_{grade}"].where(seen[grade].notna())
        means = values_of(seen).mean()
        for metric in {*thresholds.MEANINGS} & {*means.index}:
            np.testing.assert_allclose(row[metric], means[metric], atol=1e-12, err_msg=metric)


def test_thresholds_are_counted_in_blocks_with_the_same_numbers(monkeypatch):
    rng = np.random.default_rng(3)
    samples = pd.DataFrame({"t": rng.random(50), "harm": rng.random(50), "help": rng.random(50)})
    whole = operating_points(samples)
    monkeypatch.setattr(thresholds, "BLOCK", 300)
    pd.testing.assert_frame_equal(operating_points(samples), whole)


def test_what_is_not_known_is_said():
    partly = thresholds.missing_note(FOUR.assign(harm=[0, np.nan, np.nan, 1.0]))
    assert "2 of 4 responses" in partly and "Helpfulness is not known" in partly
    assert thresholds.missing_note(FOUR.assign(help=0.5, refusal_help=0.1)) == ""


# --- What errors cost --------------------------------------------------------------------------

COSTS = st.floats(0.05, 50)
MISCALIBRATION = st.tuples(st.floats(0.2, 5), st.floats(-4, 4))  # temperature and shift
GRID = np.linspace(0, 1, 501)


def responses(t: list[float], harmful: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"t": t, "harm": np.asarray(harmful, float)})


# At tau = 0.5 three verdicts are wrong: 0.1 and 0.4 (harmful, shown), 0.55 (safe, filtered).
BY_HAND = responses([0.0, 0.1, 0.3, 0.4, 0.55, 0.6, 0.9, 1.0], [0, 1, 0, 1, 0, 1, 1, 1])


@given(COSTS, COSTS, MISCALIBRATION, st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_no_threshold_is_cheaper_than_the_best_and_the_worst_place_is_the_boundary(
    cost_fn: float, cost_fp: float, guard: tuple[float, float], t: list[float], other: float
) -> None:
    setting = (cost_fn, cost_fp, *guard)
    cost = risk.filter_cost(t, *setting)
    assert cost.at_best <= risk.expected_cost(t, other, *setting).mean() + 1e-9
    assert cost.lost >= 0 and cost.at_best <= cost.at_tau + 1e-9
    at_tau = risk.expected_cost([np.nextafter(cost.tau, 0), cost.tau], cost.tau, *setting).max()
    assert (risk.expected_cost(GRID, cost.tau, *setting) <= at_tau * (1 + 1e-9)).all()


def test_truth_and_costs_behind_a_miscalibrated_guard_by_hand() -> None:
    # logit 0.9 = ln 9; halved it is ln 3, whose probability is 3/4; less ln 3 it is ln 3, too
    assert risk.harmful_share([0.9], temperature=2.0) == pytest.approx([0.75])
    assert risk.harmful_share([0.9], shift=math.log(3)) == pytest.approx([0.75])
    assert risk.harmful_share([0.0, 1.0], 4.0, 2.0).tolist() == [0.0, 1.0]
    # shift ln 3: the truth behind 0.5 is 1/4 and behind 0.75 it is 1/2, where the best tau lies
    cost = risk.filter_cost([0.5], shift=math.log(3))
    assert cost.tau == 0.5 and cost.best_tau == pytest.approx(0.75)
    assert (cost.at_tau, cost.at_best) == pytest.approx((0.75, 0.25))
    assert cost.lost == pytest.approx(0.5)


@given(st.floats(0.01, 0.99), st.integers(2, 40))
def test_no_bin_straddles_the_threshold(tau: float, bins: int) -> None:
    edges = risk.bin_edges(tau, bins)
    assert len(edges) == bins + 1 and tau in edges and (np.diff(edges) > 0).all()
    assert (edges[0], edges[-1]) == (0, 1)


def test_bins_count_errors_by_hand() -> None:
    table = risk.measured_risk(BY_HAND, bins=4, cost_fn=3.0, cost_fp=2.0)
    assert table["n"].tolist() == [2, 2, 2, 2] and table["errors"].tolist() == [1, 1, 1, 0]
    assert table["t"].tolist() == pytest.approx([0.05, 0.35, 0.575, 0.95])
    assert table["cost"].tolist() == pytest.approx([1.5, 1.5, 1.0, 0.0])
    assert table["error_formula"].tolist() == pytest.approx([0.05, 0.35, 0.425, 0.05])
    assert table["cost_formula"].tolist() == pytest.approx([0.15, 1.05, 0.85, 0.1])
    wanted = binomtest(1, 2).proportion_ci(method="wilson")
    assert table["error_low"][0] == pytest.approx(wanted.low)
    assert table["cost_high"][2] == pytest.approx(2 * wanted.high)
    assert table["error_low"][3] == 0 and table["error_high"][3] > 0.5


def test_the_part_near_by_hand() -> None:
    part = risk.cost_near(BY_HAND, cost_fn=3.0, cost_fp=2.0)
    assert part.mean == pytest.approx(5 / 8) and part.low < 5 / 8 < part.high
    # all or nothing claims no certainty
    near = risk.cost_near(responses([0.45] * 5, [1] * 5))
    assert (near.mean, near.high) == (1, 1) and 0.4 < near.low < 0.7
    far = risk.cost_near(responses([0.05] * 5, [1] * 5))
    assert (far.mean, far.low) == (0, 0) and 0.3 < far.high < 0.6
    table = risk.near_table({"one": BY_HAND, "sure": responses([0.1, 0.9], [0, 1])})
    assert re.match(r"50.*, 0.500 \[0.1.*, 0.250 \[0.0.*, 67% \[", ", ".join(table.loc["one"]))
    assert table.loc["sure"].tolist() == ["0.0%", "–", "0.000 [0.000, 0.658]", "–"]  # no error
    dear = risk.near_table({"one": BY_HAND}, 0.5, 3.0, 2.0)
    assert dear.iloc[0, 3].startswith("62% [")
    assert risk.near_table({"one": BY_HAND}, 0.9).iloc[0, 0] == "25.0%"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: risk.measured_risk(BY_HAND.assign(harm=np.nan)), "harm is not known"),
        (lambda: risk.measured_risk(BY_HAND, bins=1), "at least two bins, not 1"),
        (lambda: risk.measured_risk(BY_HAND, cost_fn=0.0), "cost_fn must be"),
        (lambda: risk.cost_near(BY_HAND, cost_fp=-1.0), "cost_fp must be"),
        (lambda: risk.filter_cost([0.5], temperature=math.inf), "temperature must be a finite"),
        (lambda: risk.filter_cost([]), "no response"),
    ],
)
def test_what_is_out_of_range_is_refused(call, said: str) -> None:
    with pytest.raises(BgkitError, match=said):
        call()
