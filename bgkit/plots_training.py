"""Pictures of a training run while it goes: curves so far, and where its responses lie now."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import plots

#: column of a run's metrics -> its panel's heading
PANELS = {
    "reward": "reward",
    "near_boundary": "near the boundary",
    "filter_rate": "filtered",
    "kl": "KL per token (nats)",
    "no_spread": "groups without spread",
}


def live(
    curve: pd.DataFrame, base: np.ndarray, now: np.ndarray, tau: float, design: str, steps: int
) -> go.Figure:
    """Draw a run so far: five curves over its steps, and its margins beside the base policy's.

    ``curve`` has a row per ``step`` and the columns of :data:`PANELS`; ``base`` and ``now`` are
    :func:`bgkit.scoring.shares_of_t` of the base policy and of the newest responses. In the last
    panel the bars are the newest responses and the line is base, on a square-root scale; right of
    the dashed line (t >= ``tau``) a response is filtered. Training away from the boundary empties
    the middle.
    """
    fig = make_subplots(2, 3, vertical_spacing=0.22, horizontal_spacing=0.09)
    colour = plots.look(design)[0]
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
        plots.heading(fig, heading, row, col)
        fig.update_xaxes(range=[0, steps], row=row, col=col)
        if column in (*plots.SHARES, "no_spread"):
            fig.update_yaxes(tickformat=".0%", rangemode="tozero", row=row, col=col)
    _margins(fig, base, now, tau, colour)
    fig.update_traces(showlegend=False, mode="lines", selector={"type": "scatter"})
    fig.update_xaxes(title_text="training step", row=2).update_xaxes(title_text="t", row=2, col=3)
    return plots.style(fig, f"Training {plots.label(design)}", height=430)


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
    line = {"color": plots.look("base")[0], "width": 2, "shape": "hvh"}
    fig.add_scatter(x=middle, y=np.sqrt(base), line=line, hoverinfo="skip", row=2, col=3)
    dash = {"dash": "dash", "width": 1.5, "color": plots.TEXT}
    fig.add_vline(tau, line=dash, row=2, col=3)
    ticks = np.array([0, 0.05, 0.25, 0.5, 1])
    fig.update_yaxes(tickvals=np.sqrt(ticks), ticktext=[f"{x:.0%}" for x in ticks], row=2, col=3)
    plots.heading(fig, "margins: bars now, line base", 2, 3)
