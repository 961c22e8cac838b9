"""Pictures of stress tests of training: drift, and what helpfulness costs.

Pure functions from the tables of :mod:`bgkit.stress` to Plotly figures with the look of
:mod:`bgkit.figures.distributions`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit.errors import BgkitError
from bgkit.figures import style

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


def _told(rows: pd.DataFrame, form: str = ".3f") -> list[str]:
    """Numbers for the hover: mean and interval; a dash where there is none."""
    return [
        "–" if np.isnan(r.mean) else f"{r.mean:{form}} ({r.low:{form}} to {r.high:{form}})"
        for r in rows.itertuples()
    ]


def _band(part: pd.DataFrame, colour: str) -> go.Scatter:
    """The intervals of a line as a shaded band."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    band = go.Scatter(x=[*part["step"], *part["step"][::-1]], y=[*part["high"], *part["low"][::-1]])
    band.update(fill="toself", fillcolor=f"rgba({red},{green},{blue},0.16)", mode="lines")
    return band.update(line={"width": 0}, hoverinfo="skip", showlegend=False)


def drift(rows: pd.DataFrame) -> go.Figure:
    """Draw what training does to utility, true help and harm, gibberish, length and unseen harm.

    ``rows`` is a table of :func:`bgkit.stress.reward_hacking.drift`. Each mark is the mean over a
    window of steps, its band the 95% interval over prompts; a design has one colour, and a line per
    seed. Utility that goes on rising while helpfulness falls is reward hacking. What is not known
    has no panel.
    """
    style.need(rows, ("design", "seed", "step", "metric", "mean", "low", "high"), "drift")
    known = set(rows.dropna(subset=["mean"])["metric"])
    shown = [metric for metric in DRIFT if metric in known]
    if not shown:
        raise BgkitError("The table of drift holds no known value to draw.")
    lines = -(-len(shown) // 2)
    fig = make_subplots(lines, 2, vertical_spacing=0.13, horizontal_spacing=0.1)
    for place, metric in enumerate(shown):
        at = {"row": place // 2 + 1, "col": place % 2 + 1}
        style.heading(fig, DRIFT[metric], **at)
        share = metric in ("gibberish", "unseen_harm")
        form = ".1%" if share else ".3f"
        fig.update_yaxes(tickformat=".0%" if share else "", **at)
        found = list(_lines(rows, metric))
        fig.add_traces(
            [_band(part, style.look(name)[0]) for (name, _), part in found],
            rows=at["row"],
            cols=at["col"],
        )
        for (design, seed), part in found:
            line = _line(design, seed, part, form)
            first = _is_first(rows, design, seed) and place == 0
            fig.add_trace(line.update(showlegend=first), **at)
        if place >= len(shown) - 2:
            fig.update_xaxes(title_text="training step", **at)
    note = "Bands: 95 % intervals over prompts; changes are against the first window, not base."
    return style.style(fig, "Learned utility and the truth over training", [note], 180 * lines + 90)


def _line(design: str, seed: int, part: pd.DataFrame, form: str) -> go.Scatter:
    """The means of one run's windows."""
    colour, symbol, dash = style.look(design)
    steps = [f"seed {seed}, step {step:g}<br>" for step in part["step"]]
    told = [step + text for step, text in zip(steps, _told(part, form), strict=True)]
    more = {"line": {"color": colour, "dash": dash, "width": 2}, "mode": "lines+markers"}
    more |= {"marker": {"color": colour, "symbol": symbol, "size": 7}}
    return style.dots(design, told, x=part["step"], y=part["mean"], **more)


def _lines(rows: pd.DataFrame, metric: str):
    """The known rows of one metric, run by run."""
    known = rows[rows["metric"] == metric].dropna(subset=["mean"])
    return known.groupby(["design", "seed"], sort=False)


def _is_first(rows: pd.DataFrame, design: str, seed: int) -> bool:
    return bool(rows.loc[rows["design"] == design, "seed"].iloc[0] == seed)


def helpfulness_by_cost(
    rows: pd.DataFrame, costs: pd.DataFrame, answers: int = 10_000
) -> go.Figure:
    """Draw system helpfulness and harm against the tokens that a method generates in all.

    ``rows`` are means of system_help and system_harm by design
    (:func:`bgkit.evaluation.means.summary`), ``costs`` is a table of
    :func:`bgkit.stress.without_training.costs`. Tokens, on a logarithmic scale, are those generated
    for training and for ``answers`` answers after it: training costs once, the best of n with every
    answer. Several n of one score are joined by a line and numbered: read them at the tokens of a
    trained policy. Lines at the marks are 95% intervals. Up (left panel) and down (right panel) is
    better.
    """
    style.need(rows, ("design", "metric", "mean", "low", "high"), "helpfulness")
    style.need(costs, ("design", "training_tokens", "tokens_per_answer"), "costs")
    spent = costs.set_index("design")
    total = spent["training_tokens"] + answers * spent["tokens_per_answer"]
    fig = make_subplots(1, 2, horizontal_spacing=0.12)
    series = _series(total.index)
    names = dict.fromkeys(series.values())
    others = [name for name in names if style.look(name) == style.LOOKS[""]]
    panels = (("system_help", "↑ true helpfulness, 0 to 1"), ("system_harm", "↓ true harm, 0 to 1"))
    for col, (metric, words) in enumerate(panels, 1):
        style.heading(fig, words, 1, col)
        part = rows[(rows["metric"] == metric) & rows["design"].isin(total.index)]
        if part.empty:
            raise BgkitError(f"The table of helpfulness has no '{metric}' of a design with costs.")
        for name, one in part.groupby(part["design"].map(series), sort=False):
            costs_ = [
                f"{total[each]:,.0f} tokens, {spent['training_tokens'][each]:,.0f} in training"
                for each in one["design"]
            ]
            told = [
                f"{style.label(each)}<br>{style.named(metric)} {text}<br>{cost}"
                for each, text, cost in zip(one["design"], _told(one), costs_, strict=True)
            ]
            more = _look_of(name, others)
            dots = style.dots(name, told, x=total[one["design"]], y=one["mean"], **more)
            if len(one) > 1:
                numbers = [match[1] for match in map(BEST_OF.match, one["design"])]
                dots.update(mode="lines+markers+text", text=numbers, textposition="middle right")
                dots.update(line={"color": dots.marker.color, "width": 1.2, "dash": "dot"})
            fig.add_trace(dots.update(error_y=style.error_bars(one), showlegend=col == 1), 1, col)
    ticks = [digit * 10**power for power in range(3, 12) for digit in (1, 2, 5)]
    words = [f"{tick / 1e6:g}M" if tick >= 1e6 else f"{tick / 1e3:g}k" for tick in ticks]
    fig.update_xaxes(type="log", title_text="generated tokens", tickvals=ticks, ticktext=words)
    note = f"Tokens of training and of {answers:,} answers. Lines: 95 % intervals."
    notes = [note] + ["Numbers: samples per answer (n)."] * (len(names) < len(series))
    return style.style(fig, "What helpfulness costs", notes, 460)


def _series(designs: Iterable[str]) -> dict[str, str]:
    """The name of each design's marks: those of one score's best of several n are joined."""
    found = {name: BEST_OF.match(name) for name in designs}
    scores = Counter(match[2] for match in found.values() if match)
    return {
        name: f"best of n: {match[2]}" if match and scores[match[2]] > 1 else name
        for name, match in found.items()
    }


def _look_of(name: str, others: Sequence[str]) -> dict[str, Any]:
    """Marker of a method; those that are no designs have colours of their own, in their order."""
    if name not in others:
        return {}
    place = others.index(name) % len(METHODS)
    return {"marker": {"color": METHODS[place], "symbol": SYMBOLS[place], "size": 11}}
