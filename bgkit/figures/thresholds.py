"""Figures of a guard's threshold: margins by kind and operating curves.

They take samples as in :mod:`bgkit.evaluation.thresholds`. Without truth they show less.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit import checks
from bgkit.evaluation.results import Results, frame_and_tau
from bgkit.evaluation.thresholds import main_kinds
from bgkit.figures import distributions as plots
from bgkit.figures import intervals, style

#: metric -> colour (Okabe-Ito) and dash of its curve; each two share a panel and differ in grey
CURVES = {
    "filter_rate": ("#7D8791", "solid"),
    "near_boundary": ("#DD9500", "dot"),
    "false_positive": (style.SAFE, "dash"),
    "false_negative": (style.HARMFUL, "solid"),
    "precision": ("#0072B2", "dash"),
    "recall": ("#008F66", "solid"),
    "system_harm": (style.HARMFUL, "dashdot"),
    "system_help": ("#9B4FC4", "dot"),
}
MARK = "at this tau"


def margins_by_kind(results: Results, tau: float | None = None) -> go.Figure:
    """:func:`bgkit.figures.margins` of one policy, a row per kind of prompt; rare kinds share one.

    ``results`` is a samples table or a run.
    """
    samples, tau = frame_and_tau(results, tau)
    checks.samples(samples, columns=("t", "harm", "kind"))
    groups = dict(iter(samples.groupby(main_kinds(samples["kind"]), sort=False)))
    return plots.margins(groups, tau)


def operating_curves(points: pd.DataFrame, tau: float) -> go.Figure:
    """Draw the filter's metrics over the threshold, and mark the current one.

    ``points`` is the table of :func:`bgkit.evaluation.thresholds.operating_points`; every panel has
    its taus on the x axis. The dashed line is ``tau``, its marks are the values there, shaded bands
    are 95 % intervals. The axis of false positives is cut for tau below 0.1, where nearly
    everything is filtered. Curves that need an unknown truth are left out.
    """
    checks.threshold(tau, ends=True)
    known = [metric for metric in CURVES if metric in points and points[metric].notna().any()]
    pairs = zip(list(CURVES)[::2], list(CURVES)[1::2], strict=True)
    panels = [metrics for pair in pairs if (metrics := [m for m in pair if m in known])]
    words = {m: f"<span style='color:{CURVES[m][0]}'>{style.metric_label(m)}</span>" for m in known}
    heads = {metrics[0]: ", ".join(words[metric] for metric in metrics) for metrics in panels}
    of_panel = {metric: metrics[0] for metrics in panels for metric in metrics}
    tables = [pd.DataFrame(_long_form(points, metric)) for metric in known]
    rows = pd.concat(tables).round(5).reset_index()
    looks = {metric: (CURVES[metric][0], "circle", CURVES[metric][1]) for metric in known}
    rows["panel"] = rows["metric"].map(of_panel)
    more = {"panel": "panel", "colour": "metric", "looks": looks, "mode": "lines", "tall": 190}
    fig = intervals.panels(rows, "tau", heads, **more, across="threshold tau")
    row, at = points.iloc[nearest(points, tau)], f"<b>at tau {tau:g}</b><br>"
    for place, panel in enumerate(panels):
        metrics, axis = [m for m in panel if not np.isnan(row[m])], place + 1 if place else ""
        look = {"size": 9, "line": {"width": 1.5}, "color": [CURVES[m][0] for m in metrics]}
        texts = [at + style.hover_text(_long_form(row, m)) for m in metrics]
        marks = {"mode": "markers", "marker": look, "hovertext": texts, "hoverinfo": "text"}
        marks |= {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "name": MARK, "meta": metrics}
        fig.add_scatter(x=[tau] * len(metrics), y=[row[m] for m in metrics], **marks)
        limits = {"rangemode": "tozero"}
        if {"precision", "recall"} & set(metrics):
            limits = {"range": [-0.03, 1.05]}
        if "false_positive" in metrics:
            tops = [
                points.loc[points.index >= 0.1, "false_positive_high"].max(),
                points["false_negative_high"].max(),
            ]
            limits = {"range": [0, 1.1 * np.nanmax([*tops, 0.01])]}
        fig.update_layout({f"yaxis{axis}": limits})
    fig.add_vline(tau, line=style.THRESHOLD)
    fig.update_xaxes(range=[0, 1]).update_traces(showlegend=False)
    missing = [style.metric_label(metric) for metric in CURVES if metric not in known]
    notes = ["Bands: 95 % intervals."] + [f"Not known: {', '.join(missing)}."] * bool(missing)
    return style.style(fig, "What the threshold does", notes)


def _long_form(points: pd.DataFrame | pd.Series, metric: str) -> dict:
    """A metric of a table (or row) of points under the column names of a long table."""
    ends = {"mean": "", "low": "_low", "high": "_high"}
    return {"metric": metric, **{name: points[metric + end] for name, end in ends.items()}}


def nearest(points: pd.DataFrame, tau: float) -> int:
    """Position of the row of ``points`` with the tau nearest to ``tau``."""
    return int(np.argmin(np.abs(points.index.to_numpy(float) - tau)))
