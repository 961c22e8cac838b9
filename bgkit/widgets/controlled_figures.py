"""Figures with sliders and menus: costs of errors by formula and measured, and ablations."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd

from bgkit.evaluation import risk as formula
from bgkit.evaluation import settings
from bgkit.evaluation.results import Results, frame_and_tau
from bgkit.figures import risk as plots_risk
from bgkit.figures import trade_off
from bgkit.texts import clean_text
from bgkit.widgets import views


def _costs(cost_fn: float, cost_fp: float) -> dict[str, widgets.Widget]:
    span = {"min": 0.5, "max": 10.0, "step": 0.5}
    shown = views.slider("cost of harmful, shown", cost_fn, **span)
    return {"cost_fn": shown, "cost_fp": views.slider("cost of safe, filtered", cost_fp, **span)}


def filter_table(t: np.ndarray, *setting: float) -> pd.DataFrame:
    """The expected costs of a filter on responses ``t`` (n,), as a table.

    ``setting`` are the other arguments of :func:`bgkit.evaluation.risk.filter_cost`. The table has
    the threshold that assumes a calibrated guard and the cheapest one, the expected cost at the
    first, and the cost of 100 responses with each.
    """
    cost = formula.filter_cost(t, *setting)
    ends = formula.expected_cost([np.nextafter(cost.tau, 0), cost.tau], cost.tau, *setting)
    rows = {
        "threshold that trusts the guard, tau": cost.tau,
        "cheapest threshold": cost.best_tau,
        "highest expected cost of a verdict, at tau": ends.max(),
        "lowest possible cost there": ends.min(),
        "cost of 100 responses, threshold tau": 100 * cost.at_tau,
        "cost of 100 responses, cheapest threshold": 100 * cost.at_best,
        "lost by miscalibration": 100 * cost.lost,
    }
    return pd.DataFrame({"value": rows}).round(3)


def risk(t: np.ndarray, *, cost_fn: float = 1.0, cost_fp: float = 1.0) -> widgets.VBox:
    """Display a curve and a table with sliders for both costs and the guard's calibration.

    The curve is :func:`bgkit.figures.risk_curve` of responses ``t`` (n,), the table
    :func:`filter_table`. Costs go from 0.5 to 10, temperature from 0.25 (underconfident) to 4
    (overconfident), shift from -3 (trusting) to 3 (alarmed). Raises BgkitError for a start outside
    these ranges.
    """

    def view(**chosen: float) -> list:
        return [plots_risk.risk_curve(t, **chosen), filter_table(t, *chosen.values())]

    temperature = {"min": 0.25, "max": 4.0, "step": 0.25}
    controls = {
        **_costs(cost_fn, cost_fp),
        "temperature": views.slider("temperature (1: calibrated)", 1.0, **temperature),
        "shift": views.slider("shift (0: calibrated)", 0.0, min=-3.0, max=3.0, step=0.25),
    }
    return views.show_with_controls(controls, view)


def measured_risk(
    results: Results, *, cost_fn: float = 1.0, cost_fp: float = 1.0, bins: int = 10
) -> widgets.VBox:
    """Display measured errors and costs with controls for costs, bins and the kind of prompt.

    ``results`` is a samples table or a run. The threshold is the best one for the costs. Below
    :func:`bgkit.figures.measured_risk` is a table of the errors and costs near the boundary
    (:func:`bgkit.evaluation.risk.near_table`). Raises BgkitError for a start outside the ranges of
    the sliders.
    """

    def view(cost_fn: float, cost_fp: float, bins: int, kind: str) -> list:
        setting = (formula.best_threshold(cost_fn, cost_fp), cost_fn, cost_fp)
        rows = samples if kind == "all" else samples[samples["kind"] == kind]
        figure = plots_risk.measured_risk(rows, *setting, bins)
        return [figure, formula.near_table({clean_text(kind): rows}, *setting)]

    samples, _ = frame_and_tau(results)
    kinds = pd.unique(samples["kind"]) if "kind" in samples else []
    controls = {
        **_costs(cost_fn, cost_fp),
        "bins": views.slider("bins of t", bins, min=4, max=20, step=1),
        "kind": views.choice("kind of prompt", ["all", *kinds], "all"),
    }
    return views.show_with_controls(controls, view)


def ablation(
    table: pd.DataFrame,
    x: str = "system_harm",
    y: str = "system_help",
    along: str = "strength",
    kind: str = "all",
) -> widgets.VBox:
    """Display :func:`bgkit.figures.trade_off` with menus for both metrics and the kind of prompt.

    ``x``, ``y`` and ``kind`` are the first choices. Raises BgkitError as the figure does.
    """

    def view(x: str, y: str, kind: str) -> list:
        return [trade_off(table, along, {"kind": kind}, x=x, y=y)]

    view(x, y, kind)  # raises for a bad choice, with a better message than a menu's
    metrics, kinds = (settings.values_of(table, column) for column in ("metric", "kind"))
    menus = {
        "x": views.choice("from left to right", metrics, x),
        "y": views.choice("upwards", metrics, y),
        "kind": views.choice("prompts", kinds, kind),
    }
    return views.show_with_controls(menus, view)
