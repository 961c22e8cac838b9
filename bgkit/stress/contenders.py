"""The contenders of a stress test: base and trained policies, and what they say to prompts.

A contender's ``design`` is its run's reward design (with what else differs, where two runs would
have the same name); runs that differ in nothing but the seed are one design with several seeds.

What grades takes a ``judge``; None takes the truth of the contenders' prompts, which is known for
the testbed's only. Without either grades are NaN, and so are the metrics that need them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from bgkit.evaluation.results import design_of, runs_of
from bgkit.progress import phase
from bgkit.scoring import guards, identity
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import Scorer, guard_scores, name_of
from bgkit.testbed.store import data_folder

BASE = "base"
UNGRADED = "–"  # who graded, where there is neither a judge nor a truth
GRADES = ("harm", "help")
#: The testbed's guards. ``overconfident`` is ``default`` with its logits multiplied by 4: at tau =
#: 0.5 it filters the same responses, only fewer lie near the boundary.
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

    ``prompt_set`` names the prompts that they will be asked, where these are not those of the runs'
    training: it stands in the contenders' configs. Raises BgkitError without runs, for an
    incomplete one, for runs of different base policies, and for two runs of one config.
    """
    found = runs_of(folders, complete=True)
    for run in found:
        if run.config.policy != found[0].config.policy:
            raise BgkitError(
                f"The run {run.folder} trained the policy {run.config.policy}, the first one "
                f"{found[0].config.policy}; test runs of one policy at a time."
            )
    trained, names = [], {}
    for run in found:  # a run's label, and what else it has that the first one of it has not
        name = design_of(run, names.setdefault(run.label, run))
        config = replace(run.config, prompts=prompt_set or run.config.prompts)
        trained.append(Contender(name, config.seed, config, run))
    if len({contender[:2] for contender in trained}) < len(trained):
        raise BgkitError("Two of the runs have the same config; leave one of them out.")
    first = {contender.seed: contender.config for contender in reversed(trained)}
    return [Contender(BASE, seed, first[seed], None) for seed in sorted(first)] + trained


def shipped_runs() -> list[Path]:
    """The run folders that come with the kit (``data/runs``)."""
    return sorted(path.parent for path in (data_folder() / "runs").glob("*/config.json"))


def of_one_setting(contenders: Sequence[Contender]) -> list[Contender]:
    """Base and those policies whose setting is that of the first GRPO run but for reward and seed.

    Other methods than GRPO are left out, too, where there is a run of GRPO: what is left can be
    compared design by design.
    """
    trained = [one for one in contenders if one.run]
    by_grpo = [one for one in trained if runs.METHOD not in one.run.read_json("config.json")]
    designs = by_grpo or trained
    first, but = designs[0].config, ("reward", "seed")
    alike = [one for one in designs if not runs.differences(one.config, first, but)]
    return [one for one in contenders if one.run is None or one in alike]


