"""Frontiers: curves by hand, differences at equal x, and intervals that cover what they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers
from bgkit.evaluation.intervals import holm


def constant(points: list[tuple[float, float]], seeds: int = 2, prompts: int = 4) -> np.ndarray:
    """A frontier whose trainings and prompts all agree."""
    return np.broadcast_to(np.array(points)[:, None, None], (len(points), seeds, prompts, 2))


def test_a_curve_by_hand_whatever_the_order_of_its_points():
    points = np.array([[4.0, 0.0], [0.0, 2.0], [1.0, 4.0]])
    found = frontiers.curve(points, np.array([-0.1, 0.0, 0.5, 1.0, 2.5, 4.0, 4.1]))
    np.testing.assert_allclose(found, [np.nan, 2, 3, 4, 2, 0, np.nan])


def test_differences_at_equal_x_by_hand():
    first = constant([(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)])
    second = constant([(0.5, 1.0), (2.5, 3.0)])
    at = frontiers.difference(first, second, at=1.0)
    assert at.mean == pytest.approx(-0.5) and at.low == at.high == at.mean and at.p == 0
    over = frontiers.difference(first, second)
    assert over.mean == pytest.approx(-0.5) and (over.low_x, over.high_x) == (0.5, 2.0)
    back = frontiers.difference(second, first)
    assert back.mean == pytest.approx(0.5)


def made(
    rng: np.random.Generator, shift: float, seeds: int, prompts: np.ndarray, spread: float = 0.03
) -> np.ndarray:
    """A frontier y = x + shift of five strengths, with noise of trainings, prompts and responses.

    ``prompts`` (n,) are the prompts' own deviations, shared by all designs.
    """
    x = np.linspace(0.1, 0.5, 5)
    means = np.stack([x, x + shift], -1)[:, None] + rng.normal(0, spread, (5, seeds, 2))
    noise = rng.normal(0, 0.3, (5, seeds, len(prompts), 2))
    return means[:, :, None] + prompts[:, None] * [0.0, 1.0] + noise


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "at"), [(2, None), (3, None), (3, 0.3), (5, 0.3)])
def test_intervals_cover_the_true_difference(seeds, at):
    rng = np.random.default_rng(seeds)
    inside, widths = 0, []
    for _ in range(150):
        prompts = rng.normal(0, 0.5, 100)
        pair = (made(rng, shift, seeds, prompts) for shift in (0.05, 0.0))
        found = frontiers.difference(*pair, at, resamples=200)
        inside += found.low <= 0.05 <= found.high
        widths.append(found.high - found.low)
    assert inside / 150 >= 0.90
    assert np.median(widths) < 0.3  # by far less than the deviation of a prompt


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(np.float64, (3, 2, 5, 2), elements=st.floats(0, 1)),
    shift=st.floats(-1, 1),
)
def test_a_frontier_differs_from_itself_by_what_is_added(values, shift):
    x = np.ptp(values[..., 0].mean((1, 2)))
    if x < 0.01:
        return
    moved = values + np.array([0.0, shift])
    found = frontiers.difference(moved, values, resamples=50)
    assert found.mean == pytest.approx(shift, abs=1e-9)
    assert found.low <= found.mean <= found.high and 0 <= found.p <= 1


def test_a_variance_too_small_to_be_squared_is_none():
    values = np.zeros((2, 2, 5, 2))
    values[0, 0, 0, 0], values[0, 1, 0, 1] = 1.0, 1e-148
    assert frontiers.difference(values, values, resamples=50)[:4] == (0, 0, 0, 1)


def test_one_seed_has_an_interval_over_prompts_alone_and_gaps_are_left_out():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 0.5, 100)
    first, second = (made(rng, s, 1, prompts) for s in (0.5, 0.0))
    first[0, 0, :10, 1] = np.nan
    found = frontiers.difference(first, second)
    assert found.by_seeds == 0 and found.low < found.mean < found.high and found.p < 0.01


@pytest.mark.parametrize(
    ("first", "second", "at", "told"),
    [
        (constant([(0, 0), (1, 1)]), constant([(2, 0), (3, 1)]), None, "do not overlap"),
        (constant([(0, 0), (1, 1)]), constant([(0, 0), (1, 1)]), 1.5, "reach from 0 to 1, not 1.5"),
        (constant([(0, 0)]), constant([(0, 0), (1, 1)]), None, "two strengths or more"),
        (constant([(0, 0), (1, 1)]), constant([(0, 0), (1, 1)], 2, 5), None, "the same prompts"),
    ],
)
def test_what_can_not_be_compared_is_refused(first, second, at, told):
    with pytest.raises(BgkitError, match=told):
        frontiers.difference(first, second, at)


def test_seeds_needed_fall_with_the_size_and_may_not_suffice():
    small = frontiers.Difference(0.015, -0.02, 0.05, 0.4, 0, 1, 0.95)
    large = small._replace(mean=0.03, low=-0.005, high=0.065)
    assert frontiers.seeds_needed(large, 3) < frontiers.seeds_needed(small, 3)
    by_prompts = small._replace(by_seeds=0.0)
    assert frontiers.seeds_needed(by_prompts, 3) is None


def test_holm_does_not_count_what_is_not_known():
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])
