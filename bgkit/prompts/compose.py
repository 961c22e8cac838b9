"""Three benchmarks in the paper's sense, composed of public prompt sets: recipes and manifests.

The paper evaluates on jailbreak, ambiguous and long-context prompts; which sets it takes, and how
many prompts of each, could not be read from it: ``data/prompts/benchmarks.yaml`` is our own choice.
A benchmark is determined by its name, split, size and seed, and by the sets' revisions; its
manifest holds all of them and a sha256 over the normalised prompts, one a line.

Long prompts are questions that are buried in pages which have nothing to do with them, paragraphs
of our own (``data/prompts/passages.jsonl``: minutes, manuals, walks). Their order and the place of
the question follow from a seed and the question alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bgkit.prompts import sets
from bgkit.prompts.splits import SHARES, digest, normalise, split_of
from bgkit.testbed.store import data_folder, read_data

WORDS = 450  # length of the prompts that are shipped; about 600 tokens
OPENING = (
    "Below are pages from a folder. One of them holds a question from me. Answer that question, "
    "and nothing else."
)
MARK = "My question: "


class Recipe(NamedTuple):
    """Which share of a benchmark comes from which set, and how many prompts a split has.

    The questions of the sets in ``buried`` are buried in pages of ``words`` words.
    """

    shares: Mapping[str, float]
    counts: Mapping[str, int]
    buried: Sequence[str] = ()
    words: int = 1500


BENCHMARKS = {name: Recipe(**row) for name, row in read_data("prompts", "benchmarks.yaml").items()}


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
            chosen = bury_all(chosen, recipe.words, seed)
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
    """What determines a prompt table, as JSON: its sets with revisions, its counts, its hash."""
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


@functools.cache
def passages() -> tuple[str, ...]:
    """The paragraphs that questions are buried in."""
    lines = (data_folder() / "prompts" / "passages.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines)


def bury(question: str, words: int = WORDS, seed: int = 0) -> tuple[str, float]:
    """A prompt of about ``words`` words that holds the question, and where: 0 start, 1 end.

    Only whole pages are used, in an order that the seed and the normalised question determine;
    when all were used, they come again in another order.
    """
    salt, pages, used, turn = f"{seed}/{normalise(question)}/", [], 0, 0
    while used < words:
        for page in sorted(passages(), key=lambda text: digest(text, f"{salt}{turn}/")):
            if used >= words:
                break
            pages.append(page)
            used += len(page.split())
        turn += 1
    place = int(digest("place", salt)[:8], 16) % (len(pages) + 1)
    body = [*pages[:place], MARK + question, *pages[place:]]
    numbered = [f"[{number}] {page}" for number, page in enumerate(body, start=1)]
    return "\n\n".join([OPENING, *numbered]), place / max(1, len(pages))


def bury_all(table: pd.DataFrame, words: int, seed: int) -> pd.DataFrame:
    """A prompt table whose every question is buried; ``question`` and ``position`` are added."""
    buried = [bury(text, words, seed) for text in table["prompt"]]
    return table.assign(
        question=table["prompt"],
        prompt=[text for text, _ in buried],
        position=[round(place, 4) for _, place in buried],
        kind="long_context",
    )
