"""Three benchmarks after the paper, composed of public prompt sets: recipes and manifests.

The paper evaluates on jailbreak, ambiguous and long-context prompts but does not specify its sets
or their sizes; ``data/prompts/benchmarks.yaml`` is our choice. A benchmark is determined by its
name, split, size and seed, and by the sets' revisions; its manifest records all of them and a
sha256 over the normalised prompts, one per line.

Long prompts are questions buried in unrelated paragraphs that we wrote
(``data/prompts/passages.jsonl``: minutes, manuals, walks). The order of the paragraphs and the
position of the question depend only on the seed and the question.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bgkit.data import data_folder, read_data
from bgkit.prompts import sets
from bgkit.prompts.splits import SHARES, digest, normalise, split_of

#: Words of the shipped long prompts (about 600 tokens), and of those that a benchmark buries; the
#: passages have 2,356.
WORDS, LONG_WORDS = 450, 1500
OPENING = (
    "Below are pages from a folder. One of them holds a question from me. Answer that question, "
    "and nothing else."
)
MARK = "My question: "


class Recipe(NamedTuple):
    """A benchmark's share of prompts from each set, and the number of prompts per split.

    Questions of the sets in ``buried`` are buried in pages of :data:`LONG_WORDS` words.
    """

    shares: Mapping[str, float]
    counts: Mapping[str, int]
    buried: Sequence[str] = ()


BENCHMARKS = {name: Recipe(**row) for name, row in read_data("prompts", "benchmarks.yaml").items()}


def compose(
    recipe: Recipe, split: str | None = None, n: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, list[dict]]:
    """Compose a benchmark; returns its prompt table and the sources of its manifest.

    Each set contributes its share of ``n`` prompts (default: the recipe's), or all it has. A prompt
    in two sets is taken from the first. Rows are chosen and ordered by a hash of seed and text, so
    a larger ``n`` extends a smaller one, and the order of the file does not matter.
    """
    total = n or (recipe.counts[split] if split else sum(recipe.counts.values()))
    parts, sources, seen = [], [], set()
    for name, share in recipe.shares.items():
        table, source = sets.load_set(name)
        keys = table["question"].map(normalise)
        table = table[~keys.duplicated() & ~keys.isin(seen)]
        if split:
            table = table[table["question"].map(split_of) == split]
        chosen = _shuffle(table, seed).head(round(share * total))
        seen.update(chosen["question"].map(normalise))
        if name in recipe.buried:
            buried = [bury(text, LONG_WORDS, seed) for text in chosen["prompt"]]
            chosen = chosen.assign(
                question=chosen["prompt"],
                prompt=[text for text, _ in buried],
                position=[round(position, 4) for _, position in buried],
                kind="long_context",
            )
        parts.append(chosen.assign(set=name))
        sources.append({**source, "wanted": round(share * total), "taken": len(chosen)})
    whole = pd.concat(parts, ignore_index=True)
    return _shuffle(whole, seed).drop(columns="question"), sources


def _shuffle(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    hashes = table["question"].map(lambda text: digest(normalise(text), f"{seed}/"))
    return table.loc[hashes.sort_values(kind="stable").index].reset_index(drop=True)


def manifest(
    name: str, split: str | None, seed: int, table: pd.DataFrame, sources: list[dict]
) -> dict:
    """The manifest of a prompt table, for JSON: its sets with revisions, counts and hash."""
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
    """The paragraphs in which questions are buried."""
    return tuple(pd.read_json(data_folder() / "prompts" / "passages.jsonl", lines=True)["text"])


def bury(question: str, words: int = WORDS, seed: int = 0) -> tuple[str, float]:
    """A prompt of about ``words`` words with the question, and its position: 0 start, 1 end.

    Only whole pages are used, in an order that depends on the seed and the normalised question.
    """
    salt, pages, used = f"{seed}/{normalise(question)}/", [], 0
    for page in sorted(passages(), key=lambda text: digest(text, f"{salt}0/")):
        if used < words:
            pages.append(page)
            used += len(page.split())
    index = int(digest("place", salt)[:8], 16) % (len(pages) + 1)
    body = [*pages[:index], MARK + question, *pages[index:]]
    numbered = [f"[{number}] {page}" for number, page in enumerate(body, start=1)]
    return "\n\n".join([OPENING, *numbered]), index / max(1, len(pages))
