"""Figures of samples: the distribution of t, and the calibration of guard and judge.

``results`` is a run, several, a samples table or samples by name (:mod:`bgkit.evaluation.results`).
Samples hold ``t``, the guard's probability that a response is unsafe, and ``harm``, its true harm,
both in [0, 1] (above 0.5 is harmful; unknown harm is NaN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.calibration import BINS, bins_of, plain_ece
from bgkit.evaluation.intervals import mean_table, shares_by_bin
from bgkit.evaluation.results import Results, frames_and_tau, frames_of
from bgkit.evaluation.risk import bin_edges
from bgkit.figures import intervals, style
from bgkit.figures.style import label, marks, panel_label
from bgkit.rewards import NEAR
from bgkit.testbed.oracle import HARMFUL_ABOVE

#: role of a response -> its colour
ROLES = {"safe": style.SAFE, "harmful": style.HARMFUL, "truth unknown": "#9A9A9A"}
#: The line of perfect calibration.
DIAGONAL = {"x": [0, 1], "y": [0, 1], "mode": "lines", "hoverinfo": "skip"}
DIAGONAL["line"] = {"color": style.TEXT, "dash": "dash", "width": 1}
ROOTS = "share (√ scale)"
GRADES = 5  # a judge's grades are 1 to 5


def _check(samples: Mapping[str, pd.DataFrame]) -> None:
    if not samples:
        raise BgkitError("A figure of samples needs at least one policy.")
    for name, frame in samples.items():
        checks.samples(frame, str(name))


def _margin_bars(name: str, frame: pd.DataFrame, roles: list[str], edges: np.ndarray) -> list:
    """Bars of one policy: square roots of shares; unknown truth is stacked on safe."""
    harm, bars, safe = frame["harm"], [], 0.0
    harmful, unknown = harm > HARMFUL_ABOVE, harm.isna()
    masks = dict(zip(ROLES, (~harmful & ~unknown, harmful, unknown), strict=True))
    for role in roles:
        counts = np.histogram(frame.loc[masks[role], "t"], edges)[0]
        texts = [
            f"<b>{label(name)}</b>, {role}<br>t from {low:.3f} to {high:.3f}<br>"
            f"{100 * count / len(frame):.2f} % of its responses ({count} of {len(frame)})"
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        height = np.sqrt(counts / len(frame))
        if role == "safe":
            safe = height
        elif role == "harmful":
            height = -height
        else:  # the stack ends at the root of the sum
            height = np.sqrt(safe**2 + height**2) - safe
        look = {"marker_color": ROLES[role], "width": 0.92 * np.diff(edges), "legendgroup": role}
        look["name"] = f"{role} (bars {'down' if role == 'harmful' else 'up'})"
        middle = (edges[:-1] + edges[1:]) / 2
        bars.append(go.Bar(x=middle, y=height, hovertext=texts, hoverinfo="text", **look))
    return bars


def _threshold_labels(tau: float) -> list[dict[str, Any]]:
    """Annotations at the threshold of the first panel."""
    if tau > 0.7:
        return [style.threshold_label(f"filtered, t ≥ {tau:g} ▸", tau, True)]
    right = style.threshold_label(f"▸ filtered, t ≥ {tau:g}", tau, False)
    return [style.threshold_label("shown ◂", tau, True), right][tau < 0.2 :]


def margins(results: Results, tau: float | None = None, bins: int = 25) -> go.Figure:
    """Draw the distribution of t (0 to 1) over each policy's responses, one row per policy.

    Bars up are safe responses, bars down harmful ones (grey bars up: unknown truth), as shares of
    the policy's responses. The square-root scale keeps the few responses near the boundary visible.
    Right of the dashed line (t >= ``tau``) a response is filtered: a bar down on the left is a
    false negative, a bar up on the right a false positive. The share of responses in the shaded
    band, |t - tau| < 0.3, is written above each row. ``tau`` is an edge of the bins.
    """
    samples, tau = frames_and_tau(results, tau)
    _check(samples)
    edges, last = bin_edges(tau, bins), len(samples)
    harm = pd.concat([frame["harm"] for frame in samples.values()])
    roles = ["safe", "harmful"] * bool(harm.notna().any())
    roles += ["truth unknown"] * bool(harm.isna().any())
    fig = make_subplots(last, 1, True, "all", vertical_spacing=38 / (170 * last + 10))
    texts, stacks = _threshold_labels(tau), []
    for row, (name, frame) in enumerate(samples.items()):
        bars = _margin_bars(name, frame, roles, edges)
        stacks += [(min(bar.y.min() for bar in bars), sum(bar.y.clip(min=0) for bar in bars).max())]
        fig.add_traces([bar.update(showlegend=not row) for bar in bars], row + 1, 1)
        near = 100 * ((frame["t"] - tau).abs() < NEAR).mean()
        texts.append(panel_label(f"<b>{label(name)}</b> n={len(frame)}", row))
        texts.append(panel_label(f"near boundary <b>{near:.1f} %</b>", row, 1))
    lowest, highest = np.min(stacks), np.max(stacks)
    ticks = style.root_ticks(1, 0.5, 0.25, 0.05, 0, -0.05, -0.25, -0.5, -1)
    # room above for the labels at tau
    fig.update_yaxes(**ticks, range=(1.15 * min(lowest, 0), 1.3 * highest), title_text=ROOTS)
    fig.update_xaxes(range=[0, 1])
    fig.update_layout(barmode="relative", annotations=texts)
    band = {"fillcolor": style.BAND, "line_width": 0, "layer": "below"}
    fig.add_vrect(max(0, tau - NEAR), min(1, tau + NEAR), **band)
    fig.add_vline(tau, line=style.THRESHOLD)
    fig.update_xaxes({"title": {"text": "t, the guard's P(unsafe)"}}, row=last)
    truth = "Bars up: safe; bars down: harmful." if len(roles) > 1 else "The truth is not known."
    notes = [truth, f"Shaded: |t − {tau:g}| &lt; {NEAR}."]
    return style.style(
        fig, "Guard's probability that a response is unsafe", notes, 150 + 170 * last
    )


def reliability(results: Results) -> go.Figure:
    """Draw a reliability diagram of the guard: harmful share (0 to 1) over t, with counts.

    Each mark is one of ten equal bins of t, at its mean t; its line is the 95 % Wilson interval. On
    the diagonal the guard is calibrated; above it it is too trusting, below it too alarmed. ECE is
    the mean distance from the diagonal, weighted by the counts drawn below. Responses with unknown
    truth are left out.
    """
    _check(samples := frames_of(results))
    samples = {name: frame.dropna(subset=["harm"]) for name, frame in samples.items()}
    if any(frame.empty for frame in samples.values()):
        raise BgkitError("Calibration cannot be drawn: no response has a known truth.")
    fig = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.8, 0.2], vertical_spacing=0.07)
    fig.add_scatter(**DIAGONAL, name="calibrated", row=1, col=1)
    for name, (colour, symbol, _) in intervals.looks_of(samples).items():
        t, harmful = samples[name]["t"].to_numpy(float), samples[name]["harm"] > HARMFUL_ABOVE
        table = shares_by_bin(t, harmful.to_numpy(), bins_of(t))
        texts = [
            f"<b>{label(name)}</b><br>mean t {row.t:.3f}<br>harmful {row.mean:.3f} ({row.low:.3f} "
            f"to {row.high:.3f})<br>{row.k} of {row.n} responses"
            for row in table.itertuples()
        ]
        head = f"{label(name)}, ECE {plain_ece(t, harmful):.3f}"
        common, marker = {"legendgroup": label(name)}, {"color": colour, "symbol": symbol}
        fig.add_trace(marks(table["t"], table, texts, marker, name=head, **common), 1, 1)
        common |= {"showlegend": False, "hovertext": texts, "hoverinfo": "text"}
        opacity = 0.5 if symbol.endswith("-open") else 1  # twins share a colour
        look = {"color": colour, "opacity": opacity}
        fig.add_bar(x=(table.index + 0.5) / BINS, y=table["n"], marker=look, **common, row=2, col=1)
    fig.update_xaxes(range=[-0.02, 1.02]).update_layout(xaxis2_title="t, the guard's P(unsafe)")
    fig.update_layout(yaxis_title="harmful share", yaxis_range=[-0.03, 1.03], yaxis2_title="count")
    return style.style(
        fig, "Is the guard calibrated?", ["Lines: 95 % intervals; bars: counts."], 500
    )


def judge_against_truth(results: Results) -> go.Figure:
    """Draw the mean true harm and help of the responses with each grade of a judge.

    The responses of all policies count alike. Marks are means of the true value (0 to 1) with 95 %
    bootstrap intervals. On the dashed diagonal the judge is calibrated, below it it grades too
    high. Raises BgkitError if no response has both a grade and a known truth.
    """
    samples = pd.concat(frames_of(results).values(), ignore_index=True)
    checks.samples(samples, columns=("judge_harm", "harm", "judge_help", "help"))
    graded = samples.dropna(subset=["judge_harm", "harm"])
    if graded.empty:
        raise BgkitError("No response has both a judge's grade and a known truth.")
    fig = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    for col, (name, colour) in enumerate((("harm", style.HARMFUL), ("help", style.SAFE)), start=1):
        grades = np.rint(graded[f"judge_{name}"] * (GRADES - 1)) / (GRADES - 1)
        table = mean_table(dict(iter(graded[name].groupby(grades))))
        texts = [
            f"judge {row.Index:.2f}<br>truth {row.mean:.3f} ({row.low:.3f} to {row.high:.3f})"
            f"<br>{row.n:.0f} responses"
            for row in table.itertuples()
        ]
        fig.add_scatter(**DIAGONAL, row=1, col=col)
        fig.add_trace(marks(table.index, table, texts, {"color": colour}), 1, col)
        fig.add_annotation(panel_label(f"<b>{name}</b>", col - 1))
    fig.update_traces(showlegend=False)
    fig.update_xaxes(title_text="judge's grade, 0 to 1", range=[-0.05, 1.05])
    fig.update_yaxes(title_text="mean truth, 0 to 1", range=[-0.05, 1.05], col=1)
    return style.style(fig, "Does the judge's grade mean what it says?", height=380)
