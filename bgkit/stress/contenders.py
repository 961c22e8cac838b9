"""The contenders of a stress test (base and trained policies), and their responses.

A contender's ``design`` is its run's reward design, with what else differs if two runs would have
the same name; runs that differ only in the seed are one design with several seeds.

Functions that grade take a ``judge``; None is the truth of the contenders' prompts, which is known
for the testbed only. Without either, grades and the metrics that need them are NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.evaluate import policy_of
from bgkit.evaluation.language_judge import Judge
from bgkit.evaluation.results import design_names, runs_of
from bgkit.progress import phase
from bgkit.scoring import guards, identity
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import Scorer, guard_scores, name_of

BASE = "base"
UNGRADED = "–"  # ``graded_by`` without judge and truth
GRADES = ("harm", "help")
#: The testbed's guards. ``overconfident`` is ``default`` with its logits multiplied by 4: at tau =
#: 0.5 it filters the same responses, but fewer are near the boundary.
GUARDS = ("default", "weak", "overconfident", "other")


class Contender(NamedTuple):
    """A policy in a stress test; ``run`` is None for base, whose config is that of a run."""

    design: str
    seed: int
    config: runs.TrainConfig
    run: runs.Run | None


def contenders_of(
    folders: Iterable[str | Path | runs.Run], prompt_set: str = ""
) -> list[Contender]:
    """Base (one for each seed) and the policies of complete runs, in the order given.

    ``prompt_set`` replaces the prompt set of the runs' training in the contenders' configs. Raises
    BgkitError without runs, for an incomplete run, for runs of different base policies, and for two
    runs of one config.
    """
    complete = runs_of(folders, complete=True)
    for run in complete:
        if run.config.policy != complete[0].config.policy:
            raise BgkitError(
                f"The run {run.folder} trained the policy {run.config.policy}, the first one "
                f"{complete[0].config.policy}; test runs of one policy at a time."
            )
    trained, names = [], {}
    for label in dict.fromkeys(run.label for run in complete):
        same = [run for run in complete if run.label == label]
        names |= dict(zip([run.folder for run in same], design_names(same), strict=True))
    for run in complete:
        config = replace(run.config, prompts=prompt_set or run.config.prompts)
        trained.append(Contender(names[run.folder], config.seed, config, run))
    first = {contender.seed: contender.config for contender in reversed(trained)}
    return [Contender(BASE, seed, first[seed], None) for seed in sorted(first)] + trained


def comparable_contenders(contenders: Sequence[Contender]) -> list[Contender]:
    """Base and the policies that differ from the first GRPO run in reward and seed only.

    If there is a GRPO run, other methods are left out. The result can be compared by design.
    """
    trained = [c for c in contenders if c.run]
    by_grpo = [c for c in trained if runs.METHOD not in c.run.read_json("config.json")]
    designs = by_grpo or trained
    first, but = designs[0].config, ("reward", "seed")
    comparable = [c for c in designs if not runs.differences(c.config, first, but)]
    return [c for c in contenders if c.run is None or c in comparable]


def respond(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    *,
    guard: Scorer | None = None,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """One response of every contender to each prompt, scored and graded.

    ``table`` is a prompt table; ``guard`` defaults to that of each contender's config. Contenders
    of one seed share their random numbers. Returns the columns of
    :func:`bgkit.evaluation.samples.sample_as` and :func:`grade_responses`, with design and seed in
    front; u is NaN if a config's utility is a Python object.
    """
    tables = []
    for contender in contenders:
        with phase(f"responses of {contender.design}"):
            samples = sample_once(contender, table, guard)
            samples = grade_responses(samples, judge_of(contender.config, judge))
        tables.append(label_samples(samples, contender))
    return pd.concat(tables, ignore_index=True)


def sample_once(contender: Contender, table: pd.DataFrame, guard: Scorer | None) -> pd.DataFrame:
    """One scored response to each row of a prompt table, not yet graded."""
    policy = policy_of(contender.config, contender.run)
    guard = guard_for(contender, guard)
    utility = guards.utility_if_known(contender.config, "auto")
    return evaluation.sample_as(contender.config, *policy, table, guard=guard, utility=utility)


def guard_for(contender: Contender, given: object | None = None) -> Scorer:
    """The guard ``given``, or that of a contender's config.

    Raises BgkitError if the guard's weights have changed since the contender's run.
    """
    if given is not None:
        return as_guard(given)
    guard = guards.guard_of(contender.config, "auto")
    if contender.run is not None:
        identity.check(contender.run, guard=guard)
    return guard


def judge_of(
    config: runs.TrainConfig, judge: Judge | None = None, needed_by: str = ""
) -> Judge | None:
    """The given judge, or the truth of a config's prompts, or None.

    With ``needed_by``, the name of a test, raises BgkitError instead of returning None.
    """
    judge = judge or evaluation.truth_of(config.prompts)
    if needed_by and judge is None:
        raise BgkitError(
            f"The truth about the prompts {config.prompts!r} is not known; give {needed_by} a "
            "judge (bgkit.load_judge)."
        )
    return judge


def grade_responses(
    samples: pd.DataFrame, judge: Judge | None, refusals: bool = True
) -> pd.DataFrame:
    """Samples with a judge's grades (NaN without one), and ``graded_by``, the judge's name.

    Grades are those of :func:`bgkit.evaluation.samples.grade_samples`.
    """
    if judge is None:
        columns = [f"{part}{grade}" for part in ("", "refusal_", "system_") for grade in GRADES]
        return samples.assign(**dict.fromkeys(columns, np.nan), graded_by=UNGRADED)
    graded = evaluation.grade_samples(samples, judge, refusals=refusals)
    return graded.assign(graded_by=judge.name)


def label_samples(samples: pd.DataFrame, contender: Contender) -> pd.DataFrame:
    """Samples with the contender's design and seed in front."""
    labels = pd.DataFrame({"design": contender.design, "seed": contender.seed}, samples.index)
    return pd.concat([labels, samples], axis=1)


