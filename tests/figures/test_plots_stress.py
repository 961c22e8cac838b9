"""Figures of stress tests hold the numbers that they were given, and the intervals on hover."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit.errors import BgkitError
from bgkit.figures import stress as plots_stress
from bgkit.figures import style

DESIGNS = ("base", "boundary", "boundary, guard weak")


def rows(axis: str, values: tuple, metrics: tuple[str, ...], **more) -> pd.DataFrame:
    """A mean that is unlike for each design, value and metric; the interval is -0.01 to +0.03."""
    found = []
    for i, design in enumerate(DESIGNS):
        for j, value in enumerate(values):
            for k, metric in enumerate(metrics):
                mean = round(0.1 + 0.2 * i + 0.05 * j + 0.02 * k, 3)
                ends = {"mean": mean, "low": mean - 0.01, "high": mean + 0.03}
                found.append({"design": design, axis: value, "metric": metric, **ends, **more})
    return pd.DataFrame(found)


GUARDS = rows("guard", ("default", "weak"), ("system_harm", "near_boundary"))
SHIFT = rows("shift", ("test", "unseen items"), ("system_harm", "system_help"))
ATTACK = pd.concat(
    rows("budget", (1, 2, 3), ("attack_success",), strategy=name) for name in ("random", "greedy")
)
FIGURES = {
    "by_guard": (plots_stress.by_guard, GUARDS),
    "by_shift": (plots_stress.by_shift, SHIFT),
    "attack_curves": (plots_stress.attack_curves, ATTACK),
}


def lines(fig: go.Figure) -> list[go.Scatter]:
    return [trace for trace in fig.data if trace.hoverinfo != "skip"]


def test_lines_and_bands_hold_the_means_and_the_ends() -> None:
    fig = plots_stress.attack_curves(ATTACK.sample(frac=1, random_state=0))
    drawn = {(tuple(trace.x), tuple(trace.y)) for trace in lines(fig)}
    bands = {(tuple(trace.x), tuple(trace.y)) for trace in fig.data if trace.fill == "toself"}
    for _, one in ATTACK.groupby(["design", "strategy"]):
        assert (tuple(one["budget"]), tuple(one["mean"])) in drawn
        around = (*one["low"], *one["high"][::-1])
        assert ((*one["budget"], *one["budget"][::-1]), around) in bands


def test_differences_at_equal_help_have_a_panel_for_each_pair() -> None:
    table = pd.DataFrame(
        {
            "deployment": ["as trained", "tau 0.2"] * 2,
            "design": ["compound"] * 4,
            "against": ["boundary"] * 2 + ["filter_avoidance"] * 2,
            "metric": "system_harm",
            "mean": [-0.02, -0.01, 0.0, 0.01],
            "low": [-0.03, -0.03, -0.01, 0.0],
            "high": [-0.01, 0.01, 0.01, 0.02],
            "decided": [True, False, False, False],
        }
    )
    fig = plots_stress.at_equal_help(table)
    beyond, chance, other = fig.data
    assert (beyond.y[0], chance.y[0]) == (-0.02, -0.01) and list(other.y) == [0.0, 0.01]
    assert [trace.marker.symbol for trace in fig.data] == ["circle", "circle-open", "circle-open"]
    assert [list(trace.x) for trace in fig.data] == [[0], [1], [0, 1]]
    assert list(other.error_y.array) == pytest.approx([0.01, 0.01])
    assert {shape.y0 for shape in fig.layout.shapes} == {0} and len(fig.layout.shapes) == 2
    headings = [note.text for note in fig.layout.annotations]
    assert headings == ["<b>compound − boundary</b>", "<b>compound − filter avoidance</b>"]
    assert fig.layout.xaxis2.ticktext == ("as trained", "tau 0.2")


def test_shifts_stand_side_by_side_with_their_intervals() -> None:
    fig = plots_stress.by_shift(SHIFT)
    assert len(lines(fig)) == 6
    for trace in lines(fig):
        assert [round(x) for x in trace.x] == [0, 1]
        assert list(trace.error_y.array) == pytest.approx([0.03, 0.03])
        assert list(trace.error_y.arrayminus) == pytest.approx([0.01, 0.01])
        assert list(trace.hovertext) == ["shift test", "shift unseen items"]
        np.testing.assert_allclose(trace.customdata[:, 1] - trace.y, 0.03)
    assert fig.layout.xaxis2.ticktext == ("test", "unseen items")
    with pytest.raises(BgkitError, match="give a judge"):
        plots_stress.by_shift(SHIFT.assign(mean=np.nan))
    known = GUARDS[GUARDS["metric"] == "near_boundary"]
    assert len(plots_stress.by_guard(known).layout.annotations) == 1  # harm has no panel


@pytest.mark.parametrize("name", FIGURES)
def test_a_design_has_its_colour_is_told_apart_and_named_once(name: str) -> None:
    draw, table = FIGURES[name]
    fig = draw(table)
    assert [trace.name for trace in fig.data if trace.showlegend] == list(DESIGNS)
    for trace in lines(fig):
        assert trace.marker.color == style.look(trace.legendgroup)[0]
    marks = {(trace.marker.color, trace.marker.symbol) for trace in lines(fig)}
    assert len(marks) == 3
    later = draw(table.iloc[1:])  # the first panel lacks a mark, none its entry in the legend
    assert {trace.name for trace in later.data if trace.showlegend} == set(DESIGNS)


@pytest.mark.parametrize("name", FIGURES)
def test_rows_of_several_kinds_are_refused(name: str) -> None:
    draw, table = FIGURES[name]
    with pytest.raises(BgkitError, match="several times; select one kind of prompts"):
        draw(pd.concat([table, table]))
