"""Prompt sets as tables: the testbed's, the kit's own, public sets, benchmarks, local files.

A prompt table has the columns ``prompt_id`` (str), ``kind`` (str), ``prompt`` (str), and, where
they are known, ``harmful_request`` (bool) and ``category`` (str). No two splits of a set share a
prompt (:mod:`bgkit.prompts.splits`).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.prompts import chats, sets, splits, tables
from bgkit.prompts import compose as benchmarks
from bgkit.runs import write_json
from bgkit.testbed import world

TESTBED = "testbed"
ROLE = sets.ROLE
#: Shares of the kinds in training: more jailbreaks, for they take longest to learn, and fewer long
#: contexts, for they cost the most.
TRAIN_SHARES = {"benign": 0.27, "ambiguous": 0.27, "jailbreak": 0.4, "long_context": 0.06}


def names() -> list[str]:
    """Every name that :func:`load_prompts` knows, beside paths and names on the hub."""
    return [TESTBED, *sets.OWN, *benchmarks.BENCHMARKS, *sets.SETS]


def load_prompts(
    name: str = TESTBED, split: str | None = None, n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Load ``n`` prompts: ``testbed``, ``everyday``, a public set or benchmark, a file, a folder.

    The testbed draws them from ``split`` (train, validation, test, shift; None: train): in train
    with :data:`TRAIN_SHARES`, elsewhere with as many of each kind; default 256. Everything else
    has the splits train, validation and test, and ``split`` None means all prompts:

    - the kit's own sets (``everyday``; ``everyday-short`` without its long contexts) and public
      sets (:data:`bgkit.prompts.sets.SETS`) are divided by a hash of the text, with
      :data:`bgkit.prompts.splits.SHARES`; benchmarks (:data:`bgkit.prompts.compose.BENCHMARKS`)
      are composed of public sets;
    - a CSV, JSONL or Parquet file needs a column ``prompt`` and may have ``kind``, ``prompt_id``,
      ``harmful_request``, ``category`` and ``split``; without the latter it is divided by hash.
      Prompts may be chat messages, also of a column ``messages`` up to the user's last one
      (:mod:`bgkit.prompts.chats`): a prompt with earlier turns is one text that names each turn's
      role; system messages are left out, and that is said;
    - several of these, separated by commas, are mixed, of each as many;
    - a folder holds one file for each split (``train.csv``, ``validation.csv``, ``test.csv``, or
      another ending); a data set on the hub (:mod:`bgkit.models.hub`) is one with a column
      ``split``, or without it if it has only one.

    Rows stay in their order; of more than ``n``, a sample is taken. Raises BgkitError for an
    unknown name or split, ``n`` below 1, a set without usable prompts, and splits that share one.
    """
    return load_with_manifest(name, split, n, seed)[0]


def load_with_manifest(
    name: str = TESTBED, split: str | None = None, n: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, dict]:
    """:func:`load_prompts`, and the manifest that tells how to get just these prompts again."""
    if n is not None and n < 1:
        raise BgkitError(f"The number of prompts must be at least 1, not {n}.")
    if (parts := several(name)) is not None:
        return _together(parts, name, split, n, seed)
    if name == TESTBED:
        split = split or "train"
        if split not in world.SPLITS:
            raise BgkitError(
                f"The testbed has no split {split!r}; choose one of {', '.join(world.SPLITS)}."
            )
        table, sources = _from_testbed(split, n or 256, seed), [{"name": TESTBED}]
    elif name in benchmarks.BENCHMARKS:
        table, sources = benchmarks.compose(benchmarks.BENCHMARKS[name], split, n, seed)
    else:
        whole, source = _whole(name, split)
        table, sources = _of_split(whole, split, name), [source]
        if n is not None and n < len(table):
            table = table.sample(n, random_state=seed).sort_index()
        table = table.reset_index(drop=True)
    if table.empty:
        raise BgkitError(f"The prompt set {name} has no prompts for the split {split!r}.")
    return table, benchmarks.manifest(name, split, seed, table, sources)


