"""The figures of a metric with intervals: over x in panels, and as marks with whiskers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.errors import BgkitError
from bgkit.figures import style
from bgkit.figures.style import above, error_bars, label

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GAP = 56  # pixels between panels: ticks, and the next one's heading


def looks_of(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of designs; those that share a colour differ in the others."""
    found: dict[str, tuple[str, str, str]] = {}
    for name in names:
        colour, symbol, dash = style.look(name)
        twins = sum(colour == other[0] for other in found.values())
        if twins:
            others = [each for each in DASHES if each != dash]
            symbol, dash = f"{symbol}-open", others[(twins - 1) % len(others)]
        found[name] = (colour, symbol, dash)
    return found


def over(
    rows: pd.DataFrame,
    x: str,
    panels: Mapping[Hashable, str],
    *,
    panel: str = "metric",
    colour: str = "design",
    line: str = "",
    values: Sequence[Any] = (),
    looks: Mapping[Any, tuple[str, str, str]] | None = None,
    mode: str = "lines+markers",
    columns: int = 2,
    shared: bool = False,
    across: str = "",
    tall: int = 200,
) -> go.Figure:
    """Draw means with intervals over ``x``, a panel for each value of ``panel`` that is headed.

    ``rows`` have metric, mean, low, high and the columns that are named; ``at`` may say in words
    where a row stands. With ``values`` the x are these, side by side, with error bars; else they
    are numbers, and the intervals bands. Each ``colour`` has a line, or one per value of ``line``.
    ``shared`` gives all panels one scale; each is ``tall`` pixels high, and ``across`` is below the
    lowest. A mean that is not known is left out; raises BgkitError where none is.
    """
    rows = rows.dropna(subset=["mean"])
    if rows.empty:
        raise BgkitError("No value is known to draw; give a judge where the truth is not known.")
    looks = looks or looks_of(dict.fromkeys(rows[colour]))
    spots = {value: place for place, value in enumerate(values)}
    rows = rows.assign(spot=rows[x].map(spots) if spots else rows[x]).sort_values("spot")
    lines, columns = -(-len(panels) // columns), min(columns, len(panels))
    gaps = {"horizontal_spacing": 0.03 if shared else 0.1, "vertical_spacing": GAP / tall / lines}
    cells = [{}] * len(panels) + [None] * (lines * columns - len(panels))
    specs = [cells[place : place + columns] for place in range(0, len(cells), columns)]
    fig = make_subplots(lines, columns, specs=specs, **gaps)
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"annotations": [], "height": 130 + tall * lines}
    names, seen, spread = list(looks), set(), rows[["mean", "low", "high"]]
    ends = [1.05 * min(0, spread.min(axis=None)), 1.05 * (spread.max(axis=None) or 1.0)]
    for place, (value, words) in enumerate(panels.items()):
        part, axis = rows[rows[panel] == value] if panel else rows, str(place + 1) if place else ""
        axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        groups = part.groupby([colour, line] if line else colour, sort=False)
        for one in sorted((g for _, g in groups), key=lambda g: names.index(g[colour].iloc[0])):
            name = one[colour].iloc[0]
            aside = (names.index(name) - (len(names) - 1) / 2) * min(0.12, 0.7 / len(names))
            found = _traces(one, x, colour, aside * (bool(spots) and colour != x), looks, not spots)
            found[-1] |= {"mode": mode, "showlegend": name not in seen}
            traces += [{**trace, **axes} for trace in found]
            seen.add(name)
        layout["annotations"].append(above(words, place))
        share = {"tickformat": ".1~%", "rangemode": "tozero"}
        share = share if set(part["metric"]) <= set(style.SHARES) else {}
        ticks = {"tickvals": list(spots.values()), "ticktext": [label(v) for v in spots]}
        ticks |= {"showgrid": False, "range": [-0.5, len(spots) - 0.5]}
        below = {"text": across if place + columns >= len(panels) else ""}
        layout[f"xaxis{axis}"] = {"title": below, **(ticks if spots else {})}
        layout[f"yaxis{axis}"] = share
        if place:
            layout[f"xaxis{axis}"] |= {"matches": "x"}
        if shared:
            layout[f"yaxis{axis}"] |= {"range": ends, "showticklabels": not place % columns}
    return fig.add_traces(traces).update_layout(layout)


