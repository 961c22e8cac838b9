"""Pictures of results: pure functions to Plotly figures.

``results`` is a run, several, a samples table, samples by name, or rows
(:mod:`bgkit.evaluation.results`). Samples hold ``t``, the guard's probability that a response is
unsafe, and ``harm``, its true harm, both in [0, 1] (above 0.5 is harmful; NaN: not known). Rows
have :data:`ROW_COLUMNS`: ``kind`` is 'all' or one kind of prompt, ``low`` to ``high`` the interval
of ``mean``.

A design looks the same in all figures (:data:`LOOKS`), which are legible on light and dark pages.
Names are escaped as HTML. Absent columns or rows raise :class:`~bgkit.errors.BgkitError`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import wilson
from bgkit.evaluation.metrics import METRICS, RATES
from bgkit.evaluation.results import Results, frames_of, rows_of, tau_of
from bgkit.rewards import NEAR
from bgkit.texts import visible

# Design: colour, marker symbol, line dash. Okabe-Ito hues, darker where they fade on white.
LOOKS = {
    "base": ("#9A9A9A", "circle", "solid"),
    "filter_avoidance": ("#D55E00", "triangle-up", "dash"),
    "boundary": ("#0072B2", "square", "solid"),
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


def _need(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        fault = f"lacks the column(s) {', '.join(missing)}" if missing else "has no rows to draw"
        raise BgkitError(f"The table of {what} {fault}.")


def _need_samples(samples: Mapping[str, pd.DataFrame], bins: int) -> None:
    if not samples or bins < 2:
        raise BgkitError("A figure of samples needs at least one policy and two bins.")
    for name, frame in samples.items():
        checks.samples(frame, str(name))


def with_series(rows: pd.DataFrame) -> pd.DataFrame:
    """Return ``rows`` with a column ``series``: the design, and what of its setting varies."""
    _need(rows, ROW_COLUMNS, "results")
    series = rows["design"].astype(str)
    for column in SETTING:
        if rows.groupby("design")[column].nunique(dropna=False).max() > 1:
            series = series + f", {column} " + rows[column].astype(str)
    return rows.assign(series=series)


def _pick(rows: pd.DataFrame, metric: str, kind: str) -> pd.DataFrame:
    """Return the rows of one metric and kind, with their hover text in a column ``told``."""
    table = with_series(rows)
    table = table[(table["kind"] == kind) & (table["metric"] == metric)].dropna(subset=["mean"])
    if table.empty:
        raise BgkitError(f"The table of results has no '{metric}' for prompts of kind '{kind}'.")
    parts = [table[part].map(lambda v: number(v, metric, 4)) for part in ("mean", "low", "high")]
    told = [f"{mean} ({low} to {high})" for mean, low, high in zip(*parts, strict=True)]
    return table.assign(told=[f"{named(metric)} {text}" for text in told])


def _dots(name: str, told: Sequence[str], **more: Any) -> go.Scatter:
    colour, symbol, _ = look(name)
    more = {"mode": "markers", "marker": {"color": colour, "symbol": symbol, "size": 10}, **more}
    texts = [f"<b>{label(name)}</b><br>{text}" for text in told]
    return go.Scatter(name=label(name), legendgroup=name, hovertext=texts, hoverinfo="text", **more)


def _error(table: pd.DataFrame, end: str = "") -> dict[str, Any]:
    mean, low, high = (table[part + end].to_numpy(float) for part in ("mean", "low", "high"))
    arms = {"array": np.maximum(high - mean, 0), "arrayminus": np.maximum(mean - low, 0)}
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 4, **arms}


def heading(fig: go.Figure, text: str, row: int, col: int = 1, x: float = 0) -> None:
    """Write ``text`` above a panel, at its left end (``x`` = 0) or at its right end (1)."""
    fig.add_annotation(_above(text, "", x), row=row, col=col)


def _above(text: str, axis: str, x: float) -> dict[str, Any]:
    """Return the annotation above the panel whose axes end in ``axis``, at its left or right."""
    place = {"x": x, "xref": f"x{axis} domain", "xanchor": "right" if x else "left"}
    place |= {"y": 1, "yref": f"y{axis} domain", "yanchor": "bottom", "showarrow": False}
    return {"text": text, **place}


def bar_edges(tau: float, bins: int) -> np.ndarray:
    """Edges (bins + 1,) of a margin histogram's bars: two ranges of equal bars that meet at tau.

    Raises BgkitError for a ``tau`` off [0, 1].

    >>> bar_edges(0.4, 5).round(1).tolist()
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    checks.threshold(tau, ends=True)
    left = int(np.clip(round(bins * tau), 1, bins - 1)) if 0 < tau < 1 else 0
    right = np.linspace(tau if left else 0, 1, bins - left + 1)
    return np.concatenate([np.linspace(0, tau, left + 1)[:-1], right])


