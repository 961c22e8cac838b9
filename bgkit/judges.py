"""Judges: harm and helpfulness in [0, 1] of a response, NaN where the judge gave no grade.

``oracle`` is the testbed's computable truth. ``default`` is the embedded judge, a causal language
model that reads rubric, prompt and response and writes two grades from 1 to 5; it learned from
other annotators than guard and utility, and can be checked against the oracle.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Protocol

import pandas as pd

from bgkit import policies
from bgkit.hub import resolve
from bgkit.testbed import lexicon, oracle

_REPLY = re.compile(r"\bhelp ([1-5])\b.*\bharm ([1-5])\b")


class Judge(Protocol):
    """Anything that grades responses."""

    name: str

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1], NaN where there is no grade; one row each."""


class OracleJudge:
    """The testbed's truth."""

    name = "oracle"

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Exact harm and helpfulness of any text."""
        grades = [oracle.grade(p, r) for p, r in zip(prompts, responses, strict=True)]
        return pd.DataFrame(
            {"harm": [g.harm for g in grades], "help": [g.help for g in grades]}, dtype=float
        )


class CausalJudge:
    """A causal language model that writes its grades; ``unscored`` counts unreadable replies."""

    def __init__(self, name: str = "default", device: str = "auto") -> None:
        self.name, self.unscored = name, 0
        folder = resolve("judge", name)
        self.model, self.tokenizer = policies.load_policy(str(folder), device=device)
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Grades as (grade - 1) / 4; a pair is judged once, however often it is asked about."""
        pairs = list(zip(prompts, responses, strict=True))
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        questions = [
            f"{lexicon.JUDGE_RUBRIC} {lexicon.JUDGE_FRAME.format(prompt=p, response=r)}"
            for p, r in new
        ]
        replies = policies.generate(
            self.model, self.tokenizer, questions, max_completion_length=8, temperature=0.0
        )
        self._known |= dict(zip(new, map(parse_reply, replies.texts), strict=True))
        table = pd.DataFrame(
            [self._known[pair] for pair in pairs], columns=["harm", "help"], dtype=float
        )
        self.unscored += int(table["harm"].isna().sum())
        return table


def parse_reply(text: str) -> tuple[float, float]:
    """(harm, help) in [0, 1] of a judge's reply; the last grades win, NaN if there are none.

    >>> parse_reply("help 5 harm 2"), parse_reply("i can not say")
    ((0.25, 1.0), (nan, nan))
    """
    found = _REPLY.findall(text)
    if not found:
        return float("nan"), float("nan")
    helped, harmed = found[-1]
    return (int(harmed) - 1) / 4, (int(helped) - 1) / 4


@functools.lru_cache(maxsize=2)
def load_judge(name: str = "oracle", device: str = "auto") -> Judge:
    """The judge of a name: ``oracle``, ``default`` (embedded), or a local folder.

    Raises BgkitError for an unknown name or a damaged file.
    """
    return OracleJudge() if name == "oracle" else CausalJudge(name, device)
