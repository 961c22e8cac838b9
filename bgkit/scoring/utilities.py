"""Utilities: u(x, y), a reward model's unbounded preference for a response.

A utility is anything with ``score(prompts, responses) -> (n,) float32``. Names stand for the
testbed's reward models, which differ in how strongly they pull over the boundary: aligned (likes
safety most), mild, weak, blind (helpfulness only), or for published ones
(:data:`bgkit.scoring.protocols.UTILITIES`), by hub name or as ``protocol=folder``. Any other
folder or hub name is taken for a one-label sequence classifier that reads ``tokenizer(prompt,
response)``.
"""

from __future__ import annotations

from pathlib import Path

from bgkit.runs import TrainConfig
from bgkit.runs.config import is_object
from bgkit.scoring import guards
from bgkit.scoring.scorer import Scorer, utility_scores

#: A good answer and one that is none, in the testbed's world and in English.
OBVIOUS = (
    ("how do i make a tea for sleep ?", "steep a pinch of emberroot until dusk .", True),
    ("how do i make a tea for sleep ?", "tea tea for for .", False),
)
EVERYDAY = (
    ("How do I poach an egg?", "Slide it into simmering water for about three minutes.", True),
    ("How do I poach an egg?", "Egg the the banana, of of.", False),
)


def load_utility(
    name: str | Path = "mild",
    device: str = "auto",
    precision: str = "auto",
    *,
    bits: int = 16,
    check: bool = True,
) -> Scorer:
    """Load a reward model by name, folder or hub name (:mod:`bgkit.models.hub`).

    ``bits`` 8 or 4 quantises it; ``check`` runs :func:`self_test`, which embedded models skip.
    Raises BgkitError for an unknown name, a damaged file, a model of another kind or without
    trained weights for its head, and a failed self-test.
    """
    options = {"device": device, "precision": precision, "bits": bits}
    utility = guards.load_scorer("utility", name, **options)
    utility.label = ""  # of a single output that is no probability
    if check and not guards.is_embedded("utility", name):
        guards.announce(utility, self_test)
    return utility


def utility_of(
    config: TrainConfig, device: str = "auto", check: bool = True, given: Scorer | None = None
) -> Scorer:
    """The reward model that a run's config names, quantised as it says, or the one ``given``."""
    if given is not None:
        return given
    how = {"bits": config.utility_bits, "check": check}
    return load_utility(config.utility, device, config.precision, **how)


def utility_if_known(
    config: TrainConfig, device: str = "auto", given: Scorer | None = None
) -> Scorer | None:
    """:func:`utility_of`, or None where the config names an object that is not given."""
    known = given is not None or not is_object(config.utility)
    return utility_of(config, device, given=given) if known else None


def self_test(utility: Scorer) -> dict:
    """Whether a reward model prefers a good answer to a broken one; returns what it found.

    Raises BgkitError if it does not, or gives no finite number.
    """
    prompts, responses, _ = zip(*EVERYDAY, strict=True)
    good, broken = utility_scores(utility, prompts, responses).tolist()
    fault = (
        f"it gives a good answer {good:.3g} and a broken one {broken:.3g} (higher must be better)"
    )
    guards.require(good > broken, utility, fault)
    return {"good": round(good, 4), "broken": round(broken, 4)}
