"""A threshold to slide: margins, the filter's numbers and the completions behind every bar.

What a slider move needs is computed once per kind of prompt; a move only looks up and draws.
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
from bgkit.errors import BgkitError
from bgkit.evaluation.risk import bin_edges
from bgkit.evaluation.thresholds import (
    GRID,
    METRICS,
    main_kinds,
    not_known,
    operating_points,
    verdicts,
)
from bgkit.figures import distributions as plots
from bgkit.figures import style
from bgkit.figures import thresholds as plots_thresholds
from bgkit.texts import visible
from bgkit.widgets import views
from bgkit.widgets.text import NO_MATH, folded, safe

KINDS = 20  # kinds that have an entry of their own in the menu
LEFT = 72  # pixels left of the bars
ALL = ("all",)  # what the menu holds for all kinds: no name of a kind, and None is no choice
PAGE = 5  # completions that are shown at once
BUTTON_HELP = "<small>Press a button to read the completions behind its bar.</small>"
PRE = "white-space:pre-wrap;overflow-wrap:break-word;word-break:normal;margin:2px 0"
BLOCK = "padding:0 0 0 10px;margin:8px 0"
LINE = "border-bottom:1px solid rgba(128,128,128,.3);padding:2px 10px;text-align:left"


def explore(samples: pd.DataFrame, tau: float = 0.5, bins: int = 25) -> widgets.VBox:
    """Show an explorer of the threshold; without a kernel its first state stays as a picture.

    The parameters and the way to read it are those of :func:`threshold_explorer`.
    """
    view = threshold_explorer(samples, tau, bins, drawn=False)
    views.show(view, *static_view(samples, tau, bins))
    return view


def threshold_explorer(
    samples: pd.DataFrame, tau: float = 0.5, bins: int = 25, drawn: bool = True
) -> widgets.VBox:
    """Return a view with a slider for tau that moves the margin histogram and the numbers.

    ``samples`` has the columns t, harm (NaN where not known), kind, prompt and response, and for
    what the user sees those of :mod:`bgkit.evaluation.thresholds`. Read it from the top: choose a
    kind of prompt, move tau (also with the arrow keys), and see which bars come to lie right of the
    dashed line (they are filtered) and what that does to the numbers in the table; its small
    curves run over all thresholds, with a dot at this one. The buttons below the bars show the
    completions behind them, a page at a time. Without truth labels it shows what can be shown and
    says what can not. ``drawn`` False leaves figure and table out until a control is touched.
    Raises BgkitError for samples without these columns, values out of range, or fewer than 2 bins.
    """
    _check(samples, bins)
    samples, tau = samples.reset_index(drop=True), checks.threshold(tau, ends=True)
    groups = main_kinds(samples["kind"], KINDS)
    part = functools.cache(lambda kind: samples if kind == ALL else samples[groups == kind])
    points = functools.cache(lambda kind: operating_points(part(kind), _taus(tau)))
    wide = {"style": {"description_width": "initial"}}
    steps = {"min": 0, "max": 1, "step": 0.01, "layout": widgets.Layout(width="420px")}
    slider = widgets.FloatSlider(tau, description="threshold tau", **steps, **wide)
    kinds = [("all kinds", ALL), *((words_of(name), name) for name in pd.unique(groups))]
    kind = widgets.Dropdown(options=kinds, description="prompts", **wide)
    margins, numbers, told = (
        widgets.Output(),
        widgets.HTML(),
        widgets.HTML(safe(not_known(samples))),
    )
    row, buttons, lay_out = _bar_buttons(bins)
    pager, fill = completion_pager()
    now = {"drawn": False, "bar": 0}

    def at() -> float:
        """The threshold that the slider stands at, without the rounding errors of its steps."""
        return float(points(ALL).index[plots_thresholds.nearest(points(ALL), slider.value)])

    def places() -> tuple[np.ndarray, np.ndarray]:
        """Edges of the bars, and the bar in which each response lies, as the histogram counts."""
        edges = bin_edges(at(), bins)
        found = np.searchsorted(edges, part(kind.value)["t"].to_numpy(float), side="right") - 1
        return edges, np.minimum(found, bins - 1)

    def show_bar() -> None:
        edges, found = places()
        rows = part(kind.value)[found == now["bar"]].sort_values("t", kind="stable")
        low, high = edges[now["bar"] : now["bar"] + 2]
        fill(rows, at(), f"t from {low:.3f} to {high:.3f}")

    def fit() -> None:
        lay_out(at(), np.bincount(places()[1], minlength=bins))

    def redraw(*_: object) -> None:
        numbers.value = numbers_html(points(kind.value), at())
        views.draw(margins, _margins(part(kind.value), kind.label, at(), bins))
        fit()
        if not pager.layout.display:  # completions are open: those of the same bar
            show_bar()
        now["drawn"] = True

    def choose(place: int) -> None:
        now["bar"] = place
        show_bar()
        if not now["drawn"]:
            redraw()

    for place, button in enumerate(buttons):
        button.on_click(lambda _, place=place: choose(place))
    for control in (slider, kind):
        control.observe(redraw, "value")
    redraw() if drawn else fit()
    controls = widgets.HBox([slider, kind], layout=widgets.Layout(flex_flow="row wrap"))
    below = widgets.HTML(BUTTON_HELP)
    return widgets.VBox([controls, told, margins, row, below, pager, numbers])


def static_view(samples: pd.DataFrame, tau: float, bins: int = 25) -> tuple[go.Figure, HTML]:
    """Return what the explorer shows first, for readers without a kernel: figure and table."""
    _check(samples, bins)
    points = operating_points(samples, _taus(tau))
    figure = _margins(samples, "all kinds", checks.threshold(tau, ends=True), bins)
    return figure, HTML(numbers_html(points, tau))


def _check(samples: pd.DataFrame, bins: int) -> None:
    checks.samples(samples, columns=("t", "harm", "kind", "prompt", "response"))
    if bins < 2:
        raise BgkitError(f"A histogram needs at least two bins, not {bins}.")


def _taus(tau: float) -> np.ndarray:
    return np.union1d(GRID, [checks.threshold(tau, ends=True)])


def words_of(name: object) -> str:
    """A kind as a choice of a menu, which takes no HTML: spaces for underscores."""
    return visible(name).replace("_", " ")


def _margins(part: pd.DataFrame, label: str, tau: float, bins: int) -> go.Figure:
    fig = plots.margins({label: part}, tau, bins)
    # Fixed margins: the buttons below stand under their bars, and the slider need not wait for
    # the labels to be measured.
    fig.update_xaxes(automargin=False).update_yaxes(automargin=False)
    return fig.update_layout(margin_l=LEFT)


def _bar_buttons(bins: int) -> tuple[widgets.HBox, list[widgets.Button], Callable[..., None]]:
    """A row with a button for every bar, the buttons, and a function that fits them to the bars.

    A message to the browser for every button at every move would make the slider lag; so the
    buttons stand in two boxes, left and right of tau, and mostly only the boxes' widths change.
    """
    small = {"min_width": "0", "width": "auto", "padding": "0", "margin": "0 1px", "flex": "1 1 0"}
    buttons = [
        widgets.Button(description="▴", tooltip=f"completions of bar {i} of {bins}", layout=small)
        for i in range(1, bins + 1)
    ]
    sides = [widgets.HBox(), widgets.HBox()]
    row = widgets.HBox(sides, layout={"padding": f"0 14px 0 {LEFT}px", "width": "100%"})

    def lay_out(tau: float, counts: np.ndarray) -> None:
        left = int(np.searchsorted(bin_edges(tau, bins), tau)) if 0 < tau < 1 else 0
        if len(sides[0].children) != left or not sides[1].children:
            sides[0].children, sides[1].children = buttons[:left], buttons[left:]
        for side, width in zip(sides, (tau, 1 - tau) if left else (0, 1), strict=True):
            side.layout.flex = f"{width:.4f} 1 0"
            side.layout.display = "" if side.children else "none"
        for button, count in zip(buttons, counts, strict=True):
            button.disabled = not count

    return row, buttons, lay_out


def numbers_html(points: pd.DataFrame, tau: float) -> str:
    """The filter's numbers at ``tau`` as an HTML table: value, 95 % interval, curve, meaning.

    ``points`` is the table of :func:`bgkit.evaluation.thresholds.operating_points`; the curves are
    those of :func:`bgkit.figures.thresholds.sparkline`. What is not known is a dash.
    """
    row = points.iloc[plots_thresholds.nearest(points, tau)]
    lines = []
    for metric, meaning in METRICS.items():
        value, low, high = (
            style.number(row[metric + end], metric) for end in ("", "_low", "_high")
        )
        curve = plots_thresholds.sparkline(points, metric, tau)
        ends = f"{low} to {high}"
        if np.isnan(row[metric]):
            value, ends = "–", "not known"
        cells = (f"<b>{style.named(metric)}</b>", value, ends, curve, safe(meaning))
        lines.append("<tr>" + "".join(f"<td style='{LINE}'>{c}</td>" for c in cells) + "</tr>")
    heads = ("at tau = " + f"{tau:.2f}", "value", "95 % interval", "tau from 0 to 1", "what it is")
    head = "".join(f"<th style='{LINE}'>{text}</th>" for text in heads)
    note = f"{int(row['n']):,} responses, truth known for {int(row['known']):,} of them."
    return f"<table><tr>{head}</tr>{''.join(lines)}</table><small>{note}</small>"


def completions_html(rows: pd.DataFrame, tau: float) -> str:
    """Completions as HTML: prompt, response, t, truth and what the filter did.

    All text of prompts, models and logs is escaped, and its line breaks are kept.
    """
    blocks = []
    for row, verdict in zip(rows.to_dict("records"), verdicts(rows, tau), strict=True):
        truth = "not known"
        if not np.isnan(row["harm"]):
            truth = f"{'harmful' if row['harm'] > 0.5 else 'safe'} ({row['harm']:.2f})"
        colour = style.HARMFUL if verdict.startswith("false") else style.TEXT
        facts = f"t <b>{row['t']:.3f}</b> · truth <b>{truth}</b> · <b>{verdict}</b>"
        blocks.append(
            f"<div class='{NO_MATH}' style='border-left:3px solid {colour};{BLOCK}'>"
            f"<small>{facts} · {safe(words_of(row['kind']))}</small>"
            f"<pre style='{PRE};opacity:.75;font-family:inherit'>{folded(row['prompt'])}</pre>"
            f"<pre style='{PRE};font-family:inherit'>{folded(row['response'])}</pre></div>"
        )
    return "".join(blocks)


def completion_pager() -> tuple[widgets.VBox, Callable[[pd.DataFrame, float, str], None]]:
    """Return a place for completions with buttons to turn pages, and a function that fills it.

    The function takes rows of samples, tau and a heading (text), and shows the first page of
    :data:`PAGE` completions.
    """
    back, on, close = (widgets.Button(description=d) for d in ("◂ previous", "next ▸", "close"))
    where, page = widgets.HTML(), widgets.HTML()
    box = widgets.VBox([widgets.HBox([back, on, close, where]), page])
    box.layout.display = "none"
    held: dict = {}

    def turn(step: int) -> None:
        held["start"] += step
        rows, start = held["rows"], held["start"]
        part = rows.iloc[start : start + PAGE]
        told = (
            f"{start + 1} to {start + len(part)} of {len(rows)}" if len(rows) else "no completions"
        )
        where.value = f"{safe(held['heading'])}: {told}"
        page.value = completions_html(part, held["tau"])
        back.disabled, on.disabled = start == 0, start + PAGE >= len(rows)

    def fill(rows: pd.DataFrame, tau: float, heading: str) -> None:
        held.update(rows=rows, tau=tau, heading=heading, start=0)
        turn(0)
        box.layout.display = ""

    back.on_click(lambda _: turn(-PAGE))
    on.on_click(lambda _: turn(PAGE))
    close.on_click(lambda _: setattr(box.layout, "display", "none"))
    return box, fill
