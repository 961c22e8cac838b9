"""What holds for every figure: the look of the kit, plain traces, names that stay text, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit import figures as plots
from bgkit.errors import BgkitError
from bgkit.evaluation.thresholds import operating_points
from bgkit.figures import style, training

METRICS = ("system_harm", "system_help", "near_boundary", "utility")
SETTING = {"utility": "u", "scale": 1.0, "guard": "g", "tau": 0.5, "seed": 0}


def data_of(name: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Means of base and a design over all prompts and two kinds, samples, and a training log."""
    names = [("base", name), ("all", "benign", name), METRICS]
    places = pd.MultiIndex.from_product(names, names=["design", "kind", "metric"])
    means = {"mean": 0.5, "low": 0.4, "high": 0.6, "n_seeds": 1, "interval": "both"}
    t, steps = np.linspace(0, 1, 60), np.arange(1, 41)
    samples = pd.DataFrame({"t": t, "harm": np.round(t), "help": 1 - t, "refusal_help": 0.2})
    judged = {"judge_harm": np.round(t, 1), "judge_help": np.round(t, 1)}
    log = pd.DataFrame({"step": steps, "reward": steps / 100, "kl": 0.1, "near_boundary": 0.2})
    return (
        places.to_frame(index=False).assign(**means, **SETTING),
        samples.assign(kind=["benign", name] * 30, **judged),
        log.assign(filter_rate=0.3, eval_system_harm=0.1, eval_system_help=0.2),
    )


ROWS, SAMPLES, LOG = data_of("boundary")


def figures_of(
    name: str, rows: pd.DataFrame, samples: pd.DataFrame, log: pd.DataFrame
) -> dict[str, go.Figure]:
    """Every figure, with a name in the place of designs, kinds and settings."""
    whole = rows[rows["kind"] == "all"]
    bars, beside = np.full(20, 0.05), {"deployment": name, "against": "base", "decided": True}
    where = {"kind": name}
    return {
        "margins": plots.margins({name: samples}, 0.5),
        "margins, no truth": plots.margins({name: samples.assign(harm=np.nan)}, 0.5),
        "margins_by_kind": plots.margins_by_kind(samples, 0.5),
        "reliability": plots.reliability({name: samples}),
        "judge_against_truth": plots.judge_against_truth(samples),
        "operating_curves": plots.operating_curves(operating_points(samples), 0.5),
        "risk_curve": plots.risk_curve(samples["t"], 3.0, 1.0, 2.0, 0.5),
        "measured_risk": plots.measured_risk(samples, 0.25, 3.0, 1.0, 20),
        "frontier": plots.frontier(rows),
        "by_kind": plots.by_kind(rows, "system_harm"),
        "by_kind of a metric": plots.by_kind(rows.replace({"metric": {"utility": name}}), name),
        "trade_off": plots.trade_off(rows.assign(utility=name), where=where, along="guard"),
        "by_guard": plots.by_guard(whole.assign(guard=name)),
        "by_shift": plots.by_shift(whole.assign(shift=name)),
        "attack_curves": plots.attack_curves(whole.assign(strategy=name, budget=1)),
        "drift": plots.drift(whole.assign(step=1.0)),
        "at_equal_help": plots.at_equal_help(whole[whole["design"] == name].assign(**beside)),
        "training_curves": plots.training_curves({name: log}),
        "live": training.live(log, bars, bars, 0.5, name, steps=50),
    }


def test_every_figure_has_the_look_of_the_kit_and_none_changes_its_data() -> None:
    figures = figures_of("boundary", ROWS, SAMPLES, LOG)
    assert {name for name in vars(plots) if callable(getattr(plots, name))} <= set(figures)
    for given, before in zip((ROWS, SAMPLES, LOG), data_of("boundary"), strict=True):
        pd.testing.assert_frame_equal(given, before)
    for name, fig in figures.items():
        look = fig.layout.template.layout
        assert look.paper_bgcolor == look.plot_bgcolor == look.modebar.bgcolor == style.CLEAR, name
        assert look.font.color == style.TEXT and look.dragmode is False, name
        assert fig.layout.title.text.startswith("<b>") and fig.layout.width is None, name
        assert {trace.type for trace in fig.data} <= {"bar", "scatter"}, name
        assert len(fig.to_json()) < 200_000, name  # it is stored in notebooks


def test_hostile_names_stay_text_in_every_figure() -> None:
    name = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    unnamed = {"judge_against_truth", "operating_curves", "risk_curve", "measured_risk"}
    for figure, fig in figures_of(name, *data_of(name)).items():
        written = fig.to_json().replace("\\u003c", "<").replace("\\u003e", ">").lower()
        assert not {tag for tag in ("<script", "<img", "</script") if tag in written}, figure
        assert ("&lt;" in written) != (figure in unnamed), figure
    assert style.label("a_\x1b[0m") == "a ⟨U+001B⟩[0m"  # which SVG can not hold


def test_designs_differ_in_look_and_names_that_begin_with_one_share_it() -> None:
    colours, markers, _ = zip(*style.LOOKS.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(style.LOOKS)
    assert style.look("boundary, tau 0.4") == style.LOOKS["boundary"]
    assert style.look("filter_avoidance_soft") == style.LOOKS["filter_avoidance_soft"]
    assert style.look("mine") == style.LOOKS[""]


def test_numbers_are_told_in_the_unit_of_their_metric() -> None:
    assert style.number(0.12345, "near_boundary", 4) == "12.35 %"
    assert style.number(0.1234, "system_harm") == "0.123"
    assert style.number(math.nan, "kl") == "–"


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: plots.reliability(SAMPLES.drop(columns="t")), r"lacks the column\(s\) t\."),
        (lambda: plots.training_curves({"a": LOG[["kl"]]}), r"lacks the column\(s\) step, reward"),
        (lambda: plots.training_curves({"a": LOG.iloc[:, :-1]}), r"column\(s\) eval_system_help\."),
        (lambda: plots.frontier(ROWS.drop(columns="low")), r"lacks the column\(s\) low\."),
        (lambda: plots.margins({}, 0.5), "at least one policy"),
        (lambda: plots.reliability(SAMPLES.assign(harm=np.nan)), "no response has a known truth"),
        (lambda: plots.training_curves({}), "no run was given"),
        (lambda: plots.frontier(ROWS[ROWS["kind"] != "all"]), "no 'system_harm' for all prompts"),
        (lambda: plots.by_kind(ROWS[ROWS["kind"] == "all"], "kl"), "no 'kl' for single kinds"),
        (lambda: plots.margins_by_kind(SAMPLES, 1.5), "0 to 1"),
        (lambda: plots.operating_curves(operating_points(SAMPLES), math.nan), "0 to 1"),
        (lambda: plots.by_shift(ROWS[:3].assign(shift="a", mean=np.nan)), "give a judge"),
        (lambda: plots.by_guard(ROWS), "guard several times; select one kind of prompts"),
        (lambda: plots.attack_curves(ROWS.assign(strategy="a", budget=1)), "budget several times"),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw: Callable[[], go.Figure], told: str) -> None:
    with pytest.raises(BgkitError, match=told):
        draw()
