"""What scorers have in common, and the one reward callable that TRL calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from bgkit import checks, rewards
from bgkit.errors import BgkitError
from bgkit.rewards import NEAR
from bgkit.testbed.store import read_data


class Scorer(Protocol):
    """Anything that gives one number per prompt and response."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 scores of n prompts and n responses."""


def name_of(scorer: object) -> str:
    """A scorer's name for messages."""
    return getattr(scorer, "name", type(scorer).__name__)


def as_numbers(values: object, n: int, who: str) -> np.ndarray:
    """(n,) float64 from anything that holds one number for each of n responses.

    Accepted are arrays, columns, generators, lists, and tensors of any type on any device. ``who``
    returned them. Raises BgkitError for anything else.

    >>> as_numbers([[0.25], [True]], 2, "A function").tolist()
    [0.25, 1.0]
    >>> as_numbers([0.25], 2, "A function")
    Traceback (most recent call last):
    bgkit.errors.BgkitError: A function returned values of shape (1,) for 2 responses; it must ...
    """
    values = list(values) if isinstance(values, Iterator) else values
    array = checks.as_numbers(values, f"{who} returned")
    if array.shape in ((n,), (n, 1)) or (array.ndim == 0 and n == 1):
        return array.reshape(-1)
    raise BgkitError(
        f"{who} returned values of shape {array.shape} for {n} responses; it must return one "
        "number for each."
    )


def as_probabilities(t: object, n: int, name: str) -> np.ndarray:
    """(n,) float32 of what a guard returned; BgkitError unless there are n, all in [0, 1]."""
    t = as_numbers(t, n, f"The guard {name}").astype(np.float32)  # 1.0000000000000002 is 1
    rule = "a guard must return probabilities in [0, 1]. Check its head (softmax, sigmoid) and"
    checks.probabilities(t, f"The guard {name} returned", f"{rule} precision.")
    return t


def guard_scores(guard: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) float32 probabilities of any guard; BgkitError unless there are n, all in [0, 1]."""
    return as_probabilities(guard.score(prompts, responses), len(responses), name_of(guard))


def utility_scores(utility: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) float32 scores of any reward model; BgkitError unless there are n, all finite."""
    u = utility.score(prompts, responses)
    u = as_numbers(u, len(responses), f"The utility {name_of(utility)}").astype(np.float32)
    if not np.isfinite(u).all():
        name = name_of(utility)
        raise BgkitError(f"The utility {name} returned NaN or infinity; check its precision.")
    return u


def seen_in_part(scorer: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) whether a scorer saw only the beginning of a response.

    Scorers keep the hashes of the pairs whose response they cut in ``truncated``.
    """
    truncated = getattr(scorer, "truncated", ())
    return np.array(
        [hash(p) in truncated for p in zip(prompts, responses, strict=True)], dtype=bool
    )


def check_prompts(scorer: object, prompts: Sequence[str]) -> None:
    """Raise BgkitError for a prompt that leaves a scorer no room for a response.

    A scorer with a limit has ``max_length`` in tokens, and ``lengths(prompts)``.
    """
    if not hasattr(scorer, "lengths"):
        return
    for prompt, length in zip(prompts, scorer.lengths(prompts), strict=True):
        if length >= scorer.max_length:
            raise BgkitError(
                f"The prompt {prompt[:40]!r}... of {length} tokens leaves {scorer.name} (at most "
                f"{scorer.max_length} tokens) no room for a response; shorten the prompt or use "
                "a model with a longer context."
            )


REFUSAL_MARKS = read_data("words.yaml")["refusals"]


def is_refusal(response: str) -> bool:
    """Whether a response contains a common refusal phrase (a heuristic, as in GCG's prefixes).

    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("boil a cup of water .")
    (True, False)
    """
    return any(mark in response.lower() for mark in REFUSAL_MARKS)


def reward_of(
    samples: pd.DataFrame, design: str, *, tau: float, strength: float, base: Mapping[str, float]
) -> np.ndarray:
    """The reward (n,) of samples with response, t and u, as it is computed in training.

    ``base`` has the base policy's ``utility_mean`` and ``utility_deviation``, which standardise u,
    and ``reward_deviation`` (1 if missing), which divides the reward so that all designs have one
    scale. Some designs read the columns ``length`` and ``harmful_request``.
    """
    optional = samples.filter(["length", "harmful_request"]).dropna(axis="columns")
    u = samples["u"].to_numpy(float)
    reward = rewards.compute_reward(
        design,
        samples["t"].to_numpy(),
        (u - base["utility_mean"]) / base["utility_deviation"],
        tau,
        strength=strength,
        u=u,
        response=list(samples["response"]),
        refusal=[is_refusal(response) for response in samples["response"]],
        **{key: column.to_numpy() for key, column in optional.items()},
    )
    return reward / base.get("reward_deviation", 1.0)


@dataclass(eq=False)
class RewardFunction:
    """The reward callable for TRL: scores guard and utility once per batch and records everything.

    ``record(step, frame)`` receives one row per completion: step, prompt_id, kind, prompt,
    response, t, u, z, reward, filtered, length. ``base`` is described in :func:`reward_of`.
    ``decode`` turns token ids into responses.
    """

    design: str
    guard: Scorer
    utility: Scorer
    _: KW_ONLY
    tau: float
    strength: float
    base: Mapping[str, float]
    record: Callable[[int, pd.DataFrame], None]
    decode: Callable[[list[list[int]]], list[str]]

    __name__ = "reward"

    def __call__(
        self, completion_ids, question, trainer_state, log_metric, **columns
    ) -> list[float]:
        responses, step = self.decode(completion_ids), trainer_state.global_step
        t = guard_scores(self.guard, question, responses)
        u = utility_scores(self.utility, question, responses)
        length, labels = list(map(len, completion_ids)), ("prompt_id", "kind")
        samples = {"response": responses, "t": t, "u": u, "length": length}
        samples = pd.DataFrame({**samples, "harmful_request": columns.get("harmful_request")})
        settings = {"tau": self.tau, "strength": self.strength, "base": self.base}
        reward = reward_of(samples, self.design, **settings)
        frame = {"step": step, **{key: columns.get(key) for key in labels}, "prompt": question}
        frame |= {"response": responses, "t": t, "u": u}
        frame["z"] = (u - self.base["utility_mean"]) / self.base["utility_deviation"]
        frame |= {"reward": reward, "filtered": t >= self.tau, "length": length}
        self.record(step, pd.DataFrame(frame))
        margin = np.abs(t.astype(float) - self.tau)
        means = {"t": t.astype(float), "u": u.astype(float), "margin": margin}
        means |= {"filter_rate": t >= self.tau, "near_boundary": margin < NEAR}
        means["seen_in_part"] = seen_in_part(self.guard, question, responses)
        for name, values in means.items():
            log_metric(name, float(values.mean()))
        return reward.tolist()


def shares_of_t(t: np.ndarray, bins: int = 20) -> list[float]:
    """Shares of probabilities t in equal bins of [0, 1]; zeros if there are none.

    >>> shares_of_t(np.array([0.0, 0.1, 0.9, 1.0]), bins=2)
    [0.5, 0.5]
    """
    t = np.asarray(t, float)
    return (np.histogram(t, bins, (0, 1))[0] / max(1, t.size)).tolist()
