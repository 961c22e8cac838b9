"""Figures of a threshold say what the numbers say, with truth, with some and without."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation.thresholds import operating_points
from bgkit.figures import distributions as plots
from bgkit.figures import thresholds as plots_thresholds

FOUR = pd.DataFrame(
    {"t": [0.1, 0.45, 0.5, 0.9], "harm": [0.0, 0.9, 0.2, 0.8], "kind": list("xxyy")}
)
UNKNOWN = FOUR.assign(harm=np.nan)


def heights(bar: go.Bar) -> np.ndarray:
    return np.asarray(bar.y, float)


def lines(fig: go.Figure) -> dict[str, go.Scatter]:
    return {t.meta: t for t in fig.data if isinstance(t.meta, str) and not t.fill}


def marks(fig: go.Figure) -> dict[str, float]:
    """Values of all marks of a figure of curves."""
    traces = [trace for trace in fig.data if trace.name == plots_thresholds.MARK]
    return {m: y for trace in traces for m, y in zip(trace.meta, trace.y, strict=True)}


# --- Margins -----------------------------------------------------------------------------------


def test_each_kind_has_a_row_of_its_own_responses():
    fig = plots_thresholds.margins_by_kind(FOUR, 0.5, bins=10)
    told = [note.text for note in fig.layout.annotations]
    assert "<b>x</b> n=2" in told and "<b>y</b> n=2" in told
    safe_x, harmful_x, safe_y, harmful_y = fig.data
    assert np.flatnonzero(heights(safe_x)).tolist() == [1]
    assert np.flatnonzero(heights(harmful_x)).tolist() == [4]
    assert np.flatnonzero(heights(safe_y)).tolist() == [5]
    assert np.flatnonzero(heights(harmful_y)).tolist() == [9]


def test_without_truth_the_margins_are_grey_and_say_so():
    fig = plots_thresholds.margins_by_kind(UNKNOWN, 0.5, bins=10)
    assert {trace.legendgroup for trace in fig.data} == {"truth unknown"}
    assert sum((heights(trace) ** 2).sum() for trace in fig.data) == pytest.approx(2)
    assert "The truth is not known." in fig.layout.title.subtitle.text


def test_bars_without_truth_stand_on_the_safe_ones_and_end_at_the_sum():
    table = pd.DataFrame({"t": [0.1, 0.12, 0.14, 0.9], "harm": [0.0, np.nan, np.nan, 1.0]})
    fig = plots.margins({"base": table}, 0.5, 10)
    safe, harmful, unknown = fig.data
    assert heights(safe)[1] == pytest.approx(0.5)
    assert heights(safe)[1] + heights(unknown)[1] == pytest.approx(np.sqrt(0.75))
    assert heights(harmful)[9] == pytest.approx(-0.5)
    assert "(2 of 4)" in unknown.hovertext[1]


# --- Curves ------------------------------------------------------------------------------------


def test_curves_are_the_operating_points():
    points = operating_points(FOUR.assign(help=0.5, refusal_help=0.2))
    fig = plots_thresholds.operating_curves(points, 0.5)
    found = lines(fig)
    assert set(found) == set(plots_thresholds.CURVES)
    assert "Not known" not in fig.layout.title.subtitle.text
    for metric, line in found.items():
        known = points[metric].dropna()
        np.testing.assert_allclose(np.asarray(line.y, float), known, atol=1e-5)
        assert list(line.x) == known.index.tolist()


def test_the_marks_stand_at_the_values_of_the_threshold():
    points = operating_points(FOUR)
    for tau in (0.5, 0.2):
        fig = plots_thresholds.operating_curves(points, tau)
        found = marks(fig)
        assert list(found) == [m for m in plots_thresholds.CURVES if m != "system_help"]
        assert found == {metric: points.loc[tau, metric] for metric in found}
        assert {shape.x0 for shape in fig.layout.shapes} == {tau}
        traces = [trace for trace in fig.data if trace.name == plots_thresholds.MARK]
        assert {x for trace in traces for x in trace.x} == {tau}
        assert f"tau {tau:g}" in traces[0].hovertext[0]


def test_curves_that_are_not_known_are_left_out_and_named():
    fig = plots_thresholds.operating_curves(operating_points(UNKNOWN), 0.5)
    assert set(lines(fig)) == {"filter_rate", "near_boundary"}
    told = fig.layout.title.subtitle.text
    assert "Not known: false positives, false negatives, precision" in told
    assert len(fig.layout.shapes) == 1  # one panel


@pytest.mark.parametrize("tau", [-0.1, 1.5, float("nan")])
def test_a_threshold_off_the_scale_is_refused(tau):
    with pytest.raises(BgkitError, match="0 to 1"):
        plots_thresholds.operating_curves(operating_points(FOUR), tau)
    with pytest.raises(BgkitError, match="0 to 1"):
        plots_thresholds.margins_by_kind(FOUR, tau)
