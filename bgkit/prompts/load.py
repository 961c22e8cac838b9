"""Load prompt tables: the testbed's, the kit's own, public sets, benchmarks, local files.

A prompt table has the columns ``prompt_id`` (str), ``kind`` (str), ``prompt`` (str), and, if known,
``harmful_request`` (bool) and ``category`` (str). No two splits of a set share a prompt
(:mod:`bgkit.prompts.splits`).
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
#: Shares of the kinds in training: more jailbreaks, which take longest to learn, and fewer long
#: contexts, which cost the most.
TRAIN_SHARES = {"benign": 0.27, "ambiguous": 0.27, "jailbreak": 0.4, "long_context": 0.06}


def load_prompts(
    name: str = TESTBED, split: str | None = None, n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Load up to ``n`` prompts of a split (None: all splits); a larger set is sampled in its order.

    ``name`` is ``testbed`` (newly drawn, 256 by default), one of the kit's own sets (``everyday``,
    ``everyday-short``), a public set (:data:`bgkit.prompts.sets.SETS`), a benchmark
    (:data:`bgkit.prompts.compose.BENCHMARKS`), a file with a column ``prompt`` (texts or chats) and
    optionally ``prompt_id``, ``kind``, ``category``, ``harmful_request`` and ``split``, a folder
    with one file per split, a data set on the hub, or several of these separated by commas. A set
    without splits is split by a hash of its texts. Raises BgkitError for an unknown name or split,
    ``n`` below 1, a set without usable prompts, and splits that share a prompt.
    """
    return load_with_manifest(name, split, n, seed)[0]


def load_with_manifest(
    name: str, split: str | None = None, n: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, dict]:
    """:func:`load_prompts`, and the manifest to reproduce exactly these prompts."""
    checks.require_type("a name", **{"prompt set": name})
    checks.require_type("a whole number", n=1 if n is None else n, seed=seed)
    if n is not None and n < 1:
        raise BgkitError(f"The number of prompts must be at least 1, not {n}.")
    if name == TESTBED:
        split = split or "train"
        _check_split(name, split, world.SPLITS)
        table, sources = _draw_from_testbed(split, n or 256, seed), [{"name": TESTBED}]
    elif "," in name and not Path(name).expanduser().exists():
        table, sources = _mix_sets(name, split, n, seed)
    elif name in benchmarks.BENCHMARKS:
        _check_split(name, split, splits.SHARES)
        table, sources = benchmarks.compose(benchmarks.BENCHMARKS[name], split, n, seed)
    else:
        table, source = _load_whole(name, split)
        table, sources = _select_split(table, split, name), [source]
        if n is not None and n < len(table):
            table = table.sample(n, random_state=seed).sort_index()
        table = table.reset_index(drop=True)
    if table.empty:
        raise BgkitError(
            f"No prompt of {name} belongs to the split {split!r} (without a column 'split', a hash "
            "of the text decides); add prompts, or such a column."
        )
    return table, benchmarks.manifest(name, split, seed, table, sources)


def _check_split(name: str, split: str | None, names: Collection[str]) -> None:
    if split is not None and split not in names:
        raise BgkitError(
            f"The prompt set {name} has no split {split!r}; choose one of {', '.join(names)}."
        )


def _mix_sets(
    name: str, split: str | None, n: int | None, seed: int
) -> tuple[pd.DataFrame, list[dict]]:
    """The prompts of several sets, each with its share of ``n``; duplicates come from the first.

    Raises BgkitError, also if two sets have the same prompt in different splits.
    """
    parts = [part.strip() for part in name.split(",")]
    if TESTBED in parts or len(set(parts)) < len(parts):
        raise BgkitError(
            f"The prompt sets {name} cannot be mixed: {TESTBED} has its own ground truth and "
            "language, and each set may occur once."
        )
    mixed, sources, seen = [], [], set()
    for index, part in enumerate(parts):
        share = None if n is None else n // len(parts) + (index < n % len(parts))
        if share != 0:
            table, manifest = load_with_manifest(part, split, share, seed)
            keys = table["prompt"].map(splits.normalise)
            mixed.append(table[~keys.isin(seen)].assign(set=part))
            seen.update(keys)
            sources += manifest["sets"]
    whole = pd.concat(mixed, ignore_index=True)
    if split in splits.SHARES:
        texts = {other: [] for other in splits.SHARES} | {split: whole["prompt"]}
        for other, part in itertools.product(splits.SHARES, parts):
            with contextlib.suppress(BgkitError):  # that set has no such split
                if other != split:
                    texts[other] += load_prompts(part, other, None, seed)["prompt"].tolist()
        splits.check_leakage(texts, name)
    return whole, sources


def known_names() -> list[str]:
    """Names of the testbed, the shipped and public sets, and the benchmarks."""
    return [TESTBED, *sets.OWN, *benchmarks.BENCHMARKS, *sets.SETS]


def write_manifests(path: Path, manifests: dict[str, dict]) -> None:
    """Write a run's manifests; raises BgkitError if the run started with other prompts."""
    if not path.is_file():
        write_json(path, manifests)
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    for split, manifest in manifests.items():
        if split in stored and stored[split]["sha256"] != manifest["sha256"]:
            raise BgkitError(
                f"The prompts {manifest['name']!r} (split {split!r}) are no longer those that the "
                f"run {path.parent} started with; restore them, or choose another run folder."
            )


