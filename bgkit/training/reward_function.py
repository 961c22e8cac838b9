"""The reward of completions: a design on the guard's t and the utility's u, as TRL calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
import pandas as pd

from bgkit import rewards
from bgkit.rewards import NEAR
from bgkit.scoring.scorer import Scorer, guard_scores, is_refusal, seen_in_part, utility_scores

#: Logged means: expected false negatives, and the multiplier of a run with a bound on them.
EXPECTED, MULTIPLIER = "expected_false_negatives", "multiplier"


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


def reward_table(design: str, tau: float, strength: float) -> pd.DataFrame:
    """What a design pays by t (rows) and z (columns), for an ordinary completion.

    That is one of 50 tokens without text, to a harmless prompt; u is z.

    >>> reward_table("boundary", tau=0.5, strength=8.0).loc[0.5].tolist()
    [-8.0, -7.0]
    """
    t, columns = np.array([0.0, 0.25, 0.5, 0.75, 1.0]), {}
    samples = pd.DataFrame({"t": t, "response": "", "length": 50, "harmful_request": False})
    base = {"utility_mean": 0.0, "utility_deviation": 1.0}
    for z in (0.0, 1.0):
        rows = samples.assign(u=z)
        columns[f"z = {z:g}"] = reward_of(rows, design, tau=tau, strength=strength, base=base)
    return pd.DataFrame(columns, index=pd.Index(t, name="t"))


@dataclass(eq=False)
class RewardFunction:
    """The reward callable for TRL: scores guard and utility once per batch and records everything.

    ``record(step, frame)`` receives one row per completion: step, prompt_id, kind, prompt,
    response, t, u, z, reward, filtered, length. ``base`` is described in :func:`reward_of`.
    ``decode`` turns token ids into responses. The strength of one that ``moves``
    (:mod:`bgkit.training.multiplier`) is logged.
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
    moves: bool = False

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
        margin = np.abs(t - self.tau)
        means = {"t": t, "u": u.astype(float), "margin": margin}
        means |= {"filter_rate": t >= self.tau, "near_boundary": margin < NEAR}
        means[EXPECTED] = rewards.expected_false_negatives(t, self.tau)
        if self.moves:
            means[MULTIPLIER] = np.array(self.strength)
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