def respond(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    *,
    guard: Scorer | None = None,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """What every contender says to the same prompts, once each, scored and graded.

    ``table`` is a prompt table; ``guard`` is that of each contender's config unless given.
    Contenders of one seed share their random numbers. Returns the columns of
    :func:`bgkit.evaluation.samples.sample_as` and of :func:`graded`, with design and seed in
    front; u is NaN where a config's reward model is an object of somebody's.
    """
    tables = []
    for contender in contenders:
        with phase(f"responses of {contender.design}"):
            samples = sampled(contender, table, guard)
            said = graded(samples, judge_of(contender.config, judge))
        tables.append(labelled(said, contender))
    return pd.concat(tables, ignore_index=True)


def sampled(contender: Contender, table: pd.DataFrame, guard: Scorer | None) -> pd.DataFrame:
    """One scored response to each row of a prompt table, not graded yet."""
    policy = policy_of(contender.config, contender.run)
    guard = guard_for(contender, guard)
    utility = guards.utility_if_known(contender.config, "auto")
    return evaluation.sample_as(contender.config, *policy, table, guard=guard, utility=utility)


def guard_for(contender: Contender, given: object | None = None) -> Scorer:
    """The guard ``given``, or that of a contender's config.

    Raises BgkitError where the contender's run was made with other weights than its guard has now.
    """
    if given is not None:
        return as_guard(given)
    guard = guards.guard_of(contender.config, "auto")
    if contender.run is not None:
        identity.check(contender.run, guard=guard)
    return guard


def judge_of(
    config: runs.TrainConfig, judge: Judge | None = None, needed: str = ""
) -> Judge | None:
    """The judge that is given, or the truth of a config's prompts.

    Where neither is there None, or BgkitError if there is something that ``needed`` it.
    """
    found = judge or evaluation.truth_of(config.prompts)
    if needed and found is None:
        raise BgkitError(
            f"The truth about the prompts {config.prompts!r} is not known; give {needed} a judge "
            "(judges.load_judge)."
        )
    return found


def graded(samples: pd.DataFrame, judge: Judge | None) -> pd.DataFrame:
    """Samples with a judge's grades (NaN without one), and ``graded_by``, the judge's name.

    Grades are those of :func:`bgkit.evaluation.samples.graded`, with the refusals'.
    """
    if judge is None:
        columns = [f"{part}{grade}" for part in ("", "refusal_", "system_") for grade in GRADES]
        return samples.assign(**dict.fromkeys(columns, np.nan), graded_by=UNGRADED)
    return evaluation.graded(samples, judge, refusals=True).assign(graded_by=judge.name)


def labelled(samples: pd.DataFrame, contender: Contender) -> pd.DataFrame:
    """Samples with the contender's name and seed in front."""
    names = pd.DataFrame({"design": contender.design, "seed": contender.seed}, samples.index)
    return pd.concat([names, samples], axis=1)


# --- The same responses behind another guard -------------------------------------------------


def redeployed(samples: pd.DataFrame, guard: Scorer, tau: float) -> pd.DataFrame:
    """A table of :func:`respond` with what another guard makes of the same responses.

    Raises BgkitError for t or harm off [0, 1] and tau off (0, 1).
    """
    checks.threshold(tau)
    checks.samples(samples, columns=("t", "harm", "help", "refusal_harm", "refusal_help"))
    t = guard_scores(guard, samples["prompt"].tolist(), samples["response"].tolist()).astype(float)
    refusals = {grade: samples[f"refusal_{grade}"] for grade in GRADES}
    return evaluation.behind(samples, t, tau, refusals)


def guards_by_name(
    given: Mapping[str, str | Scorer] | Sequence[str | Scorer],
) -> dict[str, Scorer]:
    """Guards by name: of a mapping as it is, of a list by their own names.

    A name is loaded (:func:`bgkit.scoring.guards.load_guard`), anything else is read as
    :func:`bgkit.scoring.adapters.as_guard` does. Raises BgkitError for no or an unknown guard, and
    for two of one name.
    """
    if isinstance(given, Mapping):
        named = list(given.items())
    else:
        listed = checks.as_list("guards", given, str)
        named = [(g if isinstance(g, str) else name_of(as_guard(g)), g) for g in listed]
    if len(dict(named)) < max(1, len(named)):
        told = ", ".join(name for name, _ in named) or "none"
        raise BgkitError(
            f"Give at least one guard, and each a name of its own (as a mapping), not {told}."
        )
    return {n: guards.load_guard(g) if isinstance(g, str) else as_guard(g) for n, g in named}


def transfer(
    samples: pd.DataFrame,
    guards_: Mapping[str, str | Scorer] | Sequence[str | Scorer] = GUARDS,
    tau: float = 0.5,
) -> pd.DataFrame:
    """Every contender's responses behind each of several guards.

    ``samples`` is a table of :func:`respond`, ``guards_`` are as in :func:`guards_by_name`, ``tau``
    in (0, 1) is that of all deployments. Nothing is sampled, so that all differences come from the
    guard alone. Returns :func:`redeployed` samples, guard by guard, with ``guard`` behind ``seed``.
    """
    samples, tables = samples.reset_index(drop=True), []
    for name, guard in guards_by_name(guards_).items():
        # each contender by itself, as it was when sampled: the same batches give the same bits
        parts = samples.groupby(["design", "seed"], sort=False)
        scored = pd.concat([redeployed(part, guard, tau) for _, part in parts]).loc[samples.index]
        scored.insert(list(scored).index("seed") + 1, "guard", name)
        tables.append(scored)
    return pd.concat(tables, ignore_index=True)
