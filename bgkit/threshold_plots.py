"""Pictures of a guard's threshold: margins by kind, operating curves, calibration.

Pure functions to Plotly figures with the look of :mod:`bgkit.plots`, from samples tables as in
:mod:`bgkit.thresholds`. They also draw what can be drawn where the truth is not known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import plots
from bgkit.calibration import with_temperature
from bgkit.errors import BgkitError
from bgkit.thresholds import check_samples, check_threshold

#: metric -> colour and dash of its curve; hues of Okabe and Ito, and no two lines alike in grey
CURVES = {
    "filter_rate": ("#7D8791", "solid"),
    "near_boundary": ("#DD9500", "dot"),
    "false_positive": (plots.SAFE, "dash"),
    "false_negative": (plots.HARMFUL, "solid"),
    "precision": ("#0072B2", "dash"),
    "recall": ("#008F66", "solid"),
    "system_harm": (plots.HARMFUL, "dashdot"),
    "system_help": ("#9B4FC4", "dot"),
}
PANELS = (
    ("errors of the filter, shares of responses", list(CURVES)[:4]),
    ("how good it is, and what the user sees", list(CURVES)[4:]),
)
MARK = "at this tau"


def margins_by_kind(samples: pd.DataFrame, tau: float, bins: int = 25) -> go.Figure:
    """Draw where the responses to each kind of prompt lie on the guard's scale, a row per kind.

    Bars up are safe responses, bars down harmful ones, grey bars those whose truth is not known,
    as shares of the kind's responses on a square-root scale. Right of the dashed line responses are
    filtered, so a bar down on the left is a false negative and a bar up on the right a false
    positive. The share of the shaded band, |t - tau| < 0.3, is written above each row. With more
    than six kinds, the six most frequent ones have a row each and the others one together.
    """
    check_samples(samples)
    if "kind" not in samples:
        raise BgkitError("The table of samples lacks the column(s) kind.")
    kinds = samples["kind"].astype(str)
    often = kinds.value_counts().index[:6]
    if kinds.nunique() > 7:
        kinds = kinds.where(kinds.isin(often), "other kinds")
    groups = dict(iter(samples.groupby(kinds, sort=False)))
    return plots.margin_histogram(groups, check_threshold(tau), bins)


def operating_curves(points: pd.DataFrame, tau: float) -> go.Figure:
    """Draw what changes with the threshold, and mark the current one.

    ``points`` is the table of :func:`bgkit.thresholds.operating_points`, whose taus run from left
    to right. Above: the shares of responses that are filtered, near the threshold, filtered though
    safe, and shown though harmful. Below: precision and recall of the filter, and mean harm and
    helpfulness of what the user sees, all 0 to 1. The dashed line is ``tau``, its marks are the
    values there, and shaded bands are the 95 % intervals of both errors. Curves that need a truth
    that is not known are left out.
    """
    check_threshold(tau)
    fig = make_subplots(2, 1, shared_xaxes="all", vertical_spacing=0.12)
    for row, (heading, metrics) in enumerate(PANELS, 1):
        there = [m for m in metrics if m in points and points[m].notna().any()]
        for metric in there:
            if metric in ("false_positive", "false_negative"):
                fig.add_trace(_band(points, metric), row, 1)
            fig.add_trace(_line(points, metric), row, 1)
        missing = [plots.named(m) for m in metrics if m not in there]
        note = f" (not known: {', '.join(missing)})" if missing else ""
        plots.heading(fig, heading + note, row)
    for row in (1, 2):
        marks = go.Scatter(name=MARK, mode="markers", showlegend=False, hoverinfo="text")
        fig.add_trace(marks.update(marker={"size": 9, "line_width": 1.5}), row, 1)
        line = {"dash": "dash", "width": 1.5, "color": plots.TEXT}
        fig.add_vline(tau, line=line, row=row, col=1)
    fig.update_yaxes(tickformat=".0%", rangemode="tozero", row=1)
    fig.update_yaxes(range=[-0.03, 1.03], row=2).update_xaxes(range=[0, 1])
    fig.update_xaxes(title_text="threshold tau", row=2)
    plots.style(fig, "What the threshold does", ["Bands: 95 % intervals of both errors."], 560)
    return mark_threshold(fig, points, tau)


def _line(points: pd.DataFrame, metric: str) -> go.Scatter:
    colour, dash = CURVES[metric]
    form = ":.1%" if metric in plots.SHARES else ":.3f"
    told = f"%{{y{form}}} (%{{customdata[0]{form}}} to %{{customdata[1]{form}}})"
    line = go.Scatter(x=points.index, y=points[metric].round(5), mode="lines", meta=metric)
    line.update(customdata=points[[f"{metric}_low", f"{metric}_high"]].round(4))
    line.update(hovertemplate=f"<b>{plots.named(metric)}</b> at tau %{{x:.2f}}<br>{told}")
    line.hovertemplate += "<extra></extra>"
    return line.update(line={"color": colour, "dash": dash, "width": 2}, name=plots.named(metric))


def _told(row: pd.Series, metric: str) -> str:
    value, low, high = (plots.number(row[metric + end], metric) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"


def _band(points: pd.DataFrame, metric: str) -> go.Scatter:
    colour = CURVES[metric][0]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ends = points[f"{metric}_low"], points[f"{metric}_high"][::-1]
    band = go.Scatter(x=[*points.index, *points.index[::-1]], y=np.concatenate(ends).round(5))
    band.update(fill="toself", fillcolor=f"rgba({red},{green},{blue},0.15)", line_width=0)
    return band.update(mode="lines", showlegend=False, hoverinfo="skip")


def mark_threshold(fig: go.Figure, points: pd.DataFrame, tau: float) -> go.Figure:
    """Move the mark of a figure of :func:`operating_curves` to another ``tau``; return the figure.

    Nothing else is drawn anew, so a slider can do it many times a second. The marks sit at the
    row of ``points`` whose tau is the nearest one.
    """
    row = points.iloc[nearest(points, tau)]
    marks = [trace for trace in fig.data if trace.name == MARK]
    for trace, (_, metrics) in zip(marks, PANELS, strict=True):
        there = [m for m in metrics if m in points and not np.isnan(row[m])]
        told = [f"<b>{plots.named(m)}</b> at tau {tau:g}<br>{_told(row, m)}" for m in there]
        trace.update(x=[tau] * len(there), y=[row[m] for m in there], hovertext=told)
        trace.marker.color = [CURVES[m][0] for m in there]
    for shape in fig.layout.shapes:
        shape.update(x0=tau, x1=tau)
    return fig


def nearest(points: pd.DataFrame, tau: float) -> int:
    """Position of the row of ``points`` whose tau is nearest to ``tau``."""
    return int(np.argmin(np.abs(points.index.to_numpy(float) - tau)))


def reliability_scaled(samples: pd.DataFrame, temperature: float, bins: int = 10) -> go.Figure:
    """Draw the guard's reliability as it is and with its probabilities scaled by ``temperature``.

    Each mark is one of ``bins`` equal bins of t: how many of its responses are harmful, with the
    95 % Wilson interval. On the diagonal the guard is calibrated, above it too trusting, below it
    too alarmed; scaling should pull the marks to the diagonal. ECE is the mean distance to it.
    Raises BgkitError if no response has a known truth.
    """
    check_samples(samples)
    scaled = samples.assign(t=with_temperature(samples["t"].to_numpy(), temperature))
    after = f"temperature {temperature:.2f}"
    fig = plots.reliability({"as it is": samples, after: scaled}, bins)
    for name, design in (("as it is", "base"), (after, "boundary")):
        colour, symbol, _ = plots.LOOKS[design]
        for trace in fig.data:
            if trace.legendgroup == name:
                trace.marker.color = colour
                if trace.type == "scatter":
                    trace.marker.symbol = symbol
    return fig
