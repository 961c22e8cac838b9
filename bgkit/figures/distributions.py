"""Pictures of results: where responses lie on the guard's scale, calibration, help against harm.

``results`` is a run, several, a samples table, samples by name, or rows
(:mod:`bgkit.evaluation.results`). Samples hold ``t``, the guard's probability that a response is
unsafe, and ``harm``, its true harm, both in [0, 1] (above 0.5 is harmful; NaN: not known). Rows
have :data:`bgkit.figures.style.ROW_COLUMNS`: ``kind`` is 'all' or one kind of prompt, ``low`` to
``high`` the interval of ``mean``.
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
from bgkit.evaluation.intervals import wilson
from bgkit.evaluation.results import Results, frames_of, rows_of, runs_of
from bgkit.evaluation.risk import bin_edges
from bgkit.figures import intervals, style
from bgkit.figures.style import above, dots, error_bars, label
from bgkit.rewards import NEAR

#: role of a response -> its colour
ROLES = {"safe": style.SAFE, "harmful": style.HARMFUL, "truth unknown": "#9A9A9A"}


def _need_samples(samples: Mapping[str, pd.DataFrame], bins: int) -> None:
    if not samples or bins < 2:
        raise BgkitError("A figure of samples needs at least one policy and two bins.")
    for name, frame in samples.items():
        checks.samples(frame, str(name))


def _pick(rows: pd.DataFrame, metric: str, kind: str = "") -> pd.DataFrame:
    """The rows of one metric (and kind, else of all kinds alone), with hover text in ``told``."""
    table = style.with_series(rows)
    kinds = table["kind"] == kind if kind else table["kind"] != "all"
    table = table[kinds & (table["metric"] == metric)].dropna(subset=["mean"])
    if table.empty:
        of = f"prompts of kind '{kind}'" if kind else "single kinds of prompts"
        raise BgkitError(f"The table of results has no '{metric}' for {of}.")
    return table.assign(told=[style.told(row) for row in table.to_dict("records")])


def tau_of(results: Results, tau: float | None = None) -> float:
    """The threshold that is given, or that of the runs; 0.5 for tables.

    Raises BgkitError for runs of several thresholds.
    """
    if tau is not None or isinstance(results, Mapping | pd.DataFrame):
        return 0.5 if tau is None else checks.threshold(tau, ends=True)
    found = sorted({run.config.tau for run in runs_of(results)})
    if len(found) > 1:
        raise BgkitError(
            f"The runs have several thresholds ({', '.join(map(str, found))}); show those of one "
            "at a time, or give the tau to show."
        )
    return found[0]


def _margin_bars(name: str, frame: pd.DataFrame, roles: list[str], edges: np.ndarray) -> list:
    """Bars of one policy: roots of shares; those of unknown truth stand on the safe ones."""
    harm, bars, below = frame["harm"], [], 0.0
    masks = dict(zip(ROLES, (harm <= 0.5, harm > 0.5, harm.isna()), strict=True))
    for role in roles:
        counts = np.histogram(frame.loc[masks[role], "t"], edges)[0]
        told = [
            f"<b>{label(name)}</b>, {role}<br>t from {low:.3f} to {high:.3f}<br>"
            f"{100 * count / len(frame):.2f} % of its responses ({count} of {len(frame)})"
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        height = np.sqrt(counts / len(frame))
        if role == "safe":
            below = height
        elif role == "harmful":
            height = -height
        else:  # the sum ends where the scale says
            height = np.sqrt(below**2 + height**2) - below
        look = {"marker_color": ROLES[role], "width": 0.92 * np.diff(edges), "legendgroup": role}
        look["name"] = f"{role} (bars {'down' if role == 'harmful' else 'up'})"
        middle = (edges[:-1] + edges[1:]) / 2
        bars.append(go.Bar(x=middle, y=height, hovertext=told, hoverinfo="text", **look))
    return bars


def _words_at(tau: float) -> list[dict[str, Any]]:
    """The words beside the threshold of the first panel, as annotations."""
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
    edges, last = bin_edges(tau, bins), len(samples)
    harm = pd.concat([frame["harm"] for frame in samples.values()])
    roles = ["safe", "harmful"] * bool(harm.notna().any())
    roles += ["truth unknown"] * bool(harm.isna().any())
    fig = make_subplots(last, 1, True, "all", vertical_spacing=38 / (170 * last + 10))
    shapes, texts, stacks = [], _words_at(tau), []
    for row, (name, frame) in enumerate(samples.items()):
        bars = _margin_bars(name, frame, roles, edges)
        stacks += [(min(bar.y.min() for bar in bars), sum(bar.y.clip(min=0) for bar in bars).max())]
        fig.add_traces([bar.update(showlegend=not row) for bar in bars], row + 1, 1)
        near, axis = 100 * ((frame["t"] - tau).abs() < NEAR).mean(), str(row + 1) if row else ""
        texts.append(above(f"<b>{label(name)}</b> n={len(frame)}", row))
        texts.append(above(f"near boundary <b>{near:.1f} %</b>", row, 1))
        place = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
        band = {"x0": max(0, tau - NEAR), "x1": min(1, tau + NEAR), "fillcolor": style.BAND}
        shapes.append({"type": "rect", **band, **place, "line": {"width": 0}, "layer": "below"})
        shapes.append({"type": "line", "x0": tau, "x1": tau, **place, "line": style.THRESHOLD})
    lowest, highest = np.min(stacks), np.max(stacks)
    shares = np.array([1, 0.5, 0.25, 0.05, 0, -0.05, -0.25, -0.5, -1])
    ticks = {
        "tickvals": np.sign(shares) * np.sqrt(abs(shares)),
        "title": {"text": "share (√ scale)"},
    }
    ticks |= {"ticktext": [f"{abs(share):.0%}" for share in shares]}
    # room above for the words at tau
    fig.update_yaxes({**ticks, "range": (1.15 * min(lowest, 0), 1.3 * highest)})
    fig.update_xaxes(range=[0, 1])
    fig.update_layout({"barmode": "relative", "shapes": shapes, "annotations": texts})
    fig.update_xaxes({"title": {"text": "t, the guard's P(unsafe)"}}, row=last)
    told = "Bars up: safe; bars down: harmful." if len(roles) > 1 else "The truth is not known."
    notes = [told, f"Shaded: |t − {tau:g}| &lt; {NEAR}."]
    return style.style(
        fig, "Guard's probability that a response is unsafe", notes, 150 + 170 * last
    )


def frontier(results: Results, kind: str = "all") -> go.Figure:
    """Draw system helpfulness (up) against system harm (right), both 0 to 1, one mark per design.

    Up and left is better: a design above and left of another beats it on both counts. The lines
    through a mark are the intervals of its two means, ``low`` to ``high``.
    """
    rows, fig = rows_of(results), go.Figure()
    harm, help_ = (_pick(rows, metric, kind) for metric in ("system_harm", "system_help"))
    for name, one in harm.merge(help_, on="series", suffixes=("", "_y")).groupby(
        "series", sort=False
    ):
        bars = {"error_x": error_bars(one), "error_y": error_bars(one, "_y")}
        told = one["told_y"] + "<br>" + one["told"]
        fig.add_trace(dots(name, told, x=one["mean"], y=one["mean_y"], **bars))
    fig.add_annotation(above("<b>↖ better</b>", 0))
    fig.update_layout(xaxis_title="system harm, 0 to 1", yaxis_title="system help, 0 to 1")
    return style.style(fig, "System helpfulness against harm", [f"On {label(kind)} prompts."], 440)


def _bins(frame: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Per used bin of t: n, its mean t, and the harmful share with its Wilson interval."""
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
    ideal = {"mode": "lines", "line": {"color": style.TEXT, "dash": "dash", "width": 1}}
    fig.add_scatter(x=[0, 1], y=[0, 1], name="calibrated", hoverinfo="skip", **ideal, row=1, col=1)
    for name, frame in samples.items():
        table = _bins(frame, bins)
        ece = float((table["n"] * (table["mean"] - table["t"]).abs()).sum() / len(frame))
        told = [
            f"mean t {row.t:.3f}<br>harmful {row.mean:.3f} ({row.low:.3f} to {row.high:.3f})<br>"
            f"{row.k} of {row.n} responses"
            for row in table.itertuples()
        ]
        marks = dots(name, told, x=table["t"], y=table["mean"], error_y=error_bars(table))
        fig.add_trace(marks.update(name=f"{label(name)}, ECE {ece:.3f}"), 1, 1)
        bar = go.Bar(x=(table.index + 0.5) / bins, y=table["n"], marker_color=style.look(name)[0])
        bar.update(
            hovertext=marks.hovertext, hoverinfo="text", showlegend=False, legendgroup=label(name)
        )
        fig.add_trace(bar, 2, 1)
    fig.update_xaxes(range=[-0.02, 1.02]).update_layout(xaxis2_title="t, the guard's P(unsafe)")
    fig.update_layout(yaxis_title="harmful share", yaxis_range=[-0.03, 1.03], yaxis2_title="count")
    return style.style(
        fig, "Is the guard calibrated?", ["Lines: 95 % intervals; bars: counts."], 500
    )


def by_kind(results: Results, metric: str) -> go.Figure:
    """Draw one metric with a panel per kind of prompt: each design's mean and interval.

    All panels share one scale; the upright line is the mean of the first design. Shares are in
    percent, scores go from 0 to 1.
    """
    rows = _pick(rows_of(results), metric)
    rows = rows.assign(design=rows["series"], symbol=[style.look(s)[1] for s in rows["series"]])
    kinds = {kind: f"<b>{label(kind)}</b>" for kind in dict.fromkeys(rows["kind"])}
    words, form = style.named(metric), ".1~%" if metric in style.SHARES else ""
    fig = intervals.whiskers(rows, "series", kinds, panel="kind", columns=1, across=words)
    fig.update_xaxes(tickformat=form)
    return style.style(fig, f"{words.capitalize()} by kind of prompt", ["Lines: intervals."])
