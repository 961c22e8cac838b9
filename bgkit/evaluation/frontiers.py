"""Designs as frontiers: the best that each attains over its strengths, and their differences.

A design at one strength is a point, and the strength is a choice, so designs are compared by what
all their points attain. A *frontier* is an array (strengths, seeds, prompts, 2): for each training
and test prompt the metric that is held equal (x: system help, KL) and the metric that is compared
(y: system harm, ...). Its curve is the best y at each x of the means over seeds and prompts, and of
straight lines between any two of them: a deployment that answers with one of two policies at random
attains every point between theirs (as in the convex hull of ROC curves, Provost and Fawcett 2001).
A strength that others beat at its x does not count against its design. Nothing is extrapolated.

Intervals bootstrap the whole procedure. Prompts are resampled jointly for all trainings, seeds
separately at each strength of each design (two trainings share only the order of their prompts).
Resampling S seeds understates their variance by (S - 1) / S, so it is scaled up; few seeds estimate
it poorly, so the interval is Student's t with the degrees of freedom of both parts (Satterthwaite
1946). The noise of single responses is in both and is subtracted once, as in
:func:`bgkit.evaluation.intervals.variance_of_mean`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import TAIL

GRID = 21  # values of x over which a difference is averaged
POWER = 0.8  # of what is called detectable, or the number of seeds that settles it


class Difference(NamedTuple):
    """One design's y minus another's at equal x, with its 95 % interval."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, of no difference
    by_seeds: float  # the share of its variance that more seeds would reduce


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
    with np.errstate(over="ignore", invalid="ignore"):  # a tiny step: the share is far beyond 1
        share = np.where(np.abs(ahead) <= slack, 0, ahead / np.where(step == 0, np.nan, step))
        share = np.where(np.abs(x - second[..., 0, :]) <= slack, 1.0, share)
        y = first[..., 1, :] + share * (second[..., 1, :] - first[..., 1, :])
    within = (share >= 0) & (share <= 1) & ~np.isnan(y)
    ends = np.where(within, better * y, -np.inf).max(-2)
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
    """The range of x that two frontiers share; raises BgkitError if there is none."""
    means = [np.nanmean(values, axis=(1, 2))[:, 0] for values in (first, second)]
    low, high = max(m.min() for m in means), min(m.max() for m in means)
    if not low < high:
        raise BgkitError(
            "The two frontiers do not overlap on the axis that is held equal: one covers "
            f"{means[0].min():.3g} to {means[0].max():.3g}, the other {means[1].min():.3g} to "
            f"{means[1].max():.3g}. Train more strengths."
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
    more; NaN marks ungraded responses. ``better`` is -1 where a low y is best, 1 where a high one
    is. With one seed the interval is over prompts alone. Raises BgkitError for other shapes,
    different prompts, an ``at`` outside the shared range, and a y that has no better side.
    """
    if better not in (-1, 1):
        raise BgkitError(
            "A frontier is the best that a design attains: compare a metric of which high or low "
            "is better, not one (filter rate, KL, length) that has no better side."
        )
    shapes = [np.shape(values) for values in (first, second)]
    if any(len(s) != 4 or s[3] != 2 or s[0] < 2 for s in shapes) or shapes[0][2] != shapes[1][2]:
        raise BgkitError(
            "Each frontier needs values (strengths, seeds, prompts, 2) of two strengths or more, "
            f"both of the same prompts; these have the shapes {shapes[0]} and {shapes[1]}."
        )
    low, high = shared_range(first, second)
    if at is not None and not low <= at <= high:
        raise BgkitError(f"Both frontiers reach from {low:.3g} to {high:.3g}, not {at:.3g}.")
    x = np.linspace(low, high, GRID) if at is None else np.array([at])
    rng, n, pair = np.random.default_rng(0), first.shape[2], (first, second)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    resampled = [_weighted_means(v, counts).mean(2) for v in pair]  # (draws, strengths, 2)
    by_seed = [_weighted_means(v, np.ones((1, n))) for v in pair]  # (1, strengths, seeds, 2)
    means = [points.mean(2) for points in by_seed]
    mean = float(_gap(*means, x, better)[0])
    # variances and degrees of freedom
    parts = [(float(np.nanvar(_gap(*resampled, x, better))), n - 1)]
    for side, points in enumerate(by_seed):  # the seeds' variance, one strength at a time
        k = points.shape[2]
        for strength in range(points.shape[1]) if k > 1 else ():
            draws = list(means)
            draws[side] = np.repeat(means[side], resamples, axis=0)
            weights = rng.multinomial(k, np.full(k, 1 / k), size=resamples) / k
            draws[side][:, strength] = np.einsum("rs,sk->rk", weights, points[0, strength])
            parts.append((np.nanvar(_gap(*draws, x, better)) * k / (k - 1), k - 1))
    noisy = [points + _noise(v, resamples, rng) for points, v in zip(means, pair, strict=True)]
    noise = float(np.nanvar(_gap(*noisy, x, better))) if parts[1:] else 0.0
    of_prompts, of_seeds = parts[0][0], sum(variance for variance, _ in parts[1:])
    total = max(of_prompts + of_seeds - noise, of_prompts, of_seeds)
    squares = of_prompts**2 / (n - 1) + sum(v**2 / freedom for v, freedom in parts[1:])
    if not squares > 0:  # no variance, or one whose square is too small for a float
        p = np.nan if np.isnan(mean) else float(mean == 0)
        return Difference(mean, mean, mean, p, 0.0)
    degrees = max(total**2 / squares, min(freedom for _, freedom in parts))
    half = float(stats.t.ppf(1 - TAIL, degrees) * total**0.5)
    p = float(2 * stats.t.sf(abs(mean) / total**0.5, degrees))
    return Difference(mean, mean - half, mean + half, p, float(min(1, of_seeds / total)))


def _weighted_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means (draws, strengths, seeds, 2) of known values, prompts weighted by ``counts``."""
    valid = ~np.isnan(values)
    sums = np.einsum("rn,psnk->rpsk", counts, np.where(valid, values, 0.0), optimize=True)
    return sums / np.einsum("rn,psnk->rpsk", counts, valid.astype(float), optimize=True)


def _noise(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Normal draws (draws, strengths, 2) of the noise of single responses in the means."""
    n_points, n_seeds, n, _ = values.shape
    if n_seeds == 1:
        return np.zeros((draws, n_points, 2))
    by_seed, by_prompt, mean = (np.nanmean(values, axis, keepdims=True) for axis in (2, 1, (1, 2)))
    residual = np.nan_to_num(values - by_seed - by_prompt + mean)
    products = np.einsum("psnj,psnk->pjk", residual, residual)
    spread = products / ((n_seeds - 1) * (n - 1) * n_seeds * n)
    normal = [rng.multivariate_normal([0, 0], cov, draws, method="svd") for cov in spread]
    return np.stack(normal, axis=1)


def _gap(first: np.ndarray, second: np.ndarray, x: np.ndarray, better: int) -> np.ndarray:
    """Difference (draws,) of two curves of drawn points, averaged over the ``x`` both reach."""
    gap = curve(first, x, better) - curve(second, x, better)
    reached = ~np.isnan(gap)
    with np.errstate(invalid="ignore"):
        return np.nansum(gap, -1) / np.where(reached.any(-1), reached.sum(-1), np.nan)


def seeds_needed(gap: Difference, seeds: int, comparisons: int = 1) -> int | None:
    """The number of seeds with which four of five repetitions would decide such a difference.

    That is a power of :data:`POWER` at a level of 5 %, corrected for the number of ``comparisons``
    (Bonferroni). The variance of the prompts stays, that of the seeds falls with their number
    (normal interval: many trainings). None if 100 seeds are not enough.

    >>> seeds_needed(Difference(0.02, -0.01, 0.05, 0.2, 0.9), seeds=3)
    23
    """
    variance = ((gap.high - gap.low) / 2 / stats.norm.ppf(1 - TAIL)) ** 2
    by_seeds, prompts = variance * gap.by_seeds, variance * (1 - gap.by_seeds)
    z = stats.norm.ppf(1 - TAIL / comparisons) + stats.norm.ppf(POWER)
    errors = (z * (by_seeds * seeds / k + prompts) ** 0.5 for k in range(1, 101))
    return next((k for k, error in enumerate(errors, 1) if error < abs(gap.mean)), None)
