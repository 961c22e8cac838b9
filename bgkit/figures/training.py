"""Pictures of training: a run while it goes, and the curves of runs that are through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.results import Results, curves_of
from bgkit.figures import style

#: column of a run's metrics -> its panel's heading
PANELS = {
    "reward": "reward",
    "near_boundary": "near the boundary",
    "filter_rate": "filtered",
    "kl": "KL per token (nats)",
    "no_spread": "groups without spread",
}

#: Columns of metrics.parquet that training_curves draws, held-out ones last
CURVES = ("reward", "near_boundary", "filter_rate", "kl", "eval_system_harm", "eval_system_help")


def live(
    curve: pd.DataFrame, base: np.ndarray, now: np.ndarray, tau: float, design: str, steps: int
) -> go.Figure:
    """Draw a run so far: five curves over its steps, and its margins beside the base policy's.

    ``curve`` has a row per ``step`` and the columns of :data:`PANELS`; ``base`` and ``now`` are
    :func:`bgkit.scoring.scorer.shares_of_t` of the base policy and of the newest responses. In the
    last panel the bars are the newest responses and the line is base, on a square-root scale;
    right of the dashed line (t >= ``tau``) a response is filtered. Training away from the boundary
    empties the middle.
    """
    checks.threshold(tau, ends=True)
    fig = make_subplots(2, 3, vertical_spacing=0.22, horizontal_spacing=0.09)
    colour = style.look(design)[0]
    for place, (column, heading) in enumerate(PANELS.items()):
        row, col = place // 3 + 1, place % 3 + 1
        values = curve[column] if column in curve else pd.Series(np.nan, curve.index)
        told = [
            f"step {s:g}<br>{heading} {v:.4f}" for s, v in zip(curve["step"], values, strict=True)
        ]
        more = {"line": {"color": colour, "width": 1}, "opacity": 0.35, "hovertext": told}
        smooth = values.rolling(5, min_periods=1).mean()
        fig.add_scatter(x=curve["step"], y=values, hoverinfo="text", **more, row=row, col=col)
        line = {"color": colour, "width": 2}
        fig.add_scatter(x=curve["step"], y=smooth, hoverinfo="skip", line=line, row=row, col=col)
        style.heading(fig, heading, row, col)
        fig.update_xaxes(range=[0, steps], row=row, col=col)
        if column in (*style.SHARES, "no_spread"):
            fig.update_yaxes(tickformat=".0%", rangemode="tozero", row=row, col=col)
    _margins(fig, base, now, tau, colour)
    fig.update_traces(showlegend=False, mode="lines", selector={"type": "scatter"})
    fig.update_xaxes(title_text="training step", row=2).update_xaxes(title_text="t", row=2, col=3)
    return style.style(fig, f"Training {style.label(design)}", height=430)


def _margins(fig: go.Figure, base: np.ndarray, now: np.ndarray, tau: float, colour: str) -> None:
    """Add the panel of margins: bars now, a stepped line for base."""
    edges = np.linspace(0, 1, len(now) + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    told = [
        f"t from {low:.2f} to {high:.2f}<br>now {n:.1%}, base {b:.1%}"
        for low, high, n, b in zip(edges[:-1], edges[1:], now, base, strict=True)
    ]
    bar = {"marker_color": colour, "hovertext": told, "hoverinfo": "text", "showlegend": False}
    fig.add_bar(x=middle, y=np.sqrt(now), width=np.diff(edges), **bar, row=2, col=3)
    line = {"color": style.look("base")[0], "width": 2, "shape": "hvh"}
    fig.add_scatter(x=middle, y=np.sqrt(base), line=line, hoverinfo="skip", row=2, col=3)
    dash = {"dash": "dash", "width": 1.5, "color": style.TEXT}
    fig.add_vline(tau, line=dash, row=2, col=3)
    ticks = np.array([0, 0.05, 0.25, 0.5, 1])
    fig.update_yaxes(tickvals=np.sqrt(ticks), ticktext=[f"{x:.0%}" for x in ticks], row=2, col=3)
    style.heading(fig, "margins: bars now, line base", 2, 3)


def _curve(name: str, frame: pd.DataFrame, column: str) -> list[go.Scatter]:
    """Return a run's line in one panel: markers for held-out values, else faint and smoothed."""
    colour, _, dash = style.look(name)

    def line(values: pd.Series, note: str = "", **more: Any) -> go.Scatter:
        pairs = zip(frame["step"], values, strict=True)
        told = [
            f"step {step:g}<br>{style.label(column)} {value:.4f}{note}" for step, value in pairs
        ]
        return style.dots(name, told, x=frame["step"], y=values, showlegend=False, **more)

    strong, faint = {"color": colour, "dash": dash, "width": 2}, {"color": colour, "width": 1}
    first = column == CURVES[0]
    if column.startswith("eval_"):
        return [line(frame[column], mode="lines+markers", line=strong)]
    window = _window(frame)
    if window == 1:
        return [line(frame[column], mode="lines", line=strong).update(showlegend=first)]
    smooth = frame[column].rolling(window, min_periods=1, center=True).mean()
    mean = line(smooth, f" (mean of {window} steps)", mode="lines", line=strong)
    mean.update(showlegend=first)
    return [line(frame[column], mode="lines", line=faint, opacity=0.3), mean]


