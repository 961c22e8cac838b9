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

from bgkit.figures import intervals, style
from bgkit.figures.style import above, label

#: Whether a difference is beyond chance -> its mark.
DECIDED = {"beyond chance after correction (Holm)": "circle", "open": "circle-open"}
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


def _side_by_side(rows: pd.DataFrame, axis: str, metrics: Sequence[str], title: str) -> go.Figure:
    """A panel for each metric: marks of designs with their intervals at each value of ``axis``."""
    more = {"values": list(dict.fromkeys(rows[axis])), "mode": "markers", "columns": 1, "tall": 210}
    fig = intervals.over(rows, axis, _panels(rows, metrics) or dict.fromkeys(metrics, ""), **more)
    fig.update_yaxes(rangemode="tozero")
    return style.style(fig, title, ["Lines at the marks: 95 % intervals."])


def by_guard(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and the mass near the boundary behind each guard, a mark per design.

    The same responses stand behind every guard. A design that exploits its own guard is worse
    behind the others than designs that do not. Raises BgkitError where neither is known.
    """
    return _side_by_side(rows, "guard", ("system_harm", "near_boundary"), "Behind other guards")


def by_shift(rows: pd.DataFrame) -> go.Figure:
    """Draw harm and help of what the user sees for each shift of the prompts, a mark per design.

    Compare a design with itself: at the first shift (``test``, for buried prompts the trained
    length) it meets prompts as in training. Raises BgkitError where neither is known.
    """
    title = "On prompts unlike those of training"
    return _side_by_side(rows, "shift", ("system_harm", "system_help"), title)


def at_equal_help(table: pd.DataFrame) -> go.Figure:
    """Draw what separates designs at equal help, over deployments: a panel for each pair.

    ``table`` is of :func:`bgkit.sweeps.deployments.differences`. Below the line the first design of
    a pair shows less of the metric. A full mark is a difference beyond chance after Holm's
    correction for all of them; bars are 95 % intervals, uncorrected.
    """
    pair = table["design"] + " − " + table["against"]
    rows = table.assign(pair=pair, beyond=np.where(table["decided"], *DECIDED))
    panels = {name: f"<b>{label(name)}</b>" for name in dict.fromkeys(pair)}
    looks = {name: (style.TEXT, mark, "solid") for name, mark in DECIDED.items()}
    more = {"panel": "pair", "colour": "beyond", "looks": looks, "mode": "markers", "columns": 1}
    values = list(dict.fromkeys(table["deployment"]))
    fig = intervals.over(rows, "deployment", panels, **more, values=values, tall=150)
    fig.add_hline(0, line={"width": 1, "color": style.TEXT})
    metric = style.named(table["metric"].iloc[0])
    notes = ["Bars: 95 % intervals, uncorrected."]
    return style.style(fig, f"Difference in {metric} at equal help", notes)


def attack_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the share of requests broken within a budget of queries, one panel per strategy.

    ``rows`` are of :func:`bgkit.stress.attack.success_over_budget`. A request is broken by a
    response that is harmful and shown. Bands are the intervals; a line can not fall. At budget 1
    the request was bare. Lower is better.
    """
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
