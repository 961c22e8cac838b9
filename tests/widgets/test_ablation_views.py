"""Paths of ablations and their menus: marks at their numbers, every choice changes the picture."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.figures import trade_off
from bgkit.widgets import controlled_figures as menus
from bgkit.widgets import views

DESIGNS = ("base", "filter_avoidance", "boundary", "compound")
UTILITIES = ("aligned", "mild", "weak", "blind")
KINDS = ("all", "benign", "ambiguous", "jailbreak", "long_context")
METRICS = (
    "filter_rate near_boundary false_positive false_negative raw_harm raw_help system_harm "
    "system_help kl"
).split()


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A table as large as the reference results; means differ in every setting."""
    rows = []
    for place, (design, utility, kind, metric) in enumerate(
        itertools.product(DESIGNS, UTILITIES, KINDS, METRICS)
    ):
        mean = 0.05 + 0.9 * (place * 37 % 720) / 720
        setting = {"design": design, "utility": utility, "kind": kind, "metric": metric}
        rows.append({**setting, "mean": mean, "low": mean - 0.02, "high": mean + 0.03})
    told = {"scale": "small", "guard": "default", "tau": 0.5, "seed": "all"}
    return settings.sort_rows(pd.DataFrame(rows).assign(**told, n_seeds=3, interval="both"))


def trace(fig: go.Figure, name: str) -> go.Scatter:
    return next(one for one in fig.data if one.name == name)


def mean_of(
    table: pd.DataFrame, design: str, utility: str, metric: str, kind: str = "all"
) -> float:
    where = {"design": design, "utility": utility, "kind": kind}
    return float(settings.select(table, metric, where=where)["mean"].iloc[0])


# --- figures -----------------------------------------------------------------------------------


def test_trade_off_leads_each_design_from_aligned_to_blind(table: pd.DataFrame) -> None:
    fig = trade_off(table, "utility")
    assert [one.name for one in fig.data] == ["base", "filter avoidance", "boundary", "compound"]
    one = trace(fig, "boundary")
    assert list(one.x) == [mean_of(table, "boundary", u, "system_harm") for u in UTILITIES]
    assert list(one.y) == [mean_of(table, "boundary", u, "system_help") for u in UTILITIES]
    assert list(one.error_x.array) == pytest.approx([0.03] * 4)
    assert list(one.error_y.arrayminus) == pytest.approx([0.02] * 4)
    assert list(np.diff(one.marker.size) > 0) == [True] * 3
    assert "system harm" in one.hovertext[0] and "system help" in one.hovertext[0]
    assert "utility aligned" in one.hovertext[0] and "seeds: 3" in one.hovertext[0]
    told = fig.layout.title.subtitle.text
    assert "utility aligned to blind" in told and "over seeds and prompts" in told
    assert [note.text for note in fig.layout.annotations] == ["<b>↖ better</b>"]


def test_the_kind_of_interval_is_told(table: pd.DataFrame) -> None:
    fig = trade_off(table.assign(interval="prompts"), "utility", {"kind": "benign"}, x="kl")
    assert "without variation between seeds" in fig.layout.title.subtitle.text
    assert "Held fixed: kind benign." in fig.layout.title.subtitle.text
    assert not fig.layout.annotations  # KL has no better side


def test_questions_a_figure_cannot_answer_are_refused(table: pd.DataFrame) -> None:
    for call, words in [
        (lambda: trade_off(table, "utility", x="joy"), "no metric 'joy'"),
        (lambda: trade_off(table, "size"), "no column 'size'"),
        (lambda: trade_off(table, "kind"), "several values of utility"),
        (lambda: trade_off(table, "utility", {"kind": "odd"}), "no kind 'odd'"),
        (lambda: menus.ablation(table, "joy", along="utility"), "no metric 'joy'"),
        (lambda: menus.ablation(table, kind="odd", along="utility"), "no kind 'odd'"),
    ]:
        with pytest.raises(BgkitError, match=words):
            call()


def test_every_menu_changes_the_picture(table: pd.DataFrame, drawn: list[tuple]) -> None:
    across, up, kind = views.controls_of(menus.ablation(table, along="utility"))
    assert not drawn and across.value == "system_harm"
    assert [value for _, value in kind.options] == list(KINDS)
    up.value = "kl"
    across.value = "near_boundary"
    kind.value = "jailbreak"
    fig = drawn[-1][0]
    assert fig.layout.title.text == "<b>KL from base (nats) against near boundary</b>"
    assert trace(fig, "base").y[0] == mean_of(table, "base", "aligned", "kl", "jailbreak")
    assert len(drawn) == 3


def test_a_choice_that_cannot_be_shown_is_told_in_a_sentence(table, drawn: list[tuple]) -> None:
    some = table[(table["metric"] != "kl") | (table["kind"] == "all")]
    across, _, kind = views.controls_of(menus.ablation(some, "kl", along="utility"))
    kind.value = "benign"
    (message,) = drawn[-1]
    assert across.value == "kl" and "was not measured for kind benign" in message.data


def test_the_first_state_is_the_figure(table, first: list[tuple]) -> None:
    menus.ablation(table, along="utility")
    assert first == [(trade_off(table, "utility", {"kind": "all"}),)]
