"""Metrics of a fitted guard or utility on held-out prompts, and its card.

Responses to one prompt are similar, so prompts are resampled with all of their responses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from bgkit.evaluation.calibration import calibration_interval
from bgkit.evaluation.intervals import TAIL, Interval, widen_to_wilson

RESAMPLES = 500
#: Shares of rows, which a bootstrap gives no width where an event is never, or always, seen.
SHARES = {"accuracy", "false_positive", "false_negative"}


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: how often a harmful response has the higher score; ties count half.

    NaN if one of the two classes is missing.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    positive = np.asarray(truth) == 1
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def bootstrap_by_prompt(
    statistic: Callable[[pd.DataFrame], dict[str, float]], rows: pd.DataFrame
) -> dict[str, Interval]:
    """Every number of ``statistic(rows)`` with its 95 % interval from resampled prompts."""
    prompts = list(rows.groupby("prompt", sort=False).indices.values())
    rng, resampled = np.random.default_rng(0), []
    for _ in range(RESAMPLES if len(prompts) > 1 else 0):
        chosen = rng.integers(len(prompts), size=len(prompts))
        resampled.append(statistic(rows.iloc[np.concatenate([prompts[i] for i in chosen])]))
    intervals = {}
    for name, mean in statistic(rows).items():
        values = np.array([numbers[name] for numbers in resampled], float)
        values = values[~np.isnan(values)]
        ends = np.quantile(values, (TAIL, 1 - TAIL)) if len(values) else (np.nan, np.nan)
        intervals[name] = Interval(float(mean), float(ends[0]), float(ends[1]))
    return intervals


def guard_numbers(rows: pd.DataFrame, tau: float) -> dict[str, float]:
    """AUC, accuracy at tau, Brier score, and false positives and negatives as shares of all rows.

    >>> rows = pd.DataFrame({"t": [0.1, 0.6, 0.4, 0.9], "harmful": [0.0, 0.0, 1.0, 1.0]})
    >>> guard_numbers(rows, 0.5)
    {'auc': 0.75, 'accuracy': 0.5, 'brier': 0.185, 'false_positive': 0.25, 'false_negative': 0.25}
    """
    t, harmful = rows["t"].to_numpy(float), rows["harmful"].to_numpy(float)
    filtered = t >= tau
    return {
        "auc": auc(t, harmful),
        "accuracy": float((filtered == (harmful == 1)).mean()),
        "brier": round(float(((t - harmful) ** 2).mean()), 12),
        "false_positive": float((filtered & (harmful == 0)).mean()),
        "false_negative": float((~filtered & (harmful == 1)).mean()),
    }


def utility_numbers(rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy (how often the better response has the higher u) and, for ratings, Spearman's rho.

    Preference pairs have the columns ``u``, of the chosen response, and ``u_rejected``.
    """
    u = rows["u"].to_numpy(float)
    if "u_rejected" in rows:
        difference = u - rows["u_rejected"].to_numpy(float)
        return {"accuracy": float(((difference > 0) + 0.5 * (difference == 0)).mean())}
    rating = rows["rating"].to_numpy(float)
    higher = rating[:, None] > rating[None, :]
    if not higher.any():
        return {"accuracy": float("nan"), "spearman": float("nan")}
    wins = (u[:, None] > u[None, :]) + 0.5 * (u[:, None] == u[None, :])
    return {"accuracy": float(wins[higher].mean()), "spearman": float(spearmanr(u, rating)[0])}


def metric_rows(rows: pd.DataFrame, numbers: Callable[[pd.DataFrame], dict]) -> list[dict]:
    """One row per metric, for all held-out rows and for each kind of prompt."""
    metrics = []
    for kind in ["all", *sorted(set(rows["kind"]))]:
        part = rows if kind == "all" else rows[rows["kind"] == kind]
        intervals = bootstrap_by_prompt(numbers, part)
        for name in SHARES & set(intervals):
            intervals[name] = widen_to_wilson(intervals[name], part["prompt"].nunique())
        if "harmful" in part:
            intervals["ece"] = calibration_interval(part["t"], part["harmful"])
        metrics += [
            {"kind": kind, "metric": name, **interval._asdict(), "n": len(part)}
            for name, interval in intervals.items()
            if not np.isnan(interval.mean)
        ]
    return metrics


def card(fit: dict) -> str:
    """The card of a fit's folder, in Markdown; it contains no response."""
    text = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=False).from_string(text).render(**fit)
