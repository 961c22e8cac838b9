"""Pictures of a guard's threshold: margins by kind, operating curves, calibration.

Pure functions to Plotly figures with the look of :mod:`bgkit.figures.distributions`, from samples
tables as in :mod:`bgkit.evaluation.thresholds`. They also draw what can be drawn where the truth
is not known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import checks
from bgkit.evaluation.thresholds import check_threshold, main_kinds
from bgkit.figures import distributions as plots
from bgkit.figures import style
from bgkit.scoring.temperature import with_temperature

#: metric -> colour and dash of its curve; hues of Okabe and Ito, and no two lines alike in grey
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
#: what a panel shows: filtered and near, the filter's errors, how good it is, what the user sees
PANELS = (
    ("filter_rate", "near_boundary"),
    ("false_positive", "false_negative"),
    ("precision", "recall"),
    ("system_harm", "system_help"),
)
STROKES = {"solid": "━━", "dash": "╍╍", "dot": "┅┅", "dashdot": "━·"}
MARK = "at this tau"
SPARK = (150, 20, 4)  # width, height and padding of a sparkline, in pixels


def margins_by_kind(samples: pd.DataFrame, tau: float, bins: int = 25) -> go.Figure:
    """Draw where the responses to each kind of prompt lie on the guard's scale, a row per kind.

    Bars up are safe responses, bars down harmful ones, grey bars those whose truth is not known,
    as shares of the kind's responses on a square-root scale. Right of the dashed line responses are
    filtered, so a bar down on the left is a false negative and a bar up on the right a false
    positive. The share of the shaded band, |t - tau| < 0.3, is written above each row. With more
    than seven kinds, the six most frequent ones have a row each and the others one together.
    """
    checks.samples(samples, columns=("t", "harm", "kind"))
    groups = dict(iter(samples.groupby(main_kinds(samples["kind"]), sort=False)))
    return plots.margins(groups, check_threshold(tau), bins)


def operating_curves(points: pd.DataFrame, tau: float) -> go.Figure:
    """Draw what changes with the threshold, and mark the current one.

    ``points`` is the table of :func:`bgkit.evaluation.thresholds.operating_points`, whose taus run
    from left to right in every panel: the shares of responses that are filtered and near the
    threshold; the shares that are filtered though safe and shown though harmful (the axis is cut
    where tau is below 0.1 and nearly everything is filtered); precision and recall of the filter;
    mean harm and helpfulness of what the user sees, 0 to 1. The dashed line is ``tau``, its marks
    are the values there, shaded bands are 95 % intervals. Curves that need a truth that is not
    known are left out.
    """
    check_threshold(tau)
    panels = [
        [metric for metric in metrics if metric in points and points[metric].notna().any()]
        for metrics in PANELS
    ]
    missing = [style.named(m) for m in CURVES if not any(m in there for there in panels)]
    panels = [there for there in panels if there]
    rows, cols = -(-len(panels) // 2), min(2, len(panels))
    fig = make_subplots(rows, cols, vertical_spacing=0.19, horizontal_spacing=0.09)
    for place, metrics in enumerate(panels):
        _panel(fig, points, metrics, tau, {"row": place // 2 + 1, "col": place % 2 + 1})
    fig.update_xaxes(range=[0, 1]).update_xaxes(title_text="threshold tau", row=rows)
    notes = ["Bands: 95 % intervals."]
    notes += [f"Not known: {', '.join(missing)}."] if missing else []
    style.style(fig, "What the threshold does", notes, 110 + 190 * rows)
    return fig


def _panel(
    fig: go.Figure, points: pd.DataFrame, metrics: list[str], tau: float, at: dict[str, int]
) -> None:
    """Draw one panel: bands, curves, the threshold and the values there."""
    for metric in metrics:
        fig.add_trace(_band(points, metric), **at)
        fig.add_trace(_line(points, metric), **at)
    fig.add_trace(_marks(points, metrics, tau), **at)
    fig.add_vline(tau, line={"dash": "dash", "width": 1.5, "color": style.TEXT}, **at)
    words = [
        f"<span style='color:{CURVES[m][0]}'>{STROKES[CURVES[m][1]]} {style.named(m)}</span>"
        for m in metrics
    ]
    style.heading(fig, "    ".join(words), **at)
    form = ".0%" if metrics[0] in style.SHARES else ""
    fig.update_yaxes(rangemode="tozero", tickformat=form, **at)
    if "precision" in metrics or "recall" in metrics:
        fig.update_yaxes(range=[-0.03, 1.05], **at)
    if "false_positive" in metrics:
        some = points[points.index >= 0.1]
        tops = some["false_positive_high"].max(), points["false_negative_high"].max()
        fig.update_yaxes(range=[0, 1.1 * np.nanmax([*tops, 0.01])], **at)


def _line(points: pd.DataFrame, metric: str) -> go.Scatter:
    colour, dash = CURVES[metric]
    form = ":.1%" if metric in style.SHARES else ":.3f"
    told = f"%{{y{form}}} (%{{customdata[0]{form}}} to %{{customdata[1]{form}}})"
    line = go.Scatter(x=points.index, y=points[metric].round(5), mode="lines", meta=metric)
    line.update(customdata=points[[f"{metric}_low", f"{metric}_high"]].round(4))
    line.update(hovertemplate=f"<b>{style.named(metric)}</b> at tau %{{x:.2f}}<br>{told}")
    line.hovertemplate += "<extra></extra>"
    line.update(line={"color": colour, "dash": dash, "width": 2}, showlegend=False)
    return line.update(name=style.named(metric))


def _told(row: pd.Series, metric: str) -> str:
    value, low, high = (style.number(row[metric + end], metric) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"


def _band(points: pd.DataFrame, metric: str) -> go.Scatter:
    colour = CURVES[metric][0]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    some = points[points[metric].notna()]
    ends = some[f"{metric}_low"], some[f"{metric}_high"][::-1]
    band = go.Scatter(x=[*some.index, *some.index[::-1]], y=np.concatenate(ends).round(5))
    band.update(fill="toself", fillcolor=f"rgba({red},{green},{blue},0.15)", line_width=0)
    return band.update(mode="lines", showlegend=False, hoverinfo="skip")


def _marks(points: pd.DataFrame, metrics: list[str], tau: float) -> go.Scatter:
    row = points.iloc[nearest(points, tau)]
    there = [metric for metric in metrics if not np.isnan(row[metric])]
    told = [f"<b>{style.named(m)}</b> at tau {tau:g}<br>{_told(row, m)}" for m in there]
    look = {"size": 9, "line": {"width": 1.5}, "color": [CURVES[m][0] for m in there]}
    marks = go.Scatter(x=[tau] * len(there), y=[row[m] for m in there], mode="markers", marker=look)
    return marks.update(name=MARK, hovertext=told, hoverinfo="text", showlegend=False, meta=there)


def sparkline(points: pd.DataFrame, metric: str, tau: float) -> str:
    """A metric's curve over the threshold as a small SVG picture, with a mark at ``tau``.

    tau runs from 0 to 1 from left to right, the metric from 0 up to its largest value at a tau of
    0.05 or more (below, nearly everything is filtered). It is a string of a few hundred bytes that
    needs no script, so a slider can replace it many times a second. '' where nothing is known.
    """
    known = points[metric].dropna()
    check_threshold(tau)
    if known.empty:
        return ""
    colour, (wide, high, pad) = CURVES[metric][0], SPARK
    top = max(known[known.index >= 0.05].max(), 1e-3)

    def place(at: float, value: float) -> tuple[float, float]:
        return pad + wide * at, pad + high * (1 - min(value / top, 1))

    line = " ".join(f"{x:.0f},{y:.1f}" for x, y in map(place, known.index, known))
    x, y = place(tau, points[metric].iloc[nearest(points, tau)])
    dot = "" if np.isnan(y) else f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>"
    return (
        f"<svg width='{wide + 2 * pad}' height='{high + 2 * pad}' role='img'>"
        f"<path d='M{x:.1f} 0V{high + 2 * pad}' stroke='{style.TEXT}' stroke-dasharray='3 2'/>"
        f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='1.5'/>{dot}</svg>"
    )


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
    checks.samples(samples)
    scaled = samples.assign(t=with_temperature(samples["t"].to_numpy(), temperature))
    after = f"temperature {temperature:.2f}"
    fig = plots.reliability({"as it is": samples, after: scaled}, bins)
    for name, design in (("as it is", "base"), (after, "boundary")):
        colour, symbol, _ = style.LOOKS[design]
        for trace in fig.data:
            if trace.legendgroup == name:
                trace.marker.color = colour
                if trace.type == "scatter":
                    trace.marker.symbol = symbol
    return fig