def _band(name: str, frame: pd.DataFrame, column: str) -> list[go.Scatter]:
    """A run's band from ``<column>_low`` to ``<column>_high`` in one panel, where it has them."""
    if f"{column}_low" not in frame:
        return []
    around = pd.concat([frame[f"{column}_low"], frame[f"{column}_high"][::-1]])
    steps = pd.concat([frame["step"], frame["step"][::-1]])
    look = {"fillcolor": style.look(name)[0], "opacity": 0.15, "line": {"width": 0}}
    more = {"fill": "toself", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    return [go.Scatter(x=steps, y=around, legendgroup=style.label(name), **look, **more)]


def training_curves(results: Results) -> go.Figure:
    """Draw six quantities over training steps, one panel each and one colour per run.

    Faint lines are single steps, strong lines their rolling mean (of a twentieth of the rows; a log
    of fewer than 40 rows is drawn as it is). Held-out harm and helpfulness
    (0 to 1, by the true score) are measured at some steps only: each marker is one measurement.
    Runs that were not evaluated on the way are in the other panels only. Means of several runs
    (:func:`bgkit.sweeps.collection.mean_curves`) have a band from the lowest run to the highest.
    """
    metrics = curves_of(results)
    if not metrics:
        raise BgkitError("There are no training curves to draw: no run was given.")
    needed = {name: _measured(frame) for name, frame in metrics.items()}
    shown = max(needed.values(), key=len)
    rows = len(shown) // 2
    fig = make_subplots(rows, 2, shared_xaxes="all", vertical_spacing=0.1, horizontal_spacing=0.12)
    for place, column in enumerate(shown):
        row, col = place // 2 + 1, place % 2 + 1
        held_out = ", held out" if column.startswith("eval_") else ""
        per_token = " per token" if column == "kl" else ""  # the trainer's is a mean over tokens
        title = style.named(column.removeprefix("eval_")) + per_token + held_out
        style.heading(fig, title, row, col)
        fig.update_yaxes(tickformat=".1~%" if column in style.SHARES else "", row=row, col=col)
        for name, frame in metrics.items():
            style.need(frame, ("step", *needed[name]), f"training metrics of '{name}'")
            if column in needed[name]:
                known = frame.dropna(subset=[column])
                for trace in [*_band(name, known, column), *_curve(name, known, column)]:
                    fig.add_trace(trace, row, col)
    fig.update_xaxes(title_text="training step", row=rows)
    smoothed = any(_window(frame) > 1 for frame in metrics.values())
    notes = ["Faint: each step; strong: rolling mean."] if smoothed else []
    if any(f"{column}_low" in frame for frame in metrics.values() for column in shown):
        notes.append("Line: mean of the runs; band: lowest to highest run.")
    return style.style(fig, "Training over steps", notes, 170 * rows + 110)


def _window(frame: pd.DataFrame) -> int:
    """Over how many rows of a log the strong line is a mean."""
    return max(1, len(frame) // 20)


def _measured(frame: pd.DataFrame) -> tuple[str, ...]:
    """The curves that a log should have: the held-out ones only if it was evaluated on the way."""
    held_out = [column for column in CURVES if column.startswith("eval_")]
    evaluated = any(column in frame for column in held_out)
    return CURVES if evaluated else tuple(c for c in CURVES if c not in held_out)