def _traces(
    one: pd.DataFrame, x: str, colour: str, aside: float, looks: Mapping, banded: bool
) -> list[dict[str, Any]]:
    """A line, behind its band, as Plotly's dictionaries, which are the quickest."""
    name, metric, known = one[colour].iloc[0], one["metric"].iloc[0], one.dropna(subset=["low"])
    (hue, symbol, dash), form = looks[name], ".2%" if metric in style.SHARES else ".4f"
    hover = "<b>%{fullData.name}</b><br>" + ("%{hovertext}" if "at" in one else f"{x} %{{x:.4~g}}")
    hover += f"<br>{style.named(metric)} %{{y:{form}}}"
    if len(known):
        hover += f" (%{{customdata[0]:{form}}} to %{{customdata[1]:{form}}})"
    ours = {"type": "scatter", "legendgroup": label(name), "meta": metric}
    means = {
        **ours,
        "name": label(name),
        "x": (one["spot"] + aside).to_numpy(),
        "y": one["mean"].to_numpy(),
        "marker": {"color": hue, "symbol": symbol, "size": 8},
        "line": {"color": hue, "dash": dash, "width": 1.8},
        "hovertemplate": f"{hover}<extra></extra>",
    }
    if len(known):
        means["customdata"] = one[["low", "high"]].to_numpy()
    if "at" in one:
        means["hovertext"] = one["at"].tolist()
    if not banded:
        return [means | {"error_y": error_bars(one, color=hue)}]
    ends = {
        "x": np.r_[known["spot"], known["spot"][::-1]],
        "y": np.r_[known["low"], known["high"][::-1]],
    }
    band = {**ours, **ends, "fill": "toself", "fillcolor": hue, "opacity": 0.15, "mode": "lines"}
    band |= {"line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [band, means] if len(known) else [means]


def whiskers(
    rows: pd.DataFrame,
    y: str,
    panels: Mapping[Hashable, str],
    *,
    panel: str,
    columns: int,
    across: str,
    zero: bool = False,
) -> go.Figure:
    """Draw means with intervals from left to right, a line for each value of ``y``, in panels.

    ``rows`` have mean, low, high, told, design (whose colour is taken) and symbol. An upright line
    is at the panel's first mean, or at ``zero``.
    """
    count, columns = rows[y].nunique(), min(columns, len(panels))
    lines = -(-len(panels) // columns)
    inner = lines * (24 * count + 52) - 40
    shared = {"shared_xaxes": "all", "shared_yaxes": "all"}
    gaps = {"vertical_spacing": 40 / inner, "horizontal_spacing": 0.04}
    fig = make_subplots(lines, columns, **shared, **gaps)
    for place, (value, words) in enumerate(panels.items()):
        part, cell = rows[rows[panel] == value], {"row": place // columns + 1}
        cell["col"] = place % columns + 1
        for name, one in part.groupby("design", sort=False):
            marks = style.dots(name, one["told"], x=one["mean"], y=one[y].map(label))
            marks.update(error_x=error_bars(one), marker_symbol=one["symbol"], showlegend=False)
            fig.add_trace(marks, **cell)
        first = 0 if zero else part["mean"].iloc[0]
        fig.add_vline(first, line={"width": 1, "color": style.TEXT}, **cell)
        fig.add_annotation(above(words, place))
    fig.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(nticks=6)
    fig.update_xaxes(title_text=across, row=lines)
    return fig.update_layout(height=inner + 118)
