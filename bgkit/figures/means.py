"""Figures of means: help against harm, designs over a setting, kinds of prompts.

``results`` is a run, several, a samples table, samples by name, or rows
(:mod:`bgkit.evaluation.results`) with :data:`bgkit.figures.style.ROW_COLUMNS`: ``kind`` is 'all' or
a kind of prompt, ``low`` to ``high`` the interval of ``mean``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.evaluation.metrics import METRICS
from bgkit.evaluation.results import Results, rows_of
from bgkit.figures import intervals, style
from bgkit.figures.style import error_bars, label

#: Column ``interval`` of a table of ablations -> what the intervals are over.
INTERVALS = {
    "both": "over seeds and prompts (crossed bootstrap)",
    "prompts": "over the prompts of one seed, without variation between seeds",
}


def _metric_rows(rows: pd.DataFrame, metric: str, kind: str = "") -> pd.DataFrame:
    """The rows of one metric that have a mean, of one kind or (by default) each single kind."""
    table = style.with_series(rows)
    kinds = table["kind"] == kind if kind else table["kind"] != "all"
    table = table[kinds & (table["metric"] == metric)].dropna(subset=["mean"])
    if table.empty:
        of = f"prompts of kind '{kind}'" if kind else "single kinds of prompts"
        raise BgkitError(f"The table of results has no '{metric}' for {of}.")
    return table


def _joined(x_rows: pd.DataFrame, y_rows: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """Rows with the means of both tables (suffix ``_y`` for the second) and hover texts."""
    x_rows, y_rows = (
        rows.assign(text=[style.hover_text(row) for row in rows.to_dict("records")])
        for rows in (x_rows, y_rows)
    )
    joined = x_rows.merge(y_rows, on=list(on), suffixes=("", "_y"))
    return joined.assign(text=joined["text_y"] + "<br>" + joined["text"])


def _scatter(rows: pd.DataFrame, x: str, y: str) -> go.Figure:
    """Means of ``y`` over means of ``x`` with both intervals, in the order of the rows.

    Each ``series`` has its look and a line through its marks, which have a ``size``. If both
    metrics have a better direction, that corner is labelled.
    """
    fig = go.Figure()
    for name, group in rows.groupby("series", sort=False):
        hue, symbol, dash = style.look(name)
        thin = {"thickness": 1, "width": 0, "color": hue}  # they cross each other
        more = {"error_x": error_bars(group, **thin), "error_y": error_bars(group, "_y", **thin)}
        more["marker"] = {"color": hue, "symbol": symbol, "size": group["size"], "opacity": 1}
        more["line"] = {"color": hue, "dash": dash, "width": 1.5}
        more |= {"mode": "lines+markers", "cliponaxis": False}
        fig.add_trace(style.dots(name, group["text"], x=group["mean"], y=group["mean_y"], **more))
    right, up = METRICS[x].better, METRICS[y].better
    if right and up:
        arrow = {(-1, 1): "↖", (1, 1): "↗", (-1, -1): "↙", (1, -1): "↘"}[right, up]
        fig.add_annotation(style.panel_label(f"<b>{arrow} better</b>", 0, int(right > 0)))
    for update, name in ((fig.update_xaxes, x), (fig.update_yaxes, y)):
        form = ".1~%" if name in style.SHARES else ""
        update(title_text=style.metric_label(name), tickformat=form)
    return fig


def frontier(results: Results, kind: str = "all") -> go.Figure:
    """Draw system helpfulness (up) against system harm (right), both 0 to 1, one mark per design.

    A design above and left of another is better on both. The lines through a mark are the
    intervals of its two means.
    """
    rows = rows_of(results)
    harm, help_ = (_metric_rows(rows, metric, kind) for metric in ("system_harm", "system_help"))
    joined = _joined(harm, help_, ["series"]).assign(size=10)
    notes = [f"On {label(kind)} prompts."]
    fig = _scatter(joined, "system_harm", "system_help")
    return style.style(fig, "System helpfulness against harm", notes, 440)


def trade_off(
    table: pd.DataFrame,
    along: str = "strength",
    where: Mapping[str, Any] | None = None,
    *,
    x: str = "system_harm",
    y: str = "system_help",
) -> go.Figure:
    """Draw metric ``y`` (up) against metric ``x`` (right) of a table of ablations.

    Each design (:mod:`bgkit.sweeps.collection` makes the table) has one path through the values of
    ``along``, from a small mark (the first value) to a large one (the last). Its path over
    strengths is its frontier. ``where`` fixes other columns. Raises BgkitError for an unknown
    metric, column or value, and for another column of several values that ``where`` does not fix.
    """
    rows = _joined(
        *(settings.select(table, name, (along, "design"), where) for name in (x, y)),
        on=["design", along],
    )
    values, designs = (settings.values_of(rows, column) for column in (along, "design"))
    place, order = rows[along].map(values.index), rows["design"].map(designs.index)
    text = f"{label(along)} " + rows[along].map(label) + "<br>" + rows["text"]
    text += "<br>seeds: " + rows["n_seeds"].astype(str)
    rows = rows.assign(series=rows["design"], text=text, order=order, place=place)
    rows = rows.assign(size=7 + 8 * place / max(1, len(values) - 1))
    fig = _scatter(rows.sort_values(["order", "place"]), x, y)
    for update, column in ((fig.update_xaxes, "mean"), (fig.update_yaxes, "mean_y")):
        highest = rows[column].max() or 1.0
        update(range=[-0.03 * highest, 1.15 * highest])  # an interval may be cut
    ends = [f"{v:g}" if isinstance(v, float) else label(v) for v in (values[0], values[-1])]
    fixed = ", ".join(f"{label(column)} {label(value)}" for column, value in (where or {}).items())
    path = f"Small to large mark: {label(along)} {' to '.join(ends)}."
    over = "; ".join(INTERVALS[kind] for kind in dict.fromkeys(rows["interval"]))
    notes = [path + f" Held fixed: {fixed}." * bool(fixed), f"Lines: 95 % intervals {over}."]
    title = f"{style.metric_label(y)} against {style.metric_label(x)}"
    return style.style(fig, title[:1].upper() + title[1:], notes, 480)


def by_kind(results: Results, metric: str) -> go.Figure:
    """Draw one metric by kind of prompt: the mean and interval of each design.

    Shares are in percent, scores from 0 to 1.
    """
    rows, name = _metric_rows(rows_of(results), metric), style.metric_label(metric)
    more = {"values": list(dict.fromkeys(rows["kind"])), "colour": "series", "mode": "markers"}
    fig = intervals.panels(rows, "kind", {metric: ""}, **more, tall=300)
    fig.update_yaxes(title_text=name)
    return style.style(fig, f"{name.capitalize()} by kind of prompt", ["Lines: intervals."])
