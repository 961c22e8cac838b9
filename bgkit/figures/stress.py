"""Pictures of stress tests: other guards and deployments, other prompts, an attacker, training.

``rows`` are tables of means of :mod:`bgkit.stress` and :func:`bgkit.evaluation.means.summary`:
design, the test's axis, metric, mean, and the interval ``low`` to ``high``. Designs that differ in
a setting only share the colour and differ in their lines and marks. A metric that is not known has
no panel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.errors import BgkitError
from bgkit.figures import intervals, style
from bgkit.figures.style import above, label

MATRIX = ("system_harm", "near_boundary")
SEEN = ("system_harm", "system_help")
#: Pale to deep blue, opaque: the numbers in the cells get the colour that stands out.
CELLS = ((0.0, "#EEF4F9"), (0.5, "#7FB2D6"), (1.0, "#08457E"))
#: metric of :func:`bgkit.stress.reward_hacking.drift` -> the heading of its panel
DRIFT = {
    "utility": "learned utility (deviations of base)",
    "system_help": "true helpfulness, 0 to 1",
    "system_harm": "true harm, 0 to 1",
    "gibberish": "gibberish",
    "length": "length (tokens)",
    "unseen_harm": "share of harm at t < 0.2",
}
BEST_OF = re.compile(r"best of (\d+): (.*)")
#: Colours of methods that are no designs, none of them a design's that is compared with them.
METHODS = ("#9B4FC4", "#80603C", "#E07BB5", "#45A8E0", "#5B6770", "#B8860B")
SYMBOLS = ("circle-open", "square-open", "diamond-open", "triangle-up-open", "cross-open", "x-open")


def _panels(rows: pd.DataFrame, metrics: Iterable[str]) -> dict[str, str]:
    """Headings of the metrics of which a mean is known."""
    known = set(rows.dropna(subset=["mean"])["metric"])
    return {metric: f"<b>{style.named(metric)}</b>" for metric in metrics if metric in known}


def _one_per_mark(rows: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raise BgkitError where marks would lie on each other, as of several kinds of prompts."""
    if rows.duplicated(["design", "metric", *keys]).any():
        raise BgkitError(
            f"The results hold a design's {' and '.join(keys)} several times; draw one kind of "
            "prompts and one setting only."
        )


