"""Prompt sets as tables: the testbed's, the kit's own, public sets, benchmarks, local files.

A prompt table has the columns ``prompt_id`` (str), ``kind`` (str), ``prompt`` (str), and, where
they are known, ``harmful_request`` (bool) and ``category`` (str). No two splits of a set share a
prompt (:mod:`bgkit.prompts.splits`).
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import random
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.prompts import chats, sets, splits, tables
from bgkit.prompts import compose as benchmarks
from bgkit.runs import write_json
from bgkit.testbed import world

TESTBED = "testbed"
#: Shares of the kinds in training: more jailbreaks, for they take longest to learn, and fewer long
#: contexts, for they cost the most.
TRAIN_SHARES = {"benign": 0.27, "ambiguous": 0.27, "jailbreak": 0.4, "long_context": 0.06}


def load_prompts(
    name: str = TESTBED, split: str | None = None, n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Load ``n`` prompts (of more, a sample, in their order) of a split; of all, if it is None.

    ``name`` is ``testbed`` (drawn anew, 256 by default), one of the kit's own sets (``everyday``,
    ``everyday-short``), a public set (:data:`bgkit.prompts.sets.SETS`), a benchmark
    (:data:`bgkit.prompts.compose.BENCHMARKS`), a file with a column ``prompt`` (texts or chats) and
    perhaps ``prompt_id``, ``kind``, ``category``, ``harmful_request`` and ``split``, a folder with
    one file for each split, a data set on the hub, or several of these with commas. What has no
    splits is divided by a hash of its texts. Raises BgkitError for an unknown name or split, ``n``
    below 1, a set without usable prompts, and splits that share one.
    """
    return load_with_manifest(name, split, n, seed)[0]


def load_with_manifest(
    name: str = TESTBED, split: str | None = None, n: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, dict]:
    """:func:`load_prompts`, and the manifest that tells how to get just these prompts again."""
    checks.kind("a name", **{"prompt set": name})
    checks.kind("a whole number", n=1 if n is None else n, seed=seed)
    if n is not None and n < 1:
        raise BgkitError(f"The number of prompts must be at least 1, not {n}.")
    if name == TESTBED:
        split = split or "train"
        _check_split(name, split, world.SPLITS)
        table, sources = _from_testbed(split, n or 256, seed), [{"name": TESTBED}]
    elif "," in name and not Path(name).expanduser().exists():
        table, sources = _together(name, split, n, seed)
    elif name in benchmarks.BENCHMARKS:
        _check_split(name, split, splits.SHARES)
        table, sources = benchmarks.compose(benchmarks.BENCHMARKS[name], split, n, seed)
    else:
        whole, source = _whole(name, split)
        table, sources = _of_split(whole, split, name), [source]
        if n is not None and n < len(table):
            table = table.sample(n, random_state=seed).sort_index()
        table = table.reset_index(drop=True)
    if table.empty:
        raise BgkitError(
            f"None of the prompts of {name} belongs to the split {split!r} (without a column "
            "'split' they are divided by a hash of their text); add prompts, or such a column."
        )
    return table, benchmarks.manifest(name, split, seed, table, sources)


def _check_split(name: str, split: str | None, known: Collection[str]) -> None:
    if split is not None and split not in known:
        raise BgkitError(
            f"The prompt set {name} has no split {split!r}; choose one of {', '.join(known)}."
        )


def _together(
    name: str, split: str | None, n: int | None, seed: int
) -> tuple[pd.DataFrame, list[dict]]:
    """The prompts of several sets, of each its share of ``n``; the first has what two of them have.

    Raises BgkitError, also where one set has a prompt in another split than the other.
    """
    parts = [part.strip() for part in name.split(",")]
    if TESTBED in parts or len(set(parts)) < len(parts):
        raise BgkitError(
            f"The prompt sets {name} can not be mixed: {TESTBED} has a truth and a language of its "
            "own, and each set stands once."
        )
    kept, sources, seen = [], [], set()
    for place, part in enumerate(parts):
        share = None if n is None else n // len(parts) + (place < n % len(parts))
        if share != 0:
            table, manifest = load_with_manifest(part, split, share, seed)
            keys = table["prompt"].map(splits.normalise)
            kept.append(table[~keys.isin(seen)].assign(set=part))
            seen.update(keys)
            sources += manifest["sets"]
    whole = pd.concat(kept, ignore_index=True)
    if split in splits.SHARES:
        found = {one: [] for one in splits.SHARES} | {split: whole["prompt"]}
        for one, part in itertools.product(splits.SHARES, parts):
            with contextlib.suppress(BgkitError):  # that set has no such split
                if one != split:
                    found[one] += load_prompts(part, one, None, seed)["prompt"].tolist()
        splits.check_leakage(found, name)
    return whole, sources


