"""Confidence intervals: bootstrap over prompts, Student's t over seeds, Wilson's for shares.

The bootstrap gives [0, 0] for an event that was never seen, and too narrow an interval for one seen
once or twice, so shares of responses have Wilson's interval everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
Z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean with the bounds of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def interval_text(mean: float, low: float = np.nan, high: float = np.nan, form: str = ".3f") -> str:
    """A mean with its interval as text; a dash for a NaN mean, no interval for NaN bounds.

    >>> interval_text(0.03125, -0.01, 0.0625), interval_text(0.5), interval_text(np.nan, 0, 1)
    ('0.031 [-0.010, 0.062]', '0.500', '–')
    """
    if np.isnan(mean):
        return "–"
    ends = "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{mean:{form}}{ends}"


def interval_columns(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Intervals as columns of a row: NAME, NAME_low and NAME_high of each."""
    suffixes = ("", "_low", "_high")
    pairs = ((name, zip(suffixes, i, strict=True)) for name, i in intervals.items())
    return {name + suffix: value for name, ends in pairs for suffix, value in ends}


def as_text(
    rows: pd.DataFrame, index: Sequence[str], columns: str, marks: Sequence[str] = ()
) -> pd.DataFrame:
    """Long rows with mean, low and high as a wide table of texts; a dash where there is no row.

    Both axes keep the order of the rows; ``marks`` (n,) are appended to the texts.
    """
    ends = rows[["mean", "low", "high"]].itertuples(index=False)
    pairs = zip(ends, marks or [""] * len(rows), strict=True)
    texts = rows.assign(text=[interval_text(*row) + mark for row, mark in pairs])
    wide = texts.set_index([*index, columns])["text"].unstack(columns, sort=False)
    return wide.fillna("–").rename_axis(columns=None)


def bootstrap(values: np.ndarray, *, rates: bool | Sequence[bool] = True) -> list[Interval]:
    """Intervals of the column means of ``values`` (n,) or (n, k): rows resampled, or Wilson's.

    All columns share the resampled rows; NaN values are skipped. ``rates`` says for all columns, or
    each, whether it is a share of rows: if its values are all 0 or 1, it has :func:`wilson`'s.

    >>> bootstrap([0.0] * 199 + [1.0])
    [Interval(mean=0.005, low=0.0008..., high=0.0277...)]
    """
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    n, k = values.shape
    if n == 0:
        return [UNKNOWN] * k
    valid = ~np.isnan(values)
    filled = np.where(valid, values, 0.0)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counts @ filled) / (counts @ valid)
        means[:, ~valid.any(0)] = 0.0  # no warning for an all-NaN column
        bounds = np.nanquantile(means, (TAIL, 1 - TAIL), axis=0)
        intervals = np.array([filled.sum(0) / valid.sum(0), *bounds]).T.tolist()
    columns = zip(intervals, values.T, np.broadcast_to(rates, k), strict=True)
    return [_wilson_if_rate(Interval(*i), column, rate) for i, column, rate in columns]


def _wilson_if_rate(interval: Interval, column: np.ndarray, rate: bool) -> Interval:
    """Wilson's interval for a rate whose known values are all 0 or 1, else ``interval``."""
    values = column[~np.isnan(column)]
    if not len(values):
        return UNKNOWN
    if not rate or not np.isin(values, (0.0, 1.0)).all():
        return interval
    return Interval(*map(float, share_interval(values.sum(), len(values))))


def mean_table(
    columns: Mapping[object, Sequence[float]], rates: Collection[object] = ()
) -> pd.DataFrame:
    """A row for each column: mean, low, high (:func:`bootstrap`; ``rates``: shares), n not NaN."""
    rows = {}
    for name, values in columns.items():
        (interval,) = bootstrap(values, rates=name in rates)
        rows[name] = {**interval._asdict(), "n": int(pd.notna(values).sum())}
    return pd.DataFrame.from_dict(rows, orient="index")


def widen_to_wilson(interval: Interval, n: int) -> Interval:
    """A share's interval, at least as wide as that of an event never (or always) seen in ``n``.

    For weighted shares, and shares of prompts with several answers each.
    """
    always, never = float(wilson(n, n)[0]), float(wilson(0, n)[1])
    return Interval(interval.mean, min(interval.low, always), max(interval.high, never))


