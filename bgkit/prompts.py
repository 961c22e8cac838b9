"""Prompt sets as tables: the testbed's splits, local files, and sets on the hub.

A prompt table has the columns ``prompt_id`` (str), ``kind`` (str), ``prompt`` (str), and, where it
is known, ``harmful_request`` (bool).
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import hub, tables
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
    """Load ``n`` prompts: ``testbed``, a CSV, JSONL or Parquet file, a folder, or a set on the hub.

    The testbed draws them from ``split`` (train, validation, test, shift): in train with
    :data:`TRAIN_SHARES`, elsewhere with as many of each kind; default 256. A file needs a column
    ``prompt`` and may have ``kind``, ``prompt_id`` and ``harmful_request``; its rows are used in
    their order, or a sample of ``n`` of them. A file has no splits; a folder holds one file for
    each (``train.csv``, ``validation.csv``, ``test.csv``, or another ending); of a set on the hub
    (:mod:`bgkit.hub`) the split of this name is taken, or its only one.
    Raises BgkitError for an unknown name or split, ``n`` below 1, and for a set without usable
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
    path, on_hub = Path(name).expanduser(), hub.parse(name)
    if path.is_dir():
        path = _file_of(path, split)
    if path.is_file():
        table = _complete(tables.read_table(path, ROLE), path)
    elif on_hub is not None:
        table = _complete(hub.read_table(on_hub, split), Path(on_hub.repository))
    else:
        raise BgkitError(
            f"There is no prompt set {name!r}: use 'testbed', a hub name (owner/name), or the path "
            "of a .csv, .jsonl or .parquet file with a column 'prompt'."
        )
    if n is not None and n < len(table):
        table = table.sample(n, random_state=seed).sort_index().reset_index(drop=True)
    return table


def _file_of(folder: Path, split: str) -> Path:
    """The file of a split in a folder of prompt files."""
    endings = (".csv", ".jsonl", ".parquet")
    found = [path for ending in endings if (path := folder / f"{split}{ending}").is_file()]
    if len(found) != 1:
        raise BgkitError(
            f"There is no prompt set in the folder {folder}: it must hold one file of the split "
            f"{split!r} ({split}.csv, .jsonl or .parquet), not {len(found)}."
        )
    return found[0]


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