def keep_manifests(path: Path, found: dict[str, dict]) -> None:
    """Write a run's manifests; raises BgkitError if it began with other prompts."""
    if not path.is_file():
        write_json(path, found)
        return
    began = json.loads(path.read_text(encoding="utf-8"))
    for split, one in found.items():
        if split in began and began[split]["sha256"] != one["sha256"]:
            raise BgkitError(
                f"The prompts {one['name']!r} (split {split!r}) are no longer those that the "
                f"run {path.parent} began with; restore them, or choose another run folder."
            )


def _whole(name: str, split: str | None) -> tuple[pd.DataFrame, dict]:
    """All prompts of a set, whatever its kind, and the source for its manifest."""
    path, on_hub = Path(name).expanduser(), hub.parse(name)
    if name in sets.OWN or name in sets.SETS:
        return sets.load_set(name)
    if path.is_dir():
        table, origin = _folder(path, split), "local folder"
    elif path.is_file():
        table, origin = _complete(tables.read_table(path, sets.ROLE), path), "local file"
    elif on_hub is not None:
        table, origin = _complete(hub.read_table(on_hub), Path(on_hub.repository)), "hub"
    else:
        names = [TESTBED, *sets.OWN, *benchmarks.BENCHMARKS, *sets.SETS]
        near = difflib.get_close_matches(name, names, 3)
        maybe = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise BgkitError(
            f"There is no prompt set {name!r}{maybe}: use {', '.join(map(repr, names))}, a hub "
            "name (owner/name), or the path of a .csv, .jsonl or .parquet file with a column "
            "'prompt'."
        )
    return table, {"name": name, "origin": origin, "rows": len(table)}


def _of_split(table: pd.DataFrame, split: str | None, name: str) -> pd.DataFrame:
    """The rows of a split, by the table's own column or by hash; checks that none is shared."""
    known, texts = [*splits.SHARES], table.get("question", table["prompt"])
    if "split" in table:
        parts = dict(iter(table.groupby("split", sort=False)["prompt"]))
        splits.check_leakage({one: parts[one] for one in known if one in parts}, name)
        known = [*parts]
    _check_split(name, split, known)
    if split is not None:
        of = table["split"] if "split" in table else texts.map(splits.split_of)
        table = table[of == split].drop(columns="split", errors="ignore")
    return table.drop(columns="question", errors="ignore")


def _folder(folder: Path, split: str | None) -> pd.DataFrame:
    """The prompts of a folder with one file for each split, and a column ``split``."""
    names = dict.fromkeys([*splits.SHARES, split or "train"])
    files = [(one, folder / f"{one}{end}") for one in names for end in tables.READERS]
    files = [(one, path) for one, path in files if path.is_file()]
    there = [one for one, _ in files]
    if not files or len(set(there)) < len(there) or (split and split not in there):
        raise BgkitError(
            f"There is no prompt set in the folder {folder}: it must hold one file for each split "
            f"(train.csv, validation.csv and test.csv, or .jsonl, .parquet), also for {split!r}."
        )
    parts = [_complete(tables.read_table(p, sets.ROLE), p).assign(split=one) for one, p in files]
    return pd.concat(parts, ignore_index=True)


def _from_testbed(split: str, n: int, seed: int) -> pd.DataFrame:
    rng = random.Random(f"prompts/{split}/{seed}")
    kinds = [world.KINDS[i % len(world.KINDS)] for i in range(n)]
    if split == "train":
        kinds = rng.choices(list(TRAIN_SHARES), list(TRAIN_SHARES.values()), k=n)
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
    table = table.reset_index(drop=True)
    said = chats.pairs(table, path, response=None, leave_out=chats.SYSTEM)["conversation"]
    ids = pd.Series([f"{path.name}/{i:05d}" for i in table.index])
    found = {"prompt_id": ids, "kind": pd.Series("unknown", table.index)}
    for name in [name for name in found if name in table]:
        found[name] = tables.labels(table[name], name, path).fillna(found[name]).astype(str)
    found["prompt"] = tables.texts(said, "prompt", path)
    if "harmful_request" in table:  # a request that is not marked is harmless
        truths = tables.truth_values(table["harmful_request"], "harmful_request", path)
        found["harmful_request"] = truths == 1
    if "category" in table:
        found["category"] = tables.labels(table["category"], "category", path)
    if "split" in table:
        named = tables.labels(table["split"], "split", path)
        found["split"] = tables.texts(named, "split", path).str.strip()
    return pd.DataFrame(found)
