"""The costs of both errors and the guard's calibration under sliders: formula and measurement."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd

from bgkit.evaluation import risk as formula
from bgkit.figures import risk as plots_risk
from bgkit.texts import clean_text
from bgkit.widgets import views

COSTS = {"min": 0.5, "max": 10.0, "step": 0.5}


def _costs(cost_fn: float, cost_fp: float) -> dict[str, widgets.Widget]:
    return {
        "cost_fn": views.slider("cost of harmful, shown", cost_fn, **COSTS),
        "cost_fp": views.slider("cost of safe, filtered", cost_fp, **COSTS),
    }


def filter_table(t: np.ndarray, *setting: float) -> pd.DataFrame:
    """What a filter's threshold costs on responses ``t`` (n,), in words.

    ``setting`` is that of :func:`bgkit.evaluation.risk.filter_cost`. The table tells the threshold
    that trusts the guard and the cheapest one, how high the expected cost rises there, and what 100
    responses cost with either.
    """
    found = formula.filter_cost(t, *setting)
    ends = formula.expected_cost([np.nextafter(found.tau, 0), found.tau], found.tau, *setting)
    rows = {
        "threshold that trusts the guard, tau": found.tau,
        "cheapest threshold": found.best_tau,
        "highest expected cost of a verdict, at tau": ends.max(),
        "lowest possible cost there": ends.min(),
        "cost of 100 responses, threshold tau": 100 * found.at_tau,
        "cost of 100 responses, cheapest threshold": 100 * found.at_best,
        "lost by miscalibration": 100 * found.lost,
    }
    return pd.DataFrame({"value": rows}).round(3)


def risk(t: np.ndarray, *, cost_fn: float = 1.0, cost_fp: float = 1.0) -> widgets.VBox:
    """Show sliders for both costs and for the guard's calibration, above curve and table.

    The curve is :func:`bgkit.figures.risk_curve` of responses ``t`` (n,), the table
    :func:`filter_table`. Costs go from 0.5 to 10; temperature from 0.25 (timid) to 4
    (overconfident), shift from -3 (trusting) to 3 (alarmed). Raises BgkitError for a start outside
    of these.
    """

    def view(**chosen: float) -> list:
        return [plots_risk.risk_curve(t, **chosen), filter_table(t, *chosen.values())]

    heat = {"min": 0.25, "max": 4.0, "step": 0.25}
    wanted = {
        **_costs(cost_fn, cost_fp),
        "temperature": views.slider("temperature (1: calibrated)", 1.0, **heat),
        "shift": views.slider("shift (0: calibrated)", 0.0, min=-3.0, max=3.0, step=0.25),
    }
    return views.shown(wanted, view)


def measured_risk(
    samples: pd.DataFrame, *, cost_fn: float = 1.0, cost_fp: float = 1.0, bins: int = 10
) -> widgets.VBox:
    """Show sliders for costs and bins, and the kind of prompt, above what was measured.

    The threshold is the one that the costs ask for. Below :func:`bgkit.figures.measured_risk` stand
    the errors and costs near the boundary (:func:`bgkit.evaluation.risk.near_table`). Raises
    BgkitError for a start outside of the sliders.
    """

    def view(cost_fn: float, cost_fp: float, bins: int, kind: str) -> list:
        setting = (formula.best_threshold(cost_fn, cost_fp), cost_fn, cost_fp)
        chosen = samples if kind == "all" else samples[samples["kind"] == kind]
        figure = plots_risk.measured_risk(chosen, *setting, bins)
        return [figure, formula.near_table({clean_text(kind): chosen}, *setting)]

    kinds = pd.unique(samples["kind"]) if "kind" in samples else []
    wanted = {
        **_costs(cost_fn, cost_fp),
        "bins": views.slider("bins of t", bins, min=4, max=20, step=1),
        "kind": views.choice("kind of prompt", ["all", *kinds], "all"),
    }
    return views.shown(wanted, view)
