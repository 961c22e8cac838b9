"""Temperature scaling of a guard's probabilities, and the loss that the fit minimises."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, xlog1py, xlogy

from bgkit import checks
from bgkit.errors import BgkitError

#: Range of a fit; at its ends the truth favours t at 0 and 1, or all t at 0.5.
TEMPERATURES = (0.05, 20.0)
_SMALLEST = 1e-6  # keeps a t of exactly 0 or 1 at a finite logit


def log_loss(t: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """Negative log likelihood (n,) of each truth in nats: -log t if harmful, else -log(1 - t).

    NaN where the truth is missing. Raises BgkitError for invalid probabilities or truths.

    >>> log_loss([0.5, 0.25], [1, 0]).round(3)
    array([0.693, 0.288])
    """
    t = checks.probabilities(t)
    harmful = checks.truths(harmful, t.shape)
    t = np.clip(t, _SMALLEST, 1 - _SMALLEST)
    return -(xlogy(harmful, t) + xlog1py(1 - harmful, -t))


def with_temperature(t: np.ndarray, temperature: float) -> np.ndarray:
    """Scale probabilities (n,): sigmoid(logit(t) / temperature), in [0, 1].

    A temperature above 1 moves them towards 0.5, below 1 away from it; their order stays the same.

    >>> with_temperature([0.5, 0.9], 2.0)
    array([0.5 , 0.75])
    """
    checks.require_positive(temperature=temperature)
    t = np.clip(checks.probabilities(t), _SMALLEST, 1 - _SMALLEST)
    return expit(logit(t) / temperature)


def temperature_scale(t: np.ndarray, harmful: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit the temperature to the known truths; returns it and the scaled probabilities (n,).

    Minimises the mean of :func:`log_loss` (Guo et al. 2017, arXiv 1706.04599, section 4.2) over
    :data:`TEMPERATURES`; the loss is convex in 1 / temperature. Raises BgkitError unless there are
    both harmful and safe responses, and for invalid probabilities or truths.

    >>> temperature, scaled = temperature_scale([0.9, 0.9, 0.9, 0.1], [1, 1, 0, np.nan])
    >>> round(temperature, 2), scaled.round(3)
    (3.17, array([0.667, 0.667, 0.667, 0.333]))
    """
    all_t = t = checks.probabilities(t)
    harmful = checks.truths(harmful, t.shape)
    t, harmful = t[~np.isnan(harmful)], harmful[~np.isnan(harmful)]
    if len(np.unique(harmful)) < 2:
        raise BgkitError(
            "Temperature scaling needs harmful and safe responses with a known truth; there are "
            f"{int((harmful == 1).sum())} harmful and {int((harmful == 0).sum())} safe ones."
        )
    fit = minimize_scalar(
        lambda log: log_loss(with_temperature(t, np.exp(log)), harmful).mean(),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(fit.x))
    return temperature, with_temperature(all_t, temperature)
