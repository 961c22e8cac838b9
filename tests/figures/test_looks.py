"""What holds for every figure: the look of the kit, plain traces, names that stay text."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from bgkit import figures as plots
from bgkit.evaluation.thresholds import operating_points
from bgkit.figures import style, training

SEEN = ("system_harm", "system_help", "near_boundary")
SETTING = {"utility": "u", "scale": 1.0, "guard": "g", "tau": 0.5, "seed": 0}


def rows_of(name: str, **more: object) -> pd.DataFrame:
    """Means of base and of a design, of all prompts and of two kinds."""
    rows = [
        {"design": design, "kind": kind, "metric": metric, "mean": 0.5, "low": 0.4, "high": 0.6}
        for design in ("base", name)
        for kind in ("all", "benign", name)
        for metric in (*SEEN, "utility")
    ]
    return pd.DataFrame(rows).assign(n_seeds=1, interval="both", **{**SETTING, **more})


def samples_of(name: str, n: int = 60) -> pd.DataFrame:
    t = np.linspace(0, 1, n)
    table = pd.DataFrame(
        {"t": t, "harm": np.round(t), "help": 1 - t, "kind": ["benign", name] * 30}
    )
    return table.assign(judge_harm=np.round(t, 1), judge_help=np.round(t, 1), refusal_help=0.2)


def figures_of(name: str) -> dict[str, go.Figure]:
    """Every figure, with a name in the place of designs, kinds and settings."""
    rows, samples, steps = rows_of(name), samples_of(name), np.arange(1, 41)
    whole = rows[rows["kind"] == "all"]
    log = pd.DataFrame({"step": steps, "reward": steps / 100, "kl": 0.1, "near_boundary": 0.2})
    log = log.assign(filter_rate=0.3, eval_system_harm=0.1, eval_system_help=0.2)
    bars, beside = np.full(20, 0.05), {"deployment": name, "against": "base", "decided": True}
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
        "frontier of a kind": plots.frontier(rows, name),
        "by_kind": plots.by_kind(rows, "system_harm"),
        "by_kind of a metric": plots.by_kind(rows.replace({"metric": {"utility": name}}), name),
        "trade_off": plots.trade_off(
            rows.assign(utility=name), where={"kind": name}, along="guard"
        ),
        "by_guard": plots.by_guard(whole.assign(guard=name)),
        "by_shift": plots.by_shift(whole.assign(shift=name)),
        "attack_curves": plots.attack_curves(whole.assign(strategy=name, budget=1)),
        "drift": plots.drift(whole.assign(step=1.0)),
        "at_equal_help": plots.at_equal_help(whole[whole["design"] == name].assign(**beside)),
        "training_curves": plots.training_curves({name: log}),
        "live": training.live(log, bars, bars, 0.5, name, steps=50),
    }


@pytest.fixture(scope="module")
def figures() -> dict[str, go.Figure]:
    return figures_of("boundary")


def test_there_is_one_of_every_kind(figures) -> None:
    assert {name for name in vars(plots) if callable(getattr(plots, name))} <= set(figures)


def test_every_figure_has_the_look_of_the_kit(figures) -> None:
    for name, fig in figures.items():
        look = fig.layout.template.layout
        assert look.paper_bgcolor == look.plot_bgcolor == look.modebar.bgcolor == style.CLEAR, name
        assert look.font.color == style.TEXT and look.dragmode is False, name
        assert fig.layout.title.text.startswith("<b>") and fig.layout.width is None, name
        assert {trace.type for trace in fig.data} <= {"bar", "scatter"}, name
        text = fig.to_json()
        assert json.loads(text)["data"] and len(text) < 200_000, name


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>"])
def test_hostile_names_stay_text_in_every_figure(name: str) -> None:
    unnamed = {"judge_against_truth", "operating_curves", "risk_curve", "measured_risk"}
    for figure, fig in figures_of(name).items():
        written = fig.to_json().replace("\\u003c", "<").replace("\\u003e", ">").lower()
        assert not {tag for tag in ("<script", "<img", "</script") if tag in written}, figure
        assert ("&lt;" in written) != (figure in unnamed), figure
