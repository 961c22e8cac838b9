"""The figures say what the data say: heights, shares, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from bgkit import figures as plots
from bgkit.errors import BgkitError
from bgkit.figures import style
from bgkit.figures.training import training_curves


def responses(t: list[float], harm: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"t": t, "harm": harm})


def study_rows(designs: tuple[str, ...] = ("base", "boundary")) -> pd.DataFrame:
    """Rows whose mean is unlike for each design, kind and metric; whiskers of 0.02 and 0.05."""
    rows = []
    for i, design in enumerate(designs):
        for j, kind in enumerate(("all", "benign", "jailbreak")):
            for k, metric in enumerate(("system_harm", "system_help", "filter_rate")):
                mean = 0.1 + 0.2 * i + 0.05 * j + 0.1 * k
                setting = {"utility": "u", "scale": 1.0, "guard": "g", "tau": 0.5}
                ends = {"mean": mean, "low": mean - 0.02, "high": mean + 0.05}
                rows.append({"design": design, **setting, "kind": kind, "metric": metric, **ends})
    return pd.DataFrame(rows)


def training_log(shift: float = 0.0) -> pd.DataFrame:
    steps = np.arange(1, 41)
    log = pd.DataFrame({"step": steps, "reward": shift + steps / 100, "kl": steps / 50})
    log["near_boundary"], log["filter_rate"] = 0.4 - steps / 200, 0.3
    held_out = np.where(steps % 20 == 0, shift + 0.25, np.nan)
    before = np.where(steps > 1, 0.2, np.nan)  # a run evaluates base before it has a t
    return log.assign(eval_system_harm=held_out, eval_system_help=1 - held_out, t=before)


SAMPLES = {
    "base": responses([0.1, 0.45, 0.5, 0.9], [0.1, 0.9, 0.2, 0.8]),
    "boundary": responses([0.0, 0.2, 0.8, 1.0], [0.0, 0.5, 0.51, 1.0]),
}


def notes(fig: go.Figure) -> list[str]:
    return [annotation.text for annotation in fig.layout.annotations]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# --- the common look ---------------------------------------------------------------------------


def test_designs_differ_in_colour_and_marker_and_show_on_light_and_dark_pages() -> None:
    colours = [colour for colour, _, _ in style.LOOKS.values()]
    markers = [marker for _, marker, _ in style.LOOKS.values()]
    assert len(set(colours)) == len(set(markers)) == len(style.LOOKS) == 11
    bar = style.pio.templates["bgkit"].layout.modebar
    for colour in (*colours, style.SAFE, style.HARMFUL, bar.color, bar.activecolor):
        assert min(contrast(colour, "#ffffff"), contrast(colour, "#14171a")) > 2.4
    assert min(contrast(style.TEXT, "#ffffff"), contrast(style.TEXT, "#14171a")) > 4


def test_a_name_that_begins_with_a_design_shares_its_look() -> None:
    assert style.look("boundary, tau 0.4") == style.LOOKS["boundary"]
    assert style.look("filter_avoidance_soft") == style.LOOKS["filter_avoidance_soft"]
    assert style.look("mine") == style.LOOKS[""]


def test_numbers_are_told_in_the_unit_of_their_metric() -> None:
    assert style.number(0.1234, "filter_rate") == "12.3 %"
    assert style.number(0.1234, "system_harm") == "0.123"
    assert style.number(0.12345, "near_boundary", 4) == "12.35 %"
    assert style.number(math.nan, "kl") == "–"


# --- margins --------------------------------------------------------------------------


def share(bars: go.Bar) -> np.ndarray:
    return np.asarray(bars.y, float) ** 2


def test_bars_of_a_policy_sum_to_one_and_harmful_bars_point_down() -> None:
    fig = plots.margins(SAMPLES, tau=0.5, bins=10)
    for safe, harmful in (fig.data[:2], fig.data[2:]):
        assert share(safe).sum() + share(harmful).sum() == pytest.approx(1)
        assert min(safe.y) >= 0 >= max(harmful.y)
    # base: 0.1 and 0.5 are safe, 0.45 and 0.9 harmful; a t on an edge belongs to the bar above.
    assert np.flatnonzero(share(fig.data[0])).tolist() == [1, 5]
    assert np.flatnonzero(share(fig.data[1])).tolist() == [4, 9]
    assert share(fig.data[0])[1] == pytest.approx(0.25)


def test_near_boundary_mass_is_the_hand_computed_one() -> None:
    told = notes(plots.margins(SAMPLES, tau=0.5))
    # base: 0.45 and 0.5 of four; boundary: 0.2 and 0.8 are 0.3 away, which is not near.
    near = [text for text in told if "near boundary" in text]
    assert near == ["near boundary <b>50.0 %</b>", "near boundary <b>0.0 %</b>"]
    assert "<b>base</b> n=4" in told


def test_threshold_and_band_are_drawn_in_every_row() -> None:
    fig = plots.margins(SAMPLES, tau=0.4)
    lines = [shape for shape in fig.layout.shapes if shape.type == "line"]
    bands = [shape for shape in fig.layout.shapes if shape.type == "rect"]
    assert [(line.x0, line.x1, line.line.dash) for line in lines] == [(0.4, 0.4, "dash")] * 2
    assert [band.x0 for band in bands] == pytest.approx([0.1, 0.1])
    assert [band.x1 for band in bands] == pytest.approx([0.7, 0.7])
    assert any("filtered, t ≥ 0.4" in text for text in notes(fig))


@settings(max_examples=20)
@given(tau=st.floats(0.01, 0.99), bins=st.integers(2, 40), data=st.data())
def test_no_bar_straddles_the_threshold(tau: float, bins: int, data: st.DataObject) -> None:
    t = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    fig = plots.margins({"base": responses(t, [0.9] * len(t))}, tau, bins)
    bars = fig.data[1]
    half = np.asarray(bars.width) / 0.92 / 2
    left, right = np.asarray(bars.x) - half, np.asarray(bars.x) + half
    assert len(bars.x) == bins
    assert ((right <= tau + 1e-9) | (left >= tau - 1e-9)).all()
    assert left[0] == pytest.approx(0) and right[-1] == pytest.approx(1)
    assert share(bars).sum() == pytest.approx(1)
    passed = np.mean(np.asarray(t) < tau)
    assert share(bars)[right <= tau + 1e-9].sum() == pytest.approx(passed)


# --- intervals ---------------------------------------------------------------------------------


def ends(mean: Any, error: Any) -> tuple[list[float], list[float]]:
    low = np.asarray(mean) - np.asarray(error.arrayminus)
    return low.tolist(), (np.asarray(mean) + np.asarray(error.array)).tolist()


def test_pareto_marks_and_whiskers_are_the_means_and_intervals() -> None:
    fig = plots.frontier(study_rows())
    assert [trace.name for trace in fig.data] == ["base", "boundary"]
    boundary = fig.data[1]
    assert list(boundary.x) == pytest.approx([0.3])  # system harm
    assert list(boundary.y) == pytest.approx([0.4])  # system help
    assert ends(boundary.x, boundary.error_x) == (pytest.approx([0.28]), pytest.approx([0.35]))
    assert ends(boundary.y, boundary.error_y) == (pytest.approx([0.38]), pytest.approx([0.45]))
    assert "system harm 0.3000 (0.2800 to 0.3500)" in boundary.hovertext[0]
    assert any("better" in text for text in notes(fig))
    assert (boundary.marker.color, boundary.marker.symbol) == style.LOOKS["boundary"][:2]


def test_settings_are_named_only_where_a_design_has_several() -> None:
    rows = study_rows(("base", "boundary"))
    assert set(style.with_series(rows)["series"]) == {"base", "boundary"}
    both = pd.concat([rows, rows[rows["design"] == "boundary"].assign(tau=0.3)])
    fig = plots.frontier(both)
    names = ["base, tau 0.5", "boundary, tau 0.5", "boundary, tau 0.3"]
    assert [trace.name for trace in fig.data] == names
    assert {trace.marker.color for trace in fig.data[1:]} == {style.LOOKS["boundary"][0]}


def test_by_kind_leaves_out_the_whole_and_keeps_the_order_of_the_rows() -> None:
    fig = plots.by_kind(study_rows(), "system_help")
    assert fig.layout.xaxis.ticktext == ("benign", "jailbreak")
    base, boundary = fig.data
    assert list(base.y) == pytest.approx([0.25, 0.3])
    assert list(boundary.y) == pytest.approx([0.45, 0.5]) and (boundary.x > base.x).all()
    assert boundary.marker.color == style.LOOKS["boundary"][0]
    assert not fig.layout.yaxis.tickformat
    low, high = ends(boundary.y, boundary.error_y)
    assert low == pytest.approx([0.43, 0.48]) and high == pytest.approx([0.5, 0.55])
    shares = plots.by_kind(study_rows(), "filter_rate")
    assert shares.layout.yaxis.tickformat == ".1~%"
    assert shares.data[1].hovertext[0] == "kind benign"


def test_an_interval_that_misses_its_mean_never_points_backwards() -> None:
    rows = study_rows().assign(low=0.9, high=0.95, mean=0.5)
    error = plots.frontier(rows).data[0].error_x
    assert list(error.arrayminus) == [0] and list(error.array) == pytest.approx([0.45])


def test_a_mean_that_is_missing_is_left_out() -> None:
    rows = study_rows(("base", "boundary", "compound"))
    rows.loc[(rows["design"] == "boundary") & (rows["metric"] == "system_harm"), "mean"] = np.nan
    assert [trace.name for trace in plots.frontier(rows).data] == ["base", "compound"]


# --- training_curves ---------------------------------------------------------------------------


def curves(fig: go.Figure, metric: str) -> list[go.Scatter]:
    return [trace for trace in fig.data if trace.meta == metric and not trace.fill]


def test_runs_have_a_colour_and_a_name_each_and_markers_where_something_was_measured() -> None:
    fig = training_curves({"boundary": training_log(), "compound": training_log(0.1)})
    marked = [trace for trace in fig.data if "markers" in trace.mode]
    assert [list(trace.x) for trace in marked] == [[20, 40]] * 4
    assert list(marked[1].y) == pytest.approx([0.35, 0.35])
    assert marked[1].hovertext[0] == "step 20"
    for run in ("boundary", "compound"):
        traces = [trace for trace in fig.data if trace.legendgroup == run]
        assert {trace.line.color for trace in traces} == {style.LOOKS[run][0]}
        assert sum(trace.showlegend for trace in traces) == 1


def test_the_strong_line_is_the_rolling_mean_of_the_faint_one() -> None:
    log = training_log()
    fig = training_curves({"boundary": log})
    (strong,) = curves(fig, "reward")
    smooth = log["reward"].rolling(2, min_periods=1, center=True).mean()
    assert list(strong.y) == pytest.approx(smooth.tolist())
    assert "(mean of 2 steps)" in strong.hovertext[0]
    faint = [trace for trace in fig.data if trace.opacity == 0.3 and trace.yaxis == "y"]
    assert [list(trace.y) for trace in faint] == [pytest.approx(log["reward"].tolist())]
    assert "rolling mean" in fig.layout.title.subtitle.text


def test_a_short_log_is_drawn_as_it_is() -> None:
    log = training_log().iloc[:30]
    fig = training_curves({"boundary": log})
    (rewards,) = (trace for trace in fig.data if trace.yaxis == "y")
    assert rewards.showlegend and list(rewards.y) == list(log["reward"])
    assert "rolling mean" not in str(fig.layout)


def test_means_of_runs_have_a_band_from_the_lowest_to_the_highest() -> None:
    log = pd.DataFrame({"step": [10, 20], "reward": [0.0, 1.0]})
    log[["near_boundary", "filter_rate", "kl"]] = 0.1
    ends = log.assign(reward_low=[-1.0, 0.5], reward_high=[1.0, 2.0])
    band, line = training_curves({"boundary": ends}).data[:2]
    assert list(band.x) == [10, 20, 20, 10] and list(band.y) == [-1.0, 0.5, 2.0, 1.0]
    assert band.fill == "toself" and band.fillcolor == style.LOOKS["boundary"][0]
    assert list(line.y) == [0.0, 1.0] and line.showlegend and not band.showlegend
    assert "lowest to highest" in str(training_curves({"boundary": ends}).layout)
    assert "lowest to highest" not in str(training_curves({"boundary": log}).layout)


def test_a_run_without_held_out_evaluation_shows_what_it_has() -> None:
    bare = training_log().drop(columns=["eval_system_harm", "eval_system_help"])
    fig = training_curves({"boundary": bare})
    assert len({t.yaxis for t in fig.data}) == len(fig.layout.annotations) == 4
    both = training_curves({"boundary": bare, "compound": training_log()})
    marked = [trace.name for trace in both.data if "markers" in trace.mode]
    assert marked == ["compound", "compound"]


# --- reliability -------------------------------------------------------------------------------


def test_reliability_bins_ece_and_intervals_are_the_hand_computed_ones() -> None:
    frame = responses([0.1, 0.2, 0.2, 0.9, 0.7, 1.0], [0.9, 0.1, 0.2, 0.8, 0.9, 0.3])
    fig = plots.reliability({"base": frame}, bins=2)
    marks, bars = fig.data[1], fig.data[2]
    assert list(marks.x) == pytest.approx([0.5 / 3, 2.6 / 3])
    assert list(marks.y) == pytest.approx([1 / 3, 2 / 3])
    assert list(bars.y) == [3, 3]
    ece = (abs(1 / 3 - 0.5 / 3) + abs(2 / 3 - 2.6 / 3)) / 2
    assert marks.name == f"base, ECE {ece:.3f}"
    assert "1 of 3 responses" in marks.hovertext[0]
    wilson = [binomtest(k, 3).proportion_ci(method="wilson") for k in (1, 2)]
    bounds = np.transpose(ends(marks.y, marks.error_y))
    np.testing.assert_allclose(bounds, [tuple(w) for w in wilson], atol=1e-6)


def test_reliability_of_names_that_share_a_colour_can_be_told_apart() -> None:
    frame = responses([0.1, 0.9], [0.1, 0.9])
    first, bars, second, others = plots.reliability({"as it is": frame, "T = 2": frame}).data[1:]
    assert first.marker.color == second.marker.color
    assert first.marker.symbol != second.marker.symbol
    assert bars.marker.opacity != others.marker.opacity


# --- errors, escaping, purity ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "given", "column"),
    [
        (plots.reliability, SAMPLES["base"], "t"),
        (lambda log: training_curves({"boundary": log}), training_log(), "eval_system_help"),
        (lambda log: training_curves({"boundary": log}), training_log(), "step"),
        (plots.frontier, study_rows(), "low"),
        (lambda rows: plots.by_kind(rows, "system_harm"), study_rows(), "kind"),
    ],
)
def test_a_missing_column_is_named(draw: Callable, given: pd.DataFrame, column: str) -> None:
    with pytest.raises(BgkitError, match=rf"lacks the column\(s\) {column}\.$"):
        draw(given.drop(columns=column))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.margins({}, 0.5),
        lambda: plots.margins(SAMPLES, 0.5, bins=1),
        lambda: plots.reliability({"base": SAMPLES["base"].iloc[:0]}),
        lambda: plots.reliability(SAMPLES, bins=1),
        lambda: training_curves({}),
        lambda: plots.frontier(study_rows(), "long_context"),
        lambda: plots.by_kind(study_rows().query("kind == 'all'"), "system_harm"),
    ],
)
def test_nothing_to_draw_is_an_error_in_one_sentence(draw: Callable[[], go.Figure]) -> None:
    with pytest.raises(BgkitError) as caught:
        draw()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_control_characters_in_a_name_do_not_break_the_figures_svg() -> None:
    assert style.label("a_\x1b[0m\u202e") == "a ⟨U+001B⟩[0m⟨U+202E⟩"


def test_figures_leave_their_data_as_they_were() -> None:
    rows, log, frame = study_rows(), training_log(), SAMPLES["base"].copy()
    plots.frontier(rows), plots.by_kind(rows, "system_harm")
    training_curves({"boundary": log})
    plots.margins({"base": frame}, 0.5), plots.reliability({"base": frame})
    pd.testing.assert_frame_equal(rows, study_rows())
    pd.testing.assert_frame_equal(log, training_log())
    pd.testing.assert_frame_equal(frame, SAMPLES["base"])
