"""Figures of a filter's errors and costs over the guard's t: by formula, and measured."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.evaluation import risk
from bgkit.evaluation.results import Results, frame_and_tau
from bgkit.figures import style
from bgkit.figures.style import marks

COST, WASTE = "#9B4FC4", "rgba(194,65,124,0.35)"
ERRORS = (
    ("shown: harmful ones are errors", style.HARMFUL, "triangle-up"),
    ("filtered: safe ones are errors", style.SAFE, "square"),
)
_ENDS = np.geomspace(1e-4, 0.01, 8)
#: t at which formulas are drawn; denser at both ends, where the curve of a bad guard is steep
GRID = np.unique(np.r_[0, _ENDS, np.linspace(0.01, 0.99, 197), 1 - _ENDS, 1])


def _add_line(
    fig: go.Figure, x: np.ndarray, y: np.ndarray, name: str, row: int = 1, what="costs", **line
) -> None:
    hover = f"<b>%{{fullData.name}}</b><br>t %{{x:.3f}}<br>{what} %{{y:.3f}}<extra></extra>"
    more = {"mode": "lines", "line": line, "hovertemplate": hover, "showlegend": row == 1}
    fig.add_scatter(x=x, y=y, name=name, **more, row=row, col=1)


def _mark_threshold(fig: go.Figure, tau: float, text: str, left: bool, best: bool = False) -> None:
    """Draw a threshold through all panels, with its label at the top, left or right of it."""
    fig.add_vline(
        tau, line={**style.THRESHOLD, "dash": "dot" if best else "dash"}, row="all", col=1
    )
    left = (left and tau > 0.2) or tau > 0.8  # room for the label
    fig.add_annotation(style.threshold_label(text, tau, left, yshift=-16 * best))


def _panels_over_t(rows: int, heights: list[float], t: np.ndarray, edges: np.ndarray) -> go.Figure:
    """Panels over t; the last has the share of responses per bin on a square-root scale."""
    fig = make_subplots(rows, 1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.07)
    counts = np.histogram(t, edges)[0]
    texts = [
        f"t from {low:.3f} to {high:.3f}<br>{count} of {counts.sum()} responses"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    bars = {"x": (edges[:-1] + edges[1:]) / 2, "y": np.sqrt(counts / max(1, counts.sum()))}
    bars |= {"width": 0.9 * np.diff(edges), "marker_color": style.TEXT, "showlegend": False}
    fig.add_bar(**bars, hovertext=texts, hoverinfo="text", row=rows, col=1)
    fig.update_yaxes(title="share (√)", **style.root_ticks(0, 0.1, 0.5, 1), row=rows)
    fig.update_yaxes(range=[0, 1], row=rows).update_xaxes(range=[0, 1])
    return fig.update_xaxes(title="t, the guard's P(unsafe)", row=rows)


def risk_curve(
    t: np.ndarray,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> go.Figure:
    """Draw the expected costs of showing, of filtering and of the filter over t.

    The rising line is the cost of showing a response, the falling one that of filtering it, in the
    unit of the two costs. The strong line is the cost of the filter whose threshold (dashed)
    assumes a calibrated guard. If the guard is calibrated, the lines cross there and the strong
    line is a tent; otherwise they cross at the cheapest threshold (dotted), and the shaded area is
    avoidable cost. The bars are the distribution of ``t`` (n,), as shares on a square-root scale;
    shading without bars costs nothing.

    Arguments and errors are those of :func:`bgkit.evaluation.risk.filter_cost`.
    """
    cost = risk.filter_cost(t, cost_fn, cost_fp, temperature, shift)
    # both limits at the threshold, which draw the jump upright
    x = np.sort(np.r_[GRID, cost.tau, np.nextafter(cost.tau, 0), cost.best_tau])
    p = risk.harmful_share(x, temperature, shift)
    show, block = cost_fn * p, cost_fp * (1 - p)
    chosen = np.where(x < cost.tau, show, block)
    fig = _panels_over_t(2, [0.8, 0.2], t, np.linspace(0, 1, 26))
    plain = {"x": x, "mode": "lines", "line_width": 0, "hoverinfo": "skip", "row": 1, "col": 1}
    fig.add_scatter(y=np.minimum(show, block), showlegend=False, **plain)
    fig.add_scatter(y=chosen, fill="tonexty", fillcolor=WASTE, name="given away", **plain)
    _add_line(fig, x, show, "showing", color=style.HARMFUL, width=1.5)
    _add_line(fig, x, block, "filtering", color=style.SAFE, width=1.5)
    _add_line(fig, x, chosen, "the filter", color=COST, width=3.5)
    lower = cost.best_tau < cost.tau
    _mark_threshold(fig, cost.tau, f"tau = {cost.tau:.3f}", not lower)
    if abs(cost.best_tau - cost.tau) > 1e-9:
        _mark_threshold(fig, cost.best_tau, f"cheapest: {cost.best_tau:.3f}", lower, best=True)
    top = min(max(cost_fn, cost_fp), 1.8 * chosen.max())  # keeps the tent large if one cost is high
    fig.update_yaxes(range=[0, 1.03 * top], title_text="expected cost of a response", row=1)
    notes = ["Strong: the filter with threshold tau; shaded: what a better threshold would save."]
    return style.style(fig, "Expected cost of a verdict", notes, 480)


def measured_risk(
    results: Results,
    tau: float | None = None,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    bins: int = 10,
) -> go.Figure:
    """Draw the filter's error rate and its cost over t, as measured on a samples table or a run.

    Each mark is one bin of t, at its mean t, with a 95 % Wilson interval. The top panel shows the
    share of wrong verdicts (harmful and shown left of tau, safe and filtered right of it), the
    middle one that share times the cost of the error. The lines are for a calibrated guard, whose
    cost is highest at tau (Proposition 1). A mark above the line means a too alarmed guard right of
    tau, and a too trusting one left of tau. The bars count the responses of the marks.
    Arguments and errors are those of :func:`bgkit.evaluation.risk.measured_risk`.
    """
    samples, tau = frame_and_tau(results, tau)
    table = risk.measured_risk(samples, tau, cost_fn, cost_fp, bins)
    fig = _panels_over_t(3, [0.42, 0.42, 0.16], samples["t"], risk.bin_edges(tau, bins))
    x = np.sort(np.r_[GRID, tau, np.nextafter(tau, 0)])
    panels = (("error_rate", "share of wrong verdicts", (1, 1), "0 to 1"),)
    panels += (("cost", "cost per response", (cost_fn, cost_fp), "unit of the costs"),)
    for row, (metric, head, costs, unit) in enumerate(panels, 1):
        formula, words = risk.expected_cost(x, tau, *costs), metric.replace("_", " ")
        _add_line(fig, x, formula, "formula (calibrated guard)", row, words, color=COST, width=2)
        low, high = (table[metric.removesuffix("_rate") + end] for end in ("_low", "_high"))
        means = table.assign(mean=table[metric], low=low, high=high)
        for filtered, (name, colour, symbol) in enumerate(ERRORS):
            part = means[means["filtered"] == bool(filtered)]
            texts = [
                f"t from {r.start:.3f} to {r.end:.3f}, mean {r.t:.3f}<br>{r.errors} errors in "
                f"{r.n} responses<br>{words} {r.mean:.3f} ({r.low:.3f} to {r.high:.3f})"
                for r in part.itertuples()
            ]
            marker = {"color": colour, "symbol": symbol, "size": 9}
            more = {"name": name, "legendgroup": name, "showlegend": row == 1}
            fig.add_trace(marks(part["t"], part, texts, marker, **more), row, 1)
        limits = [-0.04, 1.25 * max(high.max(), formula.max())]
        fig.update_yaxes(range=limits, title_text=unit, row=row)
        fig.add_annotation(style.panel_label(f"<b>{head}</b>", row - 1))
    _mark_threshold(fig, tau, f"tau = {tau:.3f}", tau > 0.5)
    notes = [
        f"{len(samples)} responses in {bins} bins; lines at the marks: 95 % intervals (Wilson)."
    ]
    return style.style(fig, "Where the filter errs, measured", notes, 620)
