"""Confidence intervals: bootstrap over prompts, Student's t over seeds, Wilson's for counts.

A bootstrap of a rate that was never (or always) seen gives the interval [0, 0], which would claim
certainty; there the exact one-sided binomial bound replaces the missing side ("rule of three").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean with the bounds of its 95% confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: np.ndarray, *, resamples: int = 2000, seed: int = 0, rates: bool | Sequence[bool] = True
) -> list[Interval]:
    """Percentile intervals of the column means of ``values`` (n,) or (n, k), by resampling rows.

    All columns share the resampled rows. NaN marks a value that is not known; a column's mean is
    that of its known values, and NaN with NaN bounds if there is none. ``rates`` says of all
    columns or of each one whether it is a rate; one that is not (a difference, a divergence) keeps
    an interval without width if all its values are equal.

    >>> bootstrap(np.zeros(100))
    [Interval(mean=0.0, low=0.0, high=0.0362...)]
    """
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    n = len(values)
    if n == 0:
        return [Interval(np.nan, np.nan, np.nan)] * values.shape[1]
    known = ~np.isnan(values)
    is_rate = np.broadcast_to(rates, values.shape[1])
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counts @ np.where(known, values, 0.0)) / (counts @ known)
        tail = (1 - CONFIDENCE) / 2
        drawn = np.where(known.any(0), means, 0.0)  # a column with nothing known is NaN below
        low, high = np.nanquantile(drawn, (tail, 1 - tail), axis=0)
        low, high = (np.where(known.any(0), bound, np.nan) for bound in (low, high))
        centre = np.where(known, values, 0.0).sum(0) / known.sum(0)
    return [
        _widen(Interval(float(m), float(a), float(b)), column[mask] if rate else column[:0])
        for m, a, b, column, mask, rate in zip(
            centre, low, high, values.T, known.T, is_rate, strict=True
        )
    ]


def _widen(interval: Interval, column: np.ndarray) -> Interval:
    """Give a rate that is 0 or 1 in the whole sample the exact binomial bound."""
    if len(column) == 0 or not (np.all(column == 0) or np.all(column == 1)):
        return interval
    gap = 1 - ((1 - CONFIDENCE) / 2) ** (1 / len(column))
    if column[0] == 0:
        return Interval(0.0, 0.0, gap)
    return Interval(1.0, 1.0 - gap, 1.0)


def over_seeds(means: np.ndarray, lowest: float = -np.inf, highest: float = np.inf) -> Interval:
    """Student's t interval of the mean of one value per seed, cut to the metric's range.

    With a single seed there is no interval: the bounds are NaN.

    >>> over_seeds(np.array([0.1, 0.2, 0.3]), 0, 1)
    Interval(mean=0.2..., low=0.0, high=0.448...)
    """
    means = np.asarray(means, dtype=float)
    mean = float(means.mean())
    if len(means) < 2 or np.isnan(mean):
        return Interval(mean, np.nan, np.nan)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * stats.sem(means)
    return Interval(mean, float(max(lowest, mean - half)), float(min(highest, mean + half)))


def wilson(count: np.ndarray | int, n: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of Wilson's 95% interval for ``count`` hits among ``n`` (arrays of one shape).

    It stays in [0, 1], has a width where all or none were hits, and needs no resampling. Where n is
    0 the bounds are NaN. (Wilson, J. Am. Stat. Assoc. 22, 1927.)

    >>> low, high = wilson(np.array([0, 5]), np.array([10, 10]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.237], [0.278, 0.763])
    """
    count, n = np.asarray(count, dtype=float), np.asarray(n, dtype=float)
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = count / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    # the exact bounds at the ends, which rounding misses
    low = np.where((count == 0) & (n > 0), 0.0, middle - half)
    return low, np.where((count == n) & (n > 0), 1.0, middle + half)