def _margin_bars(name: str, frame: pd.DataFrame, role: str, edges: np.ndarray) -> go.Bar:
    harm = frame["harm"]
    masks = dict(zip(ROLES, (harm <= 0.5, harm > 0.5, harm.isna()), strict=True))
    colour = dict(zip(ROLES, (SAFE, HARMFUL, UNKNOWN), strict=True))[role]
    counts = np.histogram(frame.loc[masks[role], "t"], edges)[0]
    told = [
        f"<b>{label(name)}</b>, {role}<br>t from {low:.3f} to {high:.3f}<br>"
        f"{100 * count / len(frame):.2f} % of its responses ({count} of {len(frame)})"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    height = np.sqrt(counts / len(frame)) * (-1 if role == "harmful" else 1)
    if role == ROLES[2]:  # on top of the safe ones, so that the sum ends where the scale says
        below = np.histogram(frame.loc[masks["safe"], "t"], edges)[0]
        height = np.sqrt((below + counts) / len(frame)) - np.sqrt(below / len(frame))
    bar = go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=height, width=0.92 * np.diff(edges))
    bar.update(hovertext=told, hoverinfo="text", marker_color=colour, legendgroup=role)
    return bar.update(name=f"{role} (bars {'down' if role == 'harmful' else 'up'})")


def _words_at(tau: float) -> list[dict[str, Any]]:
    """Return the words beside the threshold of the first panel, as annotations."""
    words = [("shown ◂", "right", -5), (f"▸ filtered, t ≥ {tau:g}", "left", 5)]
    words = [(f"filtered, t ≥ {tau:g} ▸", "right", -5)] if tau > 0.7 else words[tau < 0.2 :]
    place = {"x": tau, "xref": "x", "y": 1, "yref": "y domain", "yanchor": "top"}
    return [
        {"text": text, **place, "showarrow": False, "xanchor": anchor, "xshift": shift}
        for text, anchor, shift in words
    ]


