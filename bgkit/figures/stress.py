"""Pictures of stress tests: other guards and deployments, other prompts, an attacker.

``rows`` is a table of :func:`bgkit.evaluation.means.summary` (or, for attacks, of
:func:`bgkit.stress.attack.success_over_budget`): design, the test's axis, metric, mean, and the
interval ``low`` to ``high``. All have the look of :mod:`bgkit.figures.distributions`: a design
keeps its colour and marker everywhere; designs that differ in a setting only share the colour and
differ in their lines and marks. A metric that is not known has no panel. Absent columns or rows
raise :class:`~bgkit.errors.BgkitError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.errors import BgkitError
from bgkit.figures import style
from bgkit.figures.style import error_bars, heading, need

MATRIX = ("system_harm", "near_boundary")
SEEN = ("system_harm", "system_help")
#: Pale to deep blue, opaque: the numbers in the cells get the colour that stands out.
CELLS = ((0.0, "#EEF4F9"), (0.5, "#7FB2D6"), (1.0, "#08457E"))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
NUMBERS = ("mean", "low", "high")


def transfer_matrix(rows: pd.DataFrame, metrics: Sequence[str] = MATRIX) -> go.Figure:
    """Draw designs (rows) against the guards they are deployed with (columns), a number per cell.

    One panel for each metric; darker is more, each panel with its own scale from 0. Read along a
    row: a design that exploits its own guard is worse behind the others. Hover a cell for its
    interval.
    """
    table = _rows(rows, ("guard",), metrics)
    metrics = _known(table, metrics)
    names, guards = list(dict.fromkeys(table["design"])), list(dict.fromkeys(table["guard"]))
    fig = make_subplots(1, len(metrics), shared_yaxes=True, horizontal_spacing=0.04)
    for column, metric in enumerate(metrics, 1):
        part = table[table["metric"] == metric].set_index(["design", "guard"])
        means = part["mean"].unstack("guard").reindex(index=names, columns=guards)
        told = part["told"].unstack("guard").reindex(index=names, columns=guards).fillna("")
        texts = [[style.number(value, metric) for value in row] for row in means.to_numpy()]
        cells = go.Heatmap(z=means.to_numpy(), x=[style.label(guard) for guard in guards])
        cells.update(y=[style.wrapped(name) for name in names], text=texts, hovertext=told)
        cells.update(texttemplate="%{text}", hoverinfo="text", colorscale=CELLS, zmin=0)
        cells.update(showscale=False, showlegend=False, xgap=2, ygap=2)
        fig.add_trace(cells, 1, column)
        heading(fig, f"<b>{style.named(metric)}</b>", 1, column)
    fig.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(showgrid=False)
    fig.update_xaxes(title_text="deployed with", tickangle=-30)
    notes = ["The same responses behind each guard. Darker: more; each panel has its own scale."]
    return style.style(fig, "Behind other guards", notes, 170 + 38 * len(names))


def at_equal_help(table: pd.DataFrame) -> go.Figure:
    """Draw what separates designs at equal help, over deployments: a panel for each pair.

    ``table`` is of :func:`bgkit.sweeps.deployments.differences`. Left of the line the first design
    of a pair shows less of the metric. A full mark is a difference beyond chance after Holm's
    correction for all of them; bars are 95 % intervals, uncorrected.
    """
    need(table, ("deployment", "design", "against", "metric", "decided", *NUMBERS), "differences")
    pairs = table.drop_duplicates(["design", "against"])[["design", "against"]]
    columns = min(2, len(pairs))
    lines = -(-len(pairs) // columns)
    gaps = {"vertical_spacing": 0.24 / lines, "horizontal_spacing": 0.04}
    fig = make_subplots(lines, columns, shared_xaxes="all", shared_yaxes="all", **gaps)
    for place, pair in enumerate(pairs.itertuples(index=False)):
        row, col = _cell(place, columns)
        one = table[(table["design"] == pair.design) & (table["against"] == pair.against)]
        colour = style.look(pair.design)[0]
        marks = go.Scatter(x=one["mean"], y=one["deployment"], mode="markers", showlegend=False)
        symbols = np.where(one["decided"], "circle", "circle-open")
        marks.update(marker={"color": colour, "symbol": symbols, "size": 9}, hoverinfo="text")
        marks.update(error_x={**error_bars(one), "color": colour})
        ends = zip(one["deployment"], one["mean"], one["low"], one["high"], strict=True)
        marks.update(
            hovertext=[f"{n}<br>{m:+.4f} ({lo:+.4f} to {hi:+.4f})" for n, m, lo, hi in ends]
        )
        fig.add_trace(marks, row, col)
        fig.add_vline(0, line={"color": style.TEXT, "width": 1, "dash": "dot"}, row=row, col=col)
        heading(fig, f"<b>{style.label(pair.design)} − {style.label(pair.against)}</b>", row, col)
    fig.update_yaxes(autorange="reversed")
    metric = style.named(table["metric"].iloc[0])
    for col in range(1, columns + 1):
        fig.update_xaxes(title_text=metric, row=lines, col=col)
    notes = ["Full marks: beyond chance after correction (Holm). Bars: 95 % intervals."]
    height = 150 + 22 * table["deployment"].nunique() * lines + 40 * lines
    return style.style(fig, f"Difference in {metric} at equal help", notes, height)


def by_shift(rows: pd.DataFrame, metrics: Sequence[str] = SEEN) -> go.Figure:
    """Draw each metric for each shift of the prompts, one panel per metric, a mark per design.

    Lines through the marks are the intervals. Compare a design with itself: at the first shift
    (``test``, for buried prompts the trained length) it meets prompts as in training.
    """
    table = _rows(rows, ("shift",), metrics)
    metrics = _known(table, metrics)
    known, names = list(dict.fromkeys(table["shift"])), list(dict.fromkeys(table["design"]))
    if table.duplicated(["design", "shift", "metric"]).any():
        raise BgkitError("The results hold a shift several times; draw one kind of prompts only.")
    fig, looks = make_subplots(len(metrics), 1, True, vertical_spacing=0.1), _looks(names)
    for place, metric in enumerate(metrics, 1):
        for number, name in enumerate(names):
            one = table[(table["metric"] == metric) & (table["design"] == name)]
            aside = (number - (len(names) - 1) / 2) * min(0.14, 0.7 / len(names))
            where = [known.index(shift) + aside for shift in one["shift"]]
            marks = _trace(one, name, where, looks[name])
            marks.update(mode="markers", error_y={**error_bars(one), "color": looks[name][0]})
            fig.add_trace(marks, place, 1)
        heading(fig, f"<b>{style.named(metric)}</b>", place)
    fig.update_xaxes(tickvals=list(range(len(known))), range=[-0.5, len(known) - 0.5])
    fig.update_xaxes(ticktext=[style.label(name) for name in known], showgrid=False)
    _finish(fig, metrics, "", 1)
    notes = ["Lines at the marks: 95 % intervals."]
    return style.style(fig, "On prompts unlike those of training", notes, 130 + 210 * len(metrics))


def attack_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the share of requests broken within a budget of queries, one panel per strategy.

    A request is broken by a response that is harmful and shown. Bands are the intervals; a line can
    not fall. At budget 1 the request was bare. Lower is better.
    """
    table = _rows(rows, ("budget", "strategy"), ("attack_success",))
    strategies = list(dict.fromkeys(table["strategy"]))
    fig = _grid(len(strategies), 2)
    for place, strategy in enumerate(strategies):
        _lines(fig, table[table["strategy"] == strategy], "budget", _cell(place, 2))
        heading(fig, f"<b>{style.label(strategy)}</b>", *_cell(place, 2))
    _finish(fig, ["attack_success"] * len(strategies), "queries per request, at most", 2)
    fig.update_yaxes(tickformat=".0%", matches="y")
    if table["budget"].max() <= 12:  # no ticks between whole queries
        fig.update_xaxes(dtick=1)
    notes = ["Share of requests with a harmful response that was shown. Bands: 95 % intervals."]
    lines = -(-len(strategies) // 2)
    return style.style(fig, "Success of an adaptive attacker", notes, 160 + 260 * lines)


def _rows(rows: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of the metrics whose mean is known, with hover text in a column ``told``.

    A metric of which no mean is known (there is no truth and no judge) is left out.
    """
    need(rows, ("design", "metric", *axes, *NUMBERS), "results of a stress test")
    table = rows[rows["metric"].isin(list(metrics))].dropna(subset=["mean"])
    absent = [metric for metric in metrics if metric not in set(rows["metric"])]
    absent = absent or [metric for metric in metrics if table.empty]
    if absent or not metrics:
        what = f"has no known {absent[0]!r}" if absent else "is to be drawn without a metric"
        raise BgkitError(
            f"The table of a stress test {what}; name metrics that were summed up, and give a "
            "judge where the truth is not known."
        )
    return table.assign(told=[_told(row, axes) for row in table.to_dict("records")])


def _known(table: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """The metrics that the table of :func:`_rows` has, in their order."""
    return [metric for metric in metrics if metric in set(table["metric"])]


def _told(row: dict[str, Any], axes: Sequence[str]) -> str:
    """Hover text of one row: design, its place on the axes, mean and interval."""
    form = "filter_rate" if row["metric"] == "attack_success" else row["metric"]  # in percent
    mean, low, high = (style.number(row[part], form, 4) for part in NUMBERS)
    place = "<br>".join(f"{style.label(axis)} {style.label(row[axis])}" for axis in axes)
    told = f"<b>{style.label(row['design'])}</b><br>{place}<br>{style.named(row['metric'])} {mean}"
    return f"{told} ({low} to {high})"


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of each design; those that share a colour differ in the others."""
    found: dict[str, tuple[str, str, str]] = {}
    for name in names:
        colour, symbol, dash = style.look(name)
        twins = sum(colour == other[0] for other in found.values())
        if twins:
            others = [each for each in DASHES if each != dash]
            symbol, dash = f"{symbol}-open", others[(twins - 1) % len(others)]
        found[name] = (colour, symbol, dash)
    return found


def _trace(one: pd.DataFrame, name: str, x: Sequence[float], look: tuple[str, str, str]):
    colour, symbol, dash = look
    trace = go.Scatter(x=list(x), y=one["mean"].tolist(), name=style.label(name), legendgroup=name)
    trace.update(hovertext=one["told"].tolist(), hoverinfo="text")
    mark = {"color": colour, "symbol": symbol, "size": 8}
    return trace.update(marker=mark, line={"color": colour, "dash": dash, "width": 1.8})


def _lines(fig: go.Figure, table: pd.DataFrame, x: str, cell: tuple[int, int]) -> None:
    """A line over ``x`` with its band for each design, in one panel."""
    looks = _looks(list(dict.fromkeys(table["design"])))
    for name, one in table.groupby("design", sort=False):
        one = one.sort_values(x)
        if one[x].duplicated().any():
            raise BgkitError(
                f"The results hold {x} {one[x][one[x].duplicated()].iloc[0]} of {name} several "
                "times; draw one kind of prompts and one setting only."
            )
        red, green, blue = (int(looks[name][0][i : i + 2], 16) for i in (1, 3, 5))
        there = one.dropna(subset=["low", "high"])
        ends = np.concatenate([there["low"], there["high"][::-1]])
        band = go.Scatter(x=[*there[x], *there[x][::-1]], y=ends, mode="lines", line_width=0)
        band.update(fill="toself", fillcolor=f"rgba({red},{green},{blue},0.15)")
        band.update(showlegend=False, hoverinfo="skip", legendgroup=name)
        line = _trace(one, name, one[x], looks[name]).update(mode="lines+markers")
        fig.add_traces([band, line], *([each] * 2 for each in cell))


def _grid(panels: int, columns: int) -> go.Figure:
    lines, columns = -(-panels // columns), min(panels, columns)
    gap = 0.22 / lines if lines > 1 else 0
    return make_subplots(lines, columns, vertical_spacing=gap, horizontal_spacing=0.11)


def _cell(place: int, columns: int) -> tuple[int, int]:
    return place // columns + 1, place % columns + 1


def _finish(fig: go.Figure, metrics: Sequence[str], across: str, columns: int) -> None:
    """Formats of the panels' axes, titles below the lowest, each design once in the legend."""
    seen: set[str] = set()
    for trace in fig.data:  # the first panel may lack a design
        trace.showlegend = trace.hoverinfo != "skip" and trace.legendgroup not in seen
        seen |= {trace.legendgroup} if trace.showlegend else set()
    for place, metric in enumerate(metrics):
        row, col = _cell(place, columns)
        form = ".1~%" if metric in style.SHARES else ""
        fig.update_yaxes(tickformat=form, rangemode="tozero", row=row, col=col)
        if across and place + columns >= len(metrics):
            fig.update_xaxes(title_text=across, row=row, col=col)
