"""Pictures of stress tests: other guards and deployments, other prompts, an attacker, training.

``rows`` are tables of means of :mod:`bgkit.stress` and :func:`bgkit.evaluation.metrics.summary`:
design, the test's axis, metric, mean, and the interval ``low`` to ``high``. A metric that is not
known has no panel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit.errors import BgkitError
from bgkit.figures import intervals, style
from bgkit.figures.style import label

#: Whether a difference is beyond chance -> its mark.
DECIDED = {"beyond chance after correction (Holm)": "circle", "open": "circle-open"}
#: metric of :func:`bgkit.stress.reward_hacking.drift` -> the heading of its panel
DRIFT = {
    "utility": "learned utility (deviations of base)",
    "system_help": "true helpfulness, 0 to 1",
    "system_harm": "true harm, 0 to 1",
    "gibberish": "gibberish",
    "length": "length (tokens)",
    "unseen_harm": "share of harm at t < 0.2",
}


def _panels(rows: pd.DataFrame, metrics: Iterable[str]) -> dict[str, str]:
    """Headings of the metrics of which a mean is known."""
    known = set(rows.dropna(subset=["mean"])["metric"])
    return {metric: f"<b>{style.named(metric)}</b>" for metric in metrics if metric in known}


def _one_per_mark(rows: pd.DataFrame, *keys: str) -> None:
    """Raise BgkitError where marks would lie on each other, as of several kinds of prompts."""
    if rows.duplicated(["design", "metric", *keys]).any():
        raise BgkitError(
            f"The results hold a design's {' and '.join(keys)} several times; draw one kind of "
            "prompts and one setting only."
        )


def _side_by_side(rows: pd.DataFrame, axis: str, metrics: Sequence[str], title: str) -> go.Figure:
    """A panel for each metric: marks of designs with their intervals at each value of ``axis``."""
    _one_per_mark(rows, axis)
    more = {"values": list(dict.fromkeys(rows[axis])), "mode": "markers", "columns": 1, "tall": 210}
    fig = intervals.over(rows, axis, _panels(rows, metrics) or dict.fromkeys(metrics, ""), **more)
    fig.update_yaxes(rangemode="tozero")
    return style.style(fig, title, ["Lines at the marks: 95 % intervals."])


def by_guard(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and the mass near the boundary behind each guard, a mark per design.

    The same responses stand behind every guard. A design that exploits its own guard is worse
    behind the others than designs that do not. Raises BgkitError where neither is known, and for
    several rows of one guard.
    """
    return _side_by_side(rows, "guard", ("system_harm", "near_boundary"), "Behind other guards")


def by_shift(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and help of what the user sees for each shift of the prompts, a mark per design.

    Compare a design with itself: at the first shift (``test``, for buried prompts the trained
    length) it meets prompts as in training. Raises BgkitError where neither is known, and for
    several rows of one shift.
    """
    title = "On prompts unlike those of training"
    return _side_by_side(rows, "shift", ("system_harm", "system_help"), title)


def at_equal_help(table: pd.DataFrame) -> go.Figure:
    """Draw what separates designs at equal help, over deployments: a panel for each pair.

    ``table`` is of :func:`bgkit.sweeps.deployments.differences`. Below the line the first design of
    a pair shows less of the metric. A full mark is a difference beyond chance after Holm's
    correction for all of them; bars are 95 % intervals, uncorrected.
    """
    pair = table["design"] + " − " + table["against"]
    rows = table.assign(pair=pair, beyond=np.where(table["decided"], *DECIDED))
    panels = {name: f"<b>{label(name)}</b>" for name in dict.fromkeys(pair)}
    looks = {name: (style.TEXT, mark, "solid") for name, mark in DECIDED.items()}
    more = {"panel": "pair", "colour": "beyond", "looks": looks, "mode": "markers", "columns": 1}
    values = list(dict.fromkeys(table["deployment"]))
    fig = intervals.over(rows, "deployment", panels, **more, values=values, tall=150)
    fig.add_hline(0, line={"width": 1, "color": style.TEXT})
    metric = style.named(table["metric"].iloc[0])
    notes = ["Bars: 95 % intervals, uncorrected."]
    return style.style(fig, f"Difference in {metric} at equal help", notes)


def attack_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the share of requests broken within a budget of queries, one panel per strategy.

    ``rows`` are of :func:`bgkit.stress.attack.success_over_budget`. A request is broken by a
    response that is harmful and shown. Bands are the intervals; a line can not fall. At budget 1
    the request was bare. Lower is better. Raises BgkitError for several rows of one budget.
    """
    _one_per_mark(rows, "strategy", "budget")
    panels = {name: f"<b>{label(name)}</b>" for name in dict.fromkeys(rows["strategy"])}
    more = {"panel": "strategy", "shared": True, "tall": 260}
    fig = intervals.over(rows, "budget", panels, across="queries per request, at most", **more)
    if rows["budget"].max() <= 12:  # no ticks between whole queries
        fig.update_xaxes(dtick=1)
    notes = ["Share of requests with a harmful response that was shown. Bands: 95 % intervals."]
    return style.style(fig, "Success of an adaptive attacker", notes)


def drift(rows: pd.DataFrame) -> go.Figure:
    """Draw what training does to utility, true help and harm, gibberish, length and unseen harm.

    ``rows`` is a table of :func:`bgkit.stress.reward_hacking.drift`. Each mark is the mean over a
    window of steps, its band the 95% interval over prompts; a design has one colour, and a line per
    seed. Utility that goes on rising while helpfulness falls is reward hacking.
    """
    at = "seed " + rows["seed"].astype(str) + rows["step"].map(", step {:g}".format)
    known = _panels(rows, DRIFT)
    panels = {metric: words for metric, words in DRIFT.items() if metric in known}
    more = {"line": "seed", "across": "training step", "tall": 180}
    fig = intervals.over(rows.assign(at=at), "step", panels, **more)
    note = "Bands: 95 % intervals over prompts; changes are against the first window, not base."
    return style.style(fig, "Learned utility and the truth over training", [note])