def wilson(count: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the Wilson score interval of the share ``count`` / ``n`` (Wilson 1927).

    Takes numbers or arrays of one shape; NaN where ``n`` is 0. The interval contains the share and
    has a width even at 0 and 1.

    >>> [float(bound.round(3)) for bound in wilson(0, 10)]
    [0.0, 0.278]
    """
    n = np.where(np.asarray(n) > 0, n, np.nan).astype(float)
    p = np.asarray(count) / n
    half = Z * np.sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2) / (1 + Z**2 / n)
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    return np.clip(middle - half, 0.0, p), np.clip(middle + half, p, 1.0)  # rounded at 0 and 1


def share_interval(count: np.ndarray, n: np.ndarray) -> Interval:
    """The share ``count`` / ``n`` with Wilson's interval, of numbers or arrays; NaN of 0."""
    return Interval(count / np.where(np.asarray(n) > 0, n, np.nan), *wilson(count, n))


def shares_by_bin(t: pd.Series, events: pd.Series, bins: np.ndarray) -> pd.DataFrame:
    """The share of responses (n,) with an event in each non-empty one of ``bins`` (n,), the index.

    Columns: n, t (mean), k (events), and the share as mean, low and high (Wilson's).
    """
    groups = pd.DataFrame({"n": 1, "t": t, "k": events}).groupby(np.asarray(bins))
    table = groups.agg({"n": "size", "t": "mean", "k": "sum"})
    return table.assign(**share_interval(table["k"], table["n"])._asdict())


def student_intervals(values: np.ndarray) -> Interval:
    """Means (k,) of columns of values (n, k) in [0, 1] with Student's t intervals, cut to [0, 1].

    Where all values are 0, or all 1, Wilson's bound; NaN bounds if n < 2.
    """
    n, unknown = len(values), np.full(values.shape[1:], np.nan)
    if n < 2:
        return Interval(values[0] if n else unknown, unknown, unknown)
    mean = values.mean(0)
    half = special.stdtrit(n - 1, 1 - TAIL) * values.std(0, ddof=1) / n**0.5
    low = np.where(mean >= 1, wilson(n, n)[0], np.maximum(mean - half, 0.0))
    high = np.where(mean <= 0, wilson(0, n)[1], np.minimum(mean + half, 1.0))
    return Interval(mean, low, high)


def crossed_bootstrap(values: np.ndarray, *, rates: bool | Sequence[bool] = True) -> list[Interval]:
    """Intervals of the column means of ``values`` (seeds, prompts, k), by resampling both levels.

    A draw resamples the seeds, and the prompts jointly for all seeds (Owen 2007, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1(2)). Draws give the interval's shape; their width is
    wrong for few seeds, so the percentiles' distances from the mean are scaled to Student's t with
    :func:`variance_of_mean`. Bounds stay within the range of the values. NaN, ``rates`` and a
    single seed are as in :func:`bootstrap`.
    """
    values = np.asarray(values, dtype=float)
    n_seeds, n, k = values.shape
    if n_seeds == 1 or n == 0:
        return bootstrap(values.reshape(-1, k), rates=rates)
    rng, valid = np.random.default_rng(0), ~np.isnan(values)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    sums, n_valid = (
        np.einsum("rn,snk->rsk", counts, part, optimize=True)
        for part in (np.where(valid, values, 0.0), valid.astype(float))
    )
    weights = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=RESAMPLES) / n_seeds
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.einsum("rs,rsk->rk", weights, sums / n_valid)
    columns = enumerate(np.broadcast_to(rates, k))
    return [_crossed_interval(values[..., i], means[:, i], rate) for i, rate in columns]


def _crossed_interval(values: np.ndarray, means: np.ndarray, rate: bool) -> Interval:
    """The interval of one column's values (seeds, prompts) from its resampled means."""
    finite, means = values[~np.isnan(values)], means[~np.isnan(means)]
    if not len(finite) or not len(means):
        return UNKNOWN
    mean = float(finite.mean())
    variance, freedom = variance_of_mean(values)
    half = stats.norm.ppf(1 - TAIL) * means.std()  # half the width if the means were normal
    scale = stats.t.ppf(1 - TAIL, freedom) * np.sqrt(variance) / half if half > 0 else 1.0
    scale = 1.0 if np.isnan(scale) else scale
    bounds = mean + scale * (np.quantile(means, (TAIL, 1 - TAIL)) - mean)
    low, high = (float(bound) for bound in np.clip(bounds, finite.min(), finite.max()))
    # seeds are not extra prompts: an event never or always seen has the bound of one seed's
    constant_rate = rate and np.ptp(finite) == 0
    return _wilson_if_rate(Interval(mean, low, high), finite[:: len(values)], constant_rate)


def variance_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of ``values`` (seeds, prompts), and its degrees of freedom.

    For two crossed factors with one value per cell: the variance between seeds' means, plus that
    between prompts' means, minus the noise of single values, which both include (Searle, Casella
    and McCulloch 1992, "Variance Components", 4.3), but no less than the larger one. Degrees of
    freedom by Satterthwaite (1946). Prompts with a NaN are left out; NaN if fewer than two remain.

    >>> variance_of_mean(np.array([[0.0, 0.0], [3.0, 3.0], [6.0, 6.0]]))
    (3.0, 2.0)
    """
    values = values[:, ~np.isnan(values).any(axis=0)]
    n_seeds, n = values.shape
    if n < 2:
        return np.nan, np.nan
    by_seed, by_prompt, mean = values.mean(1), values.mean(0), values.mean()
    noise = ((values - by_seed[:, None] - by_prompt + mean) ** 2).sum()
    freedom = np.array([n_seeds - 1, n - 1, (n_seeds - 1) * (n - 1)])
    seeds, prompts = by_seed.var(ddof=1) / n_seeds, by_prompt.var(ddof=1) / n
    parts = np.array([seeds, prompts, noise / freedom[2] / (n_seeds * n)])
    whole = max(seeds + prompts - parts[2], seeds, prompts)
    squares = (parts**2 / freedom).sum()
    if squares == 0:  # no variance, or one whose square is too small for a float
        return float(whole), float(freedom[2])
    return float(whole), float(max(whole**2 / squares, min(freedom)))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values adjusted for multiple tests (Holm 1979, Scand. J. Statistics 6, 65-70); NaN stays.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    ranked = pd.Series(np.asarray(p, float)).dropna().sort_values()
    adjusted = (ranked * np.arange(len(ranked), 0, -1)).cummax().clip(upper=1)
    return adjusted.reindex(range(len(p))).to_numpy()
