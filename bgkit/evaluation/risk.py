"""Why the boundary is the worst place: what a filter's errors cost, in formula and measured.

Notation: ``t`` in [0, 1] is the guard's probability that a response is unsafe; a response with
t >= tau is filtered. Showing a harmful response costs ``cost_fn`` > 0, filtering a safe one
``cost_fp`` > 0, in one unit of the reader's choice (pounds, complaints, ...); a right verdict
costs nothing.

The derivation (the project's own; Proposition 1 is that of Ball and Haupt, arXiv 2510.11834):

1. Where harm has the probability p, showing costs ``cost_fn p`` in expectation, filtering
   ``cost_fp (1 - p)``. They are equal at ``tau = cost_fp / (cost_fp + cost_fn)``.
2. A calibrated guard says t = p. The cheapest filter then has this tau as its threshold, and its
   expected cost is the tent ``B(t) = min(cost_fn t, cost_fp (1 - t))``, highest exactly at tau:
   for the pair of generator and guard, no place is worse than the decision boundary.
3. A miscalibrated guard says t where the truth is ``p = sigmoid((logit t - shift) /
   temperature)``. A filter that trusts it keeps the threshold of step 1. What it costs still
   peaks at that threshold, now with a jump, while the cheapest threshold lies elsewhere; between
   the two the filter gives away the difference.

Everything raises BgkitError for t outside [0, 1], and for a cost or temperature that is not above
0; what is measured also for samples without ``harm`` or with one that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import TAIL, UNKNOWN, Interval, at_least, interval_text, wilson
from bgkit.rewards import NEAR, tent
from bgkit.testbed.oracle import HARMFUL_ABOVE

#: The parts of the scale of t, in order; within a part the filter makes one kind of error only.
ZONES = ("far, shown", "near, shown", "near, filtered", "far, filtered")


def best_threshold(
    cost_fn: float = 1.0, cost_fp: float = 1.0, temperature: float = 1.0, shift: float = 0.0
) -> float:
    """The threshold on t that makes the filter cheapest, in (0, 1): p is that of step 1 there.

    >>> best_threshold(), best_threshold(cost_fn=3.0), round(best_threshold(shift=1.0), 3)
    (0.5, 0.25, 0.731)
    """
    checks.positive(cost_fn=cost_fn, cost_fp=cost_fp, temperature=temperature)
    with np.errstate(over="ignore"):
        odds = -(temperature * np.log(cost_fp / cost_fn) + shift)
        return float(1.0 / (1.0 + np.exp(odds)))


def bayes_risk(t: np.ndarray, cost_fn: float = 1.0, cost_fp: float = 1.0) -> np.ndarray:
    """``B(t) = min(cost_fn t, cost_fp (1 - t))``: the least expected cost of a verdict, (n,).

    It is the tent of the reward designs, scaled: ``cost_fn tau tent(t, tau)``.

    >>> bayes_risk([0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    [0.0, 0.25, 0.5, 0.25, 0.0]
    """
    tau = best_threshold(cost_fn, cost_fp)
    return cost_fn * tau * tent(t, tau)


def harmful_share(t: np.ndarray, temperature: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """``sigmoid((logit t - shift) / temperature)``: how often a guard's t is truly harmful, (n,).

    1 and 0: calibrated. A temperature above 1 is an overconfident guard, below 1 a timid one; a
    shift above 0 is an alarmed guard, below 0 a trusting one.

    >>> harmful_share([0.1, 0.5, 0.9], temperature=2.0).round(3).tolist()
    [0.25, 0.5, 0.75]
    """
    checks.positive(temperature=temperature)
    t = checks.probabilities(t)
    if temperature == 1 and shift == 0:
        return t.copy()  # the truth, without rounding
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
    """Expected cost of the verdict ``t >= tau``, (n,): step 1 with p of :func:`harmful_share`.

    >>> expected_cost([0.25, 0.6, 0.75], tau=0.7).tolist()  # 0.6 should have been filtered
    [0.25, 0.6, 0.25]
    """
    checks.positive(cost_fn=cost_fn, cost_fp=cost_fp)
    p = harmful_share(t, temperature, shift)
    shown = checks.probabilities(t) < checks.threshold(tau, ends=True)
    return np.where(shown, cost_fn * p, cost_fp * (1.0 - p))


class FilterCost(NamedTuple):
    """What a filter costs per response, in expectation, and what its threshold gives away."""

    tau: float  # the threshold that trusts the guard
    best_tau: float  # the cheapest threshold
    at_tau: float  # mean cost with the first
    at_best: float  # mean cost with the second

    @property
    def lost(self) -> float:
        """What miscalibration costs per response; never below 0."""
        return max(0.0, self.at_tau - self.at_best)


def filter_cost(
    t: np.ndarray,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> FilterCost:
    """Mean expected cost over responses t (n,), n > 0, with the trusting and the best threshold.

    >>> filter_cost([0.2, 0.6], shift=1.0)  # 0.6 is filtered, though p is 0.36 there
    FilterCost(tau=0.5, best_tau=0.731..., at_tau=0.364..., at_best=0.219...)
    """
    if checks.probabilities(t).size == 0:
        raise BgkitError("There is no response to compute a filter's cost on.")
    setting = (cost_fn, cost_fp, temperature, shift)
    taus = best_threshold(cost_fn, cost_fp), best_threshold(*setting)
    return FilterCost(*taus, *(float(expected_cost(t, tau, *setting).mean()) for tau in taus))


def _verdicts(samples: pd.DataFrame, tau: float) -> pd.DataFrame:
    """Columns t, filtered, wrong and zone of graded samples."""
    checks.samples(samples)
    if samples["harm"].isna().any():
        raise BgkitError(
            "The samples hold a response whose harm is not known; keep the rows with a known "
            "truth, samples[samples['harm'].notna()]."
        )
    t = samples["t"].to_numpy(float)
    filtered, near = t >= checks.threshold(tau), np.abs(t - tau) < NEAR
    zone = np.where(filtered, np.where(near, 2, 3), np.where(near, 1, 0))
    wrong = filtered != (samples["harm"].to_numpy(float) > HARMFUL_ABOVE)
    zone = pd.Categorical.from_codes(zone, list(ZONES))
    return pd.DataFrame({"t": t, "filtered": filtered, "wrong": wrong, "zone": zone})


def bin_edges(tau: float, bins: int = 10) -> np.ndarray:
    """Edges (bins + 1,) of near-equal bins of [0, 1], one of which is tau: none straddles it.

    Raises BgkitError for a ``tau`` off [0, 1], and for fewer than two bins.

    >>> bin_edges(0.25, 4).tolist(), bin_edges(1.0, 2).tolist()
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.5, 1.0])
    """
    checks.threshold(tau, ends=True)
    if bins < 2:
        raise BgkitError(f"A histogram over t needs at least two bins, not {bins}.")
    left = int(np.clip(round(bins * tau), 1, bins - 1)) if 0 < tau < 1 else 0
    right = np.linspace(tau if left else 0, 1, bins - left + 1)
    return np.r_[np.linspace(0, tau, left + 1)[:-1], right]


def _priced(groups, cost_fn: float, cost_fp: float) -> pd.DataFrame:
    """Counts, error rates and costs of groups of verdicts that lie on one side of tau each."""
    checks.positive(cost_fn=cost_fn, cost_fp=cost_fp)
    table = groups.agg(
        n=("t", "size"), t=("t", "mean"), filtered=("filtered", "first"), errors=("wrong", "sum")
    )
    rate, (low, high) = table["errors"] / table["n"], wilson(table["errors"], table["n"])
    table = table.assign(error_rate=rate, error_low=low, error_high=high)
    price = np.where(table["filtered"], cost_fp, cost_fn)
    return table.assign(cost=price * rate, cost_low=price * low, cost_high=price * high)


def measured_risk(
    samples: pd.DataFrame,
    tau: float = 0.5,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    bins: int = 10,
) -> pd.DataFrame:
    """Proposition 1 measured: error rate and cost of the filter by bins of t.

    ``samples`` has ``t`` and ``harm`` (harmful above 0.5) of each response. One row per bin that
    holds responses: ``start``, ``end``, ``n``, ``t`` (mean), ``filtered``, ``errors``,
    ``error_rate``, ``error_low`` and ``error_high`` (95% Wilson), the same times the price of that
    error as ``cost``, ``cost_low``, ``cost_high``, and what a calibrated guard would give there:
    ``error_formula`` and ``cost_formula``.

    >>> frame = pd.DataFrame({"t": [0.1, 0.4, 0.45, 0.9], "harm": [0.0, 0.0, 0.9, 0.8]})
    >>> measured_risk(frame, bins=2)[["n", "errors", "error_rate", "error_formula"]].round(3)
       n  errors  error_rate  error_formula
    0  3       1       0.333          0.317
    1  1       0       0.000          0.100
    """
    verdicts, edges = _verdicts(samples, tau), bin_edges(tau, bins)
    place = np.minimum(np.searchsorted(edges, verdicts["t"], side="right") - 1, bins - 1)
    table = _priced(verdicts.groupby(place), cost_fn, cost_fp)
    # both formulas are straight within a bin, so that the mean t gives their mean
    formula = {"error_formula": expected_cost(table["t"], tau)}
    formula["cost_formula"] = expected_cost(table["t"], tau, cost_fn, cost_fp)
    table.insert(0, "start", edges[table.index])
    table.insert(1, "end", edges[table.index + 1])
    return table.assign(**formula).reset_index(drop=True)


def risk_by_zone(
    samples: pd.DataFrame, tau: float = 0.5, cost_fn: float = 1.0, cost_fp: float = 1.0
) -> pd.DataFrame:
    """The filter's errors near the boundary (\\|t - tau\\| < 0.3) and far from it, on both sides.

    One row per zone of :data:`ZONES` that holds responses, with the columns of
    :func:`measured_risk`, ``share`` (of all responses) and ``cost_share`` (of the whole cost; NaN
    if there was no error).
    """
    verdicts = _verdicts(samples, tau)
    table = _priced(verdicts.groupby("zone", observed=True), cost_fn, cost_fp)
    total = table["n"] * table["cost"]
    whole = total.sum() if total.sum() > 0 else np.nan
    table.insert(1, "share", table["n"] / len(verdicts))
    return table.assign(cost_share=total / whole)


def cost_near(
    samples: pd.DataFrame, tau: float = 0.5, cost_fn: float = 1.0, cost_fp: float = 1.0
) -> Interval:
    """Which part of the filter's whole cost arises near the boundary, in [0, 1].

    95% percentile interval by resampling responses, at least as wide as of a share that was never
    (or always) seen in as many errors; all NaN if the filter made none.

    >>> frame = pd.DataFrame({"t": [0.05] * 8 + [0.45] * 2, "harm": [0.0] * 7 + [0.9] * 3})
    >>> round(cost_near(frame).mean, 3)  # one error far from the boundary, two near it
    0.667
    """
    checks.positive(cost_fn=cost_fn, cost_fp=cost_fp)
    verdicts = _verdicts(samples, tau)
    wrong = verdicts["wrong"]
    if not wrong.any():
        return UNKNOWN
    # resampling responses is resampling the counts of five cells (right, or wrong in one of the
    # four zones), and much quicker
    cell = np.where(wrong, 1 + verdicts["zone"].cat.codes, 0)
    counts = np.bincount(cell, minlength=1 + len(ZONES))
    drawn = np.random.default_rng(0).multinomial(len(cell), counts / len(cell), size=2000)
    costs = np.vstack([counts, drawn]) * np.array([0.0, cost_fn, cost_fn, cost_fp, cost_fp])
    with np.errstate(invalid="ignore"):
        share = costs[:, 2:4].sum(1) / costs.sum(1)
    low, high = np.nanquantile(share[1:], (TAIL, 1 - TAIL))
    return at_least(Interval(float(share[0]), float(low), float(high)), int(wrong.sum()))


def zone_table(
    samples: pd.DataFrame, tau: float = 0.5, cost_fn: float = 1.0, cost_fp: float = 1.0
) -> pd.DataFrame:
    """:func:`risk_by_zone` as text, with a last line for both near zones together."""
    zones = risk_by_zone(samples, tau, cost_fn, cost_fp)
    ends = (["error_rate", "error_low", "error_high"], ["cost", "cost_low", "cost_high"])
    rates, costs = ([interval_text(*row) for row in zones[names].to_numpy()] for names in ends)
    columns = {
        "responses": [f"{share:.1%}" for share in zones["share"]],
        "errors": [f"{row.errors} of {row.n}" for row in zones.itertuples()],
        "error rate": rates,
        "cost per response": costs,
        "part of the whole cost": zones["cost_share"].map(_part),
    }
    table = pd.DataFrame(columns, index=zones.index)
    near = zones[zones.index.str.startswith("near")]
    errors = f"{near['errors'].sum()} of {near['n'].sum()}"
    part = _part(*cost_near(samples, tau, cost_fn, cost_fp))
    table.loc["near, both"] = [f"{near['share'].sum():.1%}", errors, "", "", part]
    return table


def _part(mean: float, low: float = np.nan, high: float = np.nan) -> str:
    ends = "" if np.isnan(low) else f" [{low:.0%}, {high:.0%}]"
    return ("–" if np.isnan(mean) else f"{mean:.0%}") + ends


def near_table(scored: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How much of the errors and of their cost arises near the boundary, as text: a line per name.

    ``scored`` maps a name (of a guard, of a policy) to its samples; tau is 0.5 and both errors cost
    1. Columns: the share of responses near the boundary, the error rates near it and far from it
    (95% Wilson), and the near part of the whole cost (:func:`cost_near`).
    """
    lines = {}
    for name, samples in scored.items():
        verdicts = _verdicts(samples, 0.5)
        near = verdicts["zone"].str.startswith("near")
        lines[name] = {
            "responses near": f"{near.mean():.1%}",
            "error rate near": _rate(verdicts["wrong"][near]),
            "error rate far": _rate(verdicts["wrong"][~near]),
            "near part of the whole cost": _part(*cost_near(samples)),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def _rate(wrong: pd.Series) -> str:
    if wrong.empty:
        return "–"
    return interval_text(wrong.mean(), *wilson(wrong.sum(), len(wrong)))
