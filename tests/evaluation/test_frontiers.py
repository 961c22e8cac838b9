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


@pytest.mark.parametrize(
    ("better", "expected"),
    [(-1, [np.nan, 2, 1.75, 1.5, 0.75, 0, np.nan]), (1, [np.nan, 2, 3, 4, 2, 0, np.nan])],
)
def test_a_curve_by_hand_whatever_the_order_of_its_points(better, expected):
    points = np.array([[4.0, 0.0], [0.0, 2.0], [1.0, 4.0]])
    x = np.array([-0.1, 0.0, 0.5, 1.0, 2.5, 4.0, 4.1])
    np.testing.assert_allclose(frontiers.curve(points, x, better), expected)


@pytest.mark.filterwarnings("ignore:Mean of empty", "ignore:Degrees of freedom")
def test_an_unknown_point_leaves_the_others():
    points = np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 3.0]])
    np.testing.assert_allclose(frontiers.curve(points, np.array([0.5, 1.0])), [1.5, 2.0])
    found = frontiers.difference(*[constant([(0, np.nan), (1, np.nan)])] * 2)
    assert np.isnan(found.mean) and np.isnan(found.p)


def test_two_points_with_one_x_give_the_better_of_them():
    points = np.array([[1.0, 3.0], [1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(frontiers.curve(points, np.array([1.0, 1.5])), [2, 3])


@settings(max_examples=60, deadline=None)
@given(
    points=hnp.arrays(np.float64, (4, 2), elements=st.floats(0, 1)),
    extra=hnp.arrays(np.float64, (1, 2), elements=st.floats(0, 1)),
)
def test_a_further_strength_never_makes_a_frontier_worse(points, extra):
    x = np.linspace(points[:, 0].min(), points[:, 0].max(), 9)
    before = frontiers.curve(points, x)
    after = frontiers.curve(np.concatenate([points, extra]), x)
    assert (after <= before + 1e-9).all()
    assert (frontiers.curve(points, points[:, 0]) <= points[:, 1] + 1e-9).all()


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
    rng: np.random.Generator, shift: float, seeds: int, prompts: np.ndarray, beaten: bool = False
) -> np.ndarray:
    """A frontier y = x ** 2 + shift of five strengths, with noise of trainings and responses.

    ``prompts`` (n,) are the prompts' own deviations, shared by all designs. With ``beaten`` two of
    the strengths lie far above the line that the others give.
    """
    x = np.linspace(0.1, 0.9, 5)
    if beaten:
        x = x[[0, 2, 4, 3, 3]]
    y = x**2 + shift + np.array([0, 0, 0, 0.3, 0.5]) * beaten
    means = np.stack([x, y], -1)[:, None] + rng.normal(0, 0.03, (5, seeds, 2))
    noise = rng.normal(0, 0.3, (5, seeds, len(prompts), 2))
    return means[:, :, None] + prompts[:, None] * [0.0, 1.0] + noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "at", "beaten"),
    [(2, None, False), (3, None, False), (3, 0.5, False), (5, None, True), (3, None, True)],
)
def test_intervals_cover_the_true_difference(seeds, at, beaten):
    rng = np.random.default_rng(seeds)
    prompts = np.zeros(100)
    truth = frontiers.difference(
        *(made(_Still(), shift, 1, prompts, way) for shift, way in ((0.05, beaten), (0.0, False))),
        at,
    ).mean
    inside, widths = 0, []
    for _ in range(150):
        prompts = rng.normal(0, 0.5, 100)
        pair = (made(rng, 0.05, seeds, prompts, beaten), made(rng, 0.0, seeds, prompts))
        found = frontiers.difference(*pair, at, resamples=200)
        inside += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert inside / 150 >= 0.90
    assert np.median(widths) < 0.3  # by far less than the deviation of a prompt


class _Still:
    """In place of a generator: no noise."""

    def normal(self, mean: float, spread: float, shape: tuple) -> np.ndarray:
        return np.full(shape, mean)


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


def test_a_metric_without_a_better_side_has_no_frontier():
    line = constant([(0, 0), (1, 1)])
    with pytest.raises(BgkitError, match="no better side"):
        frontiers.difference(line, line, better=0)


def test_seeds_needed_fall_with_the_size_and_may_not_suffice():
    small = frontiers.Difference(0.015, -0.02, 0.05, 0.4, 0, 1, 0.95)
    large = small._replace(mean=0.03, low=-0.005, high=0.065)
    assert frontiers.seeds_needed(large, 3) < frontiers.seeds_needed(small, 3)
    by_prompts = small._replace(by_seeds=0.0)
    assert frontiers.seeds_needed(by_prompts, 3) is None


def test_holm_does_not_count_what_is_not_known():
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])
