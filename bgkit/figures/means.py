"""Pictures of means: help against harm, the paths of designs over a setting, kinds of prompts.

``results`` is a run, several, a samples table, samples by name, or rows
(:mod:`bgkit.evaluation.results`) with :data:`bgkit.figures.style.ROW_COLUMNS`: ``kind`` is 'all' or
one kind of prompt, ``low`` to ``high`` the interval of ``mean``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.evaluation.metrics import METRICS
from bgkit.evaluation.results import Results, rows_of
from bgkit.figures import intervals, style
from bgkit.figures.style import error_bars, label

#: What the intervals of a table of ablations are (its column ``interval``), in words.
INTERVALS = {
    "both": "over seeds and prompts (crossed bootstrap)",
    "prompts": "over the prompts of one seed, blind to how seeds differ",
}


def _pick(rows: pd.DataFrame, metric: str, kind: str = "") -> pd.DataFrame:
    """The rows of one metric (and kind, else of all kinds alone) that have a mean."""
    table = style.with_series(rows)
    kinds = table["kind"] == kind if kind else table["kind"] != "all"
    table = table[kinds & (table["metric"] == metric)].dropna(subset=["mean"])
    if table.empty:
        of = f"prompts of kind '{kind}'" if kind else "single kinds of prompts"
        raise BgkitError(f"The table of results has no '{metric}' for {of}.")
    return table


def _both(across: pd.DataFrame, up: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """The rows that have both means, ``_y`` behind the names of the second, with hover texts."""
    across, up = (
        rows.assign(told=[style.told(row) for row in rows.to_dict("records")])
        for rows in (across, up)
    )
    both = across.merge(up, on=list(on), suffixes=("", "_y"))
    return both.assign(told=both["told_y"] + "<br>" + both["told"])


def _against(both: pd.DataFrame, x: str, y: str) -> go.Figure:
    """Means of ``y`` over those of ``x`` with both intervals, in the order of the rows.

    Each ``series`` has its look and a line through its marks, which have a ``size``. Where both
    metrics have a better side, its corner is named.
    """
    fig = go.Figure()
    for name, one in both.groupby("series", sort=False):
        hue, symbol, dash = style.look(name)
        thin = {"thickness": 1, "width": 0, "color": hue}  # they cross each other
        more = {"error_x": error_bars(one, **thin), "error_y": error_bars(one, "_y", **thin)}
        more["marker"] = {"color": hue, "symbol": symbol, "size": one["size"], "opacity": 1}
        more["line"] = {"color": hue, "dash": dash, "width": 1.5}
        more |= {"mode": "lines+markers", "cliponaxis": False}
        fig.add_trace(style.dots(name, one["told"], x=one["mean"], y=one["mean_y"], **more))
    right, up = METRICS[x].better, METRICS[y].better
    if right and up:
        arrow = {(-1, 1): "↖", (1, 1): "↗", (-1, -1): "↙", (1, -1): "↘"}[right, up]
        fig.add_annotation(style.above(f"<b>{arrow} better</b>", 0, int(right > 0)))
    for update, name in ((fig.update_xaxes, x), (fig.update_yaxes, y)):
        form = ".1~%" if name in style.SHARES else ""
        update(title_text=style.named(name), tickformat=form)
    return fig


def frontier(results: Results, kind: str = "all") -> go.Figure:
    """Draw system helpfulness (up) against system harm (right), both 0 to 1, one mark per design.

    A design above and left of another beats it on both counts. The lines through a mark are the
    intervals of its two means.
    """
    rows = rows_of(results)
    harm, help_ = (_pick(rows, metric, kind) for metric in ("system_harm", "system_help"))
    both = _both(harm, help_, ["series"]).assign(size=10)
    notes = [f"On {label(kind)} prompts."]
    fig = _against(both, "system_harm", "system_help")
    return style.style(fig, "System helpfulness against harm", notes, 440)


def trade_off(
    table: pd.DataFrame,
    along: str = "strength",
    where: Mapping[str, Any] | None = None,
    *,
    x: str = "system_harm",
    y: str = "system_help",
) -> go.Figure:
    """Draw a metric ``y`` (up) against another one ``x`` (right) of a table of ablations.

    Each design (:mod:`bgkit.sweeps.collection` makes the table) has one path through the values of
    ``along``, from a small mark (the first value) to a large one (the last): over its strengths
    that is its frontier, and designs compare as curves, not as points. ``where`` fixes other
    columns. Raises BgkitError for an unknown metric, column or value, and for a further column with
    several values that ``where`` does not fix.
    """
    both = _both(
        *(settings.select(table, name, (along, "design"), where) for name in (x, y)),
        on=["design", along],
    )
    known, designs = (settings.values_of(both, column) for column in (along, "design"))
    place, order = both[along].map(known.index), both["design"].map(designs.index)
    told = f"{label(along)} " + both[along].map(label) + "<br>" + both["told"]
    told += "<br>seeds: " + both["n_seeds"].astype(str)
    both = both.assign(series=both["design"], told=told, order=order, place=place)
    both = both.assign(size=7 + 8 * place / max(1, len(known) - 1))
    fig = _against(both.sort_values(["order", "place"]), x, y)
    for update, end in ((fig.update_xaxes, "mean"), (fig.update_yaxes, "mean_y")):
        most = both[end].max() or 1.0
        update(range=[-0.03 * most, 1.15 * most])  # an interval may be cut
    ends = [f"{v:g}" if isinstance(v, float) else label(v) for v in (known[0], known[-1])]
    held = ", ".join(f"{label(column)} {label(value)}" for column, value in (where or {}).items())
    path = f"Small to large mark: {label(along)} {' to '.join(ends)}."
    words = "; ".join(INTERVALS[kind] for kind in dict.fromkeys(both["interval"]))
    notes = [path + f" Held fixed: {held}." * bool(held), f"Lines: 95 % intervals {words}."]
    title = f"{style.named(y)} against {style.named(x)}"
    return style.style(fig, title[:1].upper() + title[1:], notes, 480)


def by_kind(results: Results, metric: str) -> go.Figure:
    """Draw one metric over the kinds of prompts: each design's mean and interval, side by side.

    Shares are in percent, scores go from 0 to 1.
    """
    rows, words = _pick(rows_of(results), metric), style.named(metric)
    more = {"values": list(dict.fromkeys(rows["kind"])), "colour": "series", "mode": "markers"}
    fig = intervals.over(rows, "kind", {metric: ""}, **more, tall=300)
    fig.update_yaxes(title_text=words)
    return style.style(fig, f"{words.capitalize()} by kind of prompt", ["Lines: intervals."])
