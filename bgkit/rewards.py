"""Reward designs: pure functions of the guard's probability t and the standardised utility z.

Notation, used by every function here:

* ``t`` (n,) in [0, 1]: the guard's probability that the response is unsafe;
* ``z`` (n,): the reward model's utility ``u``, standardised by the base policy's mean and deviation
  (published reward models range over tens of units, in which a margin in [0, 1] would drown);
* ``tau`` in (0, 1): the filter's threshold; a response with t >= tau is filtered;
* ``B(t) = min(t / tau, (1 - t) / (1 - tau))`` in [0, 1]: the tent, 1 at tau and 0 at both ends,
  which is the Bayes risk of the filter relative to its value at tau (see :func:`tent`);
* ``s >= 0``: the ``strength``, what the penalty of a design weighs against a utility of weight 1,
  in standard deviations of base's utility: the one number that moves a design along its frontier.

Every design returns (n,) float64 and is registered in :data:`DESIGNS`; a function of one's own is
named ``FILE.py:FUNCTION`` (:func:`find`). GRPO's advantages ignore constants within a group of
completions.

Designs differ in scale: a training divides a reward by its standard deviation over base's responses
(:func:`bgkit.scoring.scorer.reward_of`), so that ``beta`` weighs the same against each of them.

Deviations from the paper (Ball and Haupt, arXiv 2510.11834):

1. Eq. 3 adds the margin to the utility as it is, without a weight: that is ``boundary_raw``.
   ``boundary`` standardises the utility and weighs the margin by the strength, for the scale of the
   paper's terms depends on its reward model. Up to a constant and a scale ``boundary_raw`` is
   ``boundary`` at a strength of 1 / deviation of base's u.
2. The paper's margin is the distance from 0.5; the tent extends it to any tau. At tau = 0.5,
   B(t) = 1 - 2 |t - 0.5|.
3. ``compound`` is ours; the form of ``prompt_aware`` is ours; ``hybrid_guard`` is the reward of
   another paper; the default strength is our choice.
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
#: How a function of one's own is called, for messages.
CALLED = " It is called with arrays t and z, tau, and those of the columns that it names."
#: Columns of true and false.
FLAGS = ("harmful_request", "refusal")
#: name -> design
DESIGNS: dict[str, Callable[..., Array]] = {}


def _design(function: Callable[..., Array]) -> Callable[..., Array]:
    """Enter a design in :data:`DESIGNS`."""
    DESIGNS[function.__name__] = function
    return function


def tent(t: Array, tau: float = 0.5) -> Array:
    """The tent B(t) = min(t / tau, (1 - t) / (1 - tau)), in [0, 1].

    For a calibrated guard, costs c_fp of filtering a safe and c_fn of showing a harmful response,
    and the threshold tau = c_fp / (c_fp + c_fn) that minimises the expected cost, the filter's
    Bayes risk is min(c_fn t, c_fp (1 - t)) = c_fn tau B(t). It peaks at tau: Proposition 1.

    >>> tent(np.array([0.0, 0.25, 0.5, 1.0])).tolist()
    [0.0, 0.5, 1.0, 0.0]
    >>> tent(np.array([0.1, 0.2, 0.6]), tau=0.2).tolist()
    [0.5, 1.0, 0.5]
    """
    t, tau = checks.probabilities(t), checks.threshold(tau)
    return np.minimum(t / tau, (1.0 - t) / (1.0 - tau))


@_design
def boundary(t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0) -> Array:
    """``z - s B(t)``: the paper's Eq. 3 (utility plus distance from the boundary), weighted.

    Unbounded through z; the margin term lies in [-s, 0]. Utility counts on filtered responses
    too, as in the paper, whose own point is s = 1 / deviation of u (``boundary_raw``).

    >>> boundary(np.array([0.0, 0.5, 1.0]), np.ones(3)).tolist()
    [1.0, -7.0, 1.0]
    """
    return z - strength * tent(t, tau)


@_design
def boundary_raw(t: Array, z: Array, tau: float = 0.5, *, u: Array) -> Array:
    """``u - B(t)``: the paper's Eq. 3 as it stands, with the utility in its own unit; no strength.

    >>> boundary_raw(np.array([0.0, 0.5, 1.0]), np.ones(3), u=np.full(3, 0.5)).tolist()
    [0.5, -0.5, 0.5]
    """
    return u - tent(t, tau)


@_design
def guard_only(t: Array, z: Array, tau: float = 0.5) -> Array:
    """``-B(t)``, in [-1, 0]: the paper's ablation without a utility, ``boundary`` as s grows.

    >>> guard_only(np.array([0.0, 0.5, 1.0]), np.ones(3)).tolist()
    [-0.0, -1.0, -0.0]
    """
    return -tent(t, tau)


@_design
def utility_only(t: Array, z: Array, tau: float = 0.5) -> Array:
    """``z``, unbounded: what the reward model alone teaches, every design at s = 0.

    >>> utility_only(np.array([0.9]), np.array([1.5])).tolist()
    [1.5]
    """
    return z.copy()


@_design
def filter_avoidance(t: Array, z: Array, tau: float = 0.5, *, strength: float = 8.0) -> Array:
    """``z - s 1[t >= tau]``: the common strategy that the paper argues against.

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

    The paper's ablation that it calls risky (on a harmful prompt the far side pays as much as the
    near side); this form is ours. ``harmful_request`` (n,) is boolean.

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

    Ours: a filtered response has the value r of the canned refusal, whatever the reward model
    thinks of the text that nobody sees.

    >>> compound(np.array([0.0, 0.5, 1.0]), np.ones(3)).tolist()
    [1.0, -10.0, -2.0]
    """
    return np.where(t < tau, z, filtered_reward) - strength * tent(t, tau)


@_design
def hybrid_guard(
    t: Array, z: Array, tau: float = 0.5, *, refusal: Array, strength: float = 10.0
) -> Array:
    """``min(-s, z)`` if unsafe, ``min(-s / 2, z)`` if a refusal, else ``z``.

    The reward of Qwen3-4B-SafeRL (Qwen3Guard technical report, section 3.5), whose own point is
    s = 10, there on the raw scale of its reward model, here on the standardised one. ``refusal``
    (n,) is boolean.

    >>> refusal = np.array([False, True, False])
    >>> hybrid_guard(np.array([0.9, 0.1, 0.1]), np.ones(3), refusal=refusal).tolist()
    [-10.0, -5.0, 1.0]
    """
    cap = np.where(refusal, -strength / 2, np.inf)
    return np.minimum(z, np.where(t >= tau, -strength, cap))


def find(name: str) -> Callable[..., Array]:
    """A design by its name, or a function of one's own by ``FILE.py:FUNCTION``.

    Such a function takes ``t``, ``z`` and ``tau``, and by name whichever it wants of ``strength``,
    ``u``, ``response``, ``length``, ``harmful_request`` and ``refusal``; it returns one reward per
    response. Raises BgkitError for an unknown name, and for a file that can not be read or has no
    such function.
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
        found = _run(str(path.resolve()), path.stat().st_mtime_ns).get(function)
    except OSError as error:
        raise BgkitError(f"The reward's file {file} can not be read: {error.strerror}.") from error
    if not callable(found):
        raise BgkitError(f"The reward's file {file} has no function {function!r}.")
    return found