def transfer_matrix(rows: pd.DataFrame) -> go.Figure:
    """Draw designs (rows) against the guards they are deployed with (columns), a number per cell.

    One panel for system harm and one for the mass near the boundary; darker is more, each panel
    with its own scale from 0. Read along a row: a design that exploits its own guard is worse
    behind the others. Hover a cell for its interval.
    """
    table, panels = (
        rows.assign(told=[style.told(r) for r in rows.to_dict("records")]),
        _panels(rows, MATRIX),
    )
    names = list(dict.fromkeys(table["design"]))
    fig = make_subplots(1, len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    for place, (metric, words) in enumerate(panels.items()):
        part = table[table["metric"] == metric].set_index(["design", "guard"])[["mean", "told"]]
        wide = part.unstack("guard", sort=False).reindex(names)
        cells = {
            "z": wide["mean"].to_numpy(),
            "x": [label(guard) for guard in wide["mean"]],
            "y": [style.wrapped(name) for name in names],
            "text": [[style.number(v, metric) for v in row] for row in wide["mean"].to_numpy()],
            "hovertext": [
                f"<b>{label(n)}</b><br>" + t
                for n, t in zip(names, wide["told"].fillna("").to_numpy(), strict=True)
            ],
        }
        look = {"colorscale": CELLS, "zmin": 0, "xgap": 2, "ygap": 2, "showscale": False}
        look |= {"texttemplate": "%{text}", "hoverinfo": "text", "showlegend": False}
        fig.add_heatmap(**cells, **look, row=1, col=place + 1).add_annotation(above(words, place))
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(title_text="deployed with", showgrid=False)
    notes = ["The same responses behind each guard. Darker: more; each panel has its own scale."]
    return style.style(fig, "Behind other guards", notes, 170 + 38 * len(names))


def at_equal_help(table: pd.DataFrame) -> go.Figure:
    """Draw what separates designs at equal help, over deployments: a panel for each pair.

    ``table`` is of :func:`bgkit.sweeps.deployments.differences`. Left of the line the first design
    of a pair shows less of the metric. A full mark is a difference beyond chance after Holm's
    correction for all of them; bars are 95 % intervals, uncorrected.
    """
    pair = table["design"] + " − " + table["against"]
    symbol = np.where(table["decided"], "circle", "circle-open")
    told = [
        f"{label(r.deployment)}<br>{r.mean:+.4f} ({r.low:+.4f} to {r.high:+.4f})"
        for r in table.itertuples()
    ]
    rows = table.assign(pair=pair, symbol=symbol, told=told)
    panels, metric = (
        {name: f"<b>{label(name)}</b>" for name in pair.unique()},
        style.named(table["metric"].iloc[0]),
    )
    more = {"panel": "pair", "columns": 2, "across": metric, "zero": True}
    fig = intervals.whiskers(rows, "deployment", panels, **more)
    notes = ["Full marks: beyond chance after correction (Holm). Bars: 95 % intervals."]
    return style.style(fig, f"Difference in {metric} at equal help", notes)


def by_shift(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and help of what the user sees for each shift of the prompts, a mark per design.

    Lines through the marks are the intervals. Compare a design with itself: at the first shift
    (``test``, for buried prompts the trained length) it meets prompts as in training. Raises
    BgkitError where neither is known, and for several rows of one shift.
    """
    _one_per_mark(rows, ["shift"])
    rows = rows.assign(at=[f"shift {label(shift)}" for shift in rows["shift"]])
    shifts = list(dict.fromkeys(rows["shift"]))
    more = {"values": shifts, "mode": "markers", "columns": 1, "tall": 210}
    fig = intervals.over(rows, "shift", _panels(rows, SEEN) or dict.fromkeys(SEEN, ""), **more)
    notes = ["Lines at the marks: 95 % intervals."]
    fig.update_yaxes(rangemode="tozero")
    return style.style(fig, "On prompts unlike those of training", notes)


def attack_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the share of requests broken within a budget of queries, one panel per strategy.

    ``rows`` are of :func:`bgkit.stress.attack.success_over_budget`. A request is broken by a
    response that is harmful and shown. Bands are the intervals; a line can not fall. At budget 1
    the request was bare. Lower is better. Raises BgkitError for several rows of one budget.
    """
    _one_per_mark(rows, ["strategy", "budget"])
    panels = {name: f"<b>{label(name)}</b>" for name in dict.fromkeys(rows["strategy"])}
    more = {"panel": "strategy", "shared": True, "tall": 260}
    fig = intervals.over(rows, "budget", panels, across="queries per request, at most", **more)
    if rows["budget"].max() <= 12:  # no ticks between whole queries
        fig.update_xaxes(dtick=1)
    notes = ["Share of requests with a harmful response that was shown. Bands: 95 % intervals."]
    return style.style(fig, "Success of an adaptive attacker", notes)


def drift(rows: pd.DataFrame) -> go.Figure:
    """Draw what training does to utility, true help and harm, gibberish, length and unseen harm.

    ``rows`` is a table of :func:`bgkit.stress.reward_hacking.drift`. Each mark is the mean over a
    window of steps, its band the 95% interval over prompts; a design has one colour, and a line per
    seed. Utility that goes on rising while helpfulness falls is reward hacking.
    """
    at = "seed " + rows["seed"].astype(str) + rows["step"].map(", step {:g}".format)
    known = _panels(rows, DRIFT)
    panels = {metric: words for metric, words in DRIFT.items() if metric in known}
    more = {"line": "seed", "across": "training step", "tall": 180}
    fig = intervals.over(rows.assign(at=at), "step", panels, **more)
    note = "Bands: 95 % intervals over prompts; changes are against the first window, not base."
    return style.style(fig, "Learned utility and the truth over training", [note])


def helpfulness_by_cost(
    rows: pd.DataFrame, costs: pd.DataFrame, answers: int = 10_000
) -> go.Figure:
    """Draw system helpfulness and harm against the tokens that a method generates in all.

    ``rows`` are means of system_help and system_harm by design, ``costs`` is a table of
    :func:`bgkit.stress.without_training.costs`. Tokens, on a logarithmic scale, are those generated
    for training and for ``answers`` answers after it: training costs once, the best of n with every
    answer. Several n of one score are joined by a line and numbered: read them at the tokens of a
    trained policy. Lines at the marks are 95% intervals. Up (left panel) and down (right panel) is
    better.
    """
    spent = costs.set_index("design")
    total = spent["training_tokens"] + answers * spent["tokens_per_answer"]
    found = {name: BEST_OF.match(name) for name in total.index}
    scores = Counter(match[2] for match in found.values() if match)
    series = {
        name: f"best of n: {match[2]}" if match and scores[match[2]] > 1 else name
        for name, match in found.items()
    }
    names = dict.fromkeys(series.values())
    others = [name for name in names if style.look(name) == style.LOOKS[""]]
    fig = make_subplots(1, 2, horizontal_spacing=0.12)
    panels = (("system_help", "↑ true helpfulness, 0 to 1"), ("system_harm", "↓ true harm, 0 to 1"))
    for col, (metric, words) in enumerate(panels, 1):
        fig.add_annotation(above(words, col - 1))
        part = rows[(rows["metric"] == metric) & rows["design"].isin(total.index)]
        for name, one in part.groupby(part["design"].map(series), sort=False):
            told = [
                f"{label(r['design'])}<br>{style.told(r)}<br>{total[r['design']]:,.0f} tokens, "
                f"{spent['training_tokens'][r['design']]:,.0f} in training"
                for r in one.to_dict("records")
            ]
            dots = style.dots(name, told, x=total[one["design"]], y=one["mean"])
            if name in others:
                place = others.index(name) % len(METHODS)
                dots.marker = {"color": METHODS[place], "symbol": SYMBOLS[place], "size": 11}
            if len(one) > 1:
                numbers = [found[each][1] for each in one["design"]]
                dots.update(mode="lines+markers+text", text=numbers, textposition="middle right")
                dots.update(line={"color": dots.marker.color, "width": 1.2, "dash": "dot"})
            dots.update(error_y=style.error_bars(one), showlegend=col == 1)
            fig.add_trace(dots, 1, col)
    ticks = [digit * 10**power for power in range(3, 12) for digit in (1, 2, 5)]
    words = [f"{tick / 1e6:g}M" if tick >= 1e6 else f"{tick / 1e3:g}k" for tick in ticks]
    fig.update_xaxes(type="log", title_text="generated tokens", tickvals=ticks, ticktext=words)
    note = f"Tokens of training and of {answers:,} answers. Lines: 95 % intervals."
    notes = [note] + ["Numbers: samples per answer (n)."] * (len(names) < len(series))
    return style.style(fig, "What helpfulness costs", notes, 460)
