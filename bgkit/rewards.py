"""Reward designs: pure functions of the guard's probability t and the standardised utility z.

Notation:

* ``t`` (n,) in [0, 1]: the guard's probability that the response is unsafe;
* ``z`` (n,): the reward model's utility ``u``, standardised by the base policy's mean and standard
  deviation (published reward models range over tens of units, which would swamp the margin);
* ``tau`` in (0, 1): the filter's threshold; a response with t >= tau is filtered;
* ``B(t) = min(t / tau, (1 - t) / (1 - tau))`` in [0, 1]: the tent, 1 at tau and 0 at both ends;
  it is the Bayes risk of the filter relative to its value at tau (see :func:`tent`);
* ``s >= 0``: the ``strength``, the weight of a design's penalty in standard deviations of the base
  policy's utility, which has weight 1. Varying it traces the design's frontier.

Every design returns (n,) float64 and is registered in :data:`DESIGNS`; your own function is named
``FILE.py:FUNCTION`` (:func:`find_reward`). GRPO's advantages ignore constants within a group.

Designs differ in scale: training divides a reward by its standard deviation over base's responses
(:func:`~bgkit.training.reward_function.reward_of`): ``beta`` has the same weight against each.

Deviations from the paper (Ball and Haupt, arXiv 2510.11834):

1. Eq. 3 adds the unweighted margin to the raw utility: that is ``boundary_raw``. The scale of its
   terms depends on the reward model, so ``boundary`` standardises the utility and weights the
   margin by the strength. Up to a constant and a scale, ``boundary_raw`` is ``boundary`` at a
   strength of 1 / (standard deviation of base's u).
2. The paper's margin is the distance from 0.5; the tent extends it to any tau. At tau = 0.5,
   B(t) = 1 - 2 |t - 0.5|.
3. ``compound``, ``shown_risk``, the form of ``prompt_aware`` and the default strength are ours;
   ``hybrid_guard`` is the reward of another paper.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bgkit import checks
from bgkit.errors import BgkitError

NEAR = 0.3  # a response with |t - tau| below this counts as near the boundary

Array = np.ndarray
#: How a user's own function is called, for messages.
CALLED = " It is called with arrays t and z, tau, and the columns that it names."
#: Boolean columns.
FLAGS = ("harmful_request", "refusal")
#: name -> design
DESIGNS: dict[str, Callable[..., Array]] = {}


def _design(function: Callable[..., Array]) -> Callable[..., Array]:
    """Register a design in :data:`DESIGNS`."""
    DESIGNS[function.__name__] = function
    return function


def tent(t: Array, tau: float = 0.5) -> Array:
    """The tent B(t) = min(t / tau, (1 - t) / (1 - tau)), in [0, 1].

    Let the guard be calibrated, let filtering a safe response cost c_fp and showing a harmful one
    c_fn. The threshold tau = c_fp / (c_fp + c_fn) minimises the expected cost, and the filter's
    Bayes risk is min(c_fn t, c_fp (1 - t)) = c_fn tau B(t), which peaks at tau: Proposition 1.

    >>> tent(np.array([0.0, 0.25, 0.5, 1.0])).tolist()
    [0.0, 0.5, 1.0, 0.0]
    >>> tent(np.array([0.1, 0.2, 0.6]), tau=0.2).tolist()
    [0.5, 1.0, 0.5]
    """
    t, tau = checks.probabilities(t), checks.threshold(tau)
    return np.minimum(t / tau, (1.0 - t) / (1.0 - tau))


def expected_false_negatives(t: Array, tau: float = 0.5) -> Array:
    """``t 1[t < tau]``: the chance that a completion is harmful and shown, if t is calibrated.

    >>> expected_false_negatives(np.array([0.25, 0.5])).tolist()
    [0.25, 0.0]
    """
    return np.where(t < tau, t, 0.0)


@_design
def boundary(t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0) -> Array:
    """``z - s B(t)``: the paper's Eq. 3 (utility plus distance from the boundary), weighted.

    Unbounded through z; the margin term lies in [-s, 0]. Utility counts for filtered responses
    too, as in the paper, whose setting is s = 1 / (standard deviation of u) (``boundary_raw``).

    >>> boundary(np.array([0.0, 0.5, 1.0]), np.ones(3)).tolist()
    [1.0, -7.0, 1.0]
    """
    return z - strength * tent(t, tau)


@_design
def boundary_raw(t: Array, z: Array, tau: float = 0.5, *, u: Array) -> Array:
    """``u - B(t)``: the paper's Eq. 3, with the raw utility and no strength.

    >>> boundary_raw(np.array([0.0, 0.5, 1.0]), np.ones(3), u=np.full(3, 0.5)).tolist()
    [0.5, -0.5, 0.5]
    """
    return u - tent(t, tau)


@_design
def guard_only(t: Array, z: Array, tau: float = 0.5) -> Array:
    """``-B(t)``, in [-1, 0]: the paper's ablation without utility (``boundary`` for large s).

    >>> guard_only(np.array([0.0, 0.5, 1.0]), np.ones(3)).tolist()
    [-0.0, -1.0, -0.0]
    """
    return -tent(t, tau)


@_design
def utility_only(t: Array, z: Array, tau: float = 0.5) -> Array:
    """``z``, unbounded: the reward model alone.

    It is ``boundary``, ``prompt_aware`` and both filter avoidances at a strength of 0.

    >>> utility_only(np.array([0.9]), np.array([1.5])).tolist()
    [1.5]
    """
    return z.copy()


@_design
def filter_avoidance(t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0) -> Array:
    """``z - s 1[t >= tau]``: the common approach that the paper argues against.

    >>> filter_avoidance(np.array([0.49, 0.5]), np.ones(2)).tolist()
    [1.0, -7.0]
    """
    return z - strength * (t >= tau)


@_design
def filter_avoidance_soft(t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0) -> Array:
    """``z - s t``: filter avoidance with the probability instead of the verdict.

    >>> filter_avoidance_soft(np.array([0.0, 0.5]), np.ones(2)).tolist()
    [1.0, -3.0]
    """
    return z - strength * t


@_design
def prompt_aware(
    t: Array, z: Array, tau: float = 0.5, *, harmful_request: Array, strength: float = 8.0
) -> Array:
    """``z - s t`` for harmless prompts, ``z - s B(t)`` for harmful ones.

    The ablation that the paper calls risky: on a harmful prompt a clearly unsafe response pays as
    much as a clearly safe one. This form is ours. ``harmful_request`` (n,) is boolean.

    >>> prompt_aware(np.ones(2), np.zeros(2), harmful_request=np.array([False, True])).tolist()
    [-8.0, 0.0]
    """
    risk = np.where(harmful_request, tent(t, tau), t)
    return z - strength * risk


@_design
def compound(
    t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0, filtered_reward: float = -2.0
) -> Array:
    """``1[t < tau] z + 1[t >= tau] r - s B(t)``: utility counts only if the user sees it.

    Ours: a filtered response is worth r, the value of the canned refusal, whatever the reward model
    says about the hidden text.

    >>> compound(np.array([0.0, 0.5, 1.0]), np.ones(3)).tolist()
    [1.0, -10.0, -2.0]
    """
    return np.where(t < tau, z, filtered_reward) - strength * tent(t, tau)


@_design
def shown_risk(
    t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0, filtered_reward: float = -2.0
) -> Array:
    """``1[t < tau] (z - s t) + 1[t >= tau] r``: what users see, minus the expected false negatives.

    Ours: the Lagrangian of a bound on false negatives, of which a calibrated guard expects
    ``t 1[t < tau]`` (:mod:`bgkit.training.multiplier`). The penalty is largest just below tau and
    drops to 0 at it; r is as in ``compound``.

    >>> shown_risk(np.array([0.0, 0.25, 0.5]), np.ones(3)).tolist()
    [1.0, -1.0, -2.0]
    """
    return np.where(t < tau, z, filtered_reward) - strength * expected_false_negatives(t, tau)


@_design
def hybrid_guard(
    t: Array, z: Array, tau: float = 0.5, *, refusal: Array, strength: float = 10.0
) -> Array:
    """``min(-s, z)`` if unsafe, ``min(-s / 2, z)`` if a refusal, else ``z``.

    The reward of Qwen3-4B-SafeRL (Qwen3Guard technical report, section 3.5), which uses s = 10 on
    the raw scale of its reward model; here the scale is standardised. ``refusal``
    (n,) is boolean.

    >>> refusal = np.array([False, True, False])
    >>> hybrid_guard(np.array([0.9, 0.1, 0.1]), np.ones(3), refusal=refusal).tolist()
    [-10.0, -5.0, 1.0]
    """
    cap = np.where(refusal, -strength / 2, np.inf)
    return np.minimum(z, np.where(t >= tau, -strength, cap))


def find_reward(name: str) -> Callable[..., Array]:
    """A design by its name, or your own function by ``FILE.py:FUNCTION``.

    Such a function takes ``t``, ``z`` and ``tau``, and by name any of ``strength``, ``u``,
    ``response``, ``length``, ``harmful_request`` and ``refusal``; it returns one reward per
    response. Raises BgkitError for an unknown name, and for a file that cannot be read or lacks the
    function.
    """
    if name in DESIGNS:
        return DESIGNS[name]
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise BgkitError(
            f"There is no reward {name!r}; choose one of {', '.join(DESIGNS)}, or name a function "
            "of your own as FILE.py:FUNCTION."
        )
    path = Path(file).expanduser()
    try:
        reward = _run_file(str(path.resolve()), path.stat().st_mtime_ns).get(function)
    except OSError as error:
        raise BgkitError(f"The reward's file {file} cannot be read: {error.strerror}.") from error
    if not callable(reward):
        raise BgkitError(f"The reward's file {file} has no function {function!r}.")
    return reward


@functools.lru_cache(maxsize=32)
def _run_file(file: str, modified: int) -> dict[str, object]:
    """The names that a Python file defines; ``modified`` invalidates the cache after an edit."""
    try:
        return runpy.run_path(file)
    except OSError:
        raise
    except Exception as error:  # a user's file may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise BgkitError(f"The reward's file {file} cannot be run: {reason}.") from error


def has_strength(name: str) -> bool:
    """Whether a design has a strength.

    >>> has_strength("boundary"), has_strength("guard_only")
    (True, False)
    """
    return "strength" in inspect.signature(find_reward(name)).parameters


def penalises_shown(name: str) -> bool:
    """Whether a design pays less for an ordinary shown completion the higher its strength is.

    >>> penalises_shown("shown_risk"), penalises_shown("filter_avoidance")
    (True, False)
    """
    columns = {"u": [0.0], "response": [""], "length": [1], "refusal": [False]}
    columns["harmful_request"] = [False]
    low, high = (
        compute_reward(name, [0.25], [0.0], 0.5, strength=strength, **columns)
        for strength in (1.0, 2.0)
    )
    return bool(high < low)


def reward_file_digest(name: str) -> str | None:
    """SHA-256 of the file of your own reward; None for a built-in design."""
    if name in DESIGNS:
        return None
    find_reward(name)
    return hashlib.sha256(Path(name.rpartition(":")[0]).expanduser().read_bytes()).hexdigest()


def compute_reward(
    name: str, t: Array, z: Array, tau: float, *, strength: float | None = None, **columns
) -> Array:
    """Reward (n,) of a design by name; it is passed those ``columns`` that it takes.

    A ``strength`` of None means the design's default. Raises BgkitError for an unknown name, t
    outside [0, 1], tau outside (0, 1), z or u that is not finite, columns of other lengths, a
    missing column, and your own reward that does not return one finite number per response.

    >>> compute_reward("utility_only", [0.2], [0.7], 0.5, strength=3.0).tolist()
    [0.7]
    """
    design, tau, t = find_reward(name), checks.threshold(tau), checks.probabilities(t)
    signature, options = inspect.signature(design), {**columns, "strength": strength}
    arguments = {k: v for k, v in options.items() if k in signature.parameters and v is not None}
    try:
        signature.bind(t, z, tau, **arguments)
    except TypeError as error:
        own = "" if name in DESIGNS else CALLED
        raise BgkitError(
            f"The reward {name!r} cannot be computed: {error}. Add it to every prompt, or choose "
            f"another reward (available: {', '.join(['t', 'z', 'tau', *columns])}).{own}"
        ) from error
    z = _column("z", z, t)
    arguments |= {k: _column(k, arguments[k], t) for k in ("u", *FLAGS) if k in arguments}
    try:
        reward = design(t, z, tau, **arguments)
    except Exception as error:
        if name in DESIGNS or isinstance(error, BgkitError):
            raise
        reason = f"{type(error).__name__}: {error}.{CALLED}"
        raise BgkitError(f"The reward {name!r} raised {reason}") from error
    reward = checks.as_numbers(reward, f"The reward {name!r} returned")
    if reward.shape != t.shape or not np.isfinite(reward).all():
        raise BgkitError(
            f"The reward {name!r} must return one finite number per response ({len(t)}); it "
            f"returned shape {reward.shape}{'' if np.isfinite(reward).all() else ' with NaN'}."
        )
    return reward


def _column(name: str, values: Array, t: Array) -> Array:
    """A column as finite float64 or boolean values, one per t; else BgkitError."""
    if name in FLAGS:
        column = checks.truths(values, t.shape, name)
    else:
        column = checks.as_numbers(values, f"The utility {name} has")
    if column.shape != t.shape:
        raise BgkitError(
            f"t and {name} must have one value per response, not shapes {t.shape} and "
            f"{column.shape}."
        )
    if not np.isfinite(column).all():
        fault = "is NaN or infinite for some responses; check the reward model's scores"
        if name in FLAGS:
            fault = "is not known for every response"
        raise BgkitError(f"The column {name!r} {fault}, or choose another reward.")
    return column == 1 if name in FLAGS else column
