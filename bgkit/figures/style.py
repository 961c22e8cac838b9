"""The look of all figures: colours of designs, words of metrics, titles, notes, marks, intervals.

A design looks the same in all figures (:data:`LOOKS`), which are legible on light and dark pages.
Names are escaped as HTML. Absent columns or rows raise :class:`~bgkit.errors.BgkitError`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit.errors import BgkitError
from bgkit.evaluation.metrics import METRICS, RATES
from bgkit.texts import visible

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
    "hybrid_guard": ("#9B4FC4", "hexagon", "dash"),
    "": ("#7D8791", "pentagon", "solid"),  # any other name
}
SAFE, HARMFUL, TEXT = "#45A8E0", "#C2417C", "#7A7F85"
UNKNOWN, ROLES = "#9A9A9A", ("safe", "harmful", "truth unknown")
GRID, BAND = "rgba(128,128,128,0.22)", "rgba(128,128,128,0.14)"
WORDS = {name: metric.label for name, metric in METRICS.items()} | {"ece": "guard ECE"}
SHARES = RATES
SETTING = ("utility", "scale", "guard", "tau")
ROW_COLUMNS = ("design", *SETTING, "kind", "metric", "mean", "low", "high")


def label(name: object) -> str:
    """Return a name as figure text: spaces for underscores, HTML escaped.

    A control character would make the figure's SVG unreadable: it is made visible.
    """
    return html.escape(visible(name).replace("_", " "), quote=False)


def wrapped(name: object) -> str:
    """:func:`label` with a line break behind each comma and colon, for the ticks of an axis.

    >>> wrapped("boundary, guard weak")
    'boundary,<br>guard weak'
    """
    return label(name).replace(", ", ",<br>").replace(": ", ":<br>")


def look(name: object) -> tuple[str, str, str]:
    """Return colour, marker and dash of a design, or of a name that begins with a design's."""
    return LOOKS[max((design for design in LOOKS if str(name).startswith(design)), key=len)]


def named(metric: str) -> str:
    """Return the words for a metric, as figure text."""
    return WORDS.get(metric, label(metric))


def number(value: float, metric: str, digits: int = 3) -> str:
    """Return a metric's value as text: ``12.3 %`` for shares, else ``0.123``; ``–`` for none."""
    text = f"{100 * value:.{digits - 2}f} %" if metric in SHARES else f"{value:.{digits}f}"
    return "–" if np.isnan(value) else text


def style(fig: go.Figure, title: str = "", notes: Sequence[str] = (), height: int = 0) -> go.Figure:
    """Give ``fig`` the look of the kit in place and return it; its width follows the page.

    ``title`` (kept when empty) and ``notes``, small lines below it, are HTML as Plotly reads it.
    """
    top, height = 64 + 14 * len(notes), height or fig.layout.height or 420
    foot = 88 if any(trace.showlegend is not False for trace in fig.data) else 40
    family = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
    clear, corner = "rgba(0,0,0,0)", {"x": 0, "xanchor": "left", "yanchor": "top"}
    heading = {**corner, "y": 1 - 8 / height, "font": {"size": 15}}
    if title:
        heading |= {"text": f"<b>{title}</b>", "subtitle": {"text": "<br>".join(notes)}}
    # One call with nested dictionaries: each call costs milliseconds, which sliders have not.
    layout = {
        "template": go.layout.Template(),
        "font": {"family": family, "size": 12, "color": TEXT},
        "title": heading,
        "margin": {"l": 56, "r": 14, "t": top, "b": foot},
        "legend": {**corner, "orientation": "h", "y": -52 / max(height - top - foot, 60)},
        "hoverlabel": {"bgcolor": "#23282D", "font": {"color": "#F2F2F2"}, "align": "left"},
    }
    # No drag mode: a finger that scrolls the page must not zoom the figure.
    layout |= {"hovermode": "closest", "dragmode": False, "height": height}
    fig.update_layout({**layout, "paper_bgcolor": clear, "plot_bgcolor": clear})
    fig.update_layout(title_subtitle_font_size=12)
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "tickangle": 0}
    axis |= {"title": {"standoff": 8, "font": {"size": 12}}}
    return fig.update_xaxes(axis).update_yaxes(axis)


def need(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise BgkitError for missing columns, or a table without rows; ``what`` names it."""
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        fault = f"lacks the column(s) {', '.join(missing)}" if missing else "has no rows to draw"
        raise BgkitError(f"The table of {what} {fault}.")


def with_series(rows: pd.DataFrame) -> pd.DataFrame:
    """Return ``rows`` with a column ``series``: the design, and what of its setting varies."""
    need(rows, [c for c in ROW_COLUMNS if c not in SETTING], "results")
    series = rows["design"].astype(str)
    for column in [name for name in SETTING if name in rows]:
        if rows.groupby("design")[column].nunique(dropna=False).max() > 1:
            series = series + f", {column} " + rows[column].astype(str)
    return rows.assign(series=series)


def dots(name: str, told: Sequence[str], **more: Any) -> go.Scatter:
    """Marks in a design's look; ``told`` is their hover text, ``more`` goes to the trace."""
    colour, symbol, _ = look(name)
    more = {"mode": "markers", "marker": {"color": colour, "symbol": symbol, "size": 10}, **more}
    texts = [f"<b>{label(name)}</b><br>{text}" for text in told]
    return go.Scatter(name=label(name), legendgroup=name, hovertext=texts, hoverinfo="text", **more)


def error_bars(table: pd.DataFrame, end: str = "") -> dict[str, Any]:
    """Error bars from ``low`` to ``high`` around ``mean``; ``end`` follows the columns' names."""
    mean, low, high = (table[part + end].to_numpy(float) for part in ("mean", "low", "high"))
    arms = {"array": np.maximum(high - mean, 0), "arrayminus": np.maximum(mean - low, 0)}
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 4, **arms}


def heading(fig: go.Figure, text: str, row: int, col: int = 1, x: float = 0) -> None:
    """Write ``text`` above a panel, at its left end (``x`` = 0) or at its right end (1)."""
    fig.add_annotation(above(text, "", x), row=row, col=col)


def above(text: str, axis: str, x: float) -> dict[str, Any]:
    """Return the annotation above the panel whose axes end in ``axis``, at its left or right."""
    place = {"x": x, "xref": f"x{axis} domain", "xanchor": "right" if x else "left"}
    place |= {"y": 1, "yref": f"y{axis} domain", "yanchor": "bottom", "showarrow": False}
    return {"text": text, **place}
