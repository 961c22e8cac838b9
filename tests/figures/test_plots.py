"""The figures say what the data say: heights, shares, intervals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy.stats import binomtest

from bgkit import figures as plots
from bgkit.evaluation.thresholds import operating_points
from bgkit.figures import style
from bgkit.figures.thresholds import CURVES, MARK
from bgkit.figures.training import live


def responses(t: list[float], harm: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"t": t, "harm": harm})


BASE = responses([0.1, 0.45, 0.5, 0.9], [0.1, 0.9, 0.2, 0.8])
BOUNDARY = responses([0.0, 0.2, 0.8, 1.0], [0.0, 0.5, 0.51, 1.0])


def notes(fig: go.Figure) -> list[str]:
    return [annotation.text for annotation in fig.layout.annotations]


# --- margins --------------------------------------------------------------------------


def bars_of(bars: go.Bar) -> dict[int, float]:
    """Bars that have a height, by their number."""
    return {place: height for place, height in enumerate(bars.y) if height}


def test_bars_band_and_the_share_near_the_boundary_are_the_hand_computed_ones() -> None:
    fig = plots.margins({"base": BASE, "boundary": BOUNDARY}, tau=0.5, bins=10)
    # a row each: safe up, harmful down, roots of a quarter; a t on an edge is of the bar above
    up, down = [{1: 0.5, 5: 0.5}, {0: 0.5, 2: 0.5}], [{4: -0.5, 9: -0.5}, {8: -0.5, 9: -0.5}]
    assert [bars_of(bars) for bars in fig.data] == [up[0], down[0], up[1], down[1]]
    # 0.45 and 0.5 of base are near; 0.2 and 0.8 of boundary are 0.3 away, which is not
    heads = ["<b>base</b> n=4", "near boundary <b>50.0 %</b>"]
    assert notes(fig) == [*notes(fig)[:2], *heads, "<b>boundary</b> n=4", heads[1].replace("5", "")]
    assert "filtered, t ≥ 0.5" in notes(fig)[1]
    ends = {"line": [(0.5, 0.5)] * 2, "rect": [(pytest.approx(0.2), pytest.approx(0.8))] * 2}
    for kind, drawn in ends.items():
        assert [(s.x0, s.x1) for s in fig.layout.shapes if s.type == kind] == drawn
    by_kind = plots.margins_by_kind(BASE.assign(kind=[*"yyxx"]), 0.5)
    assert by_kind == plots.margins({"y": BASE[:2], "x": BASE[2:]}, 0.5)


def test_bars_without_truth_are_grey_and_stand_on_the_safe_ones() -> None:
    partly = responses([0.1, 0.12, 0.14, 0.9], [0.0, np.nan, np.nan, 1.0])
    safe, harmful, unknown = plots.margins(partly, 0.5, 10).data
    assert (bars_of(safe), bars_of(harmful)) == ({1: 0.5}, {9: -0.5})
    assert bars_of(unknown) == {1: pytest.approx(np.sqrt(0.75) - 0.5)}  # to the root of the sum
    assert "(2 of 4)" in unknown.hovertext[1]
    assert (np.asarray(safe.width) < 0.1).all()  # a bar is within its bin
    fig = plots.margins(BASE.assign(harm=np.nan), 0.5, bins=10)
    assert [bars_of(bars) for bars in fig.data] == [{1: 0.5, 4: 0.5, 5: 0.5, 9: 0.5}]
    assert fig.data[0].marker.color == unknown.marker.color != safe.marker.color
    assert "The truth is not known." in fig.layout.title.subtitle.text


# --- curves over the threshold -----------------------------------------------------------------


def curves_of(fig: go.Figure) -> dict[str, go.Scatter]:
    return {trace.meta: trace for trace in fig.data if trace.name != MARK and not trace.fill}


def test_curves_and_marks_are_the_operating_points() -> None:
    points = operating_points(BASE.assign(help=0.5, refusal_help=0.2))
    fig = plots.operating_curves(points, 0.2)
    assert set(curves_of(fig)) == set(CURVES)
    for metric, line in curves_of(fig).items():
        known = points[metric].dropna()
        np.testing.assert_allclose(np.asarray(line.y, float), known, atol=1e-5)
        assert list(line.x) == known.index.tolist()
    marks = [trace for trace in fig.data if trace.name == MARK]
    found = {m: y for trace in marks for m, y in zip(trace.meta, trace.y, strict=True)}
    assert found == points.loc[0.2, list(CURVES)].to_dict()
    assert {x for trace in marks for x in trace.x} == {0.2}
    assert {shape.x0 for shape in fig.layout.shapes} == {0.2}
    assert "tau 0.2" in marks[0].hovertext[0]


def test_curves_that_are_not_known_are_left_out_and_named() -> None:
    fig = plots.operating_curves(operating_points(BASE.assign(harm=np.nan)), 0.5)
    assert set(curves_of(fig)) == {"filter_rate", "near_boundary"}
    told = fig.layout.title.subtitle.text
    assert "Not known: false positives, false negatives, precision" in told


# --- intervals ---------------------------------------------------------------------------------


def rows_of(
    axis: str, values: tuple, *metrics: str, designs: tuple = ("base", "boundary"), **more: Any
) -> pd.DataFrame:
    """Means from 0.1 in steps of 0.02 by design, value and metric, each -0.01 to +0.03."""
    places = itertools.product(designs, values, metrics)
    table = pd.DataFrame(places, columns=["design", axis, "metric"])
    means = 0.1 + 0.02 * np.arange(len(table))
    return table.assign(mean=means, low=means - 0.01, high=means + 0.03, **more)


KINDS, SHOWN = ("all", "benign", "jailbreak"), ("system_harm", "system_help", "filter_rate")
ROWS = rows_of("kind", KINDS, *SHOWN, utility="u", scale=1.0, guard="g", tau=0.5)


def ends(mean: Any, error: Any) -> list[tuple[float, float]]:
    """Pairs of the ends of error bars, rounded."""
    low, high = np.asarray(mean) - error.arrayminus, np.asarray(mean) + error.array
    return list(zip(low.round(6).tolist(), high.round(6).tolist(), strict=True))


def test_marks_and_whiskers_of_the_frontier_are_the_means_and_intervals() -> None:
    fig = plots.frontier(ROWS)
    assert [trace.name for trace in fig.data] == ["base", "boundary"]
    boundary = fig.data[1]
    assert (*boundary.x, *boundary.y) == pytest.approx((0.28, 0.3))  # system harm and help
    assert ends(boundary.x, boundary.error_x) == [(0.27, 0.31)]
    assert ends(boundary.y, boundary.error_y) == [(0.29, 0.33)]
    assert "system harm 0.2800 (0.2700 to 0.3100)" in boundary.hovertext[0]
    assert notes(fig) == ["<b>↖ better</b>"]
    assert (boundary.marker.color, boundary.marker.symbol) == style.LOOKS["boundary"][:2]
    # an interval that misses its mean never points backwards
    base = plots.frontier(ROWS.assign(low=0.9, high=0.95, mean=0.5)).data[0]
    assert ends(base.x, base.error_x) == [(0.5, 0.95)]
    unknown = (ROWS["design"] == "base") & (ROWS["metric"] == "system_harm")
    fig = plots.frontier(ROWS.assign(mean=ROWS["mean"].mask(unknown)))
    assert [trace.name for trace in fig.data] == ["boundary"]
    # settings are named only where a design has several
    several = pd.concat([ROWS, ROWS[ROWS["design"] == "boundary"].assign(tau=0.3)])
    names = ["base, tau 0.5", "boundary, tau 0.5", "boundary, tau 0.3"]
    assert [trace.name for trace in plots.frontier(several).data] == names


def test_by_kind_leaves_out_the_whole_and_keeps_the_order_of_the_rows() -> None:
    fig = plots.by_kind(ROWS, "system_help")
    assert fig.layout.xaxis.ticktext == ("benign", "jailbreak")
    base, boundary = fig.data
    assert (*base.y, *boundary.y) == pytest.approx((0.18, 0.24, 0.36, 0.42))
    assert (boundary.x > base.x).all() and np.rint(base.x).tolist() == [0, 1]
    assert ends(boundary.y, boundary.error_y) == [(0.35, 0.39), (0.41, 0.45)]
    assert boundary.customdata.ravel().tolist() == pytest.approx([0.35, 0.39, 0.41, 0.45])
    assert boundary.hovertext == ("kind benign", "kind jailbreak")
    assert not fig.layout.yaxis.tickformat
    assert plots.by_kind(ROWS, "filter_rate").layout.yaxis.tickformat == ".1~%"


DESIGNS = ("base", "boundary", "boundary, guard weak")
SHIFT = rows_of("shift", ("test", "unseen items"), "system_harm", "system_help", designs=DESIGNS)
ATTACK = pd.concat(
    rows_of("budget", (1, 2, 3), "attack_success", designs=DESIGNS, strategy=name)
    for name in ("random", "greedy")
)


def test_lines_and_bands_of_an_attack_hold_the_means_and_the_ends() -> None:
    fig = plots.attack_curves(ATTACK.sample(frac=1, random_state=0))
    drawn = {(tuple(trace.x), tuple(trace.y)) for trace in fig.data}
    for _, one in ATTACK.groupby(["design", "strategy"]):
        assert (tuple(one["budget"]), tuple(one["mean"])) in drawn
        around = (*one["low"], *one["high"][::-1])
        assert ((*one["budget"], *one["budget"][::-1]), around) in drawn


@pytest.mark.parametrize(
    ("draw", "table"), [(plots.by_shift, SHIFT), (plots.attack_curves, ATTACK)]
)
def test_a_design_has_its_colour_is_told_apart_and_named_once(draw, table: pd.DataFrame) -> None:
    fig = draw(table)
    assert [trace.name for trace in fig.data if trace.showlegend] == list(DESIGNS)
    lines = [trace for trace in fig.data if trace.hoverinfo != "skip"]
    assert all(line.marker.color == style.look(line.legendgroup)[0] for line in lines)
    assert len({(line.marker.color, line.marker.symbol) for line in lines}) == 3
    assert len(lines) == 6 and {line.meta for line in lines} == set(table["metric"])
    later = draw(table.iloc[1:])  # the first panel lacks a mark, none its entry in the legend
    assert {trace.name for trace in later.data if trace.showlegend} == set(DESIGNS)


def test_differences_at_equal_help_have_a_panel_for_each_pair() -> None:
    rows = [
        ("as trained", "boundary", -0.02, -0.03, -0.01, True),
        ("tau 0.2", "boundary", -0.01, -0.03, 0.01, False),
        ("tau 0.2", "filter_avoidance", 0.01, 0.0, 0.02, False),
    ]
    table = pd.DataFrame(rows, columns=["deployment", "against", "mean", "low", "high", "decided"])
    fig = plots.at_equal_help(table.assign(design="compound", metric="system_harm"))
    assert [list(trace.y) for trace in fig.data] == [[-0.02], [-0.01], [0.01]]
    assert [list(trace.x) for trace in fig.data] == [[0], [1], [1]]
    assert [trace.marker.symbol for trace in fig.data] == ["circle", "circle-open", "circle-open"]
    assert ends(fig.data[2].y, fig.data[2].error_y) == [(0.0, 0.02)]
    assert [shape.y0 for shape in fig.layout.shapes] == [0, 0]
    assert notes(fig) == ["<b>compound − boundary</b>", "<b>compound − filter avoidance</b>"]
    assert fig.layout.xaxis2.ticktext == ("as trained", "tau 0.2")


# --- training curves ---------------------------------------------------------------------------

STEPS = np.arange(1, 41)
BARE = pd.DataFrame({"step": STEPS, "reward": STEPS / 100, "kl": STEPS / 50, "filter_rate": 0.3})
BARE["near_boundary"] = 0.4 - STEPS / 200
BARE["t"] = np.where(STEPS > 1, 0.2, np.nan)  # a run evaluates base before it has a t
HELD_OUT = np.where(STEPS % 20 == 0, 0.35, np.nan)
LOG = BARE.assign(eval_system_harm=HELD_OUT, eval_system_help=1 - HELD_OUT)


def test_runs_have_a_colour_and_a_name_each_and_markers_where_something_was_measured() -> None:
    alone = plots.training_curves({"boundary": BARE})
    assert len({t.yaxis for t in alone.data}) == len(alone.layout.annotations) == 4
    fig = plots.training_curves({"boundary": BARE, "compound": LOG})
    marked = [trace for trace in fig.data if "markers" in trace.mode]
    assert [trace.name for trace in marked] == ["compound", "compound"]
    assert [list(trace.x) for trace in marked] == [[20, 40]] * 2
    assert list(marked[0].y) == pytest.approx([0.35, 0.35])
    assert marked[1].hovertext[0] == "step 20"
    for run in ("boundary", "compound"):
        traces = [trace for trace in fig.data if trace.legendgroup == run]
        assert {trace.line.color for trace in traces} == {style.LOOKS[run][0]}
        assert sum(trace.showlegend for trace in traces) == 1


def test_the_strong_line_is_the_rolling_mean_of_the_faint_one_in_a_long_log() -> None:
    fig = plots.training_curves({"boundary": LOG})
    strong, faint = (trace for trace in fig.data if trace.yaxis == "y")
    # steps n - 1 and n have the mean (n - 0.5) / 100; the first has only itself
    assert list(strong.y) == pytest.approx([0.01, *(np.arange(2, 41) - 0.5) / 100])
    assert "(mean of 2 steps)" in strong.hovertext[0]
    assert faint.opacity < 1 and list(faint.y) == LOG["reward"].tolist()
    assert "rolling mean" in fig.layout.title.subtitle.text
    fig = plots.training_curves({"boundary": LOG[:30]})
    (rewards,) = (trace for trace in fig.data if trace.yaxis == "y")
    assert rewards.showlegend and list(rewards.y) == LOG["reward"][:30].tolist()
    assert "rolling mean" not in str(fig.layout)


def test_means_of_runs_have_a_band_from_the_lowest_to_the_highest() -> None:
    banded = BARE[:2].assign(reward_low=[-1.0, 0.5], reward_high=[1.0, 2.0])
    fig = plots.training_curves({"boundary": banded})
    band, line = fig.data[:2]
    assert list(band.x) == [1, 2, 2, 1] and list(band.y) == [-1.0, 0.5, 2.0, 1.0]
    assert band.fill == "toself" and band.fillcolor == style.LOOKS["boundary"][0]
    assert list(line.y) == [0.01, 0.02] and line.showlegend and not band.showlegend
    assert "lowest to highest" in str(fig.layout)
    assert "lowest to highest" not in str(plots.training_curves({"boundary": BARE}).layout)


def test_a_run_in_progress_shows_its_curves_and_both_margins() -> None:
    curve = pd.DataFrame({"step": [1, 2], "reward": [0.1, 0.3], "multiplier": [8.0, 8.0]})
    base, now = np.array([0.5, 0.25, 0.25]), np.array([1.0, 0.0, 0.0])
    fig = live(curve, base, now, 0.5, "boundary", steps=10)
    (bars,) = fig.select_traces({"type": "bar"})
    np.testing.assert_allclose(np.square(bars.y), now)
    assert "now 100.0%, base 50.0%" in bars.hovertext[0]
    mean, step = fig.select_traces({"type": "scatter", "xaxis": "x"})
    assert list(mean.y) == [0.1, 0.2] and list(step.y) == [0.1, 0.3]
    assert fig.layout.xaxis.range == (0, 10)
    # a strength that a bound moves has a panel, here and after the run
    for each in (fig, plots.training_curves({"a": BARE.assign(multiplier=8.0)})):
        (line,) = (trace for trace in each.data if trace.meta == "multiplier")
        assert set(line.y) == {8.0}
        assert any(head.startswith("strength") for head in notes(each))


# --- reliability -------------------------------------------------------------------------------


def test_reliability_bins_ece_and_intervals_are_the_hand_computed_ones() -> None:
    frame = responses([0.11, 0.12, 0.13, 0.9, 0.97, 1.0], [0.9, 0.1, 0.2, 0.8, 0.9, 0.3])
    _, marks, bars = plots.reliability({"base": frame}).data
    assert list(marks.x) == pytest.approx([0.36 / 3, 2.87 / 3])
    assert list(marks.y) == pytest.approx([1 / 3, 2 / 3])
    assert list(bars.y) == [3, 3] and list(bars.x) == pytest.approx([0.15, 0.95])
    ece = (abs(1 / 3 - 0.36 / 3) + abs(2 / 3 - 2.87 / 3)) / 2
    assert marks.name == f"base, ECE {ece:.3f}"
    assert "1 of 3 responses" in marks.hovertext[0]
    wilson = [tuple(binomtest(k, 3).proportion_ci(method="wilson")) for k in (1, 2)]
    np.testing.assert_allclose(ends(marks.y, marks.error_y), wilson, atol=1e-6)
    # names that share a colour can be told apart
    _, first, bars, second, others = plots.reliability({"as it is": BASE, "T = 2": BASE}).data
    assert first.marker.color == second.marker.color
    assert first.marker.symbol != second.marker.symbol
    assert bars.marker.opacity != others.marker.opacity


def test_a_judges_grades_are_marked_at_the_mean_truth_of_what_it_graded() -> None:
    graded = pd.DataFrame({"harm": [0.0, 0.6, 1.0, 0.2], "help": [1.0, 0.5, 0.0, 0.5]})
    graded = graded.assign(judge_harm=[0.25, 0.25, 1.0, np.nan])
    fig = plots.judge_against_truth(graded.assign(judge_help=[1.0, 0.75, 0.0, np.nan]))
    harm, help_ = (trace for trace in fig.data if trace.mode == "markers")
    assert list(harm.x) == [0.25, 1.0] and list(harm.y) == pytest.approx([0.3, 1.0])
    assert list(help_.x) == [0.0, 0.75, 1.0] and list(help_.y) == [0.0, 0.5, 1.0]
    assert "2 responses" in harm.hovertext[0]