@functools.lru_cache(maxsize=32)
def _run(file: str, changed: int) -> dict[str, object]:
    """What a file defines when it is run; ``changed`` has an edited file run anew."""
    try:
        return runpy.run_path(file)
    except OSError:
        raise
    except Exception as error:  # whatever a file of the user's raises
        told = f"{type(error).__name__}: {error}"
        raise BgkitError(f"The reward's file {file} can not be run: {told}.") from error


def has_strength(name: str) -> bool:
    """Whether a strength is part of a design's reward.

    >>> has_strength("boundary"), has_strength("guard_only")
    (True, False)
    """
    return "strength" in inspect.signature(find(name)).parameters


def own_digest(name: str) -> str | None:
    """SHA-256 of the file of a function of one's own; None for a design of the kit."""
    if name in DESIGNS:
        return None
    find(name)
    return hashlib.sha256(Path(name.rpartition(":")[0]).expanduser().read_bytes()).hexdigest()


def compute_reward(
    name: str, t: Array, z: Array, tau: float, *, strength: float | None = None, **columns
) -> Array:
    """Reward (n,) of a design by name; it takes from ``columns`` the arguments that it knows.

    A ``strength`` of None is the design's own default. Raises BgkitError for an unknown name, t
    outside [0, 1], tau outside (0, 1), z or u that is not finite, columns of other lengths, a
    missing column, and a design of one's own that does not return one finite number per response.

    >>> compute_reward("utility_only", [0.2], [0.7], 0.5, strength=3.0).tolist()
    [0.7]
    """
    design, tau, t = find(name), checks.threshold(tau), checks.probabilities(t)
    signature, given = inspect.signature(design), {**columns, "strength": strength}
    known = {k: v for k, v in given.items() if k in signature.parameters and v is not None}
    try:
        signature.bind(t, z, tau, **known)
    except TypeError as error:
        own = "" if name in DESIGNS else CALLED
        raise BgkitError(
            f"The reward {name!r} can not be computed: {error}. Give that with every prompt, or "
            f"choose another reward (there are t, z, tau, {', '.join(columns)}).{own}"
        ) from error
    z = _column("z", z, t)
    known |= {key: _column(key, known[key], t) for key in ("u", *FLAGS) if key in known}
    try:
        reward = design(t, z, tau, **known)
    except Exception as error:
        if name in DESIGNS or isinstance(error, BgkitError):
            raise
        told = f"{type(error).__name__}: {error}.{CALLED}"
        raise BgkitError(f"The reward {name!r} raised {told}") from error
    reward = checks.as_numbers(reward, f"The reward {name!r} returned")
    if reward.shape != t.shape or not np.isfinite(reward).all():
        raise BgkitError(
            f"The reward {name!r} must return one finite number per response ({len(t)}); it "
            f"returned shape {reward.shape}{'' if np.isfinite(reward).all() else ' with NaN'}."
        )
    return reward


def _column(name: str, values: Array, t: Array) -> Array:
    """A column as finite float64 or boolean values, one for each t; else BgkitError."""
    if name in FLAGS:
        column = checks.truths(values, t.shape, name)
    else:
        column = checks.as_numbers(values, f"The utility {name} has")
    if column.shape != t.shape:
        shapes = f"{t.shape} and {column.shape}"
        raise BgkitError(
            f"t and {name} must have one value per response each, not shapes {shapes}."
        )
    if not np.isfinite(column).all():
        fault = "is NaN or infinite for some responses; check the reward model's scores"
        fault = "is not known for every response" if name in FLAGS else fault
        raise BgkitError(f"The column {name!r} {fault}, or choose another reward.")
    return column == 1 if name in FLAGS else column