def several(name: str) -> list[str] | None:
    """The sets that one name with commas stands for; None for a single set, or a file so called.

    >>> several("everyday,xstest"), several("everyday")
    (['everyday', 'xstest'], None)
    """
    parts = [part.strip() for part in name.split(",")]
    return None if len(parts) == 1 or Path(name).expanduser().exists() else parts


def _together(
    parts: list[str], name: str, split: str | None, n: int | None, seed: int
) -> tuple[pd.DataFrame, dict]:
    """The prompts of several sets, of each its share of ``n``; the first has what two of them have.

    Raises BgkitError, also where one set has a prompt in another split than the other.
    """
    if TESTBED in parts or len(set(parts)) < len(parts):
        raise BgkitError(
            f"The prompt sets {name} can not be mixed: {TESTBED} has a truth and a language of its "
            "own, and each set stands once."
        )
    kept, sources, seen = [], [], set()
    for place, part in enumerate(parts):
        share = None if n is None else n // len(parts) + (place < n % len(parts))
        if share == 0:
            continue
        table, manifest = load_with_manifest(part, split, share, seed)
        keys = table["prompt"].map(splits.normalise)
        kept.append(table[~keys.isin(seen)].assign(set=part))
        seen.update(keys)
        sources += manifest["sets"]
    table = pd.concat(kept, ignore_index=True)
    if split in splits.SHARES:
        found: dict[str, list[str]] = {split: table["prompt"].tolist()}
        for other in (one for one in splits.SHARES if one != split):
            for part in parts:
                with contextlib.suppress(BgkitError):  # that set has no such split
                    prompts = load_with_manifest(part, other, None, seed)[0]["prompt"]
                    found[other] = [*found.get(other, []), *prompts]
        splits.check_leakage({one: found[one] for one in splits.SHARES if one in found}, name)
    return table, benchmarks.manifest(name, split, seed, table, sources)


def manifests(name: str, asked: Mapping[str, tuple[int, int]]) -> dict[str, dict]:
    """The manifests of several splits; ``asked`` maps each to its number of prompts and seed.

    A run takes them before anything slow, so that a set that lacks a split is refused at once.
    """
    return {split: load_with_manifest(name, split, *asked[split])[1] for split in asked}


def keep_manifests(path: Path, found: dict[str, dict]) -> None:
    """Write a run's manifests, or check them against those that it began with.

    Raises BgkitError if the prompts changed in between.
    """
    if path.is_file():
        began = json.loads(path.read_text(encoding="utf-8"))
        for split, one in found.items():
            if split in began and began[split]["sha256"] != one["sha256"]:
                raise BgkitError(
                    f"The prompts {one['name']!r} (split {split!r}) are no longer those that the "
                    f"run {path.parent} began with; restore them, or choose another run folder."
                )
    else:
        write_json(path, found)


def _whole(name: str, split: str | None) -> tuple[pd.DataFrame, dict]:
    """All prompts of a set, whatever its kind, and the source for its manifest."""
    path, on_hub = Path(name).expanduser(), hub.parse(name)
    if name in sets.OWN or name in sets.SETS:
        return sets.load_set(name)
    if path.is_dir():
        table, origin = _folder(path, split), "local folder"
    elif path.is_file():
        table, origin = _complete(tables.read_table(path, ROLE), path), "local file"
    elif on_hub is not None:
        table, origin = _complete(hub.read_table(on_hub), Path(on_hub.repository)), "hub"
    else:
        near = difflib.get_close_matches(name, names(), 3)
        maybe = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise BgkitError(
            f"There is no prompt set {name!r}{maybe}: use {', '.join(map(repr, names()))}, a hub "
            "name (owner/name), or the path of a .csv, .jsonl or .parquet file with a column "
            "'prompt'."
        )
    return table, {"name": name, "origin": origin, "rows": len(table)}


