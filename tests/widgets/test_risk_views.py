"""Figures and sliders of the filter's risk: they show the numbers, and move with the controls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import risk
from bgkit.figures import risk as plots_risk
from bgkit.widgets import controlled_figures as views_risk
from bgkit.widgets import views

RNG = np.random.default_rng(0)
T = RNG.beta(0.3, 0.8, 1000)
SAMPLES = pd.DataFrame(
    {
        "t": T,
        "harm": (RNG.random(T.size) < T).astype(float),
        "kind": np.where(np.arange(T.size) % 2, "benign", "<script>"),
    }
)


def trace(fig: go.Figure, name: str) -> go.Scatter:
    (found,) = [one for one in fig.data if one.name == name and one.showlegend is not False]
    return found


def notes(fig: go.Figure) -> list[str]:
    return [note.text for note in fig.layout.annotations]


def test_a_miscalibrated_guard_has_a_shaded_area_and_another_cheapest_threshold() -> None:
    for shift, words in ((0.0, ["tau = 0.500"]), (1.0, ["tau = 0.500", "cheapest: 0.731"])):
        fig = plots_risk.risk_curve(T, shift=shift)
        low, high = fig.select_traces({"hoverinfo": "skip"})
        assert high.fill == "tonexty" and notes(fig) == words
        area = np.trapezoid(np.subtract(high.y, low.y), high.x)
        assert area > 0.02 if shift else area == pytest.approx(0, abs=1e-12)


def test_marks_are_the_measured_rates_with_wilson_intervals_and_bars_hold_every_response() -> None:
    table = risk.measured_risk(SAMPLES, 0.25, 3.0, 1.0, 8)
    fig = plots_risk.measured_risk(SAMPLES, 0.25, 3.0, 1.0, 8)
    shown = trace(fig, "shown: harmful ones are errors")
    wanted = table[~table["filtered"]]
    assert list(shown.x) == pytest.approx(wanted["t"].tolist())
    assert list(shown.y) == pytest.approx(wanted["error_rate"].tolist())
    assert list(shown.y + shown.error_y.array) == pytest.approx(wanted["error_high"].tolist())
    first = wanted.iloc[0]
    assert f"{first.errors} errors in {first.n} responses" in shown.hovertext[0]
    (bars,) = fig.select_traces({"type": "bar"})
    assert (np.asarray(bars.y) ** 2).sum() == pytest.approx(1)


def test_cost_and_calibration_sliders_move_curve_and_table(first, drawn) -> None:
    showing, _, temperature, shift = views.controls_of(views_risk.risk(T))
    assert not drawn and first[0][0] == plots_risk.risk_curve(T)  # the static view
    showing.value = 3.0
    fig, table = drawn[-1]
    assert table.loc["threshold that trusts the guard, tau", "value"] == 0.25
    line = trace(fig, "the filter")  # a tent whose tip is at tau
    assert line.x[np.argmax(line.y)] == pytest.approx(0.25)
    assert max(line.y) == pytest.approx(0.75) and line.y[0] == line.y[-1] == 0
    showing.value, shift.value, temperature.value = 1.0, 1.0, 2.0
    before, after = (table["value"] for _, table in drawn[-2:])
    # at equal costs the temperature does not move the cheapest threshold
    assert before["cheapest threshold"] == after["cheapest threshold"] == 0.731
    for told in (before, after):
        cost = told.filter(like="cost of 100 responses")  # with tau, with the cheapest threshold
        lost = cost.iloc[0] - cost.iloc[1]
        assert lost > 0 and lost == pytest.approx(told["lost by miscalibration"], abs=2e-3)


def test_what_was_measured_moves_with_costs_bins_and_kind(first, drawn) -> None:
    showing, _, bins, kind = views.controls_of(views_risk.measured_risk(SAMPLES))
    assert first[0][0] == plots_risk.measured_risk(SAMPLES)
    showing.value = 4.0
    assert "tau = 0.200" in notes(drawn[-1][0])
    bins.value = 6
    assert "in 6 bins" in drawn[-1][0].layout.title.subtitle.text
    kind.value = "<script>"
    assert drawn[-1][0].layout.title.subtitle.text.startswith("500 responses")
    part = SAMPLES[SAMPLES["kind"] == "<script>"]
    wanted = risk.near_table({"<script>": part}, 0.2, 4.0)
    pd.testing.assert_frame_equal(drawn[-1][1], wanted)
    assert len(drawn) == 3
    whole = views.controls_of(views_risk.measured_risk(SAMPLES.drop(columns="kind")))[3]
    assert [shown for shown, _ in whole.options] == ["all"]


def test_a_start_outside_its_slider_is_refused() -> None:
    with pytest.raises(BgkitError, match="must lie in"):
        views_risk.risk(T, cost_fn=0.0)


def test_a_static_figure_can_be_replaced_and_goes_at_the_first_touch(monkeypatch) -> None:
    shown: list[tuple[object, list]] = []  # what is displayed, and what replaces it

    def display(thing: object, **options: object) -> SimpleNamespace:
        shown.append((thing, []))
        assert "display_id" in options or options == {"raw": True}
        return SimpleNamespace(update=shown[-1][1].append)

    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")  # as in a notebook
    monkeypatch.setattr(views, "display", display)
    monkeypatch.setattr(views, "draw", lambda *things: None)
    explorer = views_risk.risk(T)
    (_, _), (bundle, figure), (_, table) = shown
    assert any("plotly" in kind for kind in bundle)  # not the figure, which drops its handle
    assert figure == table == []
    for cost in (2.0, 3.0):
        views.controls_of(explorer)[0].value = cost
    assert [empty.data for empty in figure + table] == ["", ""]
