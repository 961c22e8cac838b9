"""Pictures of a table of ablations (:mod:`bgkit.sweeps.collection`): a metric over any setting.

All have the look of :mod:`bgkit.figures.distributions`: a design keeps its colour, marker and dash
everywhere, and every mark has its interval. The line below a title says what the intervals are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.evaluation.metrics import METRICS
from bgkit.figures import style
from bgkit.figures.style import dots, error_bars, heading

#: Columns whose values have an order that a line may follow; others get marks only.
ORDERED = ("utility", "scale", "tau")
_PALETTE = [look for name, look in style.LOOKS.items() if name]


def _look(column: str, value: Any, known: Sequence[Any]) -> tuple[str, str, str]:
    """Colour, marker and dash of a value: a design's own, else by its place among the known."""
    if column == "design":
        return style.look(value)
    return _PALETTE[1:][known.index(value) % (len(_PALETTE) - 1)]


def _ordered(table: pd.DataFrame, column: str) -> bool:
    return column in ORDERED or (
        column not in settings.AXES and pd.api.types.is_numeric_dtype(table[column])
    )


def _told(row: dict[str, Any], columns: Sequence[str]) -> str:
    """Hover text of one row: its setting, mean and interval."""
    metric = row["metric"]
    mean, low, high = (style.number(row[part], metric, 4) for part in settings.NUMBERS)
    setting = [f"{style.label(column)} {style.label(row[column])}" for column in columns]
    seeds = f"over {row['n_seeds']} seeds"
    kind = {"both": f"{seeds} and prompts", "seeds": seeds, "prompts": "over prompts"}
    ends = f"<br>{low} to {high}, {kind[row['interval']]}" if row["interval"] in kind else ""
    return "<br>".join([*setting, f"{style.named(metric)} <b>{mean}</b>{ends}"])


def _series(
    rows: pd.DataFrame, x: str, colour: str, values: Mapping[str, Sequence[Any]], panel: int = 0
) -> list[dict[str, Any]]:
    """One trace (as Plotly's dictionary, which is the quickest) per value of ``colour``.

    Marks of one place on ``x`` stand beside each other. ``panel`` counts from 0.
    """
    places = {value: place for place, value in enumerate(values[x])}
    count, mode = len(values[colour]), "lines+markers" if _ordered(rows, x) else "markers"
    axis = str(panel + 1) if panel else ""
    groups: dict[Any, list[dict[str, Any]]] = {value: [] for value in values[colour]}
    for row in rows.to_dict("records"):  # plain lists: pandas is slow on many small groups
        groups[row[colour]].append(row)
    traces = []
    for number, (value, group) in enumerate(groups.items()):
        group.sort(key=lambda row: places[row[x]])
        shift = 0 if colour == x else (number - (count - 1) / 2) * min(0.12, 0.7 / count)
        hue, symbol, dash = _look(colour, value, values[colour])
        name = style.label(value)
        trace = {
            "type": "scatter",
            "x": [places[row[x]] + shift for row in group],
            "y": [row["mean"] for row in group],
            "error_y": {**error_bars(pd.DataFrame(group, columns=settings.NUMBERS)), "color": hue},
            "name": name,
            "legendgroup": name,
            "mode": mode,
            "marker": {"color": hue, "symbol": symbol, "size": 9},
            "line": {"color": hue, "dash": dash, "width": 1.5},
            "hovertext": [f"<b>{name}</b><br>{_told(row, [x])}" for row in group],
            "hoverinfo": "text",
            "xaxis": f"x{axis}",
            "yaxis": f"y{axis}",
        }
        if group:
            traces.append(trace)
    return traces


def _headings(fig: go.Figure, words: Sequence[str]) -> None:
    """Write words above the left end of each panel, in the panels' order."""
    place = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    notes = []
    for panel, text in enumerate(words):
        axis = str(panel + 1) if panel else ""
        notes.append({"text": text, "xref": f"x{axis} domain", "yref": f"y{axis} domain", **place})
    fig.update_layout(annotations=notes)


