"""The prompts of a run: how many it asks for, and in which order it trains on them.

The prompts of a step are all short or all long, for a batch is padded to its longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import policies
from bgkit.prompts import load as prompts
from bgkit.scoring import scorer as scoring


def asked(config: runs.TrainConfig) -> dict[str, tuple[int, int]]:
    """Number of prompts and seed of each split that a run uses."""
    needed = config.steps * (config.batch_size // config.num_generations)
    asked = {"train": (needed, config.seed), "test": (config.test_prompts, 0)}
    return asked | ({"validation": (config.eval_prompts, 1)} if config.eval_every else {})


def check_room(config: runs.TrainConfig, scorers: Sequence[object]) -> None:
    """Raise BgkitError for a prompt of any split that leaves a scorer no room for a response.

    So that no run finds it out after its training.
    """
    for split, (n, seed) in asked(config).items():
        texts = prompts.load_prompts(config.prompts, split, n, seed)["prompt"].tolist()
        for scorer in scorers:
            scoring.check_room(scorer, texts)


def training_table(config: runs.TrainConfig, specials: list[str]) -> Dataset:
    """The prompts of every step, in order: ``batch_size / num_generations`` rows a step."""
    per_step = config.batch_size // config.num_generations
    needed = config.steps * per_step
    table = prompts.load_prompts(config.prompts, "train", needed, config.seed)
    known = "harmful_request" in table and table["harmful_request"].notna().all()
    if config.reward == "prompt_aware" and not known:
        raise BgkitError(
            "The reward 'prompt_aware' needs the column 'harmful_request' (true or false) for all "
            f"prompts of {config.prompts}; add it, or choose another reward."
        )
    table = table.iloc[_order(table["prompt"].str.len().to_numpy(), per_step, needed, config.seed)]
    chats = [policies.as_chat(text, specials) for text in table["prompt"]]
    table = table.rename(columns={"prompt": "question"}).assign(prompt=chats)
    names = ["prompt", "question", "prompt_id", "kind", "harmful_request"]
    return Dataset.from_dict({name: table[name].tolist() for name in names if name in table})


def _order(lengths: np.ndarray, per_step: int, needed: int, seed: int) -> np.ndarray:
    """Row numbers (needed,) in which the prompts of a step are all short or all long.

    The two groups are divided at the length that pads least; within them the order is random, so
    that a step mixes kinds of requests (steps of a single kind undo each other's updates). Rows
    are repeated only where their number is no multiple of ``per_step``.
    """
    rng = np.random.default_rng([seed, 7])
    rows, n = np.argsort(lengths, kind="stable"), len(lengths)
    short = np.arange(per_step, n + 1, per_step)  # possible sizes of the short group
    padded = short * lengths[rows[short - 1]] + (n - short) * lengths[rows[-1]]
    divide = short[padded.argmin()] if len(short) else 0
    steps: list[np.ndarray] = []
    while len(steps) * per_step < needed:
        repeats = rng.choice(rows, -n % per_step)
        for group in (rows[:divide], np.concatenate([rows[divide:], repeats])):
            steps += list(rng.permutation(group).reshape(-1, per_step))
    shuffled = [steps[i] for i in rng.permutation(len(steps))]
    return np.concatenate(shuffled)[:needed]
