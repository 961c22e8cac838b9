"""A bound on false negatives instead of a weight: the strength moves while the policy trains.

The problem is: most utility of what users see, with at most a share ``epsilon`` of all completions
harmful and shown. Its Lagrangian is the design ``shown_risk`` (:mod:`bgkit.rewards`), whose
strength is the multiplier; other designs with a strength accept a bound, too. No label is needed:
a calibrated guard expects ``t 1[t < tau]`` false negatives of a completion, and that is what is
bounded, so the bound holds for true false negatives only as well as the guard is calibrated.

After each step the multiplier is multiplied by exp(RATE (risk / epsilon - 1)), exponentiated
gradient ascent on the dual (Kivinen and Warmuth 1997): it rises while the step's risk exceeds the
bound, falls while it does not, and stays positive. Rewards are still divided by their deviation
over base's responses at the *initial* strength, so the weight of ``beta`` against the reward falls
as the multiplier rises.
"""

from __future__ import annotations

import math

from transformers import TrainerCallback

from bgkit.rewards import SHOWN_RISK
from bgkit.training.reward_function import RewardFunction

RATE = 0.05  # of the multiplier's logarithm per step, at a risk of twice the bound


def next_multiplier(multiplier: float, risk: float, epsilon: float) -> float:
    """The multiplier after a step whose completions had this mean risk.

    >>> next_multiplier(8.0, risk=0.02, epsilon=0.02)
    8.0
    >>> round(next_multiplier(8.0, risk=0.04, epsilon=0.02), 2)
    8.41
    """
    return multiplier * math.exp(RATE * (risk / epsilon - 1))


class MultiplierCallback(TrainerCallback):
    """Sets a reward's strength after each step, and logs the one that the step had.

    The trainer's logs, which a checkpoint holds, are its only state: a resumed run goes on with the
    same multiplier.
    """

    def __init__(self, reward: RewardFunction, epsilon: float) -> None:
        self.reward, self.epsilon = reward, epsilon

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Take the multiplier up where a resumed run stopped."""
        for entry in state.log_history:
            if "multiplier" in entry:
                self._move(entry["multiplier"], entry[SHOWN_RISK])

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Log the step's multiplier and compute the next one."""
        if logs and SHOWN_RISK in logs:  # the mean over all processes of a launch
            state.log_history[-1]["multiplier"] = self.reward.strength
            self._move(self.reward.strength, logs[SHOWN_RISK])

    def _move(self, multiplier: float, risk: float) -> None:
        self.reward.strength = next_multiplier(multiplier, risk, self.epsilon)
