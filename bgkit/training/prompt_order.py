"""The prompts of a run: those of each split, and the order in which it trains on them.

The prompts of a step are all short or all long, because a batch is padded to its longest prompt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import policies
from bgkit.prompts import load as prompts


def load_splits(config: runs.TrainConfig) -> dict[str, tuple[pd.DataFrame, dict]]:
    """The prompts of each split that a run uses, with their manifest."""
    needed = config.steps * (config.batch_size // config.num_generations)
    samples = {"train": (needed, config.seed), "test": (config.test_prompts, 0)}
    if config.eval_every:
        samples["validation"] = config.eval_prompts, 1
    return {
        split: prompts.load_with_manifest(config.prompts, split, n, seed)
        for split, (n, seed) in samples.items()
    }


def write_manifests(run: runs.Run, splits: dict[str, tuple[pd.DataFrame, dict]]) -> None:
    """Store a run's manifests; raises BgkitError if it was started with other prompts."""
    manifests = {split: manifest for split, (_, manifest) in splits.items()}
    prompts.write_manifests(run.folder / "prompts.json", manifests)


def check_files(run: runs.Run) -> None:
    """Raise BgkitError if the prompt file or folder of a complete run has changed.

    Sets by name, and mixtures of several, are not read again.
    """
    name = run.config.prompts
    is_local = name not in prompts.known_names() and Path(name).expanduser().exists()
    if is_local and (run.folder / "prompts.json").is_file():
        write_manifests(run, load_splits(run.config))


def training_table(config: runs.TrainConfig, table: pd.DataFrame, specials: list[str]) -> Dataset:
    """The training prompts in the order of the steps, ``batch_size / num_generations`` per step."""
    labelled = "harmful_request" in table and table["harmful_request"].notna().all()
    if config.reward == "prompt_aware" and not labelled:
        raise BgkitError(
            "The reward 'prompt_aware' needs the column 'harmful_request' (true or false) for all "
            f"prompts of {config.prompts}; add it, or choose another reward."
        )
    per_step = config.batch_size // config.num_generations
    lengths = table["prompt"].str.len().to_numpy()
    table = table.iloc[_training_order(lengths, per_step, config.steps, config.seed)]
    chats = [policies.as_chat(text, specials) for text in table["prompt"]]
    table = table.rename(columns={"prompt": "question"}).assign(prompt=chats)
    names = ["prompt", "question", "prompt_id", "kind", "harmful_request"]
    return Dataset.from_dict({name: table[name].tolist() for name in names if name in table})


def _training_order(lengths: np.ndarray, per_step: int, steps: int, seed: int) -> np.ndarray:
    """Row numbers (steps * per_step,); the prompts of a step are all short or all long.

    The two groups are divided at the length that needs the least padding. Within them the order is
    random, so a step mixes kinds of requests (steps of one kind undo each other's updates). Rows
    are repeated only to fill up the last step.
    """
    rng = np.random.default_rng([seed, 7])
    rows, n = np.argsort(lengths, kind="stable"), len(lengths)
    short = np.arange(per_step, n + 1, per_step)  # possible sizes of the short group
    padded = short * lengths[rows[short - 1]] + (n - short) * lengths[rows[-1]]
    split = short[padded.argmin()] if len(short) else 0
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        repeats = rng.choice(rows, -n % per_step)
        for group in (rows[:split], np.concatenate([rows[split:], repeats])):
            batches += list(rng.permutation(group).reshape(-1, per_step))
    return np.concatenate([batches[i] for i in rng.permutation(len(batches))[:steps]])
