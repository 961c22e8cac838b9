"""A threshold to slide: margins, the filter's numbers and the completions behind every bar.

What a slider move needs is computed once per kind of prompt (:func:`bgkit.thresholds.
operating_points`, one sort and cumulative sums), so that a move only looks numbers up and draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import HTML

from bgkit import plots, threshold_plots
from bgkit.errors import BgkitError
from bgkit.thresholds import (
    GRID,
    METRICS,
    check_samples,
    check_threshold,
    not_known,
    operating_points,
    verdicts,
)
from bgkit.widgets import views
from bgkit.widgets.text import safe

LEFT = 72  # pixels left of the bars
PAGE = 5  # completions that are shown at once
SHOWN_COLUMNS = ("kind", "prompt", "response")
BUTTON_HELP = "Completions behind a bar: the buttons stand below the bars and show their counts."
PRE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0;font-family:inherit"
LINE = "border-bottom:1px solid rgba(128,128,128,.3);padding:2px 10px;text-align:left"


def threshold_explorer(
    samples: pd.DataFrame, tau: float = 0.5, bins: int = 25, drawn: bool = True
) -> widgets.VBox:
    """Return a view with a slider for tau that moves the margin histogram, curves and numbers.

    ``samples`` has the columns t, harm (NaN where not known), kind, prompt and response, and for
    what the user sees those of :mod:`bgkit.thresholds`. Read it from the top: choose a kind of
    prompt, move tau (also with the arrow keys), and see which bars come to lie right of the
    dashed line (they are filtered), what that does to the numbers in the table, and where on the
    curves that is. The buttons below the bars show the completions behind them, a page at a time.
    Without truth labels it shows what can be shown and says what can not.

    ``drawn`` False leaves the figures out until a control is touched, for a view that
    :func:`bgkit.widgets.views.show` displays above its static picture (:func:`static_view`).
    Raises BgkitError for samples without these columns, values out of range, or fewer than 2 bins.
    """
    _check(samples, bins)
    state = _State(samples.reset_index(drop=True), bins, check_threshold(tau))
    controls = _controls(samples, state.tau)
    slider, kind = controls.children
    margins, curves = widgets.Output(), widgets.Output()
    buttons = _bar_buttons(bins)
    numbers, told = widgets.HTML(), widgets.HTML(safe(not_known(samples)))
    pager, fill = completion_pager()
    now = {"drawn": False, "bar": -1}  # the bar whose completions are shown

    def refresh(*_: object) -> None:
        """Let everything but the figures follow the controls."""
        numbers.value = numbers_html(state.points(kind.value), slider.value)
        _label_bars(buttons, state, kind.value, slider.value)
        if now["bar"] >= 0 and not pager.layout.display:
            fill(*state.bar(kind.value, slider.value, now["bar"]))

    def redraw(*_: object) -> None:
        points, now["drawn"] = state.points(kind.value), True
        views.draw(margins, _margins(state.part(kind.value), kind.label, slider.value, bins))
        fig = threshold_plots.mark_threshold(state.curves(kind.value), points, slider.value)
        views.draw(curves, fig)
        refresh()

    def choose(place: int) -> None:
        if not now["drawn"]:
            redraw()
        now["bar"] = place
        fill(*state.bar(kind.value, slider.value, place))

    for place, button in enumerate(buttons.children):
        button.on_click(lambda _, place=place: choose(place))
    for control in (slider, kind):
        control.observe(redraw, "value")
    (redraw if drawn else refresh)()
    below = widgets.HTML(f"<small>{BUTTON_HELP}</small>")
    return widgets.VBox([controls, told, margins, buttons, below, pager, numbers, curves])


def static_view(samples: pd.DataFrame, tau: float, bins: int = 25) -> tuple[object, ...]:
    """Return what the explorer shows first, for readers without a kernel: figures and a table."""
    _check(samples, bins)
    points = operating_points(samples, _taus(tau))
    return (
        _margins(samples, "all kinds", check_threshold(tau), bins),
        HTML(numbers_html(points, tau)),
        threshold_plots.operating_curves(points, tau),
    )


def _check(samples: pd.DataFrame, bins: int) -> None:
    check_samples(samples)
    missing = [column for column in SHOWN_COLUMNS if column not in samples]
    if missing:
        raise BgkitError(f"The table of samples lacks the column(s) {', '.join(missing)}.")
    if bins < 2:
        raise BgkitError(f"A histogram needs at least two bins, not {bins}.")


class _State:
    """What the view shows of each kind (None: all), each part made when it is first asked for."""

    def __init__(self, samples: pd.DataFrame, bins: int, tau: float) -> None:
        self.samples, self.bins, self.tau = samples, bins, tau
        self.part = functools.cache(self._part)
        self.points = functools.cache(self._points)
        self.curves = functools.cache(self._curves)

    def _part(self, kind: str | None) -> pd.DataFrame:
        return self.samples if kind is None else self.samples[self.samples["kind"] == kind]

    def _points(self, kind: str | None) -> pd.DataFrame:
        return operating_points(self.part(kind), _taus(self.tau))

    def _curves(self, kind: str | None) -> go.Figure:
        return threshold_plots.operating_curves(self.points(kind), self.tau)

    def places(self, kind: str | None, tau: float) -> tuple[np.ndarray, np.ndarray]:
        """Edges of the bars, and the bar in which each response lies, as the histogram counts."""
        edges = plots.bar_edges(tau, self.bins)
        places = np.searchsorted(edges, self.part(kind)["t"].to_numpy(float), side="right") - 1
        return edges, np.minimum(places, self.bins - 1)

    def bar(self, kind: str | None, tau: float, place: int) -> tuple[pd.DataFrame, float, str]:
        """The responses of one bar by rising t, tau, and a heading."""
        edges, places = self.places(kind, tau)
        rows = self.part(kind)[places == place].sort_values("t", kind="stable")
        return rows, tau, f"t from {edges[place]:.3f} to {edges[place + 1]:.3f}"


def _taus(tau: float) -> np.ndarray:
    return np.union1d(GRID, [check_threshold(tau)])


def _controls(samples: pd.DataFrame, tau: float) -> widgets.HBox:
    wide = {"description_width": "initial"}
    slider = widgets.FloatSlider(
        value=tau, min=0, max=1, step=0.01, description="threshold tau", style=wide
    )
    kinds = [("all kinds", None)]
    kinds += [(words_of(name), name) for name in pd.unique(samples["kind"])]
    kind = widgets.Dropdown(options=kinds, description="prompts", style=wide)
    slider.layout.width = "420px"
    return widgets.HBox([slider, kind], layout=widgets.Layout(flex_flow="row wrap"))


def words_of(name: object) -> str:
    """A kind as a choice of a menu, which shows text as it is: spaces for underscores."""
    return str(name).replace("_", " ")


def _margins(part: pd.DataFrame, label: str, tau: float, bins: int) -> go.Figure:
    fig = plots.margin_histogram({label: part}, tau, bins)
    # A fixed margin, so that the buttons below stand under their bars.
    return fig.update_layout(margin_l=LEFT).update_yaxes(automargin=False)


def _bar_buttons(bins: int) -> widgets.HBox:
    small = {"min_width": "0", "width": "auto", "padding": "0", "margin": "0 1px"}
    buttons = [widgets.Button(layout=widgets.Layout(**small)) for _ in range(bins)]
    row = widgets.Layout(padding=f"0 14px 0 {LEFT}px", width="100%")
    return widgets.HBox(buttons, layout=row)


def _label_bars(buttons: widgets.HBox, state: _State, kind: str | None, tau: float) -> None:
    """Write the counts on the buttons and give them the widths of their bars."""
    edges, places = state.places(kind, tau)
    counts = np.bincount(places, minlength=state.bins)
    for place, (button, count) in enumerate(zip(buttons.children, counts, strict=True)):
        low, high = edges[place], edges[place + 1]
        button.description, button.disabled = (str(count), False) if count else ("", True)
        button.tooltip = f"{count} completions with t from {low:.3f} to {high:.3f}"
        button.layout.flex = f"{high - low:.4f} 1 0px"


def numbers_html(points: pd.DataFrame, tau: float) -> str:
    """The filter's numbers at ``tau`` as an HTML table: value, 95 % interval and meaning.

    ``points`` is the table of :func:`bgkit.thresholds.operating_points`. What is not known is a
    dash.
    """
    row = points.iloc[threshold_plots.nearest(points, tau)]
    lines = []
    for metric, meaning in METRICS.items():
        value, low, high = (
            plots.number(row[metric + end], metric) for end in ("", "_low", "_high")
        )
        cells = (f"<b>{plots.named(metric)}</b>", value, f"{low} to {high}", safe(meaning))
        if np.isnan(row[metric]):
            cells = (cells[0], "–", "not known", cells[3])
        lines.append("<tr>" + "".join(f"<td style='{LINE}'>{c}</td>" for c in cells) + "</tr>")
    heads = ("at tau = " + f"{tau:.2f}", "value", "95 % interval", "what it is")
    head = "".join(f"<th style='{LINE}'>{text}</th>" for text in heads)
    note = f"{int(row['n']):,} responses, truth known for {int(row['known']):,} of them."
    return f"<table><tr>{head}</tr>{''.join(lines)}</table><small>{note}</small>"


def completions_html(rows: pd.DataFrame, tau: float) -> str:
    """Completions as HTML: prompt, response, t, truth and what the filter did.

    All text of prompts, models and logs is escaped, and its line breaks are kept.
    """
    told = zip(rows.to_dict("records"), verdicts(rows, tau), strict=True)
    return "".join(_completion(row, verdict) for row, verdict in told)


def _completion(row: dict, verdict: str) -> str:
    truth = "not known"
    if not np.isnan(row["harm"]):
        truth = f"{'harmful' if row['harm'] > 0.5 else 'safe'} ({row['harm']:.2f})"
    wrong = verdict.startswith("false")
    colour = plots.HARMFUL if wrong else plots.TEXT
    facts = f"t <b>{row['t']:.3f}</b> · truth <b>{truth}</b> · <b>{verdict}</b>"
    return (
        f"<div style='border-left:3px solid {colour};padding:0 0 0 10px;margin:8px 0'>"
        f"<small>{facts} · {safe(words_of(row['kind']))}</small>"
        f"<pre style='{PRE};opacity:.75'>{safe(row['prompt'])}</pre>"
        f"<pre style='{PRE}'>{safe(row['response'])}</pre></div>"
    )


def completion_pager() -> tuple[widgets.VBox, Callable[[pd.DataFrame, float, str], None]]:
    """Return a place for completions with buttons to turn pages, and a function that fills it.

    The function takes rows of samples, tau and a heading (text), and shows the first page of
    :data:`PAGE` completions.
    """
    back, on, close = (widgets.Button(description=d) for d in ("◂ previous", "next ▸", "close"))
    where, page = widgets.HTML(), widgets.HTML()
    box = widgets.VBox([widgets.HBox([back, on, close, where]), page])
    box.layout.display = "none"
    held: dict = {"rows": pd.DataFrame(), "tau": 0.5, "heading": "", "start": 0}

    def turn(step: int) -> None:
        rows, start = held["rows"], held["start"] + step
        held["start"] = start
        part = rows.iloc[start : start + PAGE]
        where.value = (
            f"{safe(held['heading'])}: {start + 1} to {start + len(part)} of {len(rows)}"
            if len(rows)
            else f"{safe(held['heading'])}: no completions"
        )
        page.value = completions_html(part, held["tau"]) if len(rows) else ""
        back.disabled, on.disabled = start == 0, start + PAGE >= len(rows)

    def fill(rows: pd.DataFrame, tau: float, heading: str) -> None:
        held.update(rows=rows, tau=tau, heading=heading, start=0)
        turn(0)
        box.layout.display = ""

    def hide(_: object) -> None:
        box.layout.display = "none"

    back.on_click(lambda _: turn(-PAGE))
    on.on_click(lambda _: turn(PAGE))
    close.on_click(hide)
    return box, fill