def _legend_once(traces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Show each name in the legend where it comes first (the first panel may lack a design)."""
    seen: set[str] = set()
    shown = []
    for trace in traces:
        shown.append({**trace, "showlegend": trace["name"] not in seen})
        seen.add(trace["name"])
    return shown


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _axes(known: Sequence[Any], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Layout of the axes of one panel per entry of ``metrics``, to be set in one go."""
    words = [style.label(value) for value in known]
    across = {"tickvals": list(range(len(known))), "ticktext": words, "showgrid": False}
    across["range"] = [-0.5, len(known) - 0.5]
    axes: dict[str, dict[str, Any]] = {}
    for panel, metric in enumerate(metrics):
        number = str(panel + 1) if panel else ""
        form = ".1~%" if metric in style.SHARES else ""
        axes[f"xaxis{number}"] = across
        axes[f"yaxis{number}"] = {"tickformat": form, "rangemode": "tozero"}
    return axes


def _held(where: Mapping[str, Any], table: pd.DataFrame) -> str:
    """What a figure holds fixed, as far as there was a choice."""
    parts = [
        f"{style.label(column)} {style.label(value)}"
        for column, value in where.items()
        if len(settings.values_of(table, column)) > 1
    ]
    return f"Held fixed: {', '.join(parts)}." if parts else "Nothing else was varied."


def ablation(
    table: pd.DataFrame,
    metric: str,
    x: str = "utility",
    colour: str = "design",
    panels: str = "",
    where: Mapping[str, Any] | None = None,
) -> go.Figure:
    """Draw one metric over a setting ``x``, a colour per value of ``colour``, with intervals.

    ``panels`` names a column that gets a panel for each value ("": one panel); all panels share
    one scale. Marks of one place on ``x`` stand beside each other, so that their intervals can be
    read; a line joins them where ``x`` has an order (utility: rising pull over the boundary). The
    distances on ``x`` mean nothing. ``where`` fixes other columns. Shares are in percent, scores
    go from 0 to 1, KL is in nats.

    Raises BgkitError for an unknown metric or column, for panels by the column of ``x`` or
    ``colour``, and for a further column with several values that ``where`` does not fix
    (:func:`bgkit.sweeps.settings.fixed_values`).
    """
    if panels in (x, colour):
        raise BgkitError(f"The panels can not be by {panels!r} too; choose another column for one.")
    spread = [column for column in (x, colour, panels) if column]
    fixed = settings.fixed_values(table, spread, where)
    rows = settings.select(table, metric, fixed)
    values = {column: settings.values_of(rows, column) for column in spread}
    parts = values[panels] if panels else [None]
    columns = min(len(parts), 2 if len(values[x]) > 5 else 3)
    lines = -(-len(parts) // columns)
    gaps = {"vertical_spacing": 0.3 / lines**1.2, "horizontal_spacing": 0.03}
    fig = make_subplots(lines, columns, shared_yaxes="all", **gaps)
    traces = []
    for place, part in enumerate(parts):
        one = rows if part is None else rows[rows[panels] == part]
        traces += _series(one, x, colour, values, place)
    fig.add_traces(_legend_once(traces))
    axes = _axes(values[x], [metric] * len(parts))
    for place in range(len(parts)):
        number = str(place + 1) if place else ""
        if place % columns == 0:
            axes[f"yaxis{number}"]["title"] = {"text": style.named(metric)}
        if place + columns >= len(parts):  # nothing below it
            axes[f"xaxis{number}"] = {**axes[f"xaxis{number}"], "title": {"text": style.label(x)}}
    fig.update_layout(axes)
    if panels:
        _headings(fig, [f"<b>{style.label(panels)} {style.label(part)}</b>" for part in parts])
    title = f"{_title(style.named(metric))} by {style.label(x)} and {style.label(colour)}"
    notes = [f"Lines at the marks: {settings.interval_words(rows)}.", _held(fixed, table)]
    return style.style(fig, title, notes, 150 + 260 * lines)


def trade_off(
    table: pd.DataFrame,
    along: str = "strength",
    where: Mapping[str, Any] | None = None,
    *,
    x: str = "system_harm",
    y: str = "system_help",
) -> go.Figure:
    """Draw a metric ``y`` (up) against another one ``x`` (right): each design's path.

    One path per design through the values of ``along``, from a small mark (the first value) to a
    large one (the last, named unless it is a number): over its strengths that is its frontier, and
    designs compare as curves, not as points. Where both metrics have a better side, its corner is
    named, and the dotted line joins the Pareto front: the marks that no other beats in both means
    (:func:`bgkit.evaluation.settings.front`; intervals are not considered). The lines through a
    mark are the intervals of its two means. Errors as in :func:`ablation`.
    """
    fixed = settings.fixed_values(table, (along, "design"), where)
    keys = ["design", along]
    across, up = (settings.select(table, name, fixed) for name in (x, y))
    both = across.merge(up, on=keys, suffixes=("", "_y"))
    known = settings.values_of(both, along)
    numbers = pd.api.types.is_float_dtype(both[along])
    sizes = {value: 7 + 8 * place / max(1, len(known) - 1) for place, value in enumerate(known)}
    fig = make_subplots()
    for name in settings.values_of(both, "design"):
        one = both[both["design"] == name]
        one = one.assign(place=one[along].map(known.index)).sort_values("place")
        fig.add_trace(_path(str(name), one, along, [sizes[value] for value in one[along]]))
    _better(fig, both, x, y)
    for update, name, end in ((fig.update_xaxes, x, "mean"), (fig.update_yaxes, y, "mean_y")):
        form = ".1~%" if name in style.SHARES else ""
        most = both[end].max() or 1.0
        ends = [-0.03 * most, 1.15 * most]  # an interval may be cut
        update(title_text=style.named(name), tickformat=form, range=ends)
    first, last = (f"{v:g}" if numbers else style.label(v) for v in (known[0], known[-1]))
    path = f"Small to large mark: {style.label(along)} {first} to {last}. "
    notes = [path + _held(fixed, table), f"Lines at the marks: {settings.interval_words(both)}."]
    title = f"{_title(style.named(y))} against {style.named(x)}"
    return style.style(fig, title, notes, 480)


def _path(name: str, one: pd.DataFrame, along: str, sizes: Sequence[float]) -> go.Scatter:
    """A design's marks, of ``sizes``, with the intervals of both means, joined in their order."""
    hue, symbol, dash = style.look(name)
    told = [
        f"{_told({**row, **_upper(row)}, [along])}<br>{_told(row, [])}"
        for row in one.to_dict("records")
    ]
    thin = {"thickness": 1, "width": 0, "color": hue}  # they cross each other
    bars = {"error_x": error_bars(one) | thin, "error_y": error_bars(one, "_y") | thin}
    trace = dots(name, told, x=one["mean"], y=one["mean_y"], **bars)
    trace.update(legendgroup=style.label(name), line={"color": hue, "dash": dash, "width": 1.5})
    trace.update(mode="lines+markers+text", textposition="top right", textfont_color=hue)
    mark = {"color": hue, "symbol": symbol, "size": sizes, "opacity": 1, "line_width": 0}
    named = not pd.api.types.is_float_dtype(one[along])  # numbers have no words at their marks
    moves = named and one[["mean", "mean_y"]].nunique().max() > 1
    words = _end_words(one[along].tolist(), moves)
    return trace.update(marker=mark, text=words, cliponaxis=False)


def _better(fig: go.Figure, both: pd.DataFrame, x: str, y: str) -> None:
    """Name the better corner and draw the Pareto front, where both metrics have a better side."""
    right, above = (METRICS[name].better for name in (x, y))
    if not (right and above):
        return
    best = both[settings.front(-right * both["mean"], above * both["mean_y"])].sort_values("mean")
    line = {"color": style.TEXT, "dash": "dot", "width": 1.5}
    more = {"mode": "lines", "line": line, "name": "Pareto front", "hoverinfo": "skip"}
    fig.add_scatter(x=best["mean"], y=best["mean_y"], **more)
    arrow = {(-1, 1): "↖", (1, 1): "↗", (-1, -1): "↙", (1, -1): "↘"}[right, above]
    heading(fig, f"<b>{arrow} better</b>", 1, x=int(right > 0))


def _upper(row: dict[str, Any]) -> dict[str, Any]:
    """The half of a merged row that tells of ``y``, under the names of a plain row."""
    return {name: row[f"{name}_y"] for name in ("metric", *settings.NUMBERS, "n_seeds", "interval")}


def _end_words(values: Sequence[Any], moves: bool) -> list[str]:
    """The last value of a path, written beside its mark; what stands still has no path."""
    return [*[""] * (len(values) - 1), style.label(values[-1]) if moves else ""]