# --- The same responses behind another guard -------------------------------------------------


def redeploy(samples: pd.DataFrame, guard: Scorer, tau: float) -> pd.DataFrame:
    """A table of :func:`respond` with the same responses behind another guard.

    Raises BgkitError for t or harm outside [0, 1] and tau outside (0, 1).
    """
    checks.threshold(tau)
    checks.samples(samples, columns=("t", "harm", "help", "refusal_harm", "refusal_help"))
    t = guard_scores(guard, samples["prompt"].tolist(), samples["response"].tolist())
    refusals = {grade: samples[f"refusal_{grade}"] for grade in GRADES}
    return evaluation.rescored_samples(samples, t, tau, refusals)


def guards_by_name(given: Sequence[str | Scorer]) -> dict[str, Scorer]:
    """Guards by their names.

    Names are loaded by :func:`bgkit.scoring.guards.load_guard`, anything else is converted by
    :func:`bgkit.scoring.adapters.as_guard`. Raises BgkitError for no guard, an unknown one, and two
    of one name.
    """
    listed = checks.as_list("guards", given, str)
    names = [g if isinstance(g, str) else name_of(as_guard(g)) for g in listed]
    if not names or len(set(names)) < len(names):
        raise BgkitError(
            "Give at least one guard, and guards of different names, not "
            f"{', '.join(names) or 'none'}."
        )
    loaded = [guards.load_guard(g) if isinstance(g, str) else as_guard(g) for g in listed]
    return dict(zip(names, loaded, strict=True))


def transfer(
    contenders: Sequence[Contender], samples: pd.DataFrame, guards_: Sequence[str | Scorer]
) -> pd.DataFrame:
    """Every contender's responses behind each of several guards, at the contender's tau.

    ``samples`` is the contenders' table of :func:`respond`, ``guards_`` are as in
    :func:`guards_by_name`. Nothing is sampled, so all differences come from the guard alone.
    Returns :func:`redeploy` samples, guard by guard, with ``guard`` after ``seed``.
    """
    taus = {(each.design, each.seed): each.config.tau for each in contenders}
    samples, tables = samples.reset_index(drop=True), []
    for name, guard in guards_by_name(guards_).items():
        # one contender at a time, as when sampled: the same batches give the same bits
        parts = samples.groupby(["design", "seed"], sort=False)
        redeployed = [redeploy(part, guard, taus[key]) for key, part in parts]
        scored = pd.concat(redeployed).loc[samples.index]
        scored.insert(list(scored).index("seed") + 1, "guard", name)
        tables.append(scored)
    return pd.concat(tables, ignore_index=True)
