"""How far a guard's probabilities can be taken at their word, and temperature scaling.

``t`` (n,) are the guard's probabilities that a response is unsafe, in [0, 1]; ``harmful`` (n,) the
truth as 1 or 0 (True or False), NaN where it is not known. Responses without truth never count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, xlog1py, xlogy

from bgkit.errors import BgkitError
from bgkit.intervals import Interval, bootstrap
from bgkit.testbed.oracle import HARMFUL_ABOVE

#: Temperatures that a fit can find; at an end, the truth wants t at 0 and 1, or all at 0.5.
TEMPERATURES = (0.05, 20.0)
_SMALLEST = 1e-6  # keeps a t of exactly 0 or 1 at a finite logit


def calibration_error(t: np.ndarray, harmful: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean |mean t - harmful share| over equal-width bins, in [0, 1].

    >>> calibration_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 0, 1, 1]))
    0.1
    """
    t, harmful = np.asarray(t, float), np.asarray(harmful, float)
    which = np.minimum((t * bins).astype(int), bins - 1)
    gap = np.bincount(which, weights=t - harmful, minlength=bins)
    return round(float(np.abs(gap).sum() / len(t)), 12)


def calibration_interval(t: np.ndarray, harmful: np.ndarray, resamples: int = 300) -> Interval:
    """ECE with its 95 % bootstrap interval over responses; NaN if there are none."""
    t, harmful = np.asarray(t, float), np.asarray(harmful, float)
    if len(t) == 0:
        return Interval(np.nan, np.nan, np.nan)
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(t), (resamples, len(t)))
    values = [calibration_error(t[index], harmful[index]) for index in draws]
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(calibration_error(t, harmful), float(low), float(high))


def log_loss(t: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """Negative log likelihood (n,) of each truth in nats: -log t if harmful, else -log(1 - t).

    >>> log_loss([0.5, 0.25], [1, 0]).round(3)
    array([0.693, 0.288])
    """
    t = np.clip(np.asarray(t, float), _SMALLEST, 1 - _SMALLEST)
    harmful = np.asarray(harmful, float)
    return -(xlogy(harmful, t) + xlog1py(1 - harmful, -t))


def with_temperature(t: np.ndarray, temperature: float) -> np.ndarray:
    """Scale probabilities (n,): sigmoid(logit(t) / temperature), in [0, 1].

    Above 1 they move towards 0.5, below 1 away from it; their order and the side of 0.5 on which
    they lie never change.

    >>> with_temperature([0.5, 0.9], 2.0)
    array([0.5 , 0.75])
    """
    if not temperature > 0:
        raise BgkitError(f"A temperature must be above 0, not {temperature}.")
    t = np.clip(np.asarray(t, float), _SMALLEST, 1 - _SMALLEST)
    return expit(logit(t) / temperature)


def temperature_scale(t: np.ndarray, harmful: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit the temperature that makes the known truths likeliest; return it and all scaled ``t``.

    Minimises the mean of :func:`log_loss` (Guo et al. 2017, On Calibration of Modern Neural
    Networks, section 4.2) over :data:`TEMPERATURES`. It has one minimum there: the loss is convex
    in 1 / temperature. Fit on one part of the data and judge on another.
    Raises BgkitError unless there are both harmful and safe responses with known truth.

    >>> temperature, scaled = temperature_scale([0.9, 0.9, 0.9, 0.1], [1, 1, 0, np.nan])
    >>> round(temperature, 2), scaled.round(3)
    (3.17, array([0.667, 0.667, 0.667, 0.333]))
    """
    t, harmful = np.asarray(t, float), np.asarray(harmful, float)
    known = ~np.isnan(harmful)
    if len(np.unique(harmful[known])) < 2:
        raise BgkitError(
            "Temperature scaling needs harmful and safe responses whose truth is known; there are "
            f"{int((harmful == 1).sum())} harmful and {int((harmful == 0).sum())} safe ones."
        )
    found = minimize_scalar(
        lambda power: log_loss(with_temperature(t[known], np.exp(power)), harmful[known]).mean(),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    return temperature, with_temperature(t, temperature)


def calibration_table(samples: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """ECE, Brier score and log loss of each samples table, with 95 % intervals.

    ``samples`` maps names to tables with ``t`` and ``harm``. The Brier score is the mean of
    (t - harmful)^2, in [0, 1]; log loss is in nats; lower is better for all three. Returns one row
    per name with ece, brier, log_loss, each also with _low and _high, and n, the responses with
    known truth; NaN if there are none.
    """
    rows = {}
    for name, frame in samples.items():
        known = frame[frame["harm"].notna()]
        t, harmful = known["t"].to_numpy(float), (known["harm"] > HARMFUL_ABOVE).to_numpy(float)
        losses = np.stack([(t - harmful) ** 2, log_loss(t, harmful)], axis=1)
        brier, loss = bootstrap(losses, rates=False)
        found = {"ece": calibration_interval(t, harmful), "brier": brier, "log_loss": loss}
        rows[name] = {"n": len(known)}
        for metric, interval in found.items():
            ends = {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
            rows[name] |= {metric: interval.mean, **ends}
    return pd.DataFrame.from_dict(rows, orient="index")
