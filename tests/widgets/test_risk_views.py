"""Figures and sliders of the filter's risk: they show the numbers, and move with the controls."""

from __future__ import annotations

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
T = RNG.beta(0.3, 0.8, 5000)
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


# --- figures -----------------------------------------------------------------------------------


def test_the_filters_line_is_a_tent_whose_tip_is_at_tau() -> None:
    line = trace(plots_risk.risk_curve(T, cost_fn=3.0), "the filter")
    assert line.x[np.argmax(line.y)] == pytest.approx(0.25)
    assert max(line.y) == pytest.approx(0.75)
    assert line.y[0] == line.y[-1] == 0


def test_shading_has_an_area_only_for_a_miscalibrated_guard() -> None:
    def area(fig: go.Figure) -> float:
        low, high = list(fig.select_traces({"hoverinfo": "skip"}))
        assert high.fill == "tonexty"
        return float(np.trapezoid(np.subtract(high.y, low.y), high.x))

    assert area(plots_risk.risk_curve(T)) == pytest.approx(0, abs=1e-12)
    assert area(plots_risk.risk_curve(T, shift=1.0)) > 0.02


def test_the_cheapest_threshold_is_named_only_where_it_is_another() -> None:
    def words(fig: go.Figure) -> list[str]:
        return [note.text for note in fig.layout.annotations]

    assert words(plots_risk.risk_curve(T)) == ["tau = 0.500"]
    assert words(plots_risk.risk_curve(T, shift=1.0)) == ["tau = 0.500", "cheapest: 0.731"]


def test_marks_are_the_measured_rates_with_wilson_intervals() -> None:
    table = risk.measured_risk(SAMPLES, 0.25, 3.0, 1.0, 8)
    fig = plots_risk.measured_risk(SAMPLES, 0.25, 3.0, 1.0, 8)
    shown = trace(fig, "shown: harmful ones are errors")
    wanted = table[~table["filtered"]]
    assert list(shown.x) == pytest.approx(wanted["t"].tolist())
    assert list(shown.y) == pytest.approx(wanted["error_rate"].tolist())
    assert list(shown.y + shown.error_y.array) == pytest.approx(wanted["error_high"].tolist())
    first = wanted.iloc[0]
    assert f"{first.errors} errors in {first.n} responses" in shown.hovertext[0]


def test_bars_hold_every_response() -> None:
    for fig in (plots_risk.risk_curve(T), plots_risk.measured_risk(SAMPLES, 0.25, bins=20)):
        (bars,) = [one for one in fig.data if one.type == "bar"]
        assert (np.asarray(bars.y) ** 2).sum() == pytest.approx(1)


# --- sliders -----------------------------------------------------------------------------------


def test_a_cost_slider_moves_threshold_curve_and_table(drawn: list[tuple]) -> None:
    explorer = views_risk.risk(T)
    assert not drawn  # the static view is the first state
    showing, *_ = views.controls_of(explorer)
    showing.value = 3.0
    ((fig, table),) = drawn
    assert table.loc["threshold that trusts the guard, tau", "value"] == 0.25
    assert trace(fig, "the filter").x[np.argmax(trace(fig, "the filter").y)] == pytest.approx(0.25)


def test_calibration_sliders_move_the_cheapest_threshold_and_cost_something(
    drawn: list[tuple],
) -> None:
    _, _, temperature, shift = views.controls_of(views_risk.risk(T))
    shift.value, temperature.value = 1.0, 2.0
    before, after = (table["value"] for _, table in drawn)
    assert before["cheapest threshold"] == 0.731 and before["lost by miscalibration"] > 0
    assert after["cheapest threshold"] == 0.731  # at equal costs the temperature does not move it
    assert before["threshold that trusts the guard, tau"] == 0.5
    assert (
        after["cost of 100 responses, threshold tau"]
        > before["cost of 100 responses, cheapest threshold"]
    )


def test_the_first_state_is_that_of_the_defaults(first: list[tuple]) -> None:
    views_risk.risk(T)
    views_risk.measured_risk(SAMPLES)
    (curve, costs), (measured, near) = first
    assert curve == plots_risk.risk_curve(T) and measured == plots_risk.measured_risk(SAMPLES)
    assert costs.loc["threshold that trusts the guard, tau", "value"] == 0.5
    pd.testing.assert_frame_equal(near, risk.near_table({"all": SAMPLES}))


def test_what_was_measured_moves_with_costs_bins_and_kind(drawn: list[tuple]) -> None:
    explorer = views_risk.measured_risk(SAMPLES)
    showing, _, bins, kind = views.controls_of(explorer)
    showing.value = 4.0
    assert "tau = 0.200" in [note.text for note in drawn[-1][0].layout.annotations]
    bins.value = 6
    assert "in 6 bins" in drawn[-1][0].layout.title.subtitle.text
    kind.value = "<script>"
    assert drawn[-1][0].layout.title.subtitle.text.startswith("2500 responses")
    assert len(drawn) == 3
    (name, everything), (other, part) = ((t.index[0], t.iloc[0].tolist()) for _, t in drawn[1:])
    assert (name, other) == ("all", "<script>") and everything != part


def test_a_start_outside_its_slider_is_refused() -> None:
    with pytest.raises(BgkitError, match="must lie in"):
        views_risk.risk(T, cost_fn=0.0)


def test_samples_without_kinds_are_shown_as_a_whole(drawn: list[tuple]) -> None:
    explorer = views_risk.measured_risk(SAMPLES.drop(columns="kind"))
    assert [shown for shown, _ in views.controls_of(explorer)[3].options] == ["all"]


def test_a_static_figure_can_be_replaced_and_goes_at_the_first_touch(monkeypatch) -> None:
    class Handle:
        content: object = None

        def update(self, content: object) -> None:
            self.content = content

    shown: list[tuple[object, Handle]] = []

    def display(thing: object, **options: object) -> Handle:
        shown.append((thing, Handle()))
        assert "display_id" in options or options == {"raw": True}
        return shown[-1][1]

    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")  # as in a notebook
    monkeypatch.setattr(views, "display", display)
    monkeypatch.setattr(views, "draw", lambda *things: None)
    explorer = views_risk.risk(T)
    (bundle, figure), (_, table) = shown[1:]
    assert any("plotly" in kind for kind in bundle)  # not the figure, which drops its handle
    assert figure.content is table.content is None
    views.controls_of(explorer)[0].value = 2.0
    assert figure.content.data == table.content.data == ""
