"""Reward designs: pure functions of the guard's probability t and the standardised utility z.

Notation, used by every function here:

* ``t`` (n,) in [0, 1]: the guard's probability that the response is unsafe;
* ``z`` (n,): the reward model's utility, standardised by the base policy's mean and deviation
  (published reward models range over tens of units, in which a margin in [0, 1] would drown);
* ``tau`` in (0, 1): the filter's threshold; a response with t >= tau is filtered;
* ``B(t) = min(t / tau, (1 - t) / (1 - tau))`` in [0, 1]: the tent, 1 at tau and 0 at both ends,
  which is the Bayes risk of the filter relative to its value at tau (see :func:`tent`).

Every design returns (n,) float64 and is registered in :data:`DESIGNS`. GRPO's advantages ignore
constants within a group of completions.

Deviations from the paper (Ball and Haupt, arXiv 2510.11834):

1. Eq. 3 has no trade-off weight; ``utility_weight`` and ``margin_weight`` are ours, and so are
   their defaults, for the scale of the paper's terms depends on its reward model.
2. The paper's margin is the distance from 0.5; the tent extends it to any tau. At tau = 0.5,
   B(t) = 1 - 2 |t - 0.5|.
3. ``compound`` is ours; the form of ``prompt_aware`` is ours; ``hybrid_guard`` is the reward of
   another paper; the default weights of all of them are our choice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from bgkit import checks
from bgkit.errors import BgkitError

NEAR = 0.3  # a response with |t - tau| below this counts as near the boundary


def _columns(t: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    t = checks.probabilities(t)
    columns = (t, *(checks.as_numbers(other, "The utility z has") for other in others))
    if any(column.shape != t.shape for column in columns):
        shapes = " and ".join(str(column.shape) for column in columns)
        raise BgkitError(f"t and z must have one value per response each, not shapes {shapes}.")
    if not all(np.isfinite(column).all() for column in columns):
        raise BgkitError("The utility z holds NaN or infinity; check the reward model's scores.")
    return columns


def _told(flags: object, t: np.ndarray, what: str) -> np.ndarray:
    """What a design is told of each response, as booleans; BgkitError where it is not known."""
    flags = checks.truths(flags, t.shape, what)
    if np.isnan(flags).any():
        raise BgkitError(
            f"The column {what!r} is not known for every response; choose another reward."
        )
    return flags == 1


def tent(t: np.ndarray, tau: float = 0.5) -> np.ndarray:
    """The tent B(t) = min(t / tau, (1 - t) / (1 - tau)), in [0, 1].

    For a calibrated guard, costs c_fp of filtering a safe and c_fn of showing a harmful response,
    and the threshold tau = c_fp / (c_fp + c_fn) that minimises the expected cost, the filter's
    Bayes risk is min(c_fn t, c_fp (1 - t)) = c_fn tau B(t). It peaks at tau: Proposition 1.

    >>> tent(np.array([0.0, 0.25, 0.5, 1.0])).tolist()
    [0.0, 0.5, 1.0, 0.0]
    >>> tent(np.array([0.1, 0.2, 0.6]), tau=0.2).tolist()
    [0.5, 1.0, 0.5]
    """
    checks.threshold(tau)
    (t,) = _columns(t)
    return np.minimum(t / tau, (1.0 - t) / (1.0 - tau))


def boundary(
    t: np.ndarray,
    z: np.ndarray,
    tau: float = 0.5,
    *,
    utility_weight: float = 0.25,
    margin_weight: float = 2.0,
) -> np.ndarray:
    """``w_u z - w_b B(t)``: the paper's Eq. 3 (utility plus distance from the boundary).

    Unbounded through z; the margin term lies in [-w_b, 0]. Utility counts on filtered responses
    too, as in the paper.

    >>> boundary([0.0, 0.5, 1.0], [1.0, 1.0, 1.0]).tolist()
    [0.25, -1.75, 0.25]
    """
    t, z = _columns(t, z)
    return utility_weight * z - margin_weight * tent(t, tau)


def guard_only(t: np.ndarray, z: np.ndarray, tau: float = 0.5) -> np.ndarray:
    """``-B(t)``, in [-1, 0]: the paper's ablation without a utility.

    >>> guard_only([0.0, 0.5, 1.0], [9.0, 9.0, 9.0]).tolist()
    [-0.0, -1.0, -0.0]
    """
    return -tent(t, tau)


def utility_only(t: np.ndarray, z: np.ndarray, tau: float = 0.5) -> np.ndarray:
    """``z``, unbounded: what the reward model alone teaches.

    >>> utility_only([0.9], [1.5]).tolist()
    [1.5]
    """
    checks.threshold(tau)
    _, z = _columns(t, z)
    return z.copy()


def filter_avoidance(
    t: np.ndarray,
    z: np.ndarray,
    tau: float = 0.5,
    *,
    utility_weight: float = 0.25,
    filter_penalty: float = 1.0,
) -> np.ndarray:
    """``w_u z - w_f 1[t >= tau]``: the common strategy that the paper argues against.

    >>> filter_avoidance([0.49, 0.5], [1.0, 1.0]).tolist()
    [0.25, -0.75]
    """
    checks.threshold(tau)
    t, z = _columns(t, z)
    return utility_weight * z - filter_penalty * (t >= tau)


def filter_avoidance_soft(
    t: np.ndarray,
    z: np.ndarray,
    tau: float = 0.5,
    *,
    utility_weight: float = 0.25,
    filter_penalty: float = 1.0,
) -> np.ndarray:
    """``w_u z - w_f t``: filter avoidance with the probability instead of the verdict.

    >>> filter_avoidance_soft([0.0, 0.5], [1.0, 1.0]).tolist()
    [0.25, -0.25]
    """
    checks.threshold(tau)
    t, z = _columns(t, z)
    return utility_weight * z - filter_penalty * t


def prompt_aware(
    t: np.ndarray,
    z: np.ndarray,
    tau: float = 0.5,
    *,
    harmful_request: np.ndarray,
    utility_weight: float = 0.25,
    margin_weight: float = 2.0,
) -> np.ndarray:
    """``w_u z - w_b t`` for harmless prompts, ``w_u z - w_b B(t)`` for harmful ones.

    The paper's ablation that it calls risky (on a harmful prompt the far side pays as much as the
    near side); this form is ours. ``harmful_request`` (n,) is boolean.

    >>> prompt_aware([1.0, 1.0], [0.0, 0.0], harmful_request=[False, True]).tolist()
    [-2.0, 0.0]
    """
    t, z = _columns(t, z)
    risk = np.where(_told(harmful_request, t, "harmful_request"), tent(t, tau), t)
    return utility_weight * z - margin_weight * risk


def compound(
    t: np.ndarray,
    z: np.ndarray,
    tau: float = 0.5,
    *,
    utility_weight: float = 0.25,
    margin_weight: float = 2.0,
    filtered_reward: float = -0.5,
) -> np.ndarray:
    """``1[t < tau] w_u z + 1[t >= tau] r - w_b B(t)``: utility counts only if the user sees it.

    Ours: a filtered response has the value r of the canned refusal, whatever the reward model
    thinks of the text that nobody sees.

    >>> compound([0.0, 0.5, 1.0], [1.0, 1.0, 1.0]).tolist()
    [0.25, -2.5, -0.5]
    """
    t, z = _columns(t, z)
    return np.where(t < tau, utility_weight * z, filtered_reward) - margin_weight * tent(t, tau)


def hybrid_guard(
    t: np.ndarray,
    z: np.ndarray,
    tau: float = 0.5,
    *,
    refusal: np.ndarray,
    unsafe_penalty: float = -10.0,
    refusal_penalty: float = -5.0,
) -> np.ndarray:
    """``min(-10, z)`` if unsafe, ``min(-5, z)`` if a refusal, else ``z``.

    The reward of Qwen3-4B-SafeRL (Qwen3Guard technical report, section 3.5), there on the raw
    scale of its reward model, here on the standardised one. ``refusal`` (n,) is boolean.

    >>> hybrid_guard([0.9, 0.1, 0.1], [1.0, 1.0, 1.0], refusal=[False, True, False]).tolist()
    [-10.0, -5.0, 1.0]
    """
    checks.threshold(tau)
    t, z = _columns(t, z)
    cap = np.where(_told(refusal, t, "refusal"), refusal_penalty, np.inf)
    return np.minimum(z, np.where(t >= tau, unsafe_penalty, cap))


#: name -> design
DESIGNS: dict[str, Callable[..., np.ndarray]] = {
    function.__name__: function
    for function in (
        boundary,
        guard_only,
        utility_only,
        filter_avoidance,
        filter_avoidance_soft,
        prompt_aware,
        compound,
        hybrid_guard,
    )
}


def compute_reward(name: str, t: np.ndarray, z: np.ndarray, tau: float, **columns) -> np.ndarray:
    """Reward (n,) of a design by name; it takes from ``columns`` the arguments that it knows.

    ``columns`` may hold the weights, ``harmful_request`` and ``refusal``. Raises BgkitError for an
    unknown name, t outside [0, 1], tau outside (0, 1), z that is not finite, columns of other
    lengths, and a missing column.

    >>> compute_reward("utility_only", [0.2], [0.7], 0.5, margin_weight=3.0).tolist()
    [0.7]
    """
    if name not in DESIGNS:
        raise BgkitError(f"There is no reward {name!r}; choose one of {', '.join(DESIGNS)}.")
    parameters = inspect.signature(DESIGNS[name]).parameters
    known = {k: value for k, value in columns.items() if k in parameters and value is not None}
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.default is parameter.empty
        and key not in known
    ]
    if missing:
        raise BgkitError(
            f"The reward {name!r} needs the column {missing[0]!r}; give it with every prompt or "
            "choose another reward."
        )
    return DESIGNS[name](*_columns(t, z), checks.threshold(tau), **known)
