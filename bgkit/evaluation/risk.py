"""The cost of a filter's errors, in theory and measured: why the boundary is the worst place.

``t`` in [0, 1] is the guard's probability that a response is unsafe; with t >= tau it is filtered.
Showing a harmful response costs ``cost_fn`` > 0, filtering a safe one ``cost_fp`` > 0, in the same
unit; a correct verdict costs nothing. If a response is harmful with probability p, showing it costs
``cost_fn p`` in expectation and filtering it ``cost_fp (1 - p)``, which are equal at ``tau =
cost_fp / (cost_fp + cost_fn)``. For a calibrated guard (t = p) the filter with this threshold has
the expected cost ``min(cost_fn t, cost_fp (1 - t))``, a tent whose tip is at tau: no place is worse
than the boundary (Proposition 1 of Ball and Haupt, arXiv 2510.11834; derived in notebook 01).

All functions raise BgkitError for t outside [0, 1] and for a cost or temperature not above 0; those
that take samples also for missing or unknown ``harm``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation import intervals
from bgkit.evaluation.intervals import Interval, interval_text, share_interval, shares_by_bin
from bgkit.rewards import NEAR
from bgkit.testbed.oracle import HARMFUL_ABOVE


def best_threshold(
    cost_fn: float = 1.0, cost_fp: float = 1.0, temperature: float = 1.0, shift: float = 0.0
) -> float:
    """The threshold on t with the lowest expected cost, in (0, 1): both verdicts cost the same.

    >>> best_threshold(cost_fn=3.0), round(best_threshold(shift=1.0), 3)
    (0.25, 0.731)
    """
    checks.require_positive(cost_fn=cost_fn, cost_fp=cost_fp, temperature=temperature)
    with np.errstate(over="ignore"):
        odds = -(temperature * np.log(cost_fp / cost_fn) + shift)
        return float(1.0 / (1.0 + np.exp(odds)))


def harmful_share(t: np.ndarray, temperature: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """``sigmoid((logit t - shift) / temperature)``: the true probability of harm at t, (n,).

    Calibrated at 1 and 0. A temperature above 1 is an overconfident guard, below 1 an
    underconfident one; with a shift above 0 its t is too high, below 0 too low.
    """
    checks.require_positive(temperature=temperature)
    t = checks.probabilities(t)
    if temperature == 1 and shift == 0:
        return t.copy()  # exact, without rounding
    with np.errstate(divide="ignore", over="ignore"):
        logit = np.log(t) - np.log1p(-t)
        return 1.0 / (1.0 + np.exp(-(logit - shift) / temperature))


def expected_cost(
    t: np.ndarray,
    tau: float,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> np.ndarray:
    """Expected cost of the verdict ``t >= tau``, (n,), with the p of :func:`harmful_share`.

    >>> expected_cost([0.25, 0.6, 0.75], tau=0.7).tolist()  # 0.6 should have been filtered
    [0.25, 0.6, 0.25]
    """
    checks.require_positive(cost_fn=cost_fn, cost_fp=cost_fp)
    p = harmful_share(t, temperature, shift)
    shown = checks.probabilities(t) < checks.threshold(tau, ends=True)
    return np.where(shown, cost_fn * p, cost_fp * (1.0 - p))


class FilterCost(NamedTuple):
    """A filter's expected cost per response, and the part due to miscalibration."""

    tau: float  # the best threshold if the guard were calibrated
    best_tau: float  # the cheapest threshold
    at_tau: float  # mean cost at tau
    at_best: float  # mean cost at best_tau
    lost: float  # what miscalibration costs per response, never below 0


