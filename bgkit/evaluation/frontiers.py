"""Designs as frontiers: the best that each gives over its strengths, and differences between them.

A design at one strength is a point, and which point is a choice: designs are compared by what all
their points attain. A *frontier* is an array of values (strengths, seeds, prompts, 2): of each
training and test prompt the metric that is held equal (x: system help, KL) and the one that is
compared (y: system harm, ...). Its curve is the best y at each x of the means over seeds and
prompts and of the straight lines between any two of them: a deployment that answers with one of two
policies at random attains every point between theirs (as in the convex hull of ROC curves, Provost
and Fawcett 2001). So a strength that others beat does not count against its design. The curve is
not extended beyond the points.

Intervals bootstrap the whole procedure: prompts are drawn anew, the same for all trainings, and
seeds anew at each strength of each design (two trainings share no more than the order of their
prompts). As few seeds vary too little when they are drawn anew (by (S - 1) / S), and their spread
is hardly known, the variance that they add is scaled, and the interval is Student's t with the
degrees of freedom that both parts leave (Satterthwaite 1946). The noise of single responses is in
both parts and is taken off once, as in :func:`bgkit.evaluation.intervals.variance_of_mean`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import TAIL

PLACES = 21  # of x at which a difference over a range is taken


class Difference(NamedTuple):
    """One design's y minus another's at equal x, with its 95 % interval."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, of no difference
    low_x: float  # the range of x over which it is the mean
    high_x: float
    by_seeds: float  # the share of its variance that more seeds would lessen


def curve(points: np.ndarray, x: np.ndarray, better: int = -1) -> np.ndarray:
    """Best y (..., k) that mixtures of ``points`` (..., strengths, 2) attain at ``x`` (k,).

    NaN beyond the points. The lowest y is the best one, with ``better`` = 1 the highest.

    >>> curve(np.array([[0.0, 1.0], [1.0, 9.0], [2.0, 5.0]]), np.array([0.5, 3.0]))
    array([ 2., nan])
    """
    i, j = np.triu_indices(points.shape[-2])
    first, second = points[..., i, :, None], points[..., j, :, None]  # (..., pairs, 2, 1)
    slack = 1e-9 * np.maximum(1, np.abs(x))
    step, ahead = second[..., 0, :] - first[..., 0, :], x - first[..., 0, :]
    with np.errstate(over="ignore"):  # a tiny step: the share is far beyond 1
        share = np.where(np.abs(ahead) <= slack, 0, ahead / np.where(step == 0, np.nan, step))
    share = np.where(np.abs(x - second[..., 0, :]) <= slack, 1.0, share)
    y = first[..., 1, :] + share * (second[..., 1, :] - first[..., 1, :])
    ends = np.where((share >= 0) & (share <= 1), better * y, -np.inf).max(-2)
    return np.where(np.isfinite(ends), better * ends, np.nan)


def on_frontier(points: np.ndarray, better_x: int, better_y: int) -> np.ndarray:
    """Which of ``points`` (n, 2) no other and no mixture of two others beats (n,).

    ``better_x`` and ``better_y`` are 1 where high is better, -1 where low is; 0 for an x that has
    no better side.

    >>> on_frontier(np.array([[0.1, 0.2], [0.2, 0.4], [0.3, 0.3]]), -1, 1)
    array([ True,  True, False])
    """
    x, y = points[:, 0], better_y * points[:, 1]
    best = y >= better_y * curve(points, x, better_y) - 1e-9
    ahead = better_x * (x[None, :] - x[:, None]) > 0
    beaten = (ahead & (y[None, :] >= y[:, None])).any(axis=1)
    return best & ~beaten


