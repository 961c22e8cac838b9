"""Figures of stress tests hold the numbers that they were given, and the intervals on hover."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit import figures as plots
from bgkit.figures import style

DESIGNS = ("base", "boundary", "boundary, guard weak")


def rows(axis: str, values: tuple, *metrics: str, **more) -> pd.DataFrame:
    """A mean that is unlike for each design, value and metric; the interval is -0.01 to +0.03."""
    places = itertools.product(DESIGNS, values, metrics)
    table = pd.DataFrame(places, columns=["design", axis, "metric"]).assign(**more)
    means = 0.1 + 0.02 * np.arange(len(table))
    return table.assign(mean=means, low=means - 0.01, high=means + 0.03)


SHIFT = rows("shift", ("test", "unseen items"), "system_harm", "system_help")
ATTACK = pd.concat(
    rows("budget", (1, 2, 3), "attack_success", strategy=name) for name in ("random", "greedy")
)


def lines(fig: go.Figure) -> list[go.Scatter]:
    return [trace for trace in fig.data if trace.hoverinfo != "skip"]


def test_lines_and_bands_hold_the_means_and_the_ends() -> None:
    fig = plots.attack_curves(ATTACK.sample(frac=1, random_state=0))
    drawn = {(tuple(trace.x), tuple(trace.y)) for trace in fig.data}
    for _, one in ATTACK.groupby(["design", "strategy"]):
        assert (tuple(one["budget"]), tuple(one["mean"])) in drawn
        around = (*one["low"], *one["high"][::-1])
        assert ((*one["budget"], *one["budget"][::-1]), around) in drawn


def test_differences_at_equal_help_have_a_panel_for_each_pair() -> None:
    table = pd.DataFrame(
        {
            "deployment": ["as trained", "tau 0.2"] * 2,
            "design": "compound",
            "against": ["boundary"] * 2 + ["filter_avoidance"] * 2,
            "metric": "system_harm",
            "mean": [-0.02, -0.01, 0.0, 0.01],
            "low": [-0.03, -0.03, -0.01, 0.0],
            "high": [-0.01, 0.01, 0.01, 0.02],
            "decided": [True, False, False, False],
        }
    )
    fig = plots.at_equal_help(table)
    assert [list(trace.y) for trace in fig.data] == [[-0.02], [-0.01], [0.0, 0.01]]
    assert [list(trace.x) for trace in fig.data] == [[0], [1], [0, 1]]
    assert [trace.marker.symbol for trace in fig.data] == ["circle", "circle-open", "circle-open"]
    assert list(fig.data[2].error_y.array) == pytest.approx([0.01, 0.01])
    assert [shape.y0 for shape in fig.layout.shapes] == [0, 0]
    headings = [note.text for note in fig.layout.annotations]
    assert headings == ["<b>compound − boundary</b>", "<b>compound − filter avoidance</b>"]
    assert fig.layout.xaxis2.ticktext == ("as trained", "tau 0.2")


def test_shifts_stand_side_by_side_with_their_intervals() -> None:
    fig = plots.by_shift(SHIFT)
    assert len(lines(fig)) == 6
    for trace in lines(fig):
        assert [round(x) for x in trace.x] == [0, 1]
        assert list(trace.error_y.array) == pytest.approx([0.03, 0.03])
        assert list(trace.error_y.arrayminus) == pytest.approx([0.01, 0.01])
        assert list(trace.hovertext) == ["shift test", "shift unseen items"]
        np.testing.assert_allclose(trace.customdata[:, 1] - trace.y, 0.03)
    assert fig.layout.xaxis2.ticktext == ("test", "unseen items")


@pytest.mark.parametrize(
    ("draw", "table"), [(plots.by_shift, SHIFT), (plots.attack_curves, ATTACK)]
)
def test_a_design_has_its_colour_is_told_apart_and_named_once(draw, table: pd.DataFrame) -> None:
    fig = draw(table)
    assert [trace.name for trace in fig.data if trace.showlegend] == list(DESIGNS)
    for trace in lines(fig):
        assert trace.marker.color == style.look(trace.legendgroup)[0]
    assert len({(trace.marker.color, trace.marker.symbol) for trace in lines(fig)}) == 3
    later = draw(table.iloc[1:])  # the first panel lacks a mark, none its entry in the legend
    assert {trace.name for trace in later.data if trace.showlegend} == set(DESIGNS)
