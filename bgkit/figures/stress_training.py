"""Pictures of stress tests of training: drift, calibration, cost, and the scorecard.

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
BEST, FAINT = "rgba(0,143,102,0.3)", "rgba(128,128,128,0.06)"
BEST_OF = re.compile(r"best of (\d+): (.*)")
#: Colours of methods that are no designs, none of them a design's that is compared with them.
METHODS = ("#9B4FC4", "#80603C", "#E07BB5", "#45A8E0", "#5B6770", "#B8860B")
OTHERS = ("#0072B2", "#D55E00", "#008F66", "#9B4FC4", "#DD9500", "#80603C")


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


def with_and_without_calibration(
    rows: pd.DataFrame, metrics: Sequence[str] = ("system_harm", "system_help", "filter_rate")
) -> go.Figure:
    """Draw policies trained with the guard as it is and with the fitted temperature.

    ``rows`` is a table of :func:`bgkit.stress.calibrated.behind`. One panel per metric: policies
    run down, a colour is the guard they are deployed behind, lines are 95% intervals.
    """
    style.need(rows, ("guard", "design", "metric", "mean", "low", "high"), "calibration")
    shown = [metric for metric in metrics if metric in set(rows["metric"])]
    if not shown:
        raise BgkitError(f"The table of calibration has none of {', '.join(metrics)}.")
    fig = make_subplots(1, len(shown), shared_yaxes=True, horizontal_spacing=0.05)
    for col, metric in enumerate(shown, 1):
        share = metric in style.SHARES
        style.heading(fig, style.named(metric), 1, col)
        fig.update_xaxes(tickformat=".0%" if share else "", nticks=4, row=1, col=col)
        for name, symbol, colour in zip(rows["guard"].unique(), _symbols(), OTHERS, strict=False):
            part = rows[(rows["guard"] == name) & (rows["metric"] == metric)]
            told = [
                f"{style.label(design)}, behind {style.label(name)}<br>{style.named(metric)} {text}"
                for design, text in zip(
                    part["design"], _told(part, ".1%" if share else ".3f"), strict=True
                )
            ]
            dots = go.Scatter(x=part["mean"], y=[style.wrapped(one) for one in part["design"]])
            dots.update(mode="markers", marker={"color": colour, "symbol": symbol, "size": 9})
            dots.update(error_x=style.error_bars(part), hovertext=told, hoverinfo="text")
            dots.update(orientation="h", offsetgroup=name, alignmentgroup="guards")
            dots.update(name=f"behind {style.label(name)}", legendgroup=name)
            fig.add_trace(dots.update(showlegend=col == 1), 1, col)
    count = rows["design"].nunique()
    fig.update_yaxes(autorange="reversed", showgrid=False).update_layout(scattermode="group")
    title = "Trained with and without temperature scaling"
    return style.style(fig, title, ["Lines: 95 % intervals."], 190 + 60 * count)


def _symbols() -> tuple[str, ...]:
    return ("circle", "square", "diamond", "triangle-up", "cross", "x")


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
    symbols = [f"{symbol}-open" for symbol in _symbols()]
    return {"marker": {"color": METHODS[place], "symbol": symbols[place], "size": 11}}


def scorecard(card: tuple[pd.DataFrame, pd.DataFrame]) -> go.Figure:
    """Draw designs (down) by tests (across): the greener a cell, the better in that test.

    ``card`` is of :func:`bgkit.stress.scorecard.scorecard`. Colour places a mean between the worst
    (grey) and the best design of its test, so it can not be compared between tests; the numbers
    are the means. A star marks the winner, a hollow one (☆) a winner whose difference to the
    runner-up may be zero. Hover for intervals.
    """
    means, winners = card
    style.need(means, ("test", "design", "mean", "low", "high", "direction", "winner"), "scores")
    tests, designs = list(winners["test"]), list(dict.fromkeys(means["design"]))
    decided = winners.set_index("test")["decided"]
    worth = np.full((len(designs), len(tests)), np.nan)
    told = [["not tested"] * len(tests) for _ in designs]
    fig = go.Figure()
    for test, part in means.groupby("test", sort=False):
        col, good = tests.index(test), _worth(part)
        for row, value, text in zip(part.itertuples(), good, _told(part, ".4f"), strict=True):
            place = designs.index(row.design)
            worth[place, col] = value
            told[place][col] = f"<b>{style.label(row.design)}</b>, {style.label(test)}<br>{text}"
            star = (" ★" if decided[test] else " ☆") if row.winner else ""
            number = "–" if np.isnan(row.mean) else f"{row.mean:.3f}{star}"
            number = f"<b>{number}</b>" if row.winner else number
            where = {"x": style.label(test), "y": style.wrapped(row.design), "showarrow": False}
            fig.add_annotation(text=number, **where)
    names = [style.wrapped(name) for name in designs]
    cells = go.Heatmap(z=worth, x=[style.label(test) for test in tests], y=names, text=told)
    cells.update(hoverinfo="text", showscale=False, showlegend=False, xgap=2, ygap=2)
    cells.update(zmin=0, zmax=1, colorscale=[[0, FAINT], [1, BEST]])
    fig.add_trace(cells).update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(side="bottom", showgrid=False)
    arrows = {"low": "↓ is good", "high": "↑ is good"}
    ways = dict(zip(winners["test"], winners["direction"], strict=True))
    ticks = [f"{style.wrapped(test)}<br>{arrows[ways[test]]}" for test in tests]
    fig.update_xaxes(tickvals=[style.label(test) for test in tests], ticktext=ticks)
    note = "★ best, ☆ best, but its lead over the second may be zero; colours hold within a test."
    return style.style(fig, "Which design is best in which test", [note], 150 + 40 * len(designs))


def _worth(part: pd.DataFrame) -> np.ndarray:
    """Place of each mean between the worst (0) and the best (1) of a test; all 1 if they tie."""
    mean = part["mean"].to_numpy(float)
    mean = -mean if part["direction"].iloc[0] == "low" else mean
    if np.isnan(mean).all():
        return mean
    low, high = np.nanmin(mean), np.nanmax(mean)
    return (mean - low) / (high - low) if high > low else np.where(np.isnan(mean), np.nan, 1.0)
