"""Three benchmarks in the paper's sense, composed of public prompt sets: recipes and manifests.

The paper evaluates on jailbreak, ambiguous and long-context prompts; which sets it takes, and how
many prompts of each, could not be read from it: the recipes below are our own choice. A benchmark
is determined by its name, split, size and seed, and by the sets' revisions; its manifest holds
all of them and a sha256 over the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bgkit.prompts import longcontext, sets
from bgkit.prompts.splits import SHARES, digest, normalise, split_of


class Recipe(NamedTuple):
    """Which share of a benchmark comes from which set, and how many prompts a split has.

    The questions of the sets in ``buried`` are buried in pages of ``words`` words.
    """

    shares: Mapping[str, float]
    counts: Mapping[str, int]
    buried: Sequence[str] = ()
    words: int = 1500


COUNTS = {"train": 500, "validation": 50, "test": 250}
#: Deviation from the sets' authors: all sets are divided by hash, so that the train split of
#: ``jailbreak`` holds rows of a file that WildJailbreak's authors call eval.
BENCHMARKS: dict[str, Recipe] = {
    "jailbreak": Recipe(
        {"wildjailbreak-eval": 0.5, "harmbench": 0.2, "strongreject": 0.2, "jbb-harmful": 0.1},
        COUNTS,
    ),
    "ambiguous": Recipe({"xstest": 0.35, "or-bench-hard": 0.55, "jbb-benign": 0.1}, COUNTS),
    "long_context": Recipe(
        {"longsafety": 0.5, "jbb-harmful": 0.15, "jbb-benign": 0.15, "xstest": 0.2},
        {"train": 200, "validation": 20, "test": 100},
        buried=("jbb-harmful", "jbb-benign", "xstest"),
    ),
}


def compose(
    recipe: Recipe, split: str | None = None, n: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, list[dict]]:
    """Mix a benchmark; returns its prompt table and the sources of its manifest.

    Of each set its share of ``n`` prompts (default: the recipe's) is taken, or all that it has. A
    prompt that two sets have is taken from the first. Rows are chosen and ordered by a hash of seed
    and text, so that a larger ``n`` adds to a smaller one and a file's order does not matter.
    """
    total = n or (recipe.counts[split] if split else sum(recipe.counts.values()))
    parts, sources, seen = [], [], set()
    for name, share in recipe.shares.items():
        table, source = sets.load_set(name)
        keys = table["question"].map(normalise)
        table = table[~keys.duplicated() & ~keys.isin(seen)]
        if split:
            table = table[table["question"].map(split_of) == split]
        chosen = _ordered(table, seed).head(round(share * total))
        seen.update(chosen["question"].map(normalise))
        if name in recipe.buried:
            chosen = longcontext.bury_all(chosen, recipe.words, seed)
        parts.append(chosen.assign(set=name))
        sources.append({**source, "wanted": round(share * total), "taken": len(chosen)})
    whole = pd.concat(parts, ignore_index=True)
    return _ordered(whole, seed).drop(columns="question"), sources


def _ordered(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    hashes = table["question"].map(lambda text: digest(normalise(text), f"{seed}/"))
    return table.loc[hashes.sort_values(kind="stable").index].reset_index(drop=True)


def manifest(
    name: str, split: str | None, seed: int, table: pd.DataFrame, sources: list[dict]
) -> dict:
    """What determines a prompt table, as JSON: its sets with revisions, its counts, and its hash.

    ``sha256`` is taken over the normalised prompts in their order, one a line.
    """
    counts = {"kinds": table["kind"].value_counts().sort_index().to_dict()}
    if "harmful_request" in table:
        counts["harmful_requests"] = int(table["harmful_request"].eq(True).sum())
    return {
        "name": name,
        "split": split,
        "shares": dict(SHARES),
        "seed": seed,
        "prompts": len(table),
        **counts,
        "sets": sources,
        "sha256": digest("\n".join(map(normalise, table["prompt"]))),
    }
