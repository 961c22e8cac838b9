"""Confidence intervals: bootstrap over prompts, Student's t over seeds, Wilson's for shares.

A bootstrap of a share that was never seen gives [0, 0], which would claim certainty, and is too
narrow for one that was seen once or twice: shares of responses have Wilson's interval everywhere.
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
    """A mean with the bounds of its 95% confidence interval."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def interval_text(mean: float, low: float = np.nan, high: float = np.nan, form: str = ".3f") -> str:
    """A mean with its interval as text; a dash where it is not known, no ends where they are not.

    >>> interval_text(0.03125, -0.01, 0.0625), interval_text(0.5), interval_text(np.nan, 0, 1)
    ('0.031 [-0.010, 0.062]', '0.500', '–')
    """
    if np.isnan(mean):
        return "–"
    ends = "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{mean:{form}}{ends}"


def named(found: Mapping[str, Interval]) -> dict[str, float]:
    """Intervals as the columns of a row: each name, and with ``_low`` and ``_high`` behind it."""
    parts = {name: zip(("", "_low", "_high"), ends, strict=True) for name, ends in found.items()}
    return {name + end: value for name, ends in parts.items() for end, value in ends}


def as_text(
    rows: pd.DataFrame, index: Sequence[str], columns: str, marks: Sequence[str] = ()
) -> pd.DataFrame:
    """Long rows with mean, low and high as a wide table of texts; a dash where there is no row.

    Both axes keep the order of the rows; ``marks`` (n,) stand behind the texts.
    """
    ends = rows[["mean", "low", "high"]].itertuples(index=False)
    pairs = zip(ends, marks or [""] * len(rows), strict=True)
    texts = rows.assign(text=[interval_text(*row) + mark for row, mark in pairs])
    wide = texts.set_index([*index, columns])["text"].unstack(columns, sort=False)
    return wide.fillna("–").rename_axis(columns=None)


def bootstrap(values: np.ndarray, *, rates: bool | Sequence[bool] = True) -> list[Interval]:
    """Intervals of the column means of ``values`` (n,) or (n, k): rows resampled, or Wilson's.

    All columns share the resampled rows. NaN is not known: a mean is that of the known values, NaN
    if there is none. ``rates`` says of all columns, or of each, whether it is a share of rows:
    where all its known values are 0 (no) or 1 (yes), it has the interval of :func:`wilson`.

    >>> bootstrap([0.0] * 199 + [1.0])
    [Interval(mean=0.005, low=0.0008..., high=0.0277...)]
    """
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    n, k = values.shape
    if n == 0:
        return [UNKNOWN] * k
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counts @ filled) / (counts @ known)
        means[:, ~known.any(0)] = 0.0  # of a column with nothing known, whose mean is NaN
        ends = np.nanquantile(means, (TAIL, 1 - TAIL), axis=0)
        found = np.array([filled.sum(0) / known.sum(0), *ends]).T.tolist()
    columns = zip(found, values.T, np.broadcast_to(rates, k), strict=True)
    return [_of_share(Interval(*ends), column, rate) for ends, column, rate in columns]


def _of_share(interval: Interval, column: np.ndarray, rate: bool) -> Interval:
    """Wilson's interval of a rate whose known values say yes or no, else the given one."""
    known = column[~np.isnan(column)]
    if not len(known):
        return UNKNOWN
    if not rate or not np.isin(known, (0.0, 1.0)).all():
        return interval
    return Interval(*map(float, share_of(known.sum(), len(known))))


def described(
    columns: Mapping[object, Sequence[float]], rates: Collection[object] = ()
) -> pd.DataFrame:
    """A row for each column: mean, low, high (:func:`bootstrap`; ``rates`` are shares), n known."""
    rows = {}
    for name, values in columns.items():
        (interval,) = bootstrap(values, rates=name in rates)
        rows[name] = {**interval._asdict(), "n": int(pd.notna(values).sum())}
    return pd.DataFrame.from_dict(rows, orient="index")


def at_least(interval: Interval, n: int) -> Interval:
    """A share's interval, at least as wide as of one that was never (or always) seen in ``n``.

    For shares of prompts that are shares themselves (of several answers to each), or are weighted.
    """
    always, never = float(wilson(n, n)[0]), float(wilson(0, n)[1])
    return Interval(interval.mean, min(interval.low, always), max(interval.high, never))


