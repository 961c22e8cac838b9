"""The cost of a filter's errors: Proposition 1 for any costs, and measured counts by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bgkit.errors import BgkitError
from bgkit.evaluation import risk

COSTS = st.floats(0.05, 50)
MISCALIBRATION = st.tuples(st.floats(0.2, 5), st.floats(-4, 4))  # temperature and shift
GRID = np.linspace(0, 1, 501)


def responses(t: list[float], harmful: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"t": t, "harm": np.asarray(harmful, float)})


# At tau = 0.5 three verdicts are wrong: 0.1 and 0.4 (harmful, shown), 0.55 (safe, filtered).
BY_HAND = responses([0.0, 0.1, 0.3, 0.4, 0.55, 0.6, 0.9, 1.0], [0, 1, 0, 1, 0, 1, 1, 1])


@given(COSTS, COSTS)
def test_the_risk_peaks_at_the_best_threshold_for_any_costs(cost_fn: float, cost_fp: float) -> None:
    tau = risk.best_threshold(cost_fn, cost_fp)
    (peak,) = risk.expected_cost([tau], tau, cost_fn, cost_fp)
    assert peak == pytest.approx(cost_fn * cost_fp / (cost_fn + cost_fp))
    cost = risk.expected_cost(GRID, tau, cost_fn, cost_fp)
    assert (cost <= peak * (1 + 1e-12)).all()
    assert (np.diff(cost[tau > GRID]) > 0).all() and (np.diff(cost[tau < GRID]) < 0).all()


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
    assert all(map(math.isnan, risk.cost_near(responses([0.1, 0.9], [0, 1]))))  # no error
    # all or nothing claims no certainty
    near = risk.cost_near(responses([0.45] * 5, [1] * 5))
    assert (near.mean, near.high) == (1, 1) and 0.4 < near.low < 0.7
    far = risk.cost_near(responses([0.05] * 5, [1] * 5))
    assert (far.mean, far.low) == (0, 0) and 0.3 < far.high < 0.6


def test_near_and_far_are_compared_for_every_name() -> None:
    table = risk.near_table({"one": BY_HAND, "sure": responses([0.1, 0.9], [0, 1])})
    assert re.match(r"50.*, 0.500 \[0.1.*, 0.250 \[0.0.*, 67% \[", ", ".join(table.loc["one"]))
    assert table.loc["sure"].tolist() == ["0.0%", "–", "0.000 [0.000, 0.658]", "–"]
    dear = risk.near_table({"one": BY_HAND}, cost_fn=3.0, cost_fp=2.0)
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