def margins(results: Results, tau: float | None = None, bins: int = 25) -> go.Figure:
    """Draw where each policy's responses lie on the guard's scale of 0 to 1, one row per policy.

    Bars up are safe responses, bars down harmful ones, as shares of the policy's responses on a
    square-root scale, so that the few near the boundary show beside the many at the ends. Right of
    the dashed line (t >= ``tau``) a response is filtered: a bar down on the left is a false
    negative, a bar up on the right a false positive. The share of the shaded band, |t - tau| < 0.3,
    is written above each row. No bar straddles ``tau``. Responses whose truth is not known are grey
    bars up.
    """
    samples, tau = frames_of(results), tau_of(results, tau)
    _need_samples(samples, bins)
    edges, last = bar_edges(tau, bins), len(samples)
    harm = pd.concat([frame["harm"] for frame in samples.values()])
    roles = [*ROLES[:2]] if harm.notna().any() else []
    roles += [ROLES[2]] if harm.isna().any() else []
    fig = make_subplots(last, 1, True, "all", vertical_spacing=38 / (170 * last + 10))
    shapes, texts = [], _words_at(tau)
    for row, (name, frame) in enumerate(samples.items(), 1):
        for role in roles:
            bars = _margin_bars(name, frame, role, edges)
            fig.add_trace(bars.update(showlegend=row == 1), row, 1)
        near, axis = 100 * ((frame["t"] - tau).abs() < NEAR).mean(), str(row) if row > 1 else ""
        texts.append(_above(f"<b>{label(name)}</b> n={len(frame)}", axis, 0))
        texts.append(_above(f"near boundary <b>{near:.1f} %</b>", axis, 1))
        place = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
        band = {"x0": max(0, tau - NEAR), "x1": min(1, tau + NEAR), "fillcolor": BAND}
        shapes.append({"type": "rect", **band, **place, "line": {"width": 0}, "layer": "below"})
        line = {"dash": "dash", "width": 1.5, "color": TEXT}
        shapes.append({"type": "line", "x0": tau, "x1": tau, **place, "line": line})
    stacks = np.array([bar.y for bar in fig.data]).reshape(last, len(roles), bins)
    # room above for the words at tau
    limits = 1.15 * stacks.min(initial=0), 1.3 * stacks.clip(min=0).sum(1).max()
    shares = np.array([1, 0.5, 0.25, 0.05, 0, -0.05, -0.25, -0.5, -1])
    ticks = {"tickvals": np.sign(shares) * np.sqrt(abs(shares)), "range": limits}
    ticks |= {"ticktext": [f"{abs(share):.0%}" for share in shares]}
    fig.update_yaxes({**ticks, "title": {"text": "share (√ scale)"}}).update_xaxes(
        {"range": [0, 1]}
    )
    fig.update_layout({"barmode": "relative", "shapes": shapes, "annotations": texts})
    fig.update_xaxes({"title": {"text": "t, the guard's P(unsafe)"}}, row=last)
    told = "Bars up: safe; bars down: harmful." if len(roles) > 1 else "The truth is not known."
    notes = [told, f"Shaded: |t − {tau:g}| &lt; {NEAR}."]
    return style(fig, "Guard's probability that a response is unsafe", notes, 150 + 170 * last)


def frontier(results: Results, kind: str = "all") -> go.Figure:
    """Draw system helpfulness (up) against system harm (right), both 0 to 1, one mark per design.

    Up and left is better: a design above and left of another beats it on both counts. The lines
    through a mark are the intervals of its two means, ``low`` to ``high``.
    """
    rows = rows_of(results)
    harm, help_ = (_pick(rows, metric, kind) for metric in ("system_harm", "system_help"))
    fig, both = make_subplots(), harm.merge(help_, on="series", suffixes=("", "_y"))
    for name, one in both.groupby("series", sort=False):
        bars = {"error_x": _error(one), "error_y": _error(one, "_y")}
        told = one["told_y"] + "<br>" + one["told"]
        fig.add_trace(_dots(name, told, x=one["mean"], y=one["mean_y"], **bars))
    heading(fig, "<b>↖ better</b>", 1)
    fig.update_layout(xaxis_title="system harm, 0 to 1", yaxis_title="system help, 0 to 1")
    return style(fig, "System helpfulness against harm", [f"On {label(kind)} prompts."], 440)