def wilson(count: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the Wilson score interval of the share ``count`` / ``n`` (Wilson 1927).

    Takes numbers or arrays of one shape; NaN where ``n`` is 0. It holds the share, and has a width
    also at shares of 0 and 1.

    >>> [float(bound.round(3)) for bound in wilson(0, 10)]
    [0.0, 0.278]
    """
    n = np.where(np.asarray(n) > 0, n, np.nan).astype(float)
    p = np.asarray(count) / n
    half = Z * np.sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2) / (1 + Z**2 / n)
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    return np.clip(middle - half, 0.0, p), np.clip(middle + half, p, 1.0)  # rounded at 0 and 1


def share_of(count: np.ndarray, n: np.ndarray) -> Interval:
    """The share ``count`` / ``n`` with Wilson's interval, of numbers or arrays; NaN of 0."""
    return Interval(count / np.where(np.asarray(n) > 0, n, np.nan), *wilson(count, n))


def student(values: np.ndarray) -> Interval:
    """Means (k,) of columns of values (n, k) in [0, 1] with Student's t intervals, cut to [0, 1].

    Where all values are 0, or all 1, Wilson's bound; NaN ends where n is below 2.
    """
    n, nothing = len(values), np.full(values.shape[1:], np.nan)
    if n < 2:
        return Interval(values[0] if n else nothing, nothing, nothing)
    mean = values.mean(0)
    half = special.stdtrit(n - 1, 1 - TAIL) * values.std(0, ddof=1) / n**0.5
    low = np.where(mean >= 1, wilson(n, n)[0], np.maximum(mean - half, 0.0))
    high = np.where(mean <= 0, wilson(0, n)[1], np.minimum(mean + half, 1.0))
    return Interval(mean, low, high)


def crossed(values: np.ndarray, *, rates: bool | Sequence[bool] = True) -> list[Interval]:
    """Intervals of the column means of ``values`` (seeds, prompts, k), by resampling both levels.

    A draw takes seeds with replacement, and prompts with replacement, the same ones for all seeds
    (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)). Draws give the
    interval's shape; their width is wrong for few seeds, so the percentiles' distances from the
    mean are scaled to those of Student's t with what :func:`variance_of_mean` gives. Ends stay
    within the range of the values. NaN, ``rates``, and a single seed are as in :func:`bootstrap`.
    """
    values = np.asarray(values, dtype=float)
    n_seeds, n, k = values.shape
    if n_seeds == 1 or n == 0:
        return bootstrap(values.reshape(-1, k), rates=rates)
    rng, known = np.random.default_rng(0), ~np.isnan(values)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    sums, found = (
        np.einsum("rn,snk->rsk", counts, part, optimize=True)
        for part in (np.where(known, values, 0.0), known.astype(float))
    )
    weights = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=RESAMPLES) / n_seeds
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = np.einsum("rs,rsk->rk", weights, sums / found)
    columns = enumerate(np.broadcast_to(rates, k))
    return [_interval(values[..., i], drawn[:, i], rate) for i, rate in columns]


def _interval(values: np.ndarray, drawn: np.ndarray, rate: bool) -> Interval:
    """The interval of one column's values (seeds, prompts) from the means of its draws."""
    known, drawn = values[~np.isnan(values)], drawn[~np.isnan(drawn)]
    if not len(known) or not len(drawn):
        return UNKNOWN
    mean = float(known.mean())
    variance, freedom = variance_of_mean(values)
    plain = stats.norm.ppf(1 - TAIL) * drawn.std()  # half of the interval of normal draws
    scale = stats.t.ppf(1 - TAIL, freedom) * np.sqrt(variance) / plain if plain > 0 else 1.0
    scale = 1.0 if np.isnan(scale) else scale
    ends = mean + scale * (np.quantile(drawn, (TAIL, 1 - TAIL)) - mean)
    low, high = (float(end) for end in np.clip(ends, known.min(), known.max()))
    # seeds are no further prompts: never or always seen has the bound of one seed's prompts
    share = rate and np.ptp(known) == 0
    return _of_share(Interval(mean, low, high), known[:: len(values)], share)


def variance_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of ``values`` (seeds, prompts), and its degrees of freedom.

    Of two crossed factors with one value each: the variance between seeds' means, plus that between
    prompts' means, less what the noise of single values adds to both (Searle, Casella and McCulloch
    1992, "Variance Components", 4.3), at least the larger of the two; degrees of freedom by
    Satterthwaite (1946). Prompts with a NaN are left out; NaN where fewer than two are left.

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
    if whole == 0:
        return 0.0, float(freedom[2])
    return float(whole), float(max(whole**2 / (parts**2 / freedom).sum(), min(freedom)))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number (Holm 1979, Scand. J. Statistics 6, 65-70); NaN stays.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    known = pd.Series(np.asarray(p, float)).dropna().sort_values()
    adjusted = (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1)
    return adjusted.reindex(range(len(p))).to_numpy()
