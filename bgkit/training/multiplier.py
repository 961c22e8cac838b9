"""A bound on false negatives instead of a weight: the strength moves while the policy trains.

The problem: most utility of what users see, with at most a share ``max_false_negatives`` of all
completions harmful and shown. Its Lagrangian is the design ``shown_risk`` (:mod:`bgkit.rewards`),
whose strength is the multiplier; any design whose penalty of an ordinary shown completion (no
refusal) grows with the strength accepts a bound. No label is needed: a calibrated guard expects
``t 1[t < tau]`` false negatives of a completion, and their mean is what is bounded, so the bound
holds for true false negatives only as well as the guard is calibrated.

The multiplier begins at the config's strength, and after each step is multiplied by exp(RATE v),
where v is expected / bound - 1, at most 1: exponentiated gradient ascent on the dual (Kivinen and
Warmuth 1997) with a clipped gradient, so that what one step adds another can take away. It rises
while a step exceeds the bound, falls while it does not, and stays positive and at most :data:`MOST`
(a bound out of reach would drive it to infinity). A step above twice the bound counts as one at
twice, so where steps scatter more than the bound their mean may stay above it.

Rewards are still divided by their deviation over base's responses at the *initial* strength, so the
weight of ``beta`` against the reward falls as the multiplier rises.
"""

from __future__ import annotations

import math

from transformers import TrainerCallback

from bgkit.training.reward_function import EXPECTED, MULTIPLIER, RewardFunction

RATE = 0.05  # most that the multiplier's logarithm moves in a step
MOST = 1000.0


def next_multiplier(multiplier: float, expected: float, bound: float) -> float:
    """The multiplier after a step whose completions had this mean of expected false negatives.

    >>> next_multiplier(8.0, expected=0.02, bound=0.02)
    8.0
    >>> [round(next_multiplier(8.0, expected, bound=0.02), 2) for expected in (0.03, 0.04, 0.9)]
    [8.2, 8.41, 8.41]
    """
    violation = min(1.0, expected / bound - 1)
    return min(MOST, multiplier * math.exp(RATE * violation))


class MultiplierCallback(TrainerCallback):
    """Moves a reward's strength after each step.

    The trainer's logs, which a checkpoint holds, are its only state: a resumed run goes on with the
    same multiplier.
    """

    def __init__(self, reward: RewardFunction, bound: float) -> None:
        self.reward, self.bound = reward, bound

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Take the multiplier up where a resumed run stopped."""
        for entry in state.log_history:
            self._move(entry)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Compute the next step's multiplier."""
        self._move(logs or {})

    def _move(self, logs: dict[str, float]) -> None:
        if MULTIPLIER in logs:  # means over all processes of a launch
            moved = next_multiplier(logs[MULTIPLIER], logs[EXPECTED], self.bound)
            self.reward.strength = moved
