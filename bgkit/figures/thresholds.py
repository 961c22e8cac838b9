"""Pictures of a guard's threshold: margins by kind, operating curves, calibration.

They take samples as in :mod:`bgkit.evaluation.thresholds`, and also draw what can be drawn where
the truth is not known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit import checks
from bgkit.evaluation.thresholds import main_kinds
from bgkit.figures import distributions as plots
from bgkit.figures import intervals, style
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
    """:func:`bgkit.figures.margins` of the responses to each kind of prompt, a row per kind.

    With more than seven kinds, the six most frequent ones have a row each and the others one
    together.
    """
    checks.samples(samples, columns=("t", "harm", "kind"))
    groups = dict(iter(samples.groupby(main_kinds(samples["kind"]), sort=False)))
    return plots.margins(groups, checks.threshold(tau, ends=True), bins)


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
    checks.threshold(tau, ends=True)
    known = [metric for metric in CURVES if metric in points and points[metric].notna().any()]
    panels = [there for pair in PANELS if (there := [m for m in pair if m in known])]
    heads = {there[0]: "    ".join(map(_word, there)) for there in panels}
    of_panel = {metric: there[0] for there in panels for metric in there}
    rows = pd.concat(pd.DataFrame(_long(points, metric)) for metric in known).round(5).reset_index()
    looks = {metric: (CURVES[metric][0], "circle", CURVES[metric][1]) for metric in known}
    rows["panel"] = rows["metric"].map(of_panel)
    more = {"panel": "panel", "colour": "metric", "looks": looks, "mode": "lines", "tall": 190}
    fig = intervals.over(rows, "tau", heads, **more, across="threshold tau")
    row = points.iloc[nearest(points, tau)]
    for place, there in enumerate(panels):
        there, axis = [m for m in there if not np.isnan(row[m])], place + 1 if place else ""
        look = {"size": 9, "line": {"width": 1.5}, "color": [CURVES[m][0] for m in there]}
        told = [f"<b>at tau {tau:g}</b><br>{style.told(_long(row, m))}" for m in there]
        marks = {"mode": "markers", "marker": look, "hovertext": told, "hoverinfo": "text"}
        marks |= {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "name": MARK, "meta": there}
        fig.add_scatter(x=[tau] * len(there), y=[row[m] for m in there], **marks)
        line = {"type": "line", "x0": tau, "x1": tau, "xref": f"x{axis}", "y0": 0, "y1": 1}
        fig.add_shape(**line, yref=f"y{axis} domain", line=style.THRESHOLD)
        limits = {"rangemode": "tozero"}
        if {"precision", "recall"} & set(there):
            limits = {"range": [-0.03, 1.05]}
        if "false_positive" in there:
            tops = [
                points.loc[points.index >= 0.1, "false_positive_high"].max(),
                points["false_negative_high"].max(),
            ]
            limits = {"range": [0, 1.1 * np.nanmax([*tops, 0.01])]}
        fig.update_layout({f"yaxis{axis}": limits})
    fig.update_xaxes(range=[0, 1]).update_traces(showlegend=False)
    missing = [style.named(metric) for metric in CURVES if metric not in known]
    notes = ["Bands: 95 % intervals."] + [f"Not known: {', '.join(missing)}."] * bool(missing)
    return style.style(fig, "What the threshold does", notes)


def _word(metric: str) -> str:
    """A metric's name in a panel's heading, with its stroke, in its colour."""
    colour, dash = CURVES[metric]
    return f"<span style='color:{colour}'>{STROKES[dash]} {style.named(metric)}</span>"


def _long(points: pd.DataFrame | pd.Series, metric: str) -> dict:
    """A metric of a table (or row) of points under the names of a long table."""
    ends = {"mean": "", "low": "_low", "high": "_high"}
    return {"metric": metric, **{name: points[metric + end] for name, end in ends.items()}}


def sparkline(points: pd.DataFrame, metric: str, tau: float) -> str:
    """A metric's curve over the threshold as a small SVG picture, with a mark at ``tau``.

    tau runs from 0 to 1 from left to right, the metric from 0 up to its largest value at a tau of
    0.05 or more (below, nearly everything is filtered). It is a string of a few hundred bytes that
    needs no script, so a slider can replace it many times a second. '' where nothing is known.
    """
    known = points[metric].dropna()
    checks.threshold(tau, ends=True)
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

    See :func:`bgkit.figures.reliability`; scaling should pull the marks to the diagonal. Raises
    BgkitError if no response has a known truth.
    """
    checks.samples(samples)
    scaled = samples.assign(t=with_temperature(samples["t"].to_numpy(), temperature))
    after = f"temperature {temperature:.2f}"
    fig = plots.reliability({"as it is": samples, after: scaled}, bins)
    for name, design in (("as it is", "base"), (after, "boundary")):
        colour, symbol, _ = style.LOOKS[design]
        fig.update_traces(marker_color=colour, selector={"legendgroup": name})
        fig.update_traces(marker_symbol=symbol, selector={"legendgroup": name, "type": "scatter"})
    return fig
