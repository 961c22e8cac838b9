"""The look of all figures: template, colours of designs, labels, titles and marks.

A design looks the same in all figures (:data:`LOOKS`). Figures are legible on light and dark pages;
names are HTML-escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

from bgkit.evaluation.metrics import METRICS, RATES
from bgkit.texts import plain_name

# Design: colour, marker symbol, line dash. Okabe-Ito hues, darker where they fade on white.
LOOKS = {
    "base": ("#9A9A9A", "circle", "solid"),
    "filter_avoidance": ("#D55E00", "triangle-up", "dash"),
    "boundary": ("#0072B2", "square", "solid"),
    "boundary_raw": ("#5B7DB1", "square-open", "dot"),
    "compound": ("#008F66", "diamond", "dashdot"),
    "guard_only": ("#E07BB5", "cross", "dot"),
    "utility_only": ("#80603C", "x", "dot"),
    "filter_avoidance_soft": ("#DD9500", "triangle-down", "longdash"),
    "prompt_aware": ("#45A8E0", "star", "longdashdot"),
    "shown_risk": ("#8A8F00", "triangle-left", "dashdot"),
    "hybrid_guard": ("#9B4FC4", "hexagon", "dash"),
    "": ("#7D8791", "pentagon", "solid"),  # any other name
}
SAFE, HARMFUL, TEXT = "#45A8E0", "#C2417C", "#7A7F85"
GRID, BAND, CLEAR = "rgba(128,128,128,0.22)", "rgba(128,128,128,0.14)", "rgba(0,0,0,0)"
THRESHOLD = {"dash": "dash", "width": 1.5, "color": TEXT}  # the line at tau
WORDS = {name: metric.label for name, metric in METRICS.items()} | {"ece": "guard ECE"}
#: Metrics shown in percent.
SHARES = (*RATES, "precision", "recall", "attack_success", "gibberish", "unseen_harm", "no_spread")

_AXIS = {"gridcolor": GRID, "zeroline": False, "automargin": True, "tickangle": 0}
_AXIS |= {"title": {"standoff": 8, "font": {"size": 12}}}
_CORNER = {"x": 0, "xanchor": "left", "yanchor": "top"}
#: No drag mode: scrolling the page by touch must not zoom the figure.
pio.templates["bgkit"] = go.layout.Template(
    layout={
        "font": {
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "size": 12,
            "color": TEXT,
        },
        "title": {**_CORNER, "font": {"size": 15}, "subtitle": {"font": {"size": 12}}},
        "margin": {"l": 56, "r": 14},
        "legend": {**_CORNER, "orientation": "h"},
        "hoverlabel": {"bgcolor": "#23282D", "font": {"color": "#F2F2F2"}, "align": "left"},
        "modebar": {"bgcolor": CLEAR, "color": TEXT, "activecolor": SAFE},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


def label(name: object) -> str:
    """A name as figure text: :func:`bgkit.texts.plain_name`, HTML-escaped."""
    return html.escape(plain_name(name), quote=False)


def look(name: object) -> tuple[str, str, str]:
    """Colour, marker and dash of a design, or of a name that begins with a design's."""
    return LOOKS[max((design for design in LOOKS if str(name).startswith(design)), key=len)]


def metric_label(metric: str) -> str:
    """A metric's name as figure text."""
    return WORDS.get(metric, label(metric))


def number(value: float, metric: str, digits: int = 3) -> str:
    """A metric's value as text: ``12.3 %`` for shares, else ``0.123``; ``–`` for NaN."""
    text = f"{100 * value:.{digits - 2}f} %" if metric in SHARES else f"{value:.{digits}f}"
    return "–" if np.isnan(value) else text


def hover_text(row: Any) -> str:
    """The metric, mean and interval of a row, for its hover text."""
    mean, low, high = (number(row[part], row["metric"], 4) for part in ("mean", "low", "high"))
    return f"{metric_label(row['metric'])} {mean}" + f" ({low} to {high})" * (low != "–")


def style(fig: go.Figure, title: str, notes: Sequence[str] = (), height: int = 0) -> go.Figure:
    """Apply the look of all figures to ``fig`` in place; title and notes are Plotly's HTML."""
    top, height = 64 + 14 * len(notes), height or fig.layout.height or 420
    foot = 88 if any(trace.showlegend is not False for trace in fig.data) else 40
    heading = {"text": f"<b>{title}</b>", "subtitle": {"text": "<br>".join(notes)}}
    return fig.update_layout(
        template="bgkit",
        title={**heading, "y": 1 - 8 / height},
        margin={"t": top, "b": foot},
        legend={"y": -52 / max(height - top - foot, 60)},
        height=height,
    )


def marks(
    x: pd.Series, table: pd.DataFrame, texts: Sequence[str], marker: dict[str, Any], **more: Any
) -> go.Scatter:
    """Marks at ``x`` of a table's means and intervals; ``more`` are arguments of the trace."""
    hover = {"hovertext": texts, "hoverinfo": "text", "error_y": error_bars(table)}
    marker = {"size": 10, **marker}
    return go.Scatter(x=x, y=table["mean"], mode="markers", marker=marker, **hover, **more)


def error_bars(table: pd.DataFrame, end: str = "", **more: Any) -> dict[str, Any]:
    """Error bars from ``low`` to ``high`` around ``mean``; ``end`` is the columns' suffix."""
    mean, low, high = (table[part + end].to_numpy(float) for part in ("mean", "low", "high"))
    arms = {"array": np.maximum(high - mean, 0), "arrayminus": np.maximum(mean - low, 0)}
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 4, **arms, **more}


def root_ticks(*shares: float) -> dict[str, list]:
    """Ticks of an axis of square roots of shares, which keeps small shares visible.

    >>> root_ticks(0.25, -0.01)
    {'tickvals': [0.5, -0.1], 'ticktext': ['25%', '1%']}
    """
    places = [math.copysign(abs(share) ** 0.5, share) for share in shares]
    return {"tickvals": places, "ticktext": [f"{abs(share):.0%}" for share in shares]}


def threshold_label(text: str, x: float, left: bool, **more: Any) -> dict[str, Any]:
    """An annotation at the top of the first panel, left or right of ``x``."""
    where = {"xanchor": "right", "xshift": -5} if left else {"xanchor": "left", "xshift": 5}
    where |= {"x": x, "xref": "x", "y": 1, "yref": "y domain", "yanchor": "top"}
    return {"text": text, **where, "showarrow": False, **more}


def panel_label(text: str, place: int, x: float = 0) -> dict[str, Any]:
    """An annotation above a panel (counted from 0), at its left (``x`` = 0) or right (1) end."""
    axis = str(place + 1) if place else ""
    where = {"x": x, "xref": f"x{axis} domain", "xanchor": "right" if x else "left"}
    where |= {"y": 1, "yref": f"y{axis} domain", "yanchor": "bottom", "showarrow": False}
    return {"text": text, **where}
