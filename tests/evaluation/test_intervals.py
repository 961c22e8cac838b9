"""Confidence intervals: they cover what they claim, and claim nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bgkit.evaluation.intervals import CONFIDENCE, Interval, bootstrap, crossed_bootstrap
from bgkit.evaluation.intervals import variance_of_mean as variance

pytestmark = pytest.mark.usefixtures("fewer_draws")


def one(values: object) -> Interval:
    """The interval of a single column."""
    (interval,) = bootstrap(values)
    return interval


def covered(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([low <= truth <= high for _, low, high in intervals]))


def test_bootstrap_of_a_mean_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [one(rng.exponential(2.0, 80)) for _ in range(300)]
    assert covered(found, 2.0) == pytest.approx(CONFIDENCE, abs=0.04)


def test_columns_share_their_resampled_rows():
    values = np.random.default_rng(5).random(60)
    seen, unseen = bootstrap(np.column_stack([values, 1 - values]))
    assert (seen.low, seen.high) == pytest.approx((1 - unseen.high, 1 - unseen.low))
    assert seen == pytest.approx(tuple(one(values)))


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 200), (1, 200), (7, 20), (20, 20)])
def test_a_share_has_wilsons_interval(count, n):
    truth = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    found = one(np.arange(n) < count)
    assert found == pytest.approx((count / n, truth.low, truth.high), abs=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_values_that_are_not_known_do_not_count():
    known, values = np.random.default_rng(6).normal(3.0, 1.0, 50), np.full((100, 3), np.nan)
    values[:50, 0], values[:10, 1] = known, 0.0
    mixed, never, nothing = bootstrap(values)
    assert mixed == pytest.approx(tuple(one(known)), abs=0.1)
    assert mixed.mean == pytest.approx(known.mean())
    assert never == one(np.zeros(10))  # ten known, not a hundred
    unknown, half = crossed_bootstrap(np.array([[[np.nan, 0.5]] * 5] * 2), rates=False)
    assert half == (0.5, 0.5, 0.5)
    for interval in (nothing, unknown, *bootstrap(np.zeros(0)), *bootstrap(np.zeros((0, 3)))):
        assert np.isnan(interval).all()


def test_one_seed_has_the_interval_over_its_prompts():
    values = np.random.default_rng(0).random((1, 40, 2))
    assert crossed_bootstrap(values) == bootstrap(values[0])


@pytest.mark.parametrize(
    ("n_seeds", "between_seeds", "between_prompts", "noise"),
    [
        (5, 0.15, 1.0, 0.5),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [(3, 0.0, 1.0, 0.5), (3, 0.5, 1.0, 0.5), (5, 0.0, 0.3, 1.0)]
        ),
    ],
    ids=["both", "prompts", "seeds", "noise"],
)
def test_crossed_covers_a_mean(n_seeds, between_seeds, between_prompts, noise):
    """Where prompts, seeds (five sixths of the variance) or single responses vary most."""
    rng, found = np.random.default_rng(2), []
    for _ in range(400):
        seeds, prompts = rng.normal(0, between_seeds, n_seeds), rng.normal(0, between_prompts, 60)
        values = prompts + seeds[:, None] + rng.normal(0, noise, (n_seeds, 60))
        found += crossed_bootstrap(values[..., None], rates=False)
    assert 0.90 < covered(found, 0.0) <= 0.99


def test_variance_of_a_mean_by_hand():
    apart = np.array([[0.0] * 9, [0.5] * 9, [1.0] * 9])
    assert variance(apart) == variance(apart.T) == pytest.approx((0.25 / 3, 2))
    assert variance(np.full((3, 9), 0.5)) == (0.0, 16.0)
    # both factors give 1/4 / 3, there is no noise: (2v)^2 / (v^2 / 2 + v^2 / 2) = 4
    both = np.array([-0.5, 0.0, 0.5])[:, None] + np.array([-0.5, 0.0, 0.5])
    assert variance(both) == pytest.approx((0.5 / 3, 4))
    # noise alone (no means differ): nothing is left
    assert variance(np.array([[1.0, -1.0], [-1.0, 1.0]])) == (0.0, 1.0)
    # a prompt with an unknown value does not count
    assert variance(np.column_stack([apart, [0, np.nan, 9]])) == variance(apart)
    assert np.isnan(variance(apart[:, :1])).all()


@given(hnp.arrays(float, (3, 8, 2), elements=st.floats(0, 1)), st.booleans())
@example(np.zeros((3, 8, 2)) + np.array([0.0, 0.0, 0.9])[:, None, None], False)
@settings(max_examples=40)
def test_crossed_intervals_hold_their_mean_and_stay_in_range(values, rates):
    for mean, low, high in crossed_bootstrap(values, rates=rates):
        assert 0 <= low <= high <= 1
        assert low - 0.35 <= mean <= high + 0.35
