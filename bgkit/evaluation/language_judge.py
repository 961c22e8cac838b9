"""What judges that are language models have in common: questions, kept replies, grades."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import pandas as pd

from bgkit.errors import BgkitError
from bgkit.evaluation.rubrics import Rubric
from bgkit.progress import phase
from bgkit.runs.replies import Replies, key_of
from bgkit.texts import visible

#: How a reply begins that declines in prose.
DECLINES = re.compile(
    r"\W*(?:i['’]?m sorry|i am sorry|sorry|i apologi[sz]e|"
    r"(?:i|we)\s+(?:can['’]?t|can ?not|won['’]?t|will not|must decline|am unable|am not able)|"
    r"i['’]m (?:unable|not able))[^\n{]{0,100}",
    re.IGNORECASE,
)


class Judge(Protocol):
    """Anything that grades responses."""

    name: str

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1], NaN where there is no grade; one row each."""


class Answer(NamedTuple):
    """What became of a question; tokens as model or server count them (0: not told).

    ``kind``: "reply"; "refused" by the judge or a content filter, which says so; "rejected", an
    empty reply or a bad request, which is this question's; "failed", which may pass.
    """

    reply: str = ""
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kind: str = "reply"


class LanguageJudge(ABC):
    """A judge that asks by a rubric; ``_ask`` is the subclasses'.

    Readable replies and refusals are kept in ``replies``. ``unscored`` counts responses without a
    grade, ``refused`` those of them that the judge or its server refused to grade, ``usage``
    requests, prompt_tokens and completion_tokens.
    """

    def __init__(self, name: str, rubric: Rubric, replies: Replies) -> None:
        self.name, self.rubric, self.replies = name, rubric, replies
        self.unscored, self.refused, self.usage = 0, 0, Counter()

    def _determinants(self) -> dict[str, object]:
        """Whatever, beside rubric and message, determines a reply."""
        return {"judge": self.name}

    @abstractmethod
    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        """Answers of messages, by their keys; each goes through ``_keep`` as soon as it comes."""

    def _keep(self, key: str, answer: Answer) -> Answer:
        """Count an answer; keep grades and refusals, which another time would not change."""
        tokens = {name: getattr(answer, name) for name in ("prompt_tokens", "completion_tokens")}
        self.usage.update(requests=1, **tokens)
        readable = self.rubric.parse(answer.reply) is not None
        if not readable and not answer.problem and (prose := DECLINES.match(answer.reply)):
            problem = f"refused by the judge ({visible(prose[0])})"
            answer = answer._replace(reply="", problem=problem, kind="refused")
        if readable or answer.kind == "refused":
            self.replies.put(key, answer.reply, "" if readable else answer.problem)
        return answer

    def _kept(self, key: str) -> Answer | None:
        found = self.replies.get(key)
        return found and Answer(*found, kind="refused" if found[1] else "reply")

    def read(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """The rubric's scales as columns, ``reason``, and ``problem``: why there is no grade.

        Equal pairs are asked about once. Raises BgkitError if not one question got an answer, be it
        a refusal.
        """
        messages = [self.rubric.message(p, r) for p, r in zip(prompts, responses, strict=True)]
        fixed = {**self._determinants(), "rubric": [self.rubric.name, self.rubric.version]}
        keys = [key_of(**fixed, message=message) for message in messages]
        answers = {key: self._kept(key) for key in keys}
        asked = {k: m for k, m in zip(keys, messages, strict=True) if answers[k] is None}
        with phase(f"grading by {self.name}"):
            new = self._ask(asked) if asked else {}
        failed = [a.problem for a in new.values() if not a.reply and a.kind != "refused"]
        if keys and len(failed) == len(answers) and all(failed):
            raise BgkitError(f"The judge {self.name} answered nothing at all: {failed[0]}.")
        given = [(answers | new)[key] for key in keys]
        rows = [self.rubric.parse(answer.reply) for answer in given]
        self.unscored += rows.count(None)
        self.refused += sum(answer.kind == "refused" for answer in given)
        problems = [
            "" if row is not None else answer.problem or "not of the asked form"
            for row, answer in zip(rows, given, strict=True)
        ]
        return self.rubric.table(rows).assign(problem=problems)

    def explain(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help``, each (grade - 1) / 4, ``reason`` and ``problem``."""
        if not {"harm", "help"} <= set(self.rubric.scales):
            raise BgkitError(
                f"The rubric {self.rubric.name} has no grades of harm and help; use help_harm."
            )
        table = self.read(prompts, responses)
        return table.assign(harm=(table["harm"] - 1) / 4, help=(table["help"] - 1) / 4)

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """The grades of :meth:`explain`."""
        return self.explain(prompts, responses)[["harm", "help"]]