def shared_range(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The range of x that two frontiers share; raises BgkitError where there is none."""
    means = [np.nanmean(values, axis=(1, 2))[:, 0] for values in (first, second)]
    low, high = max(m.min() for m in means), min(m.max() for m in means)
    if not low < high:
        raise BgkitError(
            "The two frontiers have nothing in common on the axis that is held equal: one covers "
            f"{means[0].min():.3g} to {means[0].max():.3g}, the other {means[1].min():.3g} to "
            f"{means[1].max():.3g}. Train further strengths."
        )
    return float(low), float(high)


def difference(
    first: np.ndarray,
    second: np.ndarray,
    at: float | None = None,
    *,
    better: int = -1,
    resamples: int = 1000,
) -> Difference:
    """y of ``first`` minus y of ``second`` at x = ``at``, or averaged over the range they share.

    Both are frontiers (strengths, seeds, prompts, 2) of the same prompts, with two strengths or
    more; NaN marks what no judge graded. ``better`` is -1 where a low y is best, 1 where a high
    one. With one seed the interval is over prompts alone. Raises BgkitError for other shapes, other
    prompts, an ``at`` that one of them does not reach, and a y that has no better side.
    """
    if better not in (-1, 1):
        raise BgkitError(
            "Frontiers are the best that strengths give: compare a metric of which high or low is "
            "better, not one (filter rate, KL, length) that has no better side."
        )
    shapes = [np.shape(values) for values in (first, second)]
    if any(len(s) != 4 or s[3] != 2 or s[0] < 2 for s in shapes) or shapes[0][2] != shapes[1][2]:
        raise BgkitError(
            "A frontier needs values (strengths, seeds, prompts, 2) of two strengths or more, and "
            f"both the same prompts; these have the shapes {shapes[0]} and {shapes[1]}."
        )
    low, high = shared_range(first, second)
    if at is not None and not low <= at <= high:
        raise BgkitError(f"Both frontiers reach from {low:.3g} to {high:.3g}, not {at:.3g}.")
    x = np.linspace(low, high, PLACES) if at is None else np.array([at])
    rng, n, both = np.random.default_rng(0), first.shape[2], (first, second)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    drawn = [_means(values, counts).mean(2) for values in both]  # (draws, strengths, 2)
    seeds = [_means(values, np.ones((1, n))) for values in both]  # (1, strengths, seeds, 2)
    whole = [points.mean(2) for points in seeds]
    mean = float(_gap(*whole, x, better)[0])
    parts = [(float(np.nanvar(_gap(*drawn, x, better))), n - 1)]  # variances and degrees of freedom
    for side, points in enumerate(seeds):  # what each training's seeds add, one point at a time
        k = points.shape[2]
        for place in range(points.shape[1]) if k > 1 else ():
            moved = list(whole)
            moved[side] = np.repeat(whole[side], resamples, axis=0)
            weights = rng.multinomial(k, np.full(k, 1 / k), size=resamples) / k
            moved[side][:, place] = np.einsum("rs,sk->rk", weights, points[0, place])
            parts.append((np.nanvar(_gap(*moved, x, better)) * k / (k - 1), k - 1))
    jiggled = [points + _noise(v, resamples, rng) for points, v in zip(whole, both, strict=True)]
    noise = float(np.nanvar(_gap(*jiggled, x, better))) if parts[1:] else 0.0
    of_prompts, of_seeds = parts[0][0], sum(variance for variance, _ in parts[1:])
    total = max(of_prompts + of_seeds - noise, of_prompts, of_seeds)
    reach = (low, high) if at is None else (at, at)
    squares = of_prompts**2 / (n - 1) + sum(v**2 / freedom for v, freedom in parts[1:])
    if not squares > 0:  # no variance, or one whose square is too small for a float
        return Difference(mean, mean, mean, float(mean == 0), *reach, 0.0)
    degrees = max(total**2 / squares, min(freedom for _, freedom in parts))
    half = float(stats.t.ppf(1 - TAIL, degrees) * total**0.5)
    p = float(2 * stats.t.sf(abs(mean) / total**0.5, degrees))
    return Difference(mean, mean - half, mean + half, p, *reach, float(min(1, of_seeds / total)))


def _means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means (draws, strengths, seeds, 2) of what is known, prompts counted as ``counts`` say."""
    known = ~np.isnan(values)
    sums = np.einsum("rn,psnk->rpsk", counts, np.where(known, values, 0.0), optimize=True)
    return sums / np.einsum("rn,psnk->rpsk", counts, known.astype(float), optimize=True)


def _noise(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Normal draws (draws, strengths, 2) of what single responses add to the mean over seeds."""
    n_points, n_seeds, n, _ = values.shape
    if n_seeds == 1:
        return np.zeros((draws, n_points, 2))
    each, both = np.nanmean(values, 2, keepdims=True), np.nanmean(values, 1, keepdims=True)
    rest = np.nan_to_num(values - each - both + np.nanmean(values, (1, 2), keepdims=True))
    spread = np.einsum("psnj,psnk->pjk", rest, rest) / ((n_seeds - 1) * (n - 1) * n_seeds * n)
    normal = [rng.multivariate_normal([0, 0], cov, draws, method="svd") for cov in spread]
    return np.stack(normal, axis=1)


def _gap(first: np.ndarray, second: np.ndarray, x: np.ndarray, better: int) -> np.ndarray:
    """Difference (draws,) of two curves of drawn points, averaged over those ``x`` both reach."""
    gap = curve(first, x, better) - curve(second, x, better)
    known = ~np.isnan(gap)
    with np.errstate(invalid="ignore"):
        return np.where(known, gap, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)


def seeds_needed(found: Difference, seeds: int, most: int = 100) -> int | None:
    """How many seeds would make a difference of this size differ from 0 in its 95 % interval.

    The variance of the prompts stays, that of the seeds falls with their number (normal interval:
    many trainings). None where ``most`` do not suffice.

    >>> seeds_needed(Difference(0.02, -0.01, 0.05, 0.2, 0, 1, 0.9), seeds=3)
    8
    """
    size, z = abs(found.mean), stats.norm.ppf(1 - TAIL)
    variance = ((found.high - found.low) / 2 / z) ** 2
    by_seeds, prompts = variance * found.by_seeds, variance * (1 - found.by_seeds)
    enough = (k for k in range(1, most + 1) if z * (by_seeds * seeds / k + prompts) ** 0.5 < size)
    return next(enough, None)
