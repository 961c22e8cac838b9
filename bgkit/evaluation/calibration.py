"""Calibration of a guard's probabilities, and temperature scaling.

``t`` (n,) are the guard's probabilities that a response is unsafe, in [0, 1]; ``harmful`` (n,) is
the truth as 1 or 0 (True or False), NaN where unknown. Responses without truth are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import TAIL, UNKNOWN, Interval, bootstrap, interval_columns
from bgkit.scoring.scorer import with_scores
from bgkit.scoring.temperature import log_loss, temperature_scale, with_temperature
from bgkit.testbed.oracle import HARMFUL_ABOVE

BINS = 10  # of t, equally wide
RESAMPLES = 300


def bins_of(t: np.ndarray) -> np.ndarray:
    """Numbers (n,) of the bins of t (n,), from 0 to :data:`BINS` - 1."""
    return np.minimum((t * BINS).astype(int), BINS - 1)


def plain_ece(t: np.ndarray, harmful: np.ndarray) -> float:
    """Plain ECE of checked values (n,), n > 0: mean |mean t - harmful share| over bins."""
    return float(np.abs(np.bincount(bins_of(t), weights=t - harmful)).sum() / len(t))


def calibration_interval(t: np.ndarray, harmful: np.ndarray) -> Interval:
    """Bias-corrected ECE with its 95 % interval; NaN if no truth is known.

    Noise raises a plain ECE (the mean distance between mean t and harmful share over :data:`BINS`
    bins), and that of resampled responses more so. The mean is the plain ECE minus the resamples'
    mean excess over it (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", 10.2; Kumar,
    Liang and Ma 2019, arXiv 1909.10155). The interval mirrors their percentiles at it (Davison and
    Hinkley 1997, "Bootstrap Methods and their Application", 5.2) and starts at 0 where more than
    2.5 % of labels drawn with the probabilities t have an ECE as high (consistency resampling,
    Broecker and Smith 2007): a calibrated guard is not ruled out.
    """
    t = checks.probabilities(t)
    harmful = checks.truths(harmful, t.shape)
    t, harmful = t[~np.isnan(harmful)], harmful[~np.isnan(harmful)]
    n = len(t)
    if n == 0:
        return UNKNOWN
    rng, plain = np.random.default_rng(0), plain_ece(t, harmful)
    draws = (rng.integers(n, size=n) for _ in range(RESAMPLES))
    resampled = np.array([plain_ece(t[rows], harmful[rows]) for rows in draws])
    low, high = np.clip(2 * plain - np.quantile(resampled, (1 - TAIL, TAIL)), 0, 1)
    calibrated = [plain_ece(t, rng.random(n) < t) for _ in range(RESAMPLES)]
    if plain <= np.quantile(calibrated, 1 - TAIL):
        low = 0.0
    mean = float(np.clip(2 * plain - resampled.mean(), low, high))
    return Interval(mean, float(low), float(high))


def fit_on_half(samples: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Fit a temperature on every second response with known truth, and apply it to the others.

    Returns the other half "as it is" and with scaled t ("T = 1.30"). Raises BgkitError unless both
    halves have harmful and safe responses.
    """
    checks.samples(samples)
    graded = samples.dropna(subset=["harm"])
    harmful = graded["harm"] > HARMFUL_ABOVE
    if harmful[::2].nunique() < 2 or harmful[1::2].nunique() < 2:
        raise BgkitError(
            "No temperature can be fitted. Each half needs harmful and safe responses of known "
            f"truth; in all, {harmful.sum()} are harmful and {(~harmful).sum()} safe."
        )
    temperature, _ = temperature_scale(graded["t"][::2], harmful[::2])
    rest = graded[1::2]
    scaled = with_scores(rest, with_temperature(rest["t"], temperature))
    return {"as it is": rest, f"T = {temperature:.2f}": scaled}


def calibration_table(samples: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """ECE, Brier score and log loss (nats) of samples tables by name, with 95 % intervals.

    ECE is that of :func:`calibration_interval`, the Brier score the mean of (t - harmful)^2; lower
    is better for all three. One row per name: ece, brier, log_loss, each also with _low and _high
    (NaN without truth), and n, the number of responses with known truth.
    """
    rows = {}
    for name, frame in samples.items():
        checks.samples(frame, name)
        graded = frame.dropna(subset=["harm"])
        t, harmful = graded["t"].to_numpy(float), (graded["harm"] > HARMFUL_ABOVE).to_numpy(float)
        losses = np.stack([(t - harmful) ** 2, log_loss(t, harmful)], axis=1)
        brier, loss = bootstrap(losses, rates=False)
        scores = {"ece": calibration_interval(t, harmful), "brier": brier, "log_loss": loss}
        rows[name] = {"n": len(t), **interval_columns(scores)}
    return pd.DataFrame.from_dict(rows, orient="index")