def filter_cost(
    t: np.ndarray,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> FilterCost:
    """Mean expected cost over responses t (n,), n > 0, at both thresholds of FilterCost."""
    if checks.probabilities(t).size == 0:
        raise BgkitError("There is no response to compute a filter's cost on.")
    setting = (cost_fn, cost_fp, temperature, shift)
    taus = best_threshold(cost_fn, cost_fp), best_threshold(*setting)
    at_tau, at_best = (float(expected_cost(t, tau, *setting).mean()) for tau in taus)
    return FilterCost(*taus, at_tau, at_best, max(0.0, at_tau - at_best))


def cost_table(
    t: np.ndarray,
    guards: Mapping[str, tuple[float, float]],
    costs: Sequence[tuple[float, float]],
) -> pd.DataFrame:
    """:func:`filter_cost` of responses t (n,) for guards by name and pairs (cost_fn, cost_fp).

    ``guards`` maps a name to the temperature and shift of a guard that gives these t. Costs are
    those of 100 responses. One row per guard and pair.
    """
    rows = {}
    for name, setting in guards.items():
        for pair in costs:
            cost = filter_cost(t, *pair, *setting)._asdict()
            costs_of_100 = {key: 100 * cost[key] for key in ("at_tau", "at_best", "lost")}
            rows[name, "{:g} : {:g}".format(*pair)] = cost | costs_of_100
    if not rows:
        raise BgkitError("Give at least one guard and one pair of costs.")
    return pd.DataFrame(rows).T.rename_axis(["guard", "cost_fn : cost_fp"]).round(2)


def _verdicts(samples: pd.DataFrame, tau: float) -> pd.DataFrame:
    """Columns t, filtered, wrong and near of graded samples."""
    checks.samples(samples)
    if samples["harm"].isna().any():
        raise BgkitError(
            "The samples hold a response whose harm is not known; keep the rows with a known "
            "truth, samples[samples['harm'].notna()]."
        )
    t = samples["t"].to_numpy(float)
    filtered, near = t >= checks.threshold(tau), np.abs(t - tau) < NEAR
    wrong = filtered != (samples["harm"].to_numpy(float) > HARMFUL_ABOVE)
    return pd.DataFrame({"t": t, "filtered": filtered, "wrong": wrong, "near": near})


def bin_edges(tau: float, bins: int = 10) -> np.ndarray:
    """Edges (bins + 1,) of nearly equal bins of [0, 1]; tau is an edge.

    >>> bin_edges(0.3, 2).tolist(), bin_edges(1.0, 2).tolist()
    ([0.0, 0.3, 1.0], [0.0, 0.5, 1.0])
    """
    checks.threshold(tau, ends=True)
    if bins < 2:
        raise BgkitError(f"A histogram over t needs at least two bins, not {bins}.")
    left = int(np.clip(round(bins * tau), 1, bins - 1)) if 0 < tau < 1 else 0
    right = np.linspace(tau if left else 0, 1, bins - left + 1)
    return np.r_[np.linspace(0, tau, left + 1)[:-1], right]


def measured_risk(
    samples: pd.DataFrame,
    tau: float = 0.5,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    bins: int = 10,
) -> pd.DataFrame:
    """Proposition 1 measured: error rate and cost of the filter by bins of t.

    ``samples`` has ``t`` and ``harm`` (harmful above 0.5) of each response. One row per nonempty
    bin: start, end, n, t (mean), filtered, errors; error_rate, error_low and error_high (95 %
    Wilson); these times the cost of the error: cost, cost_low, cost_high; and the values of a
    calibrated guard: error_formula and cost_formula.
    """
    checks.require_positive(cost_fn=cost_fn, cost_fp=cost_fp)
    verdicts, edges = _verdicts(samples, tau), bin_edges(tau, bins)
    place = np.digitize(verdicts["t"], edges[1:-1])
    shares = shares_by_bin(verdicts["t"], verdicts["wrong"], place)
    rate, low, high = shares["mean"], shares["low"], shares["high"]
    columns = {"start": edges[shares.index], "end": edges[shares.index + 1]}
    columns |= {"n": shares["n"], "t": shares["t"]}
    columns |= {"filtered": columns["start"] >= tau, "errors": shares["k"]}  # tau is an edge
    cost = np.where(columns["filtered"], cost_fp, cost_fn)
    columns |= {"error_rate": rate, "error_low": low, "error_high": high}
    columns |= {"cost": cost * rate, "cost_low": cost * low, "cost_high": cost * high}
    # both formulas are linear within a bin, so they give their mean at the mean t
    columns["error_formula"] = expected_cost(shares["t"], tau)
    columns["cost_formula"] = expected_cost(shares["t"], tau, cost_fn, cost_fp)
    return pd.DataFrame(columns).reset_index(drop=True)


def cost_near(
    samples: pd.DataFrame, tau: float = 0.5, cost_fn: float = 1.0, cost_fp: float = 1.0
) -> Interval:
    """The share of the filter's total cost from responses near the boundary, in [0, 1].

    95 % percentile interval by resampling responses, at least as wide as that of an event never (or
    always) seen in as many errors; all NaN if the filter made none.
    """
    checks.require_positive(cost_fn=cost_fn, cost_fp=cost_fp)
    verdicts = _verdicts(samples, tau)
    filtered, wrong, near = (verdicts[name] for name in ("filtered", "wrong", "near"))
    if not wrong.any():
        return intervals.UNKNOWN
    # resampling the counts of five cells (correct, or wrong: shown far or near, filtered near or
    # far) is the same as resampling responses, and much faster
    cell = np.where(wrong, np.where(filtered, 4 - near, 1 + near), 0)
    counts = np.bincount(cell, minlength=5)
    rng, size = np.random.default_rng(0), intervals.RESAMPLES
    drawn = rng.multinomial(len(cell), counts / len(cell), size=size)
    costs = np.vstack([counts, drawn]) * np.array([0.0, cost_fn, cost_fn, cost_fp, cost_fp])
    with np.errstate(invalid="ignore"):
        share = costs[:, 2:4].sum(1) / costs.sum(1)
    low, high = np.nanquantile(share[1:], (intervals.TAIL, 1 - intervals.TAIL))
    interval = Interval(float(share[0]), float(low), float(high))
    return intervals.widen_to_wilson(interval, int(wrong.sum()))


def near_table(
    scored: Mapping[str, pd.DataFrame],
    tau: float = 0.5,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
) -> pd.DataFrame:
    """The shares of errors and of their cost near the boundary, as text: a row per name.

    ``scored`` maps a name (of a guard, of a policy) to its samples; near is less than 0.3 from tau.
    Error rates have Wilson's 95 % interval, the part of the cost that of :func:`cost_near`.
    """
    rows = {}
    for name, samples in scored.items():
        verdicts = _verdicts(samples, tau)
        near, wrong = verdicts["near"], verdicts["wrong"]
        cost_share = cost_near(samples, tau, cost_fn, cost_fp)
        rows[name] = {
            "responses near": f"{near.mean():.1%}",
            "error rate near": interval_text(*share_interval(wrong[near].sum(), near.sum())),
            "error rate far": interval_text(*share_interval(wrong[~near].sum(), (~near).sum())),
            "near part of the whole cost": interval_text(*cost_share, form=".0%"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
