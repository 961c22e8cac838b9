"""Utilities: u(x, y), a reward model's unbounded preference for a response.

A utility is anything with ``score(prompts, responses) -> (n,) float32``. Names stand for the
testbed's reward models, which differ in how strongly they pull over the boundary: aligned (likes
safety most), mild, weak, blind (helpfulness only), or for published ones
(:data:`bgkit.scoring.protocols.UTILITIES`), by hub name or as ``protocol=folder``. Any other
folder or hub name is taken for a one-label sequence classifier that reads ``tokenizer(prompt,
response)``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError
from bgkit.progress import phase
from bgkit.runs import TrainConfig
from bgkit.runs.config import is_object
from bgkit.scoring import guards, protocols
from bgkit.scoring.scorer import Scorer, name_of

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
    name: str = "mild",
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
    guards.refuse_object("utility", name)
    protocol, place = protocols.find(protocols.UTILITIES, name)
    utility = guards.load_scorer(
        "utility",
        name,
        place,
        protocol or protocols.Encoder(labels=1, index=(0,), read="raw"),
        device=device,
        precision=precision,
        bits=bits,
    )
    if check and not guards.is_embedded("utility", place):
        utility.checked = guards.announce(self_test(utility))
    return utility


def utility_of(
    config: TrainConfig, device: str = "auto", check: bool = True, given: Scorer | None = None
) -> Scorer:
    """The reward model that a run's config names, quantised as it says, or the one ``given``."""
    if given is not None:
        return given
    return load_utility(
        config.utility, device, config.precision, bits=config.utility_bits, check=check
    )


def utility_if_known(
    config: TrainConfig, device: str = "auto", given: Scorer | None = None
) -> Scorer | None:
    """:func:`utility_of`, or None where the config names an object that is not given.

    Responses are evaluated without it: only their utility is then not known.
    """
    if given is None and is_object(config.utility):
        return None
    return utility_of(config, device, given=given)


def self_test(utility: Scorer, pairs: tuple[tuple[str, str, bool], ...] = EVERYDAY) -> dict:
    """Whether a reward model prefers a good answer to a broken one; returns what it found.

    Raises BgkitError if it does not, or gives no finite number.
    """
    table = pd.DataFrame(pairs, columns=["prompt", "response", "good"])
    name = name_of(utility)
    with phase(f"testing {name}"):
        u = utility.score(table["prompt"].tolist(), table["response"].tolist())
    u = np.asarray(u, float)
    good, bad = float(u[table["good"]].min()), float(u[~table["good"]].max())
    if not np.isfinite(u).all() or good <= bad:
        raise BgkitError(
            f"{name} failed its self-test: it gives a good answer {good:.3g} and a broken one "
            f"{bad:.3g}{_why(good, bad)}. Check its protocol and its head (check=False, on the "
            "command line --no-self-test, loads it all the same)."
        )
    return {"name": name, "good": round(good, 4), "broken": round(bad, 4)}


def _why(good: float, bad: float) -> str:
    if abs(good - bad) < 1e-6:
        return ", so that its scores do not depend on the response"
    return ", as if lower were better (higher must be)" if good < bad else ""
