"""Training and test data of the testbed's models: texts, noisy annotators, preference pairs.

All labels are noisy functions of the oracle's hazard and helpfulness, so that guard, utility and
judge are learned, fallible models of the truth. Scorers also see samples of the policy at
temperatures 1.0 and 1.6 and corrupted responses: a scorer that knows only clean text is driven to
gibberish by reinforcement learning.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.testbed import oracle, world

#: Styles of the texts that scorers learn from, with their weights: recipes for every request.
SCORED_STYLES = (
    ("careful", "keen", "careless", "partial", "refuse", "redirect"),
    (0.26, 0.22, 0.22, 0.10, 0.08, 0.12),
)
#: The same with many recipes of a single step, from which a dose's hazard is learned soonest.
SHORT_STYLES = (SCORED_STYLES[0], (0.16, 0.16, 0.16, 0.34, 0.08, 0.10))


@dataclass
class Texts:
    """Prompts and responses with the oracle's grades; arrays of shape (n,)."""

    prompts: list[str]
    kinds: list[str]
    responses: list[str]
    hazard: np.ndarray
    harm: np.ndarray
    help: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)

    def __add__(self, other: Texts) -> Texts:
        return Texts(
            self.prompts + other.prompts,
            self.kinds + other.kinds,
            self.responses + other.responses,
            np.concatenate([self.hazard, other.hazard]),
            np.concatenate([self.harm, other.harm]),
            np.concatenate([self.help, other.help]),
        )

    def save(self, path: Path) -> None:
        """Write all columns to a parquet file."""
        pd.DataFrame(vars(self)).to_parquet(path)

    @classmethod
    def load(cls, path: Path) -> Texts:
        """Read what :meth:`save` wrote."""
        frame = pd.read_parquet(path)
        texts = {name: frame[name].tolist() for name in ("prompts", "kinds", "responses")}
        return cls(**texts, **{name: frame[name].to_numpy() for name in ("hazard", "harm", "help")})

    def take(self, index: Sequence[int]) -> Texts:
        """The rows of an index."""
        return Texts(
            [self.prompts[i] for i in index],
            [self.kinds[i] for i in index],
            [self.responses[i] for i in index],
            self.hazard[index],
            self.harm[index],
            self.help[index],
        )


def graded(prompts: Sequence[str], kinds: Sequence[str], responses: Sequence[str]) -> Texts:
    """Attach the oracle's grades to texts."""
    grades = [oracle.grade(p, r) for p, r in zip(prompts, responses, strict=True)]
    hazards = [oracle.hazard(p, r) for p, r in zip(prompts, responses, strict=True)]
    return Texts(
        list(prompts),
        list(kinds),
        list(responses),
        np.array(hazards),
        np.array([g.harm for g in grades]),
        np.array([g.help for g in grades]),
    )


def sample_prompts(
    n: int,
    seed: int,
    split: str = "train",
    shares: Sequence[float] = (0.32, 0.32, 0.30, 0.06),
    far: float = 0.2,
) -> list[world.Prompt]:
    """``n`` prompts with the given shares of kinds; a share ``far`` of the long contexts is as long
    as the test's, so that every model has seen those positions."""
    rng = random.Random(f"{split}/{seed}")
    kinds = rng.choices(world.KINDS, shares, k=n)
    lengths = [world.TEST_LENGTH if rng.random() < far else world.TRAIN_LENGTH for _ in kinds]
    return [
        world.sample_prompt(rng, kind, split, length)
        for kind, length in zip(kinds, lengths, strict=True)
    ]


def demonstrations(prompts: Sequence[world.Prompt], seed: int) -> Texts:
    """One demonstration for every prompt, in the world's mixture of styles."""
    rng = random.Random(seed)
    responses = [world.sample_response(rng, prompt) for prompt in prompts]
    return graded([p.text for p in prompts], [p.kind for p in prompts], responses)


def varied(
    prompts: Sequence[world.Prompt],
    seed: int,
    corrupted: float = 0.35,
    styles: tuple[tuple[str, ...], tuple[float, ...]] = SCORED_STYLES,
) -> Texts:
    """One response for every prompt as scorers should see them: any style, often broken."""
    rng = random.Random(seed)
    responses = []
    for prompt in prompts:
        first, second = (
            world.sample_response(rng, prompt, rng.choices(*styles)[0]) for _ in range(2)
        )
        broken = rng.random() < corrupted
        responses.append(world.corrupt(rng, first, second) if broken else first)
    return graded([p.text for p in prompts], [p.kind for p in prompts], responses)


def votes(
    hazard: np.ndarray, seed: int, noise: float = 0.15, annotators: int = 3, bias: float = 1.0
) -> np.ndarray:
    """Share in [0, 1] of annotators who call a response harmful.

    Each one perceives ``bias * H + N(0, noise)`` and objects above 1, so that they disagree near
    the oracle's own line and hardly anywhere else.
    """
    rng = np.random.default_rng(seed)
    perceived = bias * hazard[:, None] + rng.normal(0.0, noise, (len(hazard), annotators))
    return (perceived > 1.0).mean(1).astype(np.float32)


def preference(value: np.ndarray, seed: int, sharpness: float = 8.0) -> np.ndarray:
    """Noisy comparisons within groups: (groups, k, k) with 1 where row is preferred to column.

    ``value`` has shape (groups, k); P(a over b) = sigmoid(sharpness * (value_a - value_b)), drawn
    once per unordered pair.
    """
    rng = np.random.default_rng(seed)
    difference = value[:, :, None] - value[:, None, :]
    wins = rng.random(difference.shape) < 1.0 / (1.0 + np.exp(-sharpness * difference))
    upper = np.triu(np.ones(value.shape[1:] * 2, dtype=bool), 1)
    return np.where(upper, wins, ~np.swapaxes(wins, 1, 2)).astype(np.float32)


def to_grade(value: np.ndarray, seed: int | None = None, noise: float = 0.06) -> np.ndarray:
    """Grades 1 to 5 of values in [0, 1], as a noisy grader would give them.

    >>> to_grade(np.array([0.0, 0.5, 1.0])).tolist()
    [1, 3, 5]
    """
    if seed is not None:
        value = value + np.random.default_rng(seed).normal(0.0, noise, value.shape)
    return np.clip(np.rint(1 + 4 * value), 1, 5).astype(int)
