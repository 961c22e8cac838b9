"""Figures of training: a run in progress, and the curves of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.results import Results, design_names, runs_of
from bgkit.figures import intervals, style

#: column of a run's metrics -> its panel's heading
PANELS = {
    "reward": "reward",
    "near_boundary": "near the boundary",
    "filter_rate": "filtered",
    "kl": "KL per token (nats)",  # the trainer's is a mean over tokens
    "no_spread": "groups without spread",
    "multiplier": "strength, which a bound moves",  # in runs with a bound
}
#: columns of metrics.parquet that training_curves draws, and multiplier; held-out ones last
CURVES = ("reward", "near_boundary", "filter_rate", "kl", "eval_system_harm", "eval_system_help")


def curves_of(results: Results) -> dict[str, pd.DataFrame]:
    """Training curves by the runs' names, which end with the seed if there are several seeds."""
    if isinstance(results, Mapping):
        return dict(results)
    loaded = runs_of(results)
    several = len({run.config.seed for run in loaded}) > 1
    curves = {}
    for run, name in zip(loaded, design_names(loaded), strict=True):
        name += f", seed {run.config.seed}" * several
        curves[name if name not in curves else f"{name} ({run.folder.name})"] = run.curve()
    return curves


def _smooth(
    logs: Mapping[str, pd.DataFrame], columns: Sequence[str], window: int, centred: bool
) -> pd.DataFrame:
    """Rows for :func:`bgkit.figures.intervals.panels`: rolling means of logs.

    ``window`` 0 is a twentieth of a log's rows. Held-out values are not smoothed.
    """
    parts = []
    for name, log in logs.items():
        for column in [column for column in columns if column in log]:
            measured = log.dropna(subset=[column])
            width = 1 if column.startswith("eval_") else window or max(1, len(log) // 20)
            rows = measured[["step"]].assign(design=name, metric=column, mean=measured[column])
            for end in ("low", "high"):
                rows[end] = measured.get(f"{column}_{end}", np.nan)
            if width > 1:
                rows["mean"] = rows["mean"].rolling(width, min_periods=1, center=centred).mean()
            mean = f" (mean of {width} steps)" * (width > 1)
            parts.append(rows.assign(at=[f"step {step:g}{mean}" for step in rows["step"]]))
    return pd.concat(parts, ignore_index=True)


def _add_single_steps(fig: go.Figure, logs: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Add faint lines of single steps behind smoothed ones; only held-out values keep marks."""
    faint, logs = [], {style.label(name): log for name, log in logs.items()}
    for trace in fig.data:
        if trace.fill or trace.meta.startswith("eval_"):
            continue
        trace.mode = "lines"
        values = logs[trace.legendgroup].dropna(subset=[trace.meta])
        if not np.array_equal(values[trace.meta], trace.y):
            line = {"color": trace.line.color, "width": 1}
            more = {"xaxis": trace.xaxis, "yaxis": trace.yaxis, "legendgroup": trace.legendgroup}
            more |= {"mode": "lines", "opacity": 0.3, "hoverinfo": "skip", "showlegend": False}
            faint.append(go.Scatter(x=values["step"], y=values[trace.meta], line=line, **more))
    return fig.add_traces(faint)


def live(
    curve: pd.DataFrame, base: np.ndarray, now: np.ndarray, tau: float, design: str, steps: int
) -> go.Figure:
    """Draw a run in progress: its curves over the steps, and its distribution of t against base's.

    ``curve`` has a row per ``step`` and columns of :data:`PANELS`; ``base`` and ``now`` are the
    :func:`~bgkit.training.reward_function.shares_of_t` of the base policy (line) and of the newest
    responses (bars), on a square-root scale. Right of the dashed line (t >= ``tau``) a response is
    filtered; training away from the boundary empties the middle.
    """
    checks.threshold(tau, ends=True)
    rows, look = _smooth({design: curve}, tuple(PANELS), 5, False), {"columns": 3, "tall": 150}
    panels = {column: head for column, head in PANELS.items() if column in curve}
    panels["margins"] = "margins: bars now, line base"
    fig = intervals.panels(rows, "step", panels, **look, across="training step")
    _add_single_steps(fig, {design: curve}).update_xaxes(range=[0, steps])
    edges = np.linspace(0, 1, len(now) + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    texts = [
        f"t from {low:.2f} to {high:.2f}<br>now {n:.1%}, base {b:.1%}"
        for low, high, n, b in zip(edges[:-1], edges[1:], now, base, strict=True)
    ]
    last = {"row": (len(panels) + 2) // 3, "col": (len(panels) - 1) % 3 + 1}
    bars = {"marker_color": style.look(design)[0], "hovertext": texts, "hoverinfo": "text"}
    fig.add_bar(x=middle, y=np.sqrt(now), width=np.diff(edges), **bars, **last)
    line = {"color": style.look("base")[0], "width": 2, "shape": "hvh"}
    fig.add_scatter(
        x=middle, y=np.sqrt(base), mode="lines", line=line, hoverinfo="skip", **last
    ).add_vline(tau, line=style.THRESHOLD, **last)
    fig.update_yaxes(style.root_ticks(0, 0.05, 0.25, 0.5, 1), **last)
    fig.update_xaxes(title_text="t", matches=None, range=[0, 1], **last).update_traces(
        showlegend=False
    )
    return style.style(fig, f"Training {style.label(design)}")


def training_curves(results: Results) -> go.Figure:
    """Draw :data:`CURVES` (and a strength that a bound moves) over steps, one colour per run.

    Faint lines are single steps, strong lines their rolling mean over a twentieth of the rows (logs
    below 40 rows are not smoothed). Each marker is one measurement of true held-out harm or
    helpfulness (0 to 1). Means of several runs (:func:`bgkit.sweeps.collection.mean_curves`) have a
    band from the lowest run to the highest.
    """
    logs = curves_of(results)
    if not logs:
        raise BgkitError("There are no training curves to draw: no run was given.")
    for name, log in logs.items():
        evaluated = any(column.startswith("eval_") for column in log)
        needed = ("step", *CURVES[: None if evaluated else 4])
        checks.samples(log.filter(items=needed), name, needed, what="training metrics")
    columns = (*CURVES, "multiplier")
    rows = _smooth(logs, columns, 0, True)
    panels = {
        column: PANELS.get(column)
        or f"{style.metric_label(column.removeprefix('eval_'))}, held out"
        for column in columns
        if column in set(rows["metric"])
    }
    fig = intervals.panels(rows, "step", panels, across="training step", tall=170)
    _add_single_steps(fig, logs)
    smoothed = any(trace.opacity == 0.3 for trace in fig.data)
    notes = ["Faint: each step; strong: rolling mean."] * smoothed
    if rows["low"].notna().any():
        notes.append("Line: mean of the runs; band: lowest to highest run.")
    return style.style(fig, "Training over steps", notes)
