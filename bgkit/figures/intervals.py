"""The figure of means with intervals over x, in panels."""

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
from bgkit.texts import html_text

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
    spots, ticks = {value: place for place, value in enumerate(values)}, {}
    rows = rows.assign(spot=rows[x].map(spots) if spots else rows[x]).sort_values("spot")
    if spots:
        rows = rows.assign(at=[f"{x} {label(value)}" for value in rows[x]])
        ticks = {"tickvals": list(spots.values()), "ticktext": [style.wrapped(v) for v in spots]}
        ticks |= {"showgrid": False, "range": [-0.5, len(spots) - 0.5]}
    beside = bool(spots) and rows.duplicated([panel, "spot"]).any()
    columns = min(columns, len(panels))
    fig = _grid(len(panels), columns, tall, shared)
    names, seen, spread = list(looks), set(), rows[["mean", "low", "high"]]
    ends = [1.05 * min(0, spread.min(axis=None)), 1.05 * (spread.max(axis=None) or 1.0)]
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"annotations": [above(w, i) for i, w in enumerate(panels.values())]}
    for place, value in enumerate(panels):
        part, axis = rows[rows[panel] == value], str(place + 1) if place else ""
        groups = part.groupby([colour, line] if line else colour, sort=False)
        for one in sorted((g for _, g in groups), key=lambda g: names.index(g[colour].iloc[0])):
            name = one[colour].iloc[0]
            aside = (names.index(name) - (len(names) - 1) / 2) * min(0.12, 0.7 / len(names))
            found = _traces(one, x, name, aside * beside, looks[name], not spots)
            found[-1] |= {"mode": mode, "showlegend": name not in seen}
            traces += [{**trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}"} for trace in found]
            seen.add(name)
        lowest = place + columns >= len(panels)
        layout[f"xaxis{axis}"] = {**ticks, "title": {"text": across * lowest}}
        shares = set(part["metric"]) <= set(style.SHARES)
        share = {"tickformat": ".1~%", "rangemode": "tozero"} if shares else {}
        share |= {"range": ends, "showticklabels": not place % columns} if shared else {}
        layout[f"yaxis{axis}"] = share
    return fig.add_traces(traces).update_layout(layout)


def _grid(panels: int, columns: int, tall: int, shared: bool) -> go.Figure:
    """Empty panels in ``columns``, each ``tall`` pixels high."""
    lines = -(-panels // columns)
    cells = [{}] * panels + [None] * (lines * columns - panels)
    specs = [cells[place : place + columns] for place in range(0, len(cells), columns)]
    gaps = {"horizontal_spacing": 0.03 if shared else 0.1, "vertical_spacing": GAP / tall / lines}
    fig = make_subplots(lines, columns, specs=specs, **gaps)
    return fig.update_xaxes(matches="x").update_layout(height=130 + tall * lines)


def _traces(
    one: pd.DataFrame, x: str, name: str, aside: float, look: tuple[str, str, str], banded: bool
) -> list[dict[str, Any]]:
    """A line, behind its band, as Plotly's dictionaries, which are the quickest."""
    metric, known = one["metric"].iloc[0], one.dropna(subset=["low"])
    (hue, symbol, dash), form = look, ".2%" if metric in style.SHARES else ".4f"
    hover = "<b>%{fullData.name}</b><br>" + ("%{hovertext}" if "at" in one else f"{x} %{{x:.4~g}}")
    hover += f"<br>{style.named(metric)} %{{y:{form}}}"
    if len(known):
        hover += f" (%{{customdata[0]:{form}}} to %{{customdata[1]:{form}}})"
    ours = {"type": "scatter", "legendgroup": label(name), "meta": html_text(metric)}
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
