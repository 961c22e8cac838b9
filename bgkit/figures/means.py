"""Figures of means: help against harm, designs over a setting, kinds of prompts.

``results`` is a run, several, a samples table, samples by name, or rows
(:mod:`bgkit.evaluation.results`) with :data:`COLUMNS` and optionally :data:`SETTING`: ``kind`` is
'all' or a kind of prompt, ``low`` to ``high`` the interval of ``mean``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers, settings
from bgkit.evaluation.metrics import METRICS
from bgkit.evaluation.results import Results, rows_of
from bgkit.figures import intervals, style
from bgkit.figures.style import error_bars, label

COLUMNS = ("design", "kind", "metric", "mean", "low", "high")
SETTING = ("utility", "scale", "guard", "tau")
#: Column ``interval`` of a table of ablations -> what the intervals are over.
INTERVALS = {
    "both": "over seeds and prompts (crossed bootstrap)",
    "prompts": "over the prompts of one seed, without variation between seeds",
}


def _metric_rows(rows: pd.DataFrame, metric: str, of: str) -> pd.DataFrame:
    """The rows of a metric that have a mean, ``of`` "all prompts" or "single kinds of prompts".

    A column ``series`` has the design and the settings in which it varies.
    """
    checks.samples(rows, columns=COLUMNS, what="results")
    series = rows["design"].astype(str)
    for column in [name for name in SETTING if name in rows]:
        if rows.groupby("design")[column].nunique(dropna=False).max() > 1:
            series = series + f", {column} " + rows[column].astype(str)
    chosen = ((rows["kind"] == "all") == (of == "all prompts")) & (rows["metric"] == metric)
    rows = rows.assign(series=series)[chosen].dropna(subset=["mean"])
    if rows.empty:
        raise BgkitError(f"The table of results has no '{metric}' for {of}.")
    return rows


def _joined(x_rows: pd.DataFrame, y_rows: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """Rows with the means of both tables (suffix ``_y`` for the second) and hover texts."""
    x_rows, y_rows = (
        rows.assign(text=[style.hover_text(row) for row in rows.to_dict("records")])
        for rows in (x_rows, y_rows)
    )
    joined = x_rows.merge(y_rows, on=list(on), suffixes=("", "_y"))
    return joined.assign(text=joined["text_y"] + "<br>" + joined["text"])


def _scatter(fig: go.Figure, rows: pd.DataFrame, x: str, y: str, place: int = 0) -> None:
    """Add means of ``y`` over means of ``x`` with both intervals to panel ``place`` of a figure.

    Each ``series`` has its look, marks of a ``size``, and a line through the marks that are
    ``best``, if any. If both metrics have a better direction, that corner is labelled.
    """
    axis = str(place + 1) if place else ""
    on = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "cliponaxis": False}
    for name, group in rows.groupby("series", sort=False):
        hue, symbol, dash = style.look(name)
        thin = {"thickness": 1, "width": 0, "color": hue}  # they cross each other
        more = {"error_x": error_bars(group, **thin), "error_y": error_bars(group, "_y", **thin)}
        more["marker"] = {"color": hue, "symbol": symbol, "size": group["size"], "opacity": 1}
        more |= {"mode": "lines+markers", "showlegend": not place, **on}
        path = {"color": hue, "dash": "dot" if "best" in group else dash, "width": 1}
        means = {"x": group["mean"], "y": group["mean_y"]}
        texts = [f"<b>{label(name)}</b><br>{text}" for text in group["text"]]
        more |= {"name": label(name), "legendgroup": label(name), "line": path}
        fig.add_scatter(**means, hovertext=texts, hoverinfo="text", **more)
        best = group[group["best"]].sort_values("mean") if "best" in group else group[:0]
        if len(best) > 1:
            means, look = {"x": best["mean"], "y": best["mean_y"]}, {"color": hue, "width": 2}
            plain = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, **on}
            fig.add_scatter(line=look | {"dash": dash}, legendgroup=label(name), **means, **plain)
    right, up = METRICS[x].better, METRICS[y].better
    if right and up:
        arrow = {(-1, 1): "↖", (1, 1): "↗", (-1, -1): "↙", (1, -1): "↘"}[right, up]
        fig.add_annotation(style.panel_label(f"<b>{arrow} better</b>", place, int(right > 0)))
    for which, name in ((f"xaxis{axis}", x), (f"yaxis{axis}", y)):
        form = ".1~%" if name in style.SHARES else ""
        fig.update_layout({which: {"title": style.metric_label(name), "tickformat": form}})


def frontier(results: Results) -> go.Figure:
    """Draw system helpfulness (up) against system harm (right), both 0 to 1, one mark per design.

    A design above and left of another is better on both. The lines through a mark are the
    intervals of its two means.
    """
    rows, axes = rows_of(results), ("system_harm", "system_help")
    harm, help_ = (_metric_rows(rows, metric, "all prompts") for metric in axes)
    joined = _joined(harm, help_, ["series"]).assign(size=10)
    _scatter(fig := go.Figure(), joined, *axes)
    return style.style(fig, "System helpfulness against harm", ["On all prompts."], 440)


def trade_off(
    table: pd.DataFrame,
    along: str = "strength",
    where: Mapping[str, Any] | None = None,
    *,
    x: str | Sequence[str] = "system_harm",
    y: str | Sequence[str] = "system_help",
) -> go.Figure:
    """Draw metric ``y`` (up) against metric ``x`` (right) of a table of ablations.

    Each design (:mod:`bgkit.sweeps.collection` makes the table) has one path through the values of
    ``along``, from a small mark (the first value) to a large one (the last). Over strengths, a line
    joins the marks on its frontier (:mod:`bgkit.evaluation.frontiers`), and a dotted one the
    others. Several metrics make several panels. ``where`` fixes other columns. Raises BgkitError
    for an unknown metric, column or value, and for another column of several values that ``where``
    does not fix.
    """
    pairs = [(a, b) for b in checks.as_list("y", y, str) for a in checks.as_list("x", x, str)]
    several, solid = len(pairs) > 1, False
    fig = intervals.empty_panels(len(pairs), 2, 250, False) if several else go.Figure()
    for place, names in enumerate(pairs):
        rows = _path_rows(table, along, where, *names)
        solid |= "best" in rows and bool(rows.groupby("design")["best"].sum().gt(1).any())
        if several:  # a short text: the figure is stored in notebooks
            rows["text"] = f"{label(along)} " + rows[along].map(label)
        _scatter(fig, rows, *names, place)
        for which, column in (("xaxis", "mean"), ("yaxis", "mean_y")):
            highest = rows[column].max() or 1.0  # an interval may be cut
            ends = {"range": [-0.03 * highest, 1.15 * highest], "matches": None}
            fig.update_layout({f"{which}{place + 1 if place else ''}": ends})
    first, last = rows[along].iloc[[rows["place"].argmin(), rows["place"].argmax()]]
    ends = [f"{value:g}" if isinstance(value, float) else label(value) for value in (first, last)]
    fixed = ", ".join(f"{label(column)} {label(value)}" for column, value in (where or {}).items())
    path = f"Small to large mark: {label(along)} {' to '.join(ends)}."
    path += " Solid: the best that a design attains." * solid
    over = "; ".join(INTERVALS[kind] for kind in dict.fromkeys(rows["interval"]))
    notes = [path + f" Held fixed: {fixed}." * bool(fixed), f"Thin: 95 % intervals {over}."]
    axes = [list(map(style.metric_label, dict.fromkeys(n))) for n in zip(*pairs, strict=True)]
    words = [", ".join(n) if len(n) < 4 else f"{len(n)} metrics" for n in axes]  # on one line
    title = "{1} against {0}".format(*words)
    return style.style(fig, title[:1].upper() + title[1:], notes, 0 if several else 480)


def _path_rows(
    table: pd.DataFrame, along: str, where: Mapping[str, Any] | None, x: str, y: str
) -> pd.DataFrame:
    """Rows of two metrics in the order of paths; over strengths ``best`` marks the frontier."""
    rows = _joined(
        *(settings.select(table, name, (along, "design"), where) for name in (x, y)),
        on=["design", along],
    )
    # base is the same at each of them
    rows = rows.drop_duplicates(["design", "mean", "mean_y"], keep="last")
    values, designs = (settings.values_of(rows, column) for column in (along, "design"))
    place, order = rows[along].map(values.index), rows["design"].map(designs.index)
    text = f"{label(along)} " + rows[along].map(label) + "<br>" + rows["text"]
    text += "<br>seeds: " + rows["n_seeds"].astype(str)
    rows = rows.assign(series=rows["design"], text=text, order=order, place=place)
    rows = rows.assign(size=7 + 8 * place / max(1, len(values) - 1))
    if along == "strength" and METRICS[y].better:
        better = METRICS[x].better, METRICS[y].better
        rows["best"] = False
        for _, group in rows.groupby("design"):
            points = group[["mean", "mean_y"]].to_numpy()
            rows.loc[group.index, "best"] = frontiers.on_frontier(points, *better)
    return rows.sort_values(["order", "place"])


def by_kind(results: Results, metric: str) -> go.Figure:
    """Draw one metric by kind of prompt: the mean and interval of each design.

    Shares are in percent, scores from 0 to 1.
    """
    rows = _metric_rows(rows_of(results), metric, "single kinds of prompts")
    name = style.metric_label(metric)
    more = {"values": list(dict.fromkeys(rows["kind"])), "colour": "series", "mode": "markers"}
    fig = intervals.panels(rows, "kind", {metric: ""}, **more, tall=300)
    fig.update_yaxes(title_text=name)
    return style.style(fig, f"{name.capitalize()} by kind of prompt", ["Lines: intervals."])
