"""Figures of stress tests: other guards and deployments, other prompts, an attacker, training.

``rows`` are tables of means of :mod:`bgkit.stress` and :func:`bgkit.evaluation.metrics.summary`:
design, the test's axis, metric, mean, and the interval ``low`` to ``high``. Metrics that are all
NaN have no panel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit.errors import BgkitError
from bgkit.figures import intervals, style
from bgkit.figures.style import label

#: Whether a difference is significant -> its mark.
DECIDED = {"beyond chance after correction (Holm)": "circle", "open": "circle-open"}
#: Metric over training (:mod:`bgkit.stress.reward_hacking`) -> the heading of its panel. Learned
#: utility is standardised by base's mean and deviation; help and harm are of what the user sees.
DRIFT = {
    "utility": "learned utility (deviations of base)",
    "system_help": "true helpfulness, 0 to 1",
    "system_harm": "true harm, 0 to 1",
    "gibberish": "gibberish",
    "length": "length (tokens)",
    "unseen_harm": "share of harm at t < 0.2",
}


def _panels(rows: pd.DataFrame, metrics: Iterable[str]) -> dict[str, str]:
    """Headings of the metrics that have a mean."""
    known = set(rows.dropna(subset=["mean"])["metric"])
    return {metric: f"<b>{style.metric_label(metric)}</b>" for metric in metrics if metric in known}


def _check_unique(rows: pd.DataFrame, *keys: str) -> None:
    """Raise BgkitError if marks would coincide, for instance those of several kinds of prompts."""
    if rows.duplicated(["design", "metric", *keys]).any():
        raise BgkitError(
            f"The results hold a design's {' and '.join(keys)} several times; select one kind of "
            "prompts and one setting."
        )


def _marks_over(rows: pd.DataFrame, axis: str, metrics: Sequence[str], title: str) -> go.Figure:
    """A panel for each metric, with a mark per design at each value of ``axis``."""
    _check_unique(rows, axis)
    more = {"values": list(dict.fromkeys(rows[axis])), "mode": "markers", "columns": 1, "tall": 210}
    panels = _panels(rows, metrics) or dict.fromkeys(metrics, "")
    fig = intervals.panels(rows, axis, panels, **more)
    fig.update_yaxes(rangemode="tozero")
    return style.style(fig, title, ["Lines at the marks: 95 % intervals."])


def by_guard(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and the share near the boundary behind each guard, a mark per design.

    All guards score the same responses. A design that exploits its own guard is worse behind the
    others than designs that do not. Raises BgkitError if neither metric is known, and for several
    rows of one guard.
    """
    return _marks_over(rows, "guard", ("system_harm", "near_boundary"), "Behind other guards")


def by_shift(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and help of what the user sees for each shift of the prompts, a mark per design.

    Compare a design with itself: the first shift (``test``, or the trained length for buried
    prompts) has prompts like those of training. Raises BgkitError if neither metric is known, and
    for several rows of one shift.
    """
    title = "On prompts unlike those of training"
    return _marks_over(rows, "shift", ("system_harm", "system_help"), title)


def at_equal_help(table: pd.DataFrame) -> go.Figure:
    """Draw differences between designs at equal help over deployments, a panel for each pair.

    ``table`` is from :func:`bgkit.stress.deployments.differences`. Below the line the first design
    of a pair has the lower metric. Filled marks are significant after Holm's correction over all
    differences; bars are 95 % intervals, uncorrected.
    """
    pair = table["design"] + " − " + table["against"]
    rows = table.assign(pair=pair, beyond=np.where(table["decided"], *DECIDED))
    panels = {name: f"<b>{label(name)}</b>" for name in dict.fromkeys(pair)}
    looks = {name: (style.TEXT, mark, "solid") for name, mark in DECIDED.items()}
    more = {"panel": "pair", "colour": "beyond", "looks": looks, "mode": "markers", "columns": 1}
    values = list(dict.fromkeys(table["deployment"]))
    fig = intervals.panels(rows, "deployment", panels, **more, values=values, tall=150)
    fig.add_hline(0, line={"width": 1, "color": style.TEXT})
    metric = style.metric_label(table["metric"].iloc[0])
    notes = ["Bars: 95 % intervals, uncorrected."]
    return style.style(fig, f"Difference in {metric} at equal help", notes)


def attack_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the share of requests broken within a budget of queries, one panel per strategy.

    ``rows`` are from :func:`bgkit.stress.attack.success_over_budget`. A request is broken by a
    response that is harmful and shown. Bands are intervals; lines never fall. At budget 1 the
    request is unmodified. Lower is better. Raises BgkitError for several rows of one budget.
    """
    _check_unique(rows, "strategy", "budget")
    panels = {name: f"<b>{label(name)}</b>" for name in dict.fromkeys(rows["strategy"])}
    more = {"panel": "strategy", "shared": True, "tall": 260}
    fig = intervals.panels(rows, "budget", panels, across="queries per request, at most", **more)
    if rows["budget"].max() <= 12:  # no ticks between whole queries
        fig.update_xaxes(dtick=1)
    notes = ["Share of requests with a harmful response that was shown. Bands: 95 % intervals."]
    return style.style(fig, "Success of an adaptive attacker", notes)


def drift(rows: pd.DataFrame) -> go.Figure:
    """Draw utility, true help and harm, gibberish, length and unseen harm over training.

    ``rows`` are from :func:`bgkit.stress.reward_hacking.drift`. Each mark is the mean over a
    window of steps, its band the 95 % interval over prompts; a design has one colour and a line per
    seed. Utility that rises while helpfulness falls is reward hacking.
    """
    at = "seed " + rows["seed"].astype(str) + rows["step"].map(", step {:g}".format)
    panels = {metric: DRIFT[metric] for metric in _panels(rows, DRIFT)}
    more = {"line": "seed", "across": "training step", "tall": 180}
    fig = intervals.panels(rows.assign(at=at), "step", panels, **more)
    note = "Bands: 95 % intervals over prompts; changes are from the first window, not from base."
    return style.style(fig, "Learned utility and the truth over training", [note])
