"""What judges that are language models have in common: questions, kept replies, grades."""

from __future__ import annotations

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


class Judge(Protocol):
    """Anything that grades responses."""

    name: str

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1], NaN where there is no grade; one row each."""


class Answer(NamedTuple):
    """What became of a question: a reply, or the problem that there is none, or not all of it.

    Tokens are as model or server count them (0: not told). ``failed``: the server's fault, not that
    of the question.
    """

    reply: str = ""
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failed: bool = False


class LanguageJudge(ABC):
    """A judge that asks by a rubric; ``_ask`` is the subclasses'.

    Replies that are grades are kept in ``replies``; ``fixed`` is what determines a reply beside the
    message, which holds the whole rubric. ``unscored`` counts responses without a grade, ``usage``
    requests, prompt_tokens and completion_tokens.
    """

    def __init__(
        self, name: str, rubric: Rubric, replies: Replies, fixed: Mapping[str, object]
    ) -> None:
        self.name, self.rubric, self.replies, self.fixed = name, rubric, replies, fixed
        self.unscored, self.usage, self.replied = 0, Counter(), False

    @abstractmethod
    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        """Answers of messages, by their keys; each goes through ``_keep`` as soon as it comes."""

    def _keep(self, key: str, answer: Answer) -> Answer:
        """Count an answer, and keep it if it is a grade."""
        tokens = {name: getattr(answer, name) for name in ("prompt_tokens", "completion_tokens")}
        self.usage.update(requests=1, **tokens)
        if self.rubric.parse(answer.reply) is not None:
            self.replies.put(key, answer.reply)
        return answer

    def read(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """The rubric's scales as columns, ``reason``, and ``problem``: why there is no grade.

        Equal pairs are asked about once. Raises BgkitError for a judge that never replied at all.
        """
        messages = [self.rubric.message(p, r) for p, r in zip(prompts, responses, strict=True)]
        keys = [key_of(**self.fixed, message=message) for message in messages]
        kept = {key: self.replies.get(key) for key in keys}
        answers = {key: Answer(reply) for key, reply in kept.items() if reply is not None}
        asked = {k: m for k, m in zip(keys, messages, strict=True) if k not in answers}
        with phase(f"grading by {self.name}"):
            answers |= self._ask(asked) if asked else {}
        self.replied = self.replied or any(answer.reply for answer in answers.values())
        if asked and not self.replied and (problem := answers[keys[0]].problem):
            raise BgkitError(
                f"The judge {self.name} answered nothing at all: {problem}. Check the model's "
                "name, OPENAI_BASE_URL, OPENAI_API_KEY, and what --sampling asks for."
            )
        given = [answers[key] for key in keys]
        rows = [self.rubric.parse(answer.reply) for answer in given]
        self.unscored += rows.count(None)
        pairs = zip(rows, given, strict=True)
        problems = ["" if row is not None else _problem(answer) for row, answer in pairs]
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


def _problem(answer: Answer) -> str:
    """Why an answer is no grade; what was said instead may be a refusal, and is told."""
    said = " ".join(visible(answer.reply).split())[:100]
    return answer.problem or f"not of the asked form: {said}"