def _bins(frame: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Return per used bin of t: n, its mean t, and the harmful share with its Wilson interval."""
    place = np.minimum((frame["t"].to_numpy(float) * bins).astype(int), bins - 1)
    groups = frame.assign(harmful=frame["harm"] > 0.5).groupby(place)
    table = groups.agg(n=("t", "size"), t=("t", "mean"), k=("harmful", "sum"))
    low, high = wilson(table["k"], table["n"])
    return table.assign(mean=table["k"] / table["n"], low=low, high=high)


def reliability(results: Results, bins: int = 10) -> go.Figure:
    """Draw how often responses are harmful (0 to 1) where the guard says t, and how many there are.

    Each mark is one of ``bins`` equal bins of t, at its mean t; its line is the 95 % Wilson
    interval. On the diagonal the guard is calibrated; above it the guard is too trusting, below it
    too alarmed. ECE is the mean distance to the diagonal, weighted by the counts drawn below.
    Responses whose truth is not known are left out.
    """
    samples = frames_of(results)
    _need_samples(samples, bins)
    samples = {name: frame.dropna(subset=["harm"]) for name, frame in samples.items()}
    if any(frame.empty for frame in samples.values()):
        raise BgkitError("Calibration can not be drawn: no response has a known truth.")
    fig = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.8, 0.2], vertical_spacing=0.07)
    ideal = {"mode": "lines", "line": {"color": TEXT, "dash": "dash", "width": 1}}
    fig.add_scatter(x=[0, 1], y=[0, 1], name="calibrated", hoverinfo="skip", **ideal, row=1, col=1)
    for name, frame in samples.items():
        table = _bins(frame, bins)
        ece = float((table["n"] * (table["mean"] - table["t"]).abs()).sum() / len(frame))
        told = [
            f"mean t {row.t:.3f}<br>harmful {row.mean:.3f} ({row.low:.3f} to {row.high:.3f})<br>"
            f"{row.k} of {row.n} responses"
            for row in table.itertuples()
        ]
        marks = _dots(name, told, x=table["t"], y=table["mean"], error_y=_error(table))
        fig.add_trace(marks.update(name=f"{label(name)}, ECE {ece:.3f}"), 1, 1)
        bar = go.Bar(x=(table.index + 0.5) / bins, y=table["n"], marker_color=look(name)[0])
        bar.update(hovertext=marks.hovertext, hoverinfo="text", showlegend=False, legendgroup=name)
        fig.add_trace(bar, 2, 1)
    fig.update_xaxes(range=[-0.02, 1.02]).update_layout(xaxis2_title="t, the guard's P(unsafe)")
    fig.update_layout(yaxis_title="harmful share", yaxis_range=[-0.03, 1.03], yaxis2_title="count")
    return style(fig, "Is the guard calibrated?", ["Lines: 95 % intervals; bars: counts."], 500)


def _panels(rows: pd.DataFrame, panels: Sequence[tuple[str, str]], columns: int) -> go.Figure:
    """Return a dot-and-whisker panel for each pair of a metric and a kind, one line per design."""
    if not panels:
        raise BgkitError("There are no intervals to draw: no metric or no kind was given.")
    count, lines = with_series(rows)["series"].nunique(), -(-len(panels) // columns)
    inner, share = lines * (24 * count + 52) - 40, "all" if columns == 1 else False
    fig = make_subplots(lines, columns, share, "all", vertical_spacing=40 / inner)
    for place, (metric, kind) in enumerate(panels):
        row, col, table = place // columns + 1, place % columns + 1, _pick(rows, metric, kind)
        for name, one in table.groupby("series", sort=False):
            more = {"x": one["mean"], "y": [label(name)] * len(one), "error_x": _error(one)}
            fig.add_trace(_dots(name, one["told"], **more, showlegend=False), row, col)
        fig.add_vline(table["mean"].iloc[0], line_width=1, line_color=TEXT, row=row, col=col)
        heading(fig, named(metric) if columns > 1 else f"<b>{label(kind)}</b>", row, col)
        fig.update_xaxes(tickformat=".1~%" if metric in SHARES else "", nticks=5, row=row, col=col)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig.update_layout(height=inner + 78 + 40)


def metric_intervals(results: Results, metrics: Sequence[str], kind: str = "all") -> go.Figure:
    """Draw one panel per metric: the mean of each design (mark) and its interval (line).

    Designs run down in the order of ``rows``; the upright line is the first one's mean. Shares
    are in percent, scores go from 0 to 1, KL is in nats.
    """
    fig = _panels(rows_of(results), [(metric, kind) for metric in metrics], 2)
    return style(fig, "Metrics with intervals", [f"On {label(kind)} prompts."])


def by_kind(results: Results, metric: str) -> go.Figure:
    """Draw one metric with a panel per kind of prompt: each design's mean and interval.

    All panels share one scale; the upright line is the mean of the first design in ``rows``.
    """
    rows = rows_of(results)
    kinds = [kind for kind in with_series(rows)["kind"].unique() if kind != "all"]
    fig = _panels(rows, [(metric, kind) for kind in kinds], 1)
    fig.update_xaxes(title_text=named(metric), row=len(kinds))
    return style(fig, f"{named(metric).capitalize()} by kind of prompt", ["Lines: intervals."])