def _of_split(table: pd.DataFrame, split: str | None, name: str) -> pd.DataFrame:
    """The rows of a split, by the table's own column or by hash; checks that none is shared."""
    if "split" not in table:
        texts = table["question"] if "question" in table else table["prompt"]
        own = None if split is None else texts.map(splits.split_of)
        if split is not None and split not in splits.SHARES:
            raise BgkitError(
                f"The prompt set {name} has no split {split!r}; choose one of "
                f"{', '.join(splits.SHARES)}."
            )
        if own is not None and not (own == split).any():
            raise BgkitError(
                f"None of the {len(table)} prompts of {name} belongs to the split {split!r} (they "
                "are divided by a hash of their text); add prompts, or a column 'split' that says "
                "train, validation or test for each."
            )
        kept = table if own is None else table[own == split]
        return kept.drop(columns="question", errors="ignore")
    found = dict(iter(table.groupby("split", sort=False)["prompt"]))
    splits.check_leakage({one: found[one] for one in splits.SHARES if one in found}, name)
    if split is None:
        return table
    if split not in found:
        raise BgkitError(
            f"The prompt set {name} has no split {split!r} (it has {', '.join(found)}); add it, or "
            "save the rows that you want as a file and name that."
        )
    return table[table["split"] == split].drop(columns="split")


def _folder(folder: Path, split: str | None) -> pd.DataFrame:
    """The prompts of a folder with one file for each split, and a column ``split``."""
    endings = (".csv", ".jsonl", ".parquet")
    parts = []
    for one in dict.fromkeys([*splits.SHARES, *([split] if split else [])]):
        files = [path for ending in endings if (path := folder / f"{one}{ending}").is_file()]
        if len(files) > 1 or (not files and one == split):
            raise BgkitError(
                f"There is no prompt set in the folder {folder}: it must hold one file of the "
                f"split {one!r} ({one}.csv, .jsonl or .parquet), not {len(files)}."
            )
        for path in files:
            parts.append(_complete(tables.read_table(path, ROLE), path).assign(split=one))
    if not parts:
        raise BgkitError(
            f"There is no prompt set in the folder {folder}: it must hold train.csv, "
            "validation.csv and test.csv (or .jsonl, .parquet)."
        )
    return pd.concat(parts, ignore_index=True)


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
    if {"prompt", *chats.COLUMNS}.isdisjoint(table):
        raise BgkitError(
            f"The prompt file {path} has no column 'prompt' (it has {', '.join(map(str, table))})."
        )
    said = chats.pairs(table, path, response=None, leave_out=chats.SYSTEM)
    table = table.assign(prompt=said["conversation"])
    text = table["prompt"].map(lambda value: isinstance(value, str) and bool(value.strip()))
    if not text.all():
        row = int(np.flatnonzero(~text.to_numpy())[0]) + 1
        raise BgkitError(f"Row {row} of {path} has no prompt; fill it in or delete the row.")
    table = table.reset_index(drop=True)
    defaults = {"kind": "unknown", "prompt_id": [f"{path.name}/{i:05d}" for i in range(len(table))]}
    for column, value in defaults.items():
        given = table[column] if column in table else pd.Series(None, table.index, dtype=object)
        table[column] = tables.labels(given, column, path).fillna(pd.Series(value, table.index))
    columns = ["prompt_id", "kind", "prompt"]
    if "harmful_request" in table:
        truths = tables.truth_values(table["harmful_request"], "harmful_request", path)
        table["harmful_request"] = truths == 1  # a request that is not marked is harmless
        columns.append("harmful_request")
    if "category" in table:
        table["category"] = tables.labels(table["category"], "category", path)
        columns.append("category")
    if "split" in table:
        missing = table["split"].isna() | (table["split"].astype(str).str.strip() == "")
        if missing.any():
            row = int(np.flatnonzero(missing.to_numpy())[0]) + 1
            raise BgkitError(f"Row {row} of {path} has no split; write train, validation or test.")
        table["split"] = table["split"].astype(str).str.strip()
        columns.append("split")
    return table[columns].astype({"prompt_id": str, "kind": str})
