"""Means with intervals over x, in panels."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.errors import BgkitError
from bgkit.figures import style
from bgkit.figures.style import error_bars, label, panel_label
from bgkit.texts import html_text

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GAP = 56  # pixels between panels, for ticks and the next heading


def looks_of(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of designs; designs of one colour differ in marker and dash."""
    looks: dict[str, tuple[str, str, str]] = {}
    for name in names:
        colour, symbol, dash = style.look(name)
        twins = sum(colour == other[0] for other in looks.values())
        if twins:
            others = [each for each in DASHES if each != dash]
            symbol, dash = f"{symbol}-open", others[(twins - 1) % len(others)]
        looks[name] = (colour, symbol, dash)
    return looks


def panels(
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
    """Draw means with intervals over ``x``, in ``panels`` (value of ``panel`` -> heading).

    ``rows`` have metric, mean, low, high and the columns that the arguments name, and optionally
    ``at``, a row's position as text. With ``values`` x is categorical and the intervals are error
    bars; else x is numeric and they are bands. Each ``colour`` has a line, or one per value of
    ``line``. ``shared`` gives all panels one scale; each is ``tall`` pixels high, and ``across``
    is the title of the x axis. NaN means are left out; raises BgkitError if all are NaN.
    """
    rows = rows.dropna(subset=["mean"])
    if rows.empty:
        raise BgkitError("No value is known; give a judge if the truth is not known.")
    looks = looks or looks_of(dict.fromkeys(rows[colour]))
    position, ticks = rows[x].astype(object).map(list(values).index) if values else rows[x], {}
    rows = rows.assign(position=position).sort_values("position")
    if values:
        rows = rows.assign(at=[f"{x} {label(value)}" for value in rows[x]])
        ticks = {"tickvals": list(range(len(values))), "showgrid": False}
        ticks["ticktext"] = [re.sub("([,:]) ", r"\1<br>", label(value)) for value in values]
        ticks |= {"range": [-0.5, len(values) - 0.5]}
    overlap = bool(values) and rows.duplicated([panel, "position"]).any()
    columns = min(columns, len(panels))
    fig = empty_panels(len(panels), columns, tall, shared)
    names, in_legend, numbers = list(looks), set(), rows[["mean", "low", "high"]]
    limits = [1.05 * min(0, numbers.min(axis=None)), 1.05 * (numbers.max(axis=None) or 1.0)]
    traces: list[dict[str, Any]] = []
    headings = [panel_label(text, place) for place, text in enumerate(panels.values())]
    layout: dict[str, Any] = {"annotations": headings}
    for place, value in enumerate(panels):
        part, axis = rows[rows[panel] == value], str(place + 1) if place else ""
        groups = part.groupby([colour, line] if line else colour, sort=False)
        for group in sorted((g for _, g in groups), key=lambda g: names.index(g[colour].iloc[0])):
            name = group[colour].iloc[0]
            offset = (names.index(name) - (len(names) - 1) / 2) * min(0.12, 0.7 / len(names))
            of_group = _traces(group, x, name, offset * overlap, looks[name], not values)
            of_group[-1] |= {"mode": mode, "showlegend": name not in in_legend}
            traces += [{**trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}"} for trace in of_group]
            in_legend.add(name)
        lowest = place + columns >= len(panels)
        layout[f"xaxis{axis}"] = {**ticks, "title": {"text": across * lowest}}
        shares = set(part["metric"]) <= set(style.SHARES)
        share = {"tickformat": ".1~%", "rangemode": "tozero"} if shares else {}
        share |= {"range": limits, "showticklabels": not place % columns} if shared else {}
        layout[f"yaxis{axis}"] = share
    return fig.add_traces(traces).update_layout(layout)


def empty_panels(panels: int, columns: int, tall: int, shared: bool) -> go.Figure:
    """Empty panels in ``columns``, each ``tall`` pixels high."""
    lines = -(-panels // columns)
    cells = [{}] * panels + [None] * (lines * columns - panels)
    specs = [cells[place : place + columns] for place in range(0, len(cells), columns)]
    gaps = {"horizontal_spacing": 0.03 if shared else 0.1, "vertical_spacing": GAP / tall / lines}
    fig = make_subplots(lines, columns, specs=specs, **gaps)
    return fig.update_xaxes(matches="x").update_layout(height=130 + tall * lines)


def _traces(
    rows: pd.DataFrame, x: str, name: str, offset: float, look: tuple[str, str, str], banded: bool
) -> list[dict[str, Any]]:
    """A band and its line, as dictionaries, which Plotly takes fastest."""
    metric, with_interval = rows["metric"].iloc[0], rows.dropna(subset=["low"])
    (hue, symbol, dash), form = look, ".2%" if metric in style.SHARES else ".4f"
    hover = "<b>%{fullData.name}</b><br>" + ("%{hovertext}" if "at" in rows else f"{x} %{{x:.4~g}}")
    hover += f"<br>{style.metric_label(metric)} %{{y:{form}}}"
    if len(with_interval):
        hover += f" (%{{customdata[0]:{form}}} to %{{customdata[1]:{form}}})"
    common = {"type": "scatter", "legendgroup": label(name), "meta": html_text(metric)}
    means = {
        **common,
        "name": label(name),
        "x": (rows["position"] + offset).to_numpy(),
        "y": rows["mean"].to_numpy(),
        "marker": {"color": hue, "symbol": symbol, "size": 8},
        "line": {"color": hue, "dash": dash, "width": 1.8},
        "hovertemplate": f"{hover}<extra></extra>",
    }
    if len(with_interval):
        means["customdata"] = rows[["low", "high"]].to_numpy()
    if "at" in rows:
        means["hovertext"] = rows["at"].tolist()
    if not banded:
        return [means | {"error_y": error_bars(rows, color=hue)}]
    position, low, high = (with_interval[name] for name in ("position", "low", "high"))
    outline = {"x": np.r_[position, position[::-1]], "y": np.r_[low, high[::-1]]}
    band = {
        **common,
        **outline,
        "fill": "toself",
        "fillcolor": hue,
        "opacity": 0.15,
        "mode": "lines",
    }
    band |= {"line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [band, means] if len(with_interval) else [means]
