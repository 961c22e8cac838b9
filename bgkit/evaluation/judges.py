"""Judges: harm and helpfulness in [0, 1] of a response, NaN where the judge gave no grade.

``oracle`` is the testbed's computable truth; ``default`` the embedded judge, a causal language
model trained on other annotators than guard and utility. Any other causal language model (a folder
or hub name) or model behind a server (``api:MODEL``) judges by a rubric. ``english``, and any
folder with a guard ``harm`` and a utility ``help`` fitted on ratings, is two fitted classifiers.
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
from bgkit.evaluation.language_judge import API, Answer, ApiJudge, Judge, LanguageJudge, Replies
from bgkit.models import hub, policies
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
    """Two fitted classifiers: harm is a guard's t, help a utility's u, scaled by its labels' range.

    It can share the errors of the run's guard and utility: fit it on other prompts. Raises
    BgkitError for a ``help`` that was fitted on pairs, whose outputs have no range.
    """

    def __init__(self, name: str, folder: Path, device: str = "auto") -> None:
        self.name = name
        label_range = runs.read_config(folder / "help" / "fit.json")["counts"].get("ratings")
        if label_range is None:
            raise BgkitError(
                f"The helpfulness of the judge {name} was fitted on pairs, so its grades have no "
                "scale; fit it on ratings."
            )
        self.low, self.high = label_range
        self.harm = guards.load_scorer("guard", str(folder / "harm"), device=device)
        self.help = guards.load_scorer("utility", str(folder / "help"), device=device)

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1]."""
        u = self.help.score(prompts, responses).astype(float)
        helpful = np.clip((u - self.low) / (self.high - self.low), 0.0, 1.0)
        harm = self.harm.score(prompts, responses).astype(float)
        return pd.DataFrame({"harm": harm, "help": helpful})


class CausalJudge(LanguageJudge):
    """A causal language model on this machine; its replies are cached in memory only.

    The default ``rubric`` is the testbed's for an embedded model, else
    :data:`bgkit.evaluation.rubrics.HELP_HARM`.
    """

    def __init__(
        self, name: str = "default", device: str = "auto", rubric: rubrics.Rubric | None = None
    ) -> None:
        default = rubrics.TESTBED if name in store.model_names("judge") else rubrics.HELP_HARM
        super().__init__(name, rubric or default, Replies(), {"judge": name})
        self.model, self.tokenizer = policies.load_policy(name, device=device, group="judge")

    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        replies = policies.generate(
            self.model,
            self.tokenizer,
            list(questions.values()),
            max_completion_length=self.rubric.max_tokens,
            temperature=0.0,
        )
        rows = zip(questions, replies.texts, replies.prompt_ids, replies.ids, strict=True)
        return {
            key: self._keep(key, Answer(text, "", len(prompt), len(completion)))
            for key, text, prompt, completion in rows
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

    ``rubric`` names a language model's rubric; ``concurrency`` and ``sampling`` are those of
    :class:`bgkit.evaluation.language_judge.ApiJudge`. Raises BgkitError for an unknown name, a
    damaged file, a rubric that the judge cannot follow, and a server without a key.
    """
    checks.require_type("a name", judge=name)
    choices = rubrics.RUBRICS
    if rubric is not None and rubric not in choices:
        raise BgkitError(f"There is no rubric {rubric!r}; choose one of {', '.join(choices)}.")
    if name.startswith(API):
        options = {"concurrency": concurrency, "sampling": sampling}
        return ApiJudge(name.removeprefix(API), rubric=choices[rubric or "help_harm"], **options)
    unknown = rubric != rubrics.TESTBED.name and name in store.model_names("judge")
    if rubric and (unknown or is_quick(name)):
        raise BgkitError(
            f"The judge {name} cannot grade by the rubric {rubric}; name a language model that "
            "can (api:MODEL, a folder, a hub name), or leave --rubric out."
        )
    return OracleJudge() if name == "oracle" else _local_judge(name, device, rubric)


def is_quick(name: str) -> bool:
    """Whether a judge is the oracle or a pair of classifiers, not a language model."""
    return name == "oracle" or _classifier_folder(name) is not None


def _classifier_folder(name: str) -> Path | None:
    """The folder of a judge that is a pair of classifiers, else None."""
    folder = None if name.startswith(API) else hub.local_folder("judge", name)
    has_both = folder and all((folder / part / "fit.json").is_file() for part in ("harm", "help"))
    return folder if has_both else None


def check_judge(names: str) -> None:
    """Raise BgkitError for comma-separated judges that do not exist or cannot be used.

    Loads no model and sends no request.
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
    if folder := _classifier_folder(name):
        return FittedJudge(name, folder, device)
    return CausalJudge(name, device, rubric and rubrics.RUBRICS[rubric])
