"""Intervals and frontiers: they cover what they claim, and claim nothing that is not known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers
from bgkit.evaluation.intervals import CONFIDENCE, Interval, bootstrap, crossed_bootstrap, holm
from bgkit.evaluation.intervals import variance_of_mean as variance

pytestmark = pytest.mark.usefixtures("fewer_draws")
NAN = np.nan


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
    pair = np.column_stack([values, values**2])
    assert crossed_bootstrap(pair[None]) == bootstrap(pair)  # one seed: over prompts alone


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
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])


@pytest.mark.parametrize(
    ("n_seeds", "between_seeds", "between_prompts", "noise"),
    [
        (5, 0.15, 1.0, 0.5),
        pytest.param(3, 0.0, 1.0, 0.5, marks=pytest.mark.slow),
        pytest.param(3, 0.5, 1.0, 0.5, marks=pytest.mark.slow),
        pytest.param(5, 0.0, 0.3, 1.0, marks=pytest.mark.slow),
    ],
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


# --- Frontiers ---------------------------------------------------------------------------------


def constant(points: list[tuple[float, float]], seeds: int = 2, prompts: int = 4) -> np.ndarray:
    """A frontier whose trainings and prompts all agree."""
    return np.broadcast_to(np.array(points)[:, None, None], (len(points), seeds, prompts, 2))


@pytest.mark.parametrize(
    ("points", "x", "better", "expected"),
    [
        # whatever the order of the points
        ([[4, 0], [0, 2], [1, 4]], [-0.1, 0.5, 1, 2.5, 4.1], -1, [NAN, 1.75, 1.5, 0.75, NAN]),
        ([[4, 0], [0, 2], [1, 4]], [-0.1, 0, 0.5, 1, 2.5, 4], 1, [NAN, 2, 3, 4, 2, 0]),
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
