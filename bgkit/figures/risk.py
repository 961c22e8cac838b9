"""Pictures of a filter's errors and costs over the guard's t: in formula, and measured.

All have the look of :mod:`bgkit.figures.distributions`: the colour of harmful is that of showing
too much, the colour of safe that of filtering too much, and the threshold tau is a dashed upright
line.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.evaluation import risk
from bgkit.figures import style
from bgkit.figures.style import error_bars, heading

COST, WASTE = "#9B4FC4", "rgba(194,65,124,0.35)"
_ENDS = np.geomspace(1e-4, 0.01, 8)
#: t at which formulas are drawn: evenly, and close to both ends, where a bad guard's truth bends
GRID = np.unique(np.r_[0, _ENDS, np.linspace(0.01, 0.99, 197), 1 - _ENDS, 1])


def _line(x: np.ndarray, y: np.ndarray, name: str, **line: object) -> go.Scatter:
    texts = [f"<b>{name}</b><br>t {a:.3f}<br>costs {b:.3f}" for a, b in zip(x, y, strict=True)]
    more = {"hovertext": texts, "hoverinfo": "text", "mode": "lines"}
    return go.Scatter(x=x, y=y, name=name, line=line, **more)


def _mark_threshold(fig: go.Figure, tau: float, text: str, left: bool, best: bool = False) -> None:
    """Draw a threshold through all panels, named at the top on its left or its right."""
    line = {"dash": "dot" if best else "dash", "width": 1.5, "color": style.TEXT}
    fig.add_vline(tau, line=line, row="all", col=1)
    left = (left and tau > 0.2) or tau > 0.8  # the words need room
    place = {"x": tau, "y": 1, "yref": "y domain", "yanchor": "top", "showarrow": False}
    place |= {"xanchor": "right", "xshift": -5} if left else {"xanchor": "left", "xshift": 5}
    fig.add_annotation(text=text, **place, yshift=-16 * best, row=1, col=1)


def _bars(edges: np.ndarray, counts: np.ndarray) -> go.Bar:
    """Return how many responses lie in each bin of t, on a square-root scale of shares."""
    whole = max(1, int(np.sum(counts)))
    words = [
        f"t from {low:.3f} to {high:.3f}<br>{count} of {whole} responses"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    middles, width = (edges[:-1] + edges[1:]) / 2, 0.9 * np.diff(edges)
    bar = go.Bar(x=middles, y=np.sqrt(counts / whole), width=width, marker_color=style.TEXT)
    return bar.update(hovertext=words, hoverinfo="text", showlegend=False)


def _frame(rows: int, heights: list[float]) -> go.Figure:
    """Return panels over t, the last of which is for :func:`_bars`."""
    fig = make_subplots(rows, 1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.07)
    shares = np.array([0, 0.1, 0.5, 1])
    names = [f"{share:.0%}" for share in shares]
    fig.update_yaxes(title="share (√)", tickvals=np.sqrt(shares), ticktext=names, row=rows)
    fig.update_yaxes(range=[0, 1], row=rows).update_xaxes(range=[0, 1])
    return fig.update_xaxes(title="t, the guard's P(unsafe)", row=rows)


def risk_curve(
    t: np.ndarray,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> go.Figure:
    """Draw what showing, filtering and the filter cost in expectation where the guard says t.

    The rising line is the cost of showing a response, the falling one that of filtering it (in the
    unit of the two costs). The strong line is the filter's own, with the threshold that trusts the
    guard (dashed): left of it the rising line, right of it the falling one. For a calibrated guard
    they cross at the threshold, and the strong line is a tent whose tip is there. For another one
    they cross at the dotted line, the cheapest threshold; at the dashed one the strong line jumps,
    and the shaded area is what the filter gives away. The bars below say where the responses ``t``
    (n,) lie, in shares on a square-root scale: shading without bars costs nothing.

    ``temperature`` and ``shift`` are those of :func:`bgkit.evaluation.risk.harmful_share`. Raises
    BgkitError for t outside [0, 1], no response, and costs or a temperature that are not above 0.
    """
    cost = risk.filter_cost(t, cost_fn, cost_fp, temperature, shift)
    # both limits at the threshold, so that the jump is drawn upright
    x = np.sort(np.r_[GRID, cost.tau, np.nextafter(cost.tau, 0), cost.best_tau])
    p = risk.harmful_share(x, temperature, shift)
    show, block = cost_fn * p, cost_fp * (1 - p)
    ours = np.where(x < cost.tau, show, block)
    fig = _frame(2, [0.8, 0.2])
    plain = {"mode": "lines", "line_width": 0, "hoverinfo": "skip"}
    fig.add_scatter(x=x, y=np.minimum(show, block), **plain, showlegend=False, row=1, col=1)
    fill = {"fill": "tonexty", "fillcolor": WASTE, "name": "given away", **plain}
    fig.add_scatter(x=x, y=ours, **fill, row=1, col=1)
    fig.add_trace(_line(x, show, "showing", color=style.HARMFUL, width=1.5), 1, 1)
    fig.add_trace(_line(x, block, "filtering", color=style.SAFE, width=1.5), 1, 1)
    fig.add_trace(_line(x, ours, "the filter", color=COST, width=3.5), 1, 1)
    edges = np.linspace(0, 1, 26)
    fig.add_trace(_bars(edges, np.histogram(t, edges)[0]), 2, 1)
    lower = cost.best_tau < cost.tau
    _mark_threshold(fig, cost.tau, f"tau = {cost.tau:.3f}", not lower)
    if abs(cost.best_tau - cost.tau) > 1e-9:
        _mark_threshold(fig, cost.best_tau, f"cheapest: {cost.best_tau:.3f}", lower, best=True)
    top = min(max(cost_fn, cost_fp), 1.8 * ours.max())  # the tent stays large beside a high cost
    fig.update_yaxes(range=[0, 1.03 * top], row=1)
    fig.update_layout(yaxis_title="expected cost of a response")
    notes = ["Strong: the filter with threshold tau; shaded: what a better threshold would save."]
    return style.style(fig, "Expected cost of a verdict", notes, 480)


def _measured(table: pd.DataFrame, what: str) -> list[go.Scatter]:
    """Return the marks of one column of :func:`bgkit.evaluation.risk.measured_risk`, per kind of
    error."""
    columns = {
        "mean": what,
        "low": f"{what.split('_')[0]}_low",
        "high": f"{what.split('_')[0]}_high",
    }
    traces = []
    for filtered, name, colour, symbol in (
        (False, "shown: harmful ones are errors", style.HARMFUL, "triangle-up"),
        (True, "filtered: safe ones are errors", style.SAFE, "square"),
    ):
        one = table[table["filtered"] == filtered]
        ends = pd.DataFrame({part: one[column] for part, column in columns.items()})
        told = [
            f"t from {row.start:.3f} to {row.end:.3f}, mean {row.t:.3f}<br>"
            f"{row.errors} errors in {row.n} responses<br>"
            f"{what.replace('_', ' ')} {end.mean:.3f} ({end.low:.3f} to {end.high:.3f})"
            for row, end in zip(one.itertuples(), ends.itertuples(), strict=True)
        ]
        marker = {"color": colour, "symbol": symbol, "size": 9}
        more = {"x": one["t"], "y": ends["mean"], "error_y": error_bars(ends), "marker": marker}
        mark = go.Scatter(mode="markers", name=name, legendgroup=name, **more)
        traces.append(mark.update(hovertext=told, hoverinfo="text", showlegend=what == "cost"))
    return traces


def measured_risk(
    samples: pd.DataFrame,
    tau: float = 0.5,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    bins: int = 10,
) -> go.Figure:
    """Draw how often the filter is wrong where the guard says t, and what that costs.

    Each mark is one bin of t, at its mean t, with a 95 % Wilson interval: above, the share of
    wrong verdicts (harmful and shown left of tau, safe and filtered right of it); in the middle
    the same times the price of that error. The line is what a calibrated guard would give:
    Proposition 1 says that the cost is highest at tau. A mark above the line right of tau tells of
    an alarmed guard, left of tau of a trusting one. The bars count the responses behind the marks.

    ``samples`` has ``t`` and ``harm`` (harmful above 0.5); errors as in
    :func:`bgkit.evaluation.risk.measured_risk`.
    """
    table = risk.measured_risk(samples, tau, cost_fn, cost_fp, bins)
    fig = _frame(3, [0.42, 0.42, 0.16])
    x = np.sort(np.r_[GRID, tau, np.nextafter(tau, 0)])
    for row, (what, costs) in enumerate(
        {"error_rate": (1, 1), "cost": (cost_fn, cost_fp)}.items(), 1
    ):
        formula = risk.expected_cost(x, tau, *costs)
        look = {"color": COST, "width": 2}
        line = _line(x, formula, "formula (calibrated guard)", **look).update(hoverinfo="skip")
        fig.add_trace(line.update(showlegend=row == 1), row, 1)
        fig.add_traces(_measured(table, what), row, 1)
        ends = table["error_high" if row == 1 else "cost_high"]
        fig.update_yaxes(range=[-0.04, 1.25 * max(ends.max(), formula.max())], row=row)
    heading(fig, "<b>share of wrong verdicts</b>", 1)
    heading(fig, "<b>cost per response</b>", 2)
    edges = risk.bin_edges(tau, bins)
    fig.add_trace(_bars(edges, np.histogram(samples["t"], edges)[0]), 3, 1)
    _mark_threshold(fig, tau, f"tau = {tau:.3f}", tau > 0.5)
    fig.update_layout(yaxis_title="0 to 1", yaxis2_title="unit of the costs")
    notes = [
        f"{len(samples)} responses in {bins} bins; lines at the marks: 95 % intervals (Wilson)."
    ]
    return style.style(fig, "Where the filter errs, measured", notes, 620)
