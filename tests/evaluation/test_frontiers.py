"""Frontiers: curves by hand, differences at equal x, and intervals that cover what they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers
from bgkit.evaluation.intervals import holm


def constant(points: list[tuple[float, float]], seeds: int = 2, prompts: int = 4) -> np.ndarray:
    """A frontier whose trainings and prompts all agree."""
    return np.broadcast_to(np.array(points)[:, None, None], (len(points), seeds, prompts, 2))


NAN = np.nan


@pytest.mark.parametrize(
    ("points", "x", "better", "expected"),
    [
        # whatever the order of the points
        (
            [[4, 0], [0, 2], [1, 4]],
            [-0.1, 0, 0.5, 1, 2.5, 4, 4.1],
            -1,
            [NAN, 2, 1.75, 1.5, 0.75, 0, NAN],
        ),
        ([[4, 0], [0, 2], [1, 4]], [-0.1, 0, 0.5, 1, 2.5, 4, 4.1], 1, [NAN, 2, 3, 4, 2, 0, NAN]),
        # of two points with one x the better one
        ([[1, 3], [1, 2], [2, 4]], [1, 1.5], -1, [2, 3]),
        # an unknown one leaves the others
        ([[0, 1], [1, NAN], [2, 3]], [0.5, 1], -1, [1.5, 2]),
    ],
)
def test_a_curve_by_hand(points, x, better, expected):
    found = frontiers.curve(np.array(points, float), np.array(x, float), better)
    np.testing.assert_allclose(found, expected)


@settings(max_examples=60)
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_differences_at_equal_x_by_hand():
    first = constant([(0, 0), (1, 1), (2, 2)])
    second = constant([(0.5, 1), (2.5, 3)])
    assert frontiers.difference(first, second, at=1.0)[:4] == pytest.approx((-0.5, -0.5, -0.5, 0))
    over = frontiers.difference(first, second)
    assert over.mean == pytest.approx(-0.5)
    assert frontiers.difference(second, first).mean == pytest.approx(0.5)
    found = frontiers.difference(*[constant([(0, NAN), (1, NAN)])] * 2)
    assert np.isnan(found.mean) and np.isnan(found.p)


def made(rng, shift: float, seeds: int, prompts: np.ndarray, beaten: bool = False) -> np.ndarray:
    """A frontier y = x ** 2 + shift of five strengths, with noise of trainings and responses.

    ``rng`` None: no noise. ``prompts`` (n,) are the prompts' own deviations, shared by all designs.
    With ``beaten`` two of the strengths lie far above the line that the others give.
    """
    normal = rng.normal if rng else lambda mean, spread, shape: np.zeros(shape)
    x = np.linspace(0.1, 0.9, 5)[[0, 2, 4, 3, 3] if beaten else slice(None)]
    y = x**2 + shift + np.array([0, 0, 0, 0.3, 0.5]) * beaten
    means = np.stack([x, y], -1)[:, None] + normal(0, 0.03, (5, seeds, 2))
    noise = normal(0, 0.3, (5, seeds, len(prompts), 2))
    return means[:, :, None] + prompts[:, None] * [0.0, 1.0] + noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "at", "beaten"),
    [(2, None, False), (3, None, False), (3, 0.5, False), (5, None, True), (3, None, True)],
)
def test_intervals_cover_the_true_difference(seeds, at, beaten):
    def pair(rng, prompts: np.ndarray) -> list[np.ndarray]:
        return [made(rng, *one, prompts, way) for *one, way in sides]

    rng, sides = np.random.default_rng(seeds), [(0.05, seeds, beaten), (0.0, seeds, False)]
    truth = frontiers.difference(*pair(None, np.zeros(100)), at).mean
    inside, widths = 0, []
    for _ in range(150):
        found = frontiers.difference(*pair(rng, rng.normal(0, 0.5, 100)), at, resamples=200)
        inside += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert inside / 150 >= 0.90
    assert np.median(widths) < 0.3  # by far less than the deviation of a prompt


TINY = np.zeros((3, 2, 5, 2))  # with a variance too small to be squared
TINY[0, 0, 0, 0], TINY[0, 1, 0, 1] = 1.0, 1e-148


@settings(max_examples=40)
@example(TINY, 0.0)
@given(
    values=hnp.arrays(np.float64, (3, 2, 5, 2), elements=st.floats(0, 1)),
    shift=st.floats(-1, 1),
)
def test_a_frontier_differs_from_itself_by_what_is_added(values, shift):
    assume(np.ptp(values[..., 0].mean((1, 2))) >= 0.01)
    found = frontiers.difference(values + np.array([0.0, shift]), values, resamples=50)
    assert found.mean == pytest.approx(shift, abs=1e-9)
    assert found.low <= found.mean <= found.high and 0 <= found.p <= 1


def test_one_seed_has_an_interval_over_prompts_alone_and_gaps_are_left_out():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 0.5, 100)
    first, second = (made(rng, s, 1, prompts) for s in (0.5, 0.0))
    first[0, 0, :10, 1] = np.nan
    found = frontiers.difference(first, second)
    assert found.by_seeds == 0 and found.low < found.mean < found.high and found.p < 0.01


LINE = constant([(0, 0), (1, 1)])


@pytest.mark.parametrize(
    ("first", "second", "options", "told"),
    [
        (LINE, constant([(2, 0), (3, 1)]), {}, "do not overlap"),
        (LINE, LINE, {"at": 1.5}, "reach from 0 to 1, not 1.5"),
        (constant([(0, 0)]), LINE, {}, "two strengths or more"),
        (LINE, constant([(0, 0), (1, 1)], 2, 5), {}, "the same prompts"),
        (LINE, LINE, {"better": 0}, "no better side"),
    ],
)
def test_what_can_not_be_compared_is_refused(first, second, options, told):
    with pytest.raises(BgkitError, match=told):
        frontiers.difference(first, second, **options)


def test_seeds_needed_fall_with_the_size_and_may_not_suffice():
    small = frontiers.Difference(0.015, -0.02, 0.05, 0.4, 0.95)
    large = small._replace(mean=0.03, low=-0.005, high=0.065)
    assert frontiers.seeds_needed(large, 3) < frontiers.seeds_needed(small, 3)
    assert frontiers.seeds_needed(small._replace(by_seeds=0.0), 3) is None


def test_holm_does_not_count_what_is_not_known():
    np.testing.assert_allclose(holm([0.02, NAN, 0.03]), [0.04, NAN, 0.04])
