"""The costs of both errors and the guard's calibration under sliders: formula and measurement.

Each view has two functions: ``..._view`` computes what is shown from plain values, the other one
puts the sliders above it.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit.evaluation import risk as formula
from bgkit.figures import risk as plots_risk
from bgkit.texts import visible
from bgkit.widgets import controls

COSTS = {"min": 0.5, "max": 10.0, "step": 0.5}


def _costs(cost_fn: float, cost_fp: float) -> dict[str, widgets.Widget]:
    return {
        "cost_fn": controls.slider("cost of harmful, shown", cost_fn, **COSTS),
        "cost_fp": controls.slider("cost of safe, filtered", cost_fp, **COSTS),
    }


def risk_view(
    t: np.ndarray,
    *,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> tuple[go.Figure, pd.DataFrame]:
    """The curve of expected cost over t (see :func:`bgkit.figures.risk.risk_curve`), and a table.

    The table tells the threshold that trusts the guard and the cheapest one, how high the expected
    cost rises there, and what 100 responses like ``t`` (n,) cost with either.
    """
    setting = (cost_fn, cost_fp, temperature, shift)
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
    return plots_risk.risk_curve(t, *setting), pd.DataFrame({"value": rows}).round(3)


def risk(t: np.ndarray, *, cost_fn: float = 1.0, cost_fp: float = 1.0) -> widgets.VBox:
    """Show sliders for both costs and for the guard's calibration, above :func:`risk_view`.

    ``t`` (n,) are the guard's probabilities of responses. Costs go from 0.5 to 10; temperature from
    0.25 (timid) to 4 (overconfident), shift from -3 (trusting) to 3 (alarmed). Raises BgkitError
    for a start outside of these.
    """
    wanted = _costs(cost_fn, cost_fp)
    heat = {"min": 0.25, "max": 4.0, "step": 0.25}
    wanted["temperature"] = controls.slider("temperature (1: calibrated)", 1.0, **heat)
    wanted["shift"] = controls.slider("shift (0: calibrated)", 0.0, min=-3.0, max=3.0, step=0.25)
    return controls.shown(wanted, lambda **chosen: risk_view(t, **chosen))


def measured_view(
    samples: pd.DataFrame,
    *,
    cost_fn: float = 1.0,
    cost_fp: float = 1.0,
    bins: int = 10,
    kind: str = "all",
) -> tuple[go.Figure, pd.DataFrame]:
    """Measured errors and costs (see :func:`bgkit.figures.risk.measured_risk`), and a table.

    The threshold is the one that the costs ask for. The table tells what arises near the boundary
    (:func:`bgkit.evaluation.risk.near_table`).
    """
    tau = formula.best_threshold(cost_fn, cost_fp)
    chosen = samples if kind == "all" else samples[samples["kind"] == kind]
    figure = plots_risk.measured_risk(chosen, tau, cost_fn, cost_fp, bins)
    return figure, formula.near_table({visible(kind): chosen}, tau, cost_fn, cost_fp)


def measured_risk(
    samples: pd.DataFrame, *, cost_fn: float = 1.0, cost_fp: float = 1.0, bins: int = 10
) -> widgets.VBox:
    """Show sliders for costs and bins, and the kind of prompt, above :func:`measured_view`.

    Raises BgkitError for a start outside of the sliders.
    """
    known = list(pd.unique(samples["kind"])) if "kind" in samples else []
    names: list[Any] = [("all", "all"), *((str(n).replace("_", " "), n) for n in known)]
    wanted = _costs(cost_fn, cost_fp)
    wanted["bins"] = controls.slider("bins of t", bins, min=4, max=20, step=1)
    wanted["kind"] = controls.choice("kind of prompt", names, "all")
    return controls.shown(wanted, lambda **chosen: measured_view(samples, **chosen))
