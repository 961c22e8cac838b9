"""Figures and menus of ablations: marks at their numbers, and every choice changes the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.figures import ablations as plots_ablations
from bgkit.figures import style
from bgkit.widgets import ablations as menus
from bgkit.widgets import views

DESIGNS = ("base", "filter_avoidance", "boundary", "compound")
UTILITIES = ("aligned", "mild", "weak", "blind")
KINDS = ("all", "benign", "ambiguous", "jailbreak", "long_context")
METRICS = (
    "filter_rate near_boundary false_positive false_negative raw_harm raw_help system_harm "
    "system_help kl"
).split()
HOSTILE = "<img src=x onerror=alert(1)>"


def make_table(folder: Path, designs: tuple[str, ...] = DESIGNS, **more: object) -> pd.DataFrame:
    """A table as large as the reference results; means differ in every setting."""
    rows = []
    for place, (design, utility, kind, metric) in enumerate(
        (d, u, k, m) for d in designs for u in UTILITIES for k in KINDS for m in METRICS
    ):
        mean = 0.05 + 0.9 * (place * 37 % 720) / 720
        setting = {"design": design, "utility": utility, "scale": "small", "guard": "default"}
        ends = {"mean": mean, "low": mean - 0.02, "high": mean + 0.03, "n_seeds": 3}
        told = {"tau": 0.5, "seed": "all", "kind": kind, "metric": metric, "interval": "both"}
        rows.append({**setting, **told, **ends, **more})
    return settings.in_order(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    return make_table(tmp_path_factory.mktemp("results"))


FIGURES: dict[str, Callable[[pd.DataFrame], go.Figure]] = {
    "ablation": lambda t: plots_ablations.ablation(t, "near_boundary"),
    "ablation in panels": lambda t: plots_ablations.ablation(t, "system_help", panels="kind"),
    "trade_off": lambda t: plots_ablations.trade_off(t, "utility"),
}


def trace(fig: go.Figure, name: str) -> go.Scatter:
    return next(one for one in fig.data if one.name == name)


def mean_of(
    table: pd.DataFrame, design: str, utility: str, metric: str, kind: str = "all"
) -> float:
    where = {"design": design, "utility": utility, "kind": kind}
    return float(settings.select(table, metric, where=where)["mean"].iloc[0])


# --- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_the_look_of_the_kit_and_say_their_interval(name: str, table) -> None:
    fig = FIGURES[name](table)
    assert fig.layout.template.layout.font.color == style.TEXT
    assert {one.type for one in fig.data} == {"scatter"}
    assert "95 % intervals over 3 seeds and the prompts" in fig.layout.title.subtitle.text
    front = ["Pareto front"] * (name == "trade_off")
    assert [one.name for one in fig.data if one.showlegend is not False] == [
        "base",
        "filter avoidance",
        "boundary",
        "compound",
        *front,
    ]
    assert json.loads(fig.to_json())["data"]


def test_marks_stand_at_their_means_with_their_intervals(table: pd.DataFrame) -> None:
    one = trace(plots_ablations.ablation(table, "near_boundary"), "boundary")
    wanted = [mean_of(table, "boundary", utility, "near_boundary") for utility in UTILITIES]
    assert list(one.y) == pytest.approx(wanted)
    assert list(one.error_y.array) == pytest.approx([0.03] * 4)
    assert list(one.error_y.arrayminus) == pytest.approx([0.02] * 4)
    assert one.marker.color == style.LOOKS["boundary"][0] and one.mode == "lines+markers"
    assert "near boundary %{y:.2%}" in one.hovertemplate
    np.testing.assert_allclose(one.customdata[:, 1], np.array(wanted) + 0.03)
    assert one.hovertext[0] == "aligned, seeds: 3"


def test_marks_of_one_place_stand_beside_each_other_in_the_order_of_the_pull(table) -> None:
    fig = plots_ablations.ablation(table, "kl")
    assert list(fig.layout.xaxis.ticktext) == list(UTILITIES)
    places = np.array([one.x for one in fig.data])
    assert (np.diff(places, axis=0) > 0).all() and (np.abs(places - np.arange(4)) < 0.4).all()


def test_the_kind_of_interval_is_told() -> None:
    rows = pd.DataFrame({"interval": ["both", "both", "prompts"], "n_seeds": [2, 3, 1]})
    words = plots_ablations.interval_words(rows)
    assert "over 2 to 3 seeds" in words and "over one seed's prompts" in words
    assert "blind to how seeds differ" in plots_ablations.interval_words(rows[2:])
    assert "no intervals" in plots_ablations.interval_words(rows.assign(interval="none"))


def test_a_setting_without_order_has_no_line(table: pd.DataFrame) -> None:
    fig = plots_ablations.ablation(table, "kl", "design", "kind", where={"utility": "weak"})
    assert {one.mode for one in fig.data} == {"markers"}
    assert len({(one.marker.color, one.marker.symbol) for one in fig.data}) == len(KINDS)
    assert "Held fixed: utility weak." in fig.layout.title.subtitle.text


def test_panels_share_one_scale_and_name_their_value(table: pd.DataFrame) -> None:
    fig = plots_ablations.ablation(table, "system_help", panels="kind")
    assert [note.text for note in fig.layout.annotations] == [
        f"<b>kind {kind.replace('_', ' ')}</b>" for kind in KINDS
    ]
    assert len(fig.data) == len(KINDS) * len(DESIGNS)
    last = next(one for one in fig.data if one.xaxis == "x5" and one.name == "compound")
    assert last.y[0] == mean_of(table, "compound", "aligned", "system_help", "long_context")
    assert len({fig.layout[f"yaxis{number}"].range for number in ("", 2, 3, 4, 5)}) == 1


def test_a_mean_without_interval_is_a_bare_mark(tmp_path) -> None:
    table = make_table(tmp_path, low=np.nan, high=np.nan, n_seeds=1, interval="none")
    fig = plots_ablations.ablation(table, "kl")
    assert np.isnan(np.asarray(fig.data[0].error_y.array, float)).all()
    assert "no intervals" in fig.layout.title.subtitle.text
    assert " to " not in fig.data[0].hovertemplate


def test_trade_off_leads_each_design_from_aligned_to_blind(table: pd.DataFrame) -> None:
    one = trace(plots_ablations.trade_off(table, "utility"), "boundary")
    assert list(one.x) == [mean_of(table, "boundary", u, "system_harm") for u in UTILITIES]
    assert list(one.y) == [mean_of(table, "boundary", u, "system_help") for u in UTILITIES]
    assert (
        "utility aligned to blind"
        in plots_ablations.trade_off(table, "utility").layout.title.subtitle.text
    )
    assert list(np.diff(one.marker.size) > 0) == [True] * 3
    assert "system harm" in one.hovertext[0] and "system help" in one.hovertext[0]


def test_trade_off_joins_the_means_that_no_other_beats(table: pd.DataFrame) -> None:
    fig = plots_ablations.trade_off(table, "utility")
    line = trace(fig, "Pareto front")
    points = {
        (x, y) for one in fig.data if one.mode != "lines" for x, y in zip(one.x, one.y, strict=True)
    }
    beaten = {
        (x, y) for x, y in points for a, b in points if a <= x and b >= y and (a, b) != (x, y)
    }
    assert list(zip(line.x, line.y, strict=True)) == sorted(points - beaten)


@pytest.mark.parametrize("name", FIGURES)
def test_hostile_names_stay_text(name: str, tmp_path) -> None:
    table = make_table(tmp_path, (HOSTILE, "boundary")).replace("blind", HOSTILE)
    fig = FIGURES[name](table.replace("jailbreak", HOSTILE))
    shown = fig.to_json().replace("\\u003c", "<").lower()
    assert "&lt;img" in shown and "<img" not in shown


def test_questions_a_figure_cannot_answer_are_refused(table: pd.DataFrame) -> None:
    for call, words in [
        (lambda: plots_ablations.ablation(table, "joy"), "no metric 'joy'"),
        (lambda: plots_ablations.ablation(table, "kl", x="size"), "no column 'size'"),
        (lambda: plots_ablations.ablation(table, "kl", panels="design"), "by 'design' too"),
        (lambda: plots_ablations.ablation(table, "kl", x="kind"), "several values of utility"),
        (lambda: plots_ablations.trade_off(table, "utility", {"kind": "odd"}), "no kind 'odd'"),
    ]:
        with pytest.raises(BgkitError, match=words):
            call()


# --- menus -------------------------------------------------------------------------------------


def controls(table: pd.DataFrame, **wanted: object) -> dict[str, object]:
    explorer = menus.ablation(table, **wanted)
    return {one.description: one for one in views.controls_of(explorer)}


def test_menus_offer_only_what_varies(table: pd.DataFrame) -> None:
    found = controls(table)
    assert list(found) == [
        "metric",
        "from left to right",
        "colours",
        "panels",
        "only design",
        "only utility",
        "only kind",
    ]
    assert [value for _, value in found["from left to right"].options] == [
        "design",
        "utility",
        "kind",
    ]
    assert found["only design"].disabled and found["only utility"].disabled
    assert not found["only kind"].disabled


def test_every_menu_changes_the_picture(table: pd.DataFrame, drawn: list[tuple]) -> None:
    found = controls(table)
    assert not drawn
    found["metric"].value = "kl"
    assert drawn[-1][0].layout.title.text == "<b>KL from base (nats) by utility and design</b>"
    found["only kind"].value = "jailbreak"
    assert trace(drawn[-1][0], "base").y[0] == mean_of(table, "base", "aligned", "kl", "jailbreak")
    found["panels"].value = "kind"
    assert found["only kind"].disabled and len(drawn[-1][0].data) == len(KINDS) * len(DESIGNS)
    found["from left to right"].value = "design"
    assert drawn[-1][0].layout.xaxis.ticktext[0] == "base"
    assert not found["only utility"].disabled
    found["only utility"].value = "blind"
    assert (
        drawn[-1][1].loc["all", "base"].startswith(f"{mean_of(table, 'base', 'blind', 'kl'):.3f}")
    )
    assert len(drawn) == 5


def test_a_choice_that_cannot_be_shown_is_told_in_a_sentence(table, drawn: list[tuple]) -> None:
    found = controls(table)
    found["panels"].value = "design"
    (message,) = drawn[-1]
    assert "The panels can not be by" in message.data


def test_the_first_state_is_the_view_of_the_table(table, first: list[tuple]) -> None:
    menus.ablation(table)
    ((fig, numbers),) = first
    assert fig == menus.ablation_view(table)[0]
    assert fig.layout.title.text == "<b>System help by utility and design</b>"
    pd.testing.assert_frame_equal(numbers, settings.numbers(table, "system_help"))


def test_first_choices_may_be_given_and_are_checked(table: pd.DataFrame) -> None:
    fig, _ = menus.ablation_view(table, metric="kl", kind="benign")
    assert "kind benign" in fig.layout.title.subtitle.text
    assert controls(table, metric="kl")["metric"].value == "kl"
    for wanted in ({"metric": "joy"}, {"x": "size"}, {"kind": "odd"}, {"panels": "size"}):
        with pytest.raises(BgkitError, match="choose one of"):
            menus.ablation(table, **wanted)
