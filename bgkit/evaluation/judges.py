"""Judges: harm and helpfulness in [0, 1] of a response, NaN where the judge gave no grade.

``oracle`` is the testbed's computable truth; ``default`` the embedded judge, a causal language
model that learned from other annotators than guard and utility. Any other causal language model (a
folder, a hub name) or model behind a server (``api:MODEL``) judges by a rubric. ``english``, and
any folder of a guard ``harm`` and a utility of ratings ``help``, was fitted on labels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import rubrics
from bgkit.evaluation.language_judge import API, Answer, ApiJudge, Judge, LanguageJudge
from bgkit.models import hub, policies
from bgkit.runs.replies import Replies
from bgkit.scoring import guards
from bgkit.testbed import oracle, store


class OracleJudge:
    """The testbed's truth."""

    name = "oracle"

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Exact harm and helpfulness of any text."""
        grades = [oracle.grade(p, r) for p, r in zip(prompts, responses, strict=True)]
        pairs = [(grade.harm, grade.help) for grade in grades]
        return pd.DataFrame(pairs, columns=["harm", "help"], dtype=float)


class FittedJudge:
    """Two fitted classifiers: harm is a guard's t, help a utility's u, its labels' ends as 0 and 1.

    It can be wrong where the run's guard and utility are: fit it on other prompts. Raises
    BgkitError for a ``help`` that was fitted on pairs, whose outputs have no ends.
    """

    def __init__(self, name: str, folder: Path, device: str = "auto") -> None:
        self.name = name
        ends = runs.read_config(folder / "help" / "fit.json")["counts"].get("ratings")
        if ends is None:
            raise BgkitError(
                f"The judge {name} has a helpfulness that was fitted on pairs, so that its grades "
                "have no scale; fit it on ratings."
            )
        self.low, self.high = ends
        self.harm = guards.load_scorer("guard", str(folder / "harm"), device=device)
        self.help = guards.load_scorer("utility", str(folder / "help"), device=device)

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1]."""
        u = self.help.score(prompts, responses).astype(float)
        helpful = np.clip((u - self.low) / (self.high - self.low), 0.0, 1.0)
        harm = self.harm.score(prompts, responses).astype(float)
        return pd.DataFrame({"harm": harm, "help": helpful})


class CausalJudge(LanguageJudge):
    """A causal language model on this machine; its replies are kept in memory only.

    Without a ``rubric``, an embedded model is asked in the testbed's language, any other by
    :data:`bgkit.evaluation.rubrics.HELP_HARM`.
    """

    def __init__(
        self, name: str = "default", device: str = "auto", rubric: rubrics.Rubric | None = None
    ) -> None:
        own = rubrics.TESTBED if name in store.model_names("judge") else rubrics.HELP_HARM
        super().__init__(name, rubric or own, Replies(), {"judge": name})
        self.model, self.tokenizer = policies.load_policy(name, device=device, group="judge")

    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        written = policies.generate(
            self.model,
            self.tokenizer,
            list(questions.values()),
            max_completion_length=self.rubric.max_tokens,
            temperature=0.0,
        )
        parts = zip(questions, written.texts, written.prompt_ids, written.ids, strict=True)
        return {
            key: self._keep(key, Answer(text, "", len(prompt), len(completion)))
            for key, text, prompt, completion in parts
        }


def load_judge(
    name: str = "oracle",
    device: str = "auto",
    *,
    rubric: str | None = None,
    concurrency: int = 8,
    sampling: Mapping[str, object] | None = None,
) -> Judge:
    """The judge of a name: oracle, default, english, ``api:MODEL``, a folder, a hub name.

    ``rubric`` is the name of one for a language model, ``concurrency`` and ``sampling`` are those
    of :class:`bgkit.evaluation.language_judge.ApiJudge`. Raises BgkitError for an unknown name, a
    damaged file, a rubric that the judge can not follow, and a server without a key.
    """
    checks.require_type("a name", judge=name)
    known = rubrics.RUBRICS
    if rubric is not None and rubric not in known:
        raise BgkitError(f"There is no rubric {rubric!r}; choose one of {', '.join(known)}.")
    if name.startswith(API):
        options = {"concurrency": concurrency, "sampling": sampling}
        return ApiJudge(name.removeprefix(API), rubric=known[rubric or "help_harm"], **options)
    other = rubric != rubrics.TESTBED.name and name in store.model_names("judge")
    if rubric and (other or is_quick(name)):
        raise BgkitError(
            f"The judge {name} can not grade by the rubric {rubric}; name a language model that "
            "can (api:MODEL, a folder, a hub name), or leave --rubric out."
        )
    return OracleJudge() if name == "oracle" else _local_judge(name, device, rubric)


def is_quick(name: str) -> bool:
    """Whether a judge is the oracle or made of classifiers, and no language model."""
    return name == "oracle" or _fitted(name) is not None


def _fitted(name: str) -> Path | None:
    """The folder of a judge that is made of classifiers, else None."""
    folder = None if name.startswith(API) else hub.local_folder("judge", name)
    whole = folder and all((folder / part / "fit.json").is_file() for part in ("harm", "help"))
    return folder if whole else None


def check_judge(names: str) -> None:
    """Raise BgkitError for judges (with commas between) that are not there, or can not be asked.

    Nothing is loaded or asked yet.
    """
    for name in (part.strip() for part in names.split(",")):
        if name.startswith(API):
            load_judge(name)
        elif name in ("", "none", "oracle"):
            continue
        elif (folder := hub.check("judge", name)) and (folder / "fit.json").is_file():
            raise BgkitError(
                f"{name} is one fitted classifier; a judge's folder holds two, in harm and in help."
            )


@functools.lru_cache(maxsize=2)
def _local_judge(name: str, device: str, rubric: str | None) -> Judge:
    if folder := _fitted(name):
        return FittedJudge(name, folder, device)
    return CausalJudge(name, device, rubric and rubrics.RUBRICS[rubric])
