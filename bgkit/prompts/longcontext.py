"""Long prompts: a question buried in pages that have nothing to do with it. All text is our own.

The pages are the paragraphs of ``data/prompts/passages.jsonl`` (minutes, manuals, walks). Their
order and the place of the question follow from a seed and the question alone.
"""

from __future__ import annotations

import functools
import json

import pandas as pd

from bgkit.prompts.splits import digest, normalise
from bgkit.testbed.store import data_folder

WORDS = 450  # length of the prompts that are shipped; about 600 tokens
OPENING = (
    "Below are pages from a folder. One of them holds a question from me. Answer that question, "
    "and nothing else."
)
MARK = "My question: "


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


def bury_all(table: pd.DataFrame, words: int = WORDS, seed: int = 0) -> pd.DataFrame:
    """A prompt table whose every question is buried; ``question`` and ``position`` are added."""
    buried = [bury(text, words, seed) for text in table["prompt"]]
    return table.assign(
        question=table["prompt"],
        prompt=[text for text, _ in buried],
        position=[round(place, 4) for _, place in buried],
        kind="long_context",
    )
