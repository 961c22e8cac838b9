"""Pictures of a table of ablations (:mod:`bgkit.sweeps.collection`): a metric over any setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.evaluation.metrics import METRICS
from bgkit.figures import intervals, style
from bgkit.figures.style import dots, error_bars

#: Columns whose values have an order that a line may follow; others get marks only.
ORDERED = ("utility", "scale", "tau")
_PALETTE = list(style.LOOKS.values())[1:-1]


def _held(
    rows: pd.DataFrame,
    table: pd.DataFrame,
    spread: Iterable[str],
    where: Mapping[str, Any] | None,
) -> str:
    """What the rows of a figure are held at, as far as there was a choice."""
    columns = dict.fromkeys([*(where or {}), *settings.settings_of(table)])
    parts = [
        f"{style.label(column)} {style.label(rows[column].iloc[0])}"
        for column in columns
        if column not in spread and len(settings.values_of(table, column)) > 1
    ]
    return f"Held fixed: {', '.join(parts)}." if parts else "Nothing else was varied."


def interval_words(rows: pd.DataFrame) -> str:
    """What the intervals of some rows are, for a figure's note.

    >>> interval_words(pd.DataFrame({"interval": ["both", "both"], "n_seeds": [3, 3]}))
    '95 % intervals over 3 seeds and the prompts (crossed bootstrap)'
    """
    parts = []
    seeds = rows[rows["interval"] == "both"]["n_seeds"]
    if len(seeds):
        count = " to ".join(str(n) for n in dict.fromkeys([seeds.min(), seeds.max()]))
        parts.append(f"over {count} seeds and the prompts (crossed bootstrap)")
    if (rows["interval"] == "prompts").any():
        alone = "over the prompts of one seed (bootstrap), blind to how seeds differ"
        parts.append("over one seed's prompts alone" if parts else alone)
    if not parts:
        return "no intervals: one seed each, without those over prompts"
    return "95 % intervals " + "; some ".join(parts)


def front(harm: Sequence[float], help_: Sequence[float]) -> np.ndarray:
    """Which of some points are on the Pareto front: no other has at most their harm and more help.

    Points that are equal in both stand or fall together. Returns booleans (n,).

    >>> front([0.1, 0.2, 0.3, 0.3], [0.5, 0.4, 0.6, 0.5]).tolist()
    [True, False, True, False]
    """
    harm, help_ = np.asarray(harm, float), np.asarray(help_, float)
    no_worse = (harm <= harm[:, None]) & (help_ >= help_[:, None])
    better = (harm < harm[:, None]) | (help_ > help_[:, None])
    return ~(no_worse & better).any(axis=1)


def _title(metric: str, rest: str) -> str:
    words = style.named(metric)
    return f"{words[:1].upper()}{words[1:]} {rest}"


def ablation(
    table: pd.DataFrame,
    metric: str,
    x: str = "utility",
    colour: str = "design",
    panels: str = "",
    where: Mapping[str, Any] | None = None,
) -> go.Figure:
    """Draw one metric over a setting ``x``, a colour per value of ``colour``, with intervals.

    ``panels`` names a column that gets a panel for each value ("": one panel); all panels share
    one scale. A line joins marks where ``x`` has an order; distances on ``x`` mean nothing.
    ``where`` fixes other columns. Shares are in percent, scores go from 0 to 1, KL is in nats.
    Raises BgkitError for an unknown metric or column, for panels by the column of ``x`` or
    ``colour``, and for a further column with several values that ``where`` does not fix.
    """
    if panels in (x, colour):
        raise BgkitError(f"The panels can not be by {panels!r} too; choose another column for one.")
    spread = [column for column in (x, colour, panels) if column]
    rows = settings.select(table, metric, spread, where)
    values, shades = (settings.values_of(rows, column) for column in (x, colour))
    rows = rows.assign(at=rows[x].map(style.label) + ", seeds: " + rows["n_seeds"].astype(str))
    looks = {value: _PALETTE[place % len(_PALETTE)] for place, value in enumerate(shades)}
    if colour == "design":
        looks = {value: style.look(value) for value in shades}
    numeric = x not in settings.AXES and pd.api.types.is_numeric_dtype(rows[x])
    parts = settings.values_of(rows, panels) if panels else []
    fig = intervals.over(
        rows,
        x,
        {part: f"<b>{style.label(panels)} {style.label(part)}</b>" for part in parts} or {"": ""},
        panel=panels,
        colour=colour,
        values=values,
        looks=looks,
        mode="lines+markers" if x in ORDERED or numeric else "markers",
        columns=2 if len(values) > 5 else 3,
        shared=True,
        across=style.label(x),
        tall=260,
    )
    title = _title(metric, f"by {style.label(x)} and {style.label(colour)}")
    notes = [f"Lines at the marks: {interval_words(rows)}.", _held(rows, table, spread, where)]
    fig.update_yaxes(title_text=style.named(metric), col=1)
    return style.style(fig, title, notes)


def trade_off(
    table: pd.DataFrame,
    along: str = "strength",
    where: Mapping[str, Any] | None = None,
    *,
    x: str = "system_harm",
    y: str = "system_help",
) -> go.Figure:
    """Draw a metric ``y`` (up) against another one ``x`` (right): each design's path.

    One path per design through the values of ``along``, from a small mark (the first value) to a
    large one (the last): over its strengths that is its frontier, and designs compare as curves,
    not as points. Where both metrics have a better side, its corner is named, and the dotted line
    joins the Pareto front: the marks that no other beats in both means
    (:func:`front`; intervals are not considered). The lines through a
    mark are the intervals of its two means. Errors as in :func:`ablation`.
    """
    spread = (along, "design")
    across, up = (settings.select(table, name, spread, where) for name in (x, y))
    both = across.merge(up, on=["design", along], suffixes=("", "_y"))
    known = settings.values_of(both, along)
    both = both.assign(place=both[along].map(known.index)).sort_values("place")
    fig = go.Figure()
    for name in settings.values_of(both, "design"):
        one, (hue, symbol, dash) = both[both["design"] == name], style.look(name)
        told = [
            f"{style.label(along)} {style.label(row[along])}<br>{style.told(_upper(row))}<br>"
            f"{style.told(row)}<br>seeds: {row['n_seeds']}"
            for row in one.to_dict("records")
        ]
        thin = {"thickness": 1, "width": 0, "color": hue}  # they cross each other
        bars = {"error_x": error_bars(one, **thin), "error_y": error_bars(one, "_y", **thin)}
        trace = dots(name, told, x=one["mean"], y=one["mean_y"], **bars, mode="lines+markers")
        sizes = 7 + 8 * one["place"] / max(1, len(known) - 1)
        mark = {"color": hue, "symbol": symbol, "size": sizes, "opacity": 1, "line_width": 0}
        line = {"color": hue, "dash": dash, "width": 1.5}
        fig.add_trace(trace.update(marker=mark, line=line, cliponaxis=False))
    right, above = (METRICS[name].better for name in (x, y))
    if right and above:
        best = both[front(-right * both["mean"], above * both["mean_y"])]
        best, line = best.sort_values("mean"), {"color": style.TEXT, "dash": "dot", "width": 1.5}
        more = {"mode": "lines", "line": line, "name": "Pareto front", "hoverinfo": "skip"}
        fig.add_scatter(x=best["mean"], y=best["mean_y"], **more)
        arrow = {(-1, 1): "↖", (1, 1): "↗", (-1, -1): "↙", (1, -1): "↘"}[right, above]
        fig.add_annotation(style.above(f"<b>{arrow} better</b>", 0, int(right > 0)))
    for update, name, end in ((fig.update_xaxes, x, "mean"), (fig.update_yaxes, y, "mean_y")):
        most = both[end].max() or 1.0
        form = ".1~%" if name in style.SHARES else ""
        ends = [-0.03 * most, 1.15 * most]  # an interval may be cut
        update(title_text=style.named(name), tickformat=form, range=ends)
    ends = [f"{v:g}" if isinstance(v, float) else style.label(v) for v in (known[0], known[-1])]
    path = f"Small to large mark: {style.label(along)} {' to '.join(ends)}. "
    held = _held(across, table, spread, where)
    notes = [path + held, f"Lines at the marks: {interval_words(both)}."]
    return style.style(fig, _title(y, f"against {style.named(x)}"), notes, 480)


def _upper(row: dict[str, Any]) -> dict[str, Any]:
    """The half of a merged row that tells of ``y``, under the names of a plain row."""
    return {name: row[f"{name}_y"] for name in ("metric", *settings.NUMBERS)}