def _load_whole(name: str, split: str | None) -> tuple[pd.DataFrame, dict]:
    """All prompts of a set, and their source for the manifest."""
    path, on_hub = Path(name).expanduser(), hub.parse(name)
    if name in sets.OWN or name in sets.SETS:
        return sets.load_set(name)
    if path.is_dir():
        table, origin = _read_folder(path, split), "local folder"
    elif path.is_file():
        table, origin = _standardise(tables.read_table(path, sets.ROLE), path), "local file"
    elif on_hub is not None:
        table, origin = _standardise(hub.read_table(on_hub), Path(on_hub.repository)), "hub"
    else:
        names = known_names()
        similar = difflib.get_close_matches(name, names, 3)
        hint = f" (did you mean {' or '.join(map(repr, similar))}?)" if similar else ""
        raise BgkitError(
            f"There is no prompt set {name!r}{hint}: use {', '.join(map(repr, names))}, a hub "
            "name (owner/name), or the path of a .csv, .jsonl or .parquet file with a column "
            "'prompt'."
        )
    return table, {"name": name, "origin": origin, "rows": len(table)}


def _select_split(table: pd.DataFrame, split: str | None, name: str) -> pd.DataFrame:
    """The rows of a split, by the column ``split`` or by hash; checks that splits share none."""
    names, texts = [*splits.SHARES], table.get("question", table["prompt"])
    if "split" in table:
        parts = dict(iter(table.groupby("split", sort=False)["prompt"]))
        splits.check_leakage({s: parts[s] for s in names if s in parts}, name)
        names = [*parts]
    _check_split(name, split, names)
    if split is not None:
        column = table["split"] if "split" in table else texts.map(splits.split_of)
        table = table[column == split].drop(columns="split", errors="ignore")
    return table.drop(columns="question", errors="ignore")


def _read_folder(folder: Path, split: str | None) -> pd.DataFrame:
    """The prompts of a folder with one file per split, with a column ``split``."""
    names = dict.fromkeys([*splits.SHARES, split or "train"])
    files = [(name, folder / f"{name}{end}") for name in names for end in tables.READERS]
    files = [(name, path) for name, path in files if path.is_file()]
    present = [name for name, _ in files]
    if not files or len(set(present)) < len(present) or (split and split not in present):
        raise BgkitError(
            f"There is no prompt set in the folder {folder}: it must hold one file for each split "
            f"(train.csv, validation.csv and test.csv, or .jsonl, .parquet), also for {split!r}."
        )
    parts = [_standardise(tables.read_table(p, sets.ROLE), p).assign(split=s) for s, p in files]
    return pd.concat(parts, ignore_index=True)


def _draw_from_testbed(split: str, n: int, seed: int) -> pd.DataFrame:
    rng = random.Random(f"prompts/{split}/{seed}")
    kinds = [world.KINDS[i % len(world.KINDS)] for i in range(n)]
    if split == "train":
        kinds = rng.choices(list(TRAIN_SHARES), list(TRAIN_SHARES.values()), k=n)
    prompts = [world.sample_prompt(rng, kind, split) for kind in kinds]
    return pd.DataFrame(
        {
            "prompt_id": [f"{split}/{seed}/{i:05d}" for i in range(n)],
            "kind": kinds,
            "prompt": [prompt.text for prompt in prompts],
            "harmful_request": [prompt.forbidden for prompt in prompts],
        }
    )


def _standardise(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check the rows of a file and return the columns of a prompt table."""
    if {*chats.COLUMNS}.isdisjoint(table):
        tables.require(table, "prompt", f"The prompt file {path}", "rename the one to use")
    table = table.reset_index(drop=True)
    texts = chats.pairs(table, path, response=None, leave_out=chats.SYSTEM)["conversation"]
    ids = pd.Series([f"{path.name}/{i:05d}" for i in table.index])
    columns = {"prompt_id": ids, "kind": pd.Series("unknown", table.index)}
    for name in [name for name in columns if name in table]:
        columns[name] = tables.labels(table[name], name, path).fillna(columns[name]).astype(str)
    columns["prompt"] = tables.texts(texts, "prompt", path)
    if "harmful_request" in table:  # an unmarked request counts as harmless
        truths = tables.truth_values(table["harmful_request"], "harmful_request", path)
        columns["harmful_request"] = truths == 1
    if "category" in table:
        columns["category"] = tables.labels(table["category"], "category", path)
    if "split" in table:
        names = tables.labels(table["split"], "split", path)
        columns["split"] = tables.texts(names, "split", path).str.strip()
    prompts = pd.DataFrame(columns)
    keys = prompts.filter(["split", "prompt", "harmful_request"])
    if (repeated := keys.duplicated()).any():  # intervals are over different prompts
        first = tables.short_repr(prompts["prompt"][repeated].iloc[0])
        chats.warn_once(f"{path} repeats {repeated.sum()} prompts (first {first}): left out.")
    return prompts[~repeated].reset_index(drop=True)
