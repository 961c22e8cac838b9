"""Figures and metrics of fixed tables: what :mod:`record` draws and measures.

Whoever moves or renames a function changes its name here, never the tables that it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bgkit.evaluation import calibration, means, risk, settings, thresholds
from bgkit.evaluation.metrics import judge_agreement, paired_differences, summarise
from bgkit.figures import ablations as plots_ablations
from bgkit.figures import distributions as plots
from bgkit.figures import judges as plots_judges
from bgkit.figures import risk as plots_risk
from bgkit.figures import stress as plots_stress
from bgkit.figures import thresholds as plots_thresholds
from bgkit.figures import training as plots_training
from bgkit.scoring import temperature
from bgkit.sweeps import collection

DESIGNS = ("base", "boundary", "compound")
LABELS = {"design": "boundary", "utility": "mild", "scale": "small", "seed": 0}


def samples(seed: int = 0, n: int = 60) -> pd.DataFrame:
    """Samples like a policy's, drawn without any model: t, u and the truth of each response."""
    rng = np.random.default_rng(seed)
    t = rng.beta(0.6, 0.8, n).round(6)
    harm = np.clip(t + rng.normal(0, 0.2, n), 0, 1).round(6)
    frame = pd.DataFrame(
        {
            "prompt_id": np.arange(n),
            "prompt": [f"prompt {i}" for i in range(n)],
            "response": [f"response {i} of {seed}" for i in range(n)],
            "kind": rng.choice(["plain", "ambiguous", "jailbreak"], n),
            "t": t,
            "u": rng.normal(size=n).round(6),
            "harm": harm,
            "help": rng.random(n).round(6),
            "kl": rng.random(n).round(6),
            "length": rng.integers(4, 60, n),
            "judge_harm": np.clip(harm + rng.normal(0, 0.1, n), 0, 1).round(6),
            "judge_help": rng.random(n).round(6),
        }
    )
    shown = t < 0.5
    return frame.assign(
        filtered=~shown,
        near=np.abs(t - 0.5) < 0.2,
        system_harm=np.where(shown, harm, 0.0),
        system_help=np.where(shown, frame["help"], 0.1),
        judge_system_harm=np.where(shown, frame["judge_harm"], 0.0),
        judge_system_help=np.where(shown, frame["judge_help"], 0.1),
    )


def contenders() -> pd.DataFrame:
    """Samples of three designs under two seeds, one table, as the stress tests have them."""
    parts = [
        samples(10 * i + seed, 30).assign(design=name, seed=seed, guard="default", tau=0.5)
        for i, name in enumerate(DESIGNS)
        for seed in (0, 1)
    ]
    return pd.concat(parts, ignore_index=True)


def rows(axis: str, values: tuple, metrics: tuple[str, ...], **more) -> pd.DataFrame:
    """A mean that is unlike for each design, value and metric; the interval is -0.01 to +0.03."""
    found = []
    for i, design in enumerate(DESIGNS):
        for j, value in enumerate(values):
            for k, metric in enumerate(metrics):
                mean = round(0.1 + 0.2 * i + 0.05 * j + 0.02 * k, 3)
                ends = {"mean": mean, "low": mean - 0.01, "high": mean + 0.03}
                found.append({"design": design, axis: value, "metric": metric, **ends, **more})
    return pd.DataFrame(found)


def result() -> pd.DataFrame:
    """Rows of three designs' metrics, as a result holds them."""
    names = {**LABELS, "guard": "default", "tau": 0.5}
    parts = [summarise(samples(i), {**names, "design": name}) for i, name in enumerate(DESIGNS)]
    return pd.DataFrame([row for part in parts for row in part])


def curve(seed: int = 0) -> pd.DataFrame:
    """A training curve of twelve steps with held-out evaluations at every fourth."""
    _, _, curves = collection.load()
    run = sorted(curves["run"].unique())[seed] if "run" in curves else None
    return curves[curves["run"] == run] if run is not None else curves


def attack() -> pd.DataFrame:
    """Success of two strategies over the budget."""
    parts = [
        rows("budget", (1, 2, 4), ("attack_success",), strategy=name)
        for name in ("random", "greedy")
    ]
    return pd.concat(parts)


def two() -> dict[str, pd.DataFrame]:
    """Samples of base and of a trained policy."""
    return {"base": samples(0), "boundary": samples(1)}


def table() -> pd.DataFrame:
    """The shipped table of ablations."""
    return settings.at_defaults(collection.load_table(), ("utility",))


def _numbers(frame: pd.DataFrame) -> dict[str, Any]:
    from record import told

    return told(frame.reset_index())


FIGURES = {
    "margins": lambda: plots.margins(two(), 0.5),
    "pareto": lambda: plots.frontier(result()),
    "reliability": lambda: plots.reliability(two()),
    "metric_intervals": lambda: plots.metric_intervals(result(), ["filter_rate", "system_harm"]),
    "by_kind": lambda: plots.by_kind(result(), "system_help"),
    "ablation": lambda: plots_ablations.ablation(table(), "system_harm"),
    "trade_off": lambda: plots_ablations.trade_off(table(), "utility"),
    "judge_against_truth": lambda: plots_judges.judge_against_truth(samples()),
    "risk_curve": lambda: plots_risk.risk_curve(np.linspace(0, 1, 21), 2.0, 1.0, 1.5, 0.1),
    "measured_risk": lambda: plots_risk.measured_risk(samples(), 0.5, 2.0, 1.0),
    "transfer_matrix": lambda: plots_stress.transfer_matrix(
        rows("guard", ("default", "weak"), plots_stress.MATRIX)
    ),
    "by_shift": lambda: plots_stress.by_shift(
        rows("shift", ("test", "unseen"), ("system_harm", "system_help"))
    ),
    "attack_curves": lambda: plots_stress.attack_curves(attack()),
    "margins_by_kind": lambda: plots_thresholds.margins_by_kind(samples(), 0.5),
    "operating_curves": lambda: plots_thresholds.operating_curves(
        thresholds.operating_points(samples()), 0.5
    ),
    "reliability_scaled": lambda: plots_thresholds.reliability_scaled(samples(), 1.7),
    "training_curves": lambda: plots_training.training_curves({"boundary": curve()}),
}
METRICS = {
    "summarise": lambda: summarise(samples(), LABELS),
    "paired_differences": lambda: paired_differences(samples(1), samples(0), LABELS),
    "judge_agreement": lambda: _numbers(judge_agreement(samples())),
    "calibration": lambda: [
        calibration.calibration_error(samples()["t"], samples()["harm"] > 0.5),
        *calibration.calibration_interval(samples()["t"], samples()["harm"] > 0.5),
        temperature.temperature_scale(samples()["t"], samples()["harm"] > 0.5)[0],
    ],
    "operating_points": lambda: _numbers(thresholds.operating_points(samples())),
    "table_by_kind": lambda: _numbers(thresholds.table_by_kind(samples(), 0.4)),
    "measured_risk": lambda: _numbers(risk.measured_risk(samples(), 0.5, 2.0, 1.0)),
    "risk_by_zone": lambda: _numbers(risk.risk_by_zone(samples(), 0.5, 2.0, 1.0)),
    "cost_near": lambda: list(risk.cost_near(samples(), 0.5, 2.0, 1.0)),
    "ablation_numbers": lambda: _numbers(settings.numbers(table(), "system_harm")),
    "stress_summary": lambda: _numbers(
        means.summary(contenders(), ["design"], ["system_harm", "filter_rate"])
    ),
    "stress_gains": lambda: _numbers(means.gains(contenders(), ["design"], ["system_harm"])),
}
