"""Paths of ablations and their menus: marks at their numbers, every choice changes the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.figures import trade_off
from bgkit.widgets import controlled_figures as menus
from bgkit.widgets import views

UTILITIES = ["aligned", "mild", "blind"]
KINDS = ["all", "benign", "jailbreak"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Three designs by learned utility, whose means differ in every setting."""
    metrics = ("system_harm", "system_help", "near_boundary", "kl")
    places = [("base", "filter_avoidance", "boundary"), UTILITIES, KINDS, metrics]
    names = ["design", "utility", "kind", "metric"]
    rows = pd.MultiIndex.from_product(places, names=names).to_frame(index=False)
    means = 0.05 + 0.9 * (np.arange(len(rows)) * 37 % len(rows)) / len(rows)
    told = {"scale": "small", "guard": "default", "tau": 0.5, "seed": "all", "n_seeds": 3}
    ends = {"mean": means, "low": means - 0.02, "high": means + 0.03, "interval": "both"}
    return settings.sort_rows(rows.assign(**told, **ends))


def trace(fig: go.Figure, name: str) -> go.Scatter:
    return next(one for one in fig.data if one.name == name)


def means_of(table: pd.DataFrame, metric: str, design: str, kind: str = "all") -> list[float]:
    """Means of a metric by utility."""
    found = settings.select(table, metric, ("utility",), {"kind": kind, "design": design})
    return found.set_index("utility")["mean"][UTILITIES].tolist()


def test_trade_off_leads_each_design_from_aligned_to_blind(table: pd.DataFrame) -> None:
    fig = trade_off(table, "utility")
    assert [one.name for one in fig.data] == ["base", "filter avoidance", "boundary"]
    one = trace(fig, "boundary")
    assert list(one.x) == means_of(table, "system_harm", "boundary")
    assert list(one.y) == means_of(table, "system_help", "boundary")
    assert list(one.error_x.array) == pytest.approx([0.03] * 3)
    assert list(one.error_y.arrayminus) == pytest.approx([0.02] * 3)
    assert (np.diff(one.marker.size) > 0).all() and "utility aligned" in one.hovertext[0]
    told = fig.layout.title.subtitle.text
    assert "utility aligned to blind" in told and "over seeds and prompts" in told
    alone = trade_off(table.assign(interval="prompts"), "utility", {"kind": "benign"}, x="kl")
    told = alone.layout.title.subtitle.text
    assert "without variation between seeds" in told and "Held fixed: kind benign." in told
    # KL has no better side
    assert [len(figure.layout.annotations) for figure in (fig, alone)] == [1, 0]


def test_every_menu_changes_the_picture(table: pd.DataFrame, first, drawn) -> None:
    with pytest.raises(BgkitError, match="no metric 'joy'"):
        menus.ablation(table, "joy", along="utility")
    across, up, kind = views.controls_of(menus.ablation(table, along="utility"))
    assert first == [(trade_off(table, "utility", {"kind": "all"}),)] and not drawn
    assert across.value == "system_harm" and [value for _, value in kind.options] == KINDS
    up.value = "kl"
    across.value = "near_boundary"
    kind.value = "jailbreak"
    figures = [fig for (fig,) in drawn]
    assert figures[2].layout.title.text == "<b>KL from base (nats) against near boundary</b>"
    assert list(trace(figures[2], "base").y) == means_of(table, "kl", "base", "jailbreak")
    assert figures[0] != figures[1] != figures[2] and len(figures) == 3


def test_a_choice_that_cannot_be_shown_is_told_in_a_sentence(table, drawn) -> None:
    some = table[(table["metric"] != "kl") | (table["kind"] == "all")]
    across, _, kind = views.controls_of(menus.ablation(some, "kl", along="utility"))
    kind.value = "benign"
    ((message,),) = drawn
    assert across.value == "kl" and "was not measured for kind benign" in message.data
