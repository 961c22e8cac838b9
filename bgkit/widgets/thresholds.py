"""A slider for the threshold: margins, the filter's metrics and the completions of every bar.

Metrics are computed once per kind of prompt; moving the slider only looks them up and draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import HTML

from bgkit import checks
from bgkit.evaluation.results import Results, frame_and_tau
from bgkit.evaluation.risk import bin_edges
from bgkit.evaluation.thresholds import GRID, MEANINGS, main_kinds, missing_note, operating_points
from bgkit.figures import distributions as plots
from bgkit.figures import style
from bgkit.figures import thresholds as plots_thresholds
from bgkit.figures.completions import completions_html
from bgkit.texts import html_text
from bgkit.widgets import views

BINS = 25  # bars of t
KINDS = 20  # maximum number of kinds in the menu; rarer ones share an entry
LEFT = 72  # pixels left of the bars
ALL = ("all",)  # the menu's value for all kinds: no kind has this name, and None means no choice
PAGE = 5  # completions per page
BUTTON_HELP = "<small>Press a button to read the completions of its bar.</small>"
LINE = "border-bottom:1px solid rgba(128,128,128,.3);padding:2px 10px;text-align:left"


def explore(results: Results, tau: float | None = None) -> widgets.VBox:
    """Display the margin histogram and the filter's metrics with a slider for tau.

    ``results`` is a run, or a samples table with the columns t, harm (NaN if unknown), kind, prompt
    and response, and for what the user sees those of :mod:`bgkit.evaluation.thresholds`. Bars right
    of the dashed line are filtered; the buttons below the bars show their completions. Without
    truth it names the metrics that it cannot show; without a kernel its first state is shown.
    Raises BgkitError for missing columns, and values out of range.
    """
    samples, tau = frame_and_tau(results, tau)
    checks.samples(samples, columns=("t", "harm", "kind", "prompt", "response"))
    samples = samples.reset_index(drop=True)
    groups, taus = main_kinds(samples["kind"], KINDS), np.union1d(GRID, [tau])
    part = functools.cache(lambda kind: samples if kind == ALL else samples[groups == kind])
    points = functools.cache(lambda kind: operating_points(part(kind), taus))
    slider = views.slider("threshold tau", tau, min=0.0, max=1.0, step=0.01)
    kind = views.choice("prompts", pd.unique(groups), ALL, {"all kinds": ALL})
    slider.style.description_width = kind.style.description_width = "initial"  # a long track
    slider.layout.width, kind.layout.width = "420px", "auto"
    margins, numbers, bar = widgets.Output(), widgets.HTML(), 0
    pager, fill = _pager()

    def current() -> tuple[go.Figure, str]:
        """Figure and table of the current choice; updates buttons and open completions, too."""
        at = float(taus[np.abs(taus - slider.value).argmin()])  # without the slider's rounding
        rows, edges = part(kind.value), bin_edges(at, BINS)
        place = np.digitize(rows["t"].to_numpy(float), edges[1:-1])  # as a histogram
        lay_out(at, np.bincount(place, minlength=BINS))
        if not pager.layout.display:
            low, high = edges[bar : bar + 2]
            of_bar = rows[place == bar].sort_values("t", kind="stable")
            fill(of_bar, at, f"t from {low:.3f} to {high:.3f}")
        fig = plots.margins({kind.label: rows}, at, BINS)
        # fixed margins keep the buttons under their bars, and no labels need measuring
        fig.update_xaxes(automargin=False).update_yaxes(automargin=False)
        return fig.update_layout(margin_l=LEFT), numbers_html(points(kind.value), at)

    def redraw(_: object = None) -> None:
        figure, numbers.value = current()
        views.draw(margins, figure)

    def choose(place: int) -> None:
        nonlocal bar
        bar, pager.layout.display = place, ""
        redraw()

    row, lay_out = _bar_buttons(choose)
    for control in (slider, kind):
        control.observe(redraw, "value")
    top = widgets.HBox([slider, kind], layout=views.WRAPPED)
    missing, help_ = widgets.HTML(html_text(missing_note(samples))), widgets.HTML(BUTTON_HELP)
    view = widgets.VBox([top, missing, margins, row, help_, pager, numbers])
    figure, table = current()
    views.show(view, figure, HTML(table))
    return view


def _bar_buttons(
    choose: Callable[[int], None],
) -> tuple[widgets.HBox, Callable[[float, np.ndarray], None]]:
    """A row with a button per bar, and a function that adapts it to tau and the bars' counts.

    A message to the browser per button and move would make the slider lag. So the buttons are in
    two boxes, left and right of tau, and mostly only the widths of the boxes change.
    """
    small = {"min_width": "0", "width": "auto", "padding": "0", "margin": "0 1px", "flex": "1 1 0"}
    buttons = [
        widgets.Button(description="▴", tooltip=f"completions of bar {i} of {BINS}", layout=small)
        for i in range(1, BINS + 1)
    ]
    for place, button in enumerate(buttons):
        button.on_click(lambda _, place=place: choose(place))
    sides = [widgets.HBox(), widgets.HBox()]
    row = widgets.HBox(sides, layout={"padding": f"0 14px 0 {LEFT}px", "width": "100%"})

    def lay_out(tau: float, counts: np.ndarray) -> None:
        left = int(np.searchsorted(bin_edges(tau, BINS), tau)) if 0 < tau < 1 else 0
        if len(sides[0].children) != left or not sides[1].children:
            sides[0].children, sides[1].children = buttons[:left], buttons[left:]
        for side, width in zip(sides, (tau, 1 - tau) if left else (0, 1), strict=True):
            side.layout.flex = f"{width:.4f} 1 0"
            side.layout.display = "" if side.children else "none"
        for button, count in zip(buttons, counts, strict=True):
            button.disabled = not count

    return row, lay_out


def numbers_html(points: pd.DataFrame, tau: float) -> str:
    """The filter's metrics at ``tau`` as an HTML table: value, 95 % interval, meaning.

    ``points`` is the table of :func:`bgkit.evaluation.thresholds.operating_points`. Unknown values
    are dashes.
    """
    row = points.iloc[plots_thresholds.nearest(points, tau)]
    lines = []
    for metric, meaning in MEANINGS.items():
        ends = (row[metric + end] for end in ("", "_low", "_high"))
        value, low, high = (style.number(end, metric) for end in ends)
        interval = "not known" if np.isnan(row[metric]) else f"{low} to {high}"
        cells = (f"<b>{style.metric_label(metric)}</b>", value, interval, html_text(meaning))
        lines.append("<tr>" + "".join(f"<td style='{LINE}'>{c}</td>" for c in cells) + "</tr>")
    heads = (f"at tau = {tau:.2f}", "value", "95 % interval", "what it is")
    head = "".join(f"<th style='{LINE}'>{text}</th>" for text in heads)
    note = f"{int(row['n']):,} responses, truth known for {int(row['known']):,} of them."
    return f"<table><tr>{head}</tr>{''.join(lines)}</table><small>{note}</small>"


def _pager() -> tuple[widgets.VBox, Callable[[pd.DataFrame, float, str], None]]:
    """A hidden pager of completions, and a function that fills it.

    The function takes rows of samples, tau and a heading, and shows the first page.
    """
    page = widgets.BoundedIntText(1, min=1, max=1, description="page")
    close, where, text = widgets.Button(description="close"), widgets.HTML(), widgets.HTML()
    box = widgets.VBox([widgets.HBox([page, close, where]), text], layout={"display": "none"})
    content: list = []

    def turn(_: object = None) -> None:
        (rows, tau, heading), start = content, PAGE * (page.value - 1)
        part = rows.iloc[start : start + PAGE]
        count = f"{start + 1} to {start + len(part)} of {len(rows)}" if len(rows) else "none"
        where.value, text.value = f"{heading}: {count}", completions_html(part, tau)

    def fill(rows: pd.DataFrame, tau: float, heading: str) -> None:
        content[:] = rows, tau, heading
        page.value, page.max = 1, max(1, -(-len(rows) // PAGE))
        turn()

    page.observe(turn, "value")
    close.on_click(lambda _: setattr(box.layout, "display", "none"))
    return box, fill
