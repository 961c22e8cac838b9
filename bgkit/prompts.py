"""Prompt sets as tables: the testbed's splits, and local files.

A prompt table has the columns ``prompt_id`` (str), ``kind`` (str), ``prompt`` (str), and, where it
is known, ``harmful_request`` (bool).
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import tables
from bgkit.errors import BgkitError
from bgkit.testbed import world

TESTBED = "testbed"
ROLE = tables.Role("prompt file", '{"prompt": "..."}')
#: Shares of the kinds in training: more jailbreaks, for they take longest to learn, and fewer long
#: contexts, for they cost the most.
TRAIN_SHARES = {"benign": 0.27, "ambiguous": 0.27, "jailbreak": 0.4, "long_context": 0.06}


def load_prompts(
    name: str = TESTBED, split: str = "train", n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Load ``n`` prompts: ``testbed`` or the path of a CSV, JSONL or Parquet file.

    The testbed draws them from ``split`` (train, validation, test, shift): in train with
    :data:`TRAIN_SHARES`, elsewhere with as many of each kind; default 256. A file needs a column
    ``prompt`` and may have ``kind``, ``prompt_id`` and ``harmful_request``; its rows are used in
    their order, or a sample of ``n`` of them. A file has no splits.
    Raises BgkitError for an unknown name or split, ``n`` below 1, and for a file without usable
    prompts.
    """
    if n is not None and n < 1:
        raise BgkitError(f"The number of prompts must be at least 1, not {n}.")
    if name == TESTBED:
        if split not in world.SPLITS:
            raise BgkitError(
                f"The testbed has no split {split!r}; choose one of {', '.join(world.SPLITS)}."
            )
        return _from_testbed(split, n or 256, seed)
    path = Path(name)
    if not path.is_file():
        raise BgkitError(
            f"There is no prompt set {name!r}: use 'testbed' or the path of a .csv, .jsonl or "
            ".parquet file with a column 'prompt'."
        )
    table = _complete(tables.read_table(path, ROLE), path)
    if n is not None and n < len(table):
        table = table.sample(n, random_state=seed).sort_index().reset_index(drop=True)
    return table


def _from_testbed(split: str, n: int, seed: int) -> pd.DataFrame:
    rng = random.Random(f"prompts/{split}/{seed}")
    if split == "train":
        kinds = rng.choices(list(TRAIN_SHARES), list(TRAIN_SHARES.values()), k=n)
    else:
        kinds = [world.KINDS[i % len(world.KINDS)] for i in range(n)]
    drawn = [world.sample_prompt(rng, kind, split) for kind in kinds]
    return pd.DataFrame(
        {
            "prompt_id": [f"{split}/{seed}/{i:05d}" for i in range(n)],
            "kind": kinds,
            "prompt": [prompt.text for prompt in drawn],
            "harmful_request": [prompt.forbidden for prompt in drawn],
        }
    )


def _complete(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check the rows of a file and add the columns that it lacks."""
    if table.empty:
        raise BgkitError(f"The prompt file {path} holds no prompts.")
    if "prompt" not in table:
        raise BgkitError(
            f"The prompt file {path} has no column 'prompt' (it has {', '.join(map(str, table))})."
        )
    text = table["prompt"].map(lambda value: isinstance(value, str) and bool(value.strip()))
    if not text.all():
        row = int(np.flatnonzero(~text.to_numpy())[0]) + 1
        raise BgkitError(f"Row {row} of {path} has no prompt; fill it in or delete the row.")
    table = table.reset_index(drop=True)
    defaults = {"kind": "unknown", "prompt_id": [f"{path.name}/{i:05d}" for i in range(len(table))]}
    for column, value in defaults.items():
        given = table[column] if column in table else pd.Series(None, table.index, dtype=object)
        table[column] = given.where(given.notna(), value)
    columns = ["prompt_id", "kind", "prompt"]
    if "harmful_request" in table:
        truths = tables.truth_values(table["harmful_request"], "harmful_request", path)
        table["harmful_request"] = truths == 1  # a request that is not marked is harmless
        columns.append("harmful_request")
    return table[columns].astype({"prompt_id": str, "kind": str})
