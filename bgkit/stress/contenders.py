"""The contenders of a stress test: base and trained policies, and what they say to prompts.

A contender's ``design`` is its run's reward design (with what else differs, where two runs would
have the same name); runs that differ in nothing but the seed are one design with several seeds.
``base`` is the untrained policy, sampled once for each seed.

Everything that grades takes a ``judge``: its grades are ``harm`` and ``help``. None takes the truth
of the contenders' prompts, which is known for the testbed's only; without truth and judge grades
are NaN, and so are the metrics that need them.
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
from bgkit.evaluation.language_judge import Judge
from bgkit.evaluation.results import design_of, runs_of
from bgkit.models import policies
from bgkit.progress import phase
from bgkit.scoring import guards, identity
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import NEAR, Scorer, guard_scores, name_of
from bgkit.testbed.store import data_folder

BASE = "base"
UNGRADED = "–"  # who graded, where there is neither a judge nor a truth
GRADES = ("harm", "help")


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
    training: it replaces ``prompts`` in the contenders' configs, which says whether the truth is
    known. The runs keep theirs. Raises BgkitError without runs, for an incomplete one, for runs of
    different base policies, and for two runs of one config.
    """
    found = runs_of(folders, complete=True)
    for run in found:
        if run.config.policy != found[0].config.policy:
            raise BgkitError(
                f"The run {run.folder} trained the policy {run.config.policy}, the first one "
                f"{found[0].config.policy}; test runs of one policy at a time."
            )
    trained = [
        Contender(
            name,
            run.config.seed,
            replace(run.config, prompts=prompt_set or run.config.prompts),
            run,
        )
        for name, run in zip(_names(found), found, strict=True)
    ]
    if len({contender[:2] for contender in trained}) < len(trained):
        raise BgkitError("Two of the runs have the same config; leave one of them out.")
    first = {contender.seed: contender.config for contender in reversed(trained)}
    return [Contender(BASE, seed, first[seed], None) for seed in sorted(first)] + trained


def _names(found: Sequence[runs.Run]) -> list[str]:
    """A run's label, and what else it has that the first run of that label has not."""
    first: dict[str, runs.Run] = {}
    return [design_of(run, first.setdefault(run.label, run)) for run in found]


def shipped_runs() -> list[Path]:
    """The run folders that come with the kit (``data/runs``)."""
    return sorted(path.parent for path in (data_folder() / "runs").glob("*/config.json"))


def of_one_setting(contenders: Sequence[Contender]) -> list[Contender]:
    """Base and those policies whose setting is that of the first GRPO run but for reward and seed.

    Other methods than GRPO are left out, too: what is left can be compared design by design. Raises
    BgkitError if no run was trained by GRPO.
    """
    by_grpo = [
        one for one in contenders if one.run and runs.METHOD not in one.run.read_json("config.json")
    ]
    if not by_grpo:
        names = ", ".join(one.design for one in contenders) or "none"
        raise BgkitError(
            f"No run of these was trained by GRPO, so there are no designs to compare ({names}); "
            "give at least one run of `bgkit train`."
        )
    first = by_grpo[0].config
    alike = [
        one for one in by_grpo if replace(one.config, reward=first.reward, seed=first.seed) == first
    ]
    return [one for one in contenders if one.run is None or one in alike]


def policy_of(contender: Contender, device: str = "auto"):
    """The contender's model (with its adapter) and tokenizer.

    Raises BgkitError where its run was made with another policy of that name.
    """
    config, run = contender.config, contender.run
    adapter = run.adapter if run else None
    made = policies.load_policy(config.policy, adapter, device, config.precision)
    if run and config.lora_rank:
        identity.check(run, policy=identity.Speaker(*made))
    return made


def respond(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    *,
    guard: Scorer | None = None,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """What every contender says to the same prompts, once each, scored and graded.

    ``table`` is a prompt table. ``guard`` is that of each contender's config unless given,
    ``judge`` as in :func:`graded`. Contenders of one seed share their random numbers. Returns the
    columns of :func:`bgkit.evaluation.samples.sample_policy` and of :func:`graded`, and design and
    seed in front; u is scored by each config's reward model (NaN where that is an object of
    somebody's).
    """
    tables = []
    for contender in contenders:
        with phase(f"responses of {contender.design}"):
            samples = sampled(contender, *policy_of(contender), table, guard)
            said = graded(samples, judge_of(contender.config, judge))
        tables.append(labelled(said, contender))
    return pd.concat(tables, ignore_index=True)


def sampled(
    contender: Contender, model, tokenizer, table: pd.DataFrame, guard: Scorer | None
) -> pd.DataFrame:
    """One scored response to each row of a prompt table, not graded yet."""
    config = contender.config
    return evaluation.sample_policy(
        model,
        tokenizer,
        table,
        guard=guard_for(contender, given=guard),
        tau=config.tau,
        utility=guards.utility_if_known(config, "auto"),
        temperature=config.temperature,
        max_completion_length=config.max_completion_length,
        seed=contender.seed,
    )


def guard_for(contender: Contender, device: str = "auto", given: object | None = None) -> Scorer:
    """The guard ``given``, or that of a contender's config.

    ``given`` is whatever :func:`bgkit.scoring.adapters.as_guard` takes. Raises BgkitError where the
    contender's run was made with other weights than its guard has now.
    """
    if given is not None:
        return as_guard(given)
    guard = guards.guard_of(contender.config, device)
    if contender.run is not None:
        identity.check(contender.run, guard)
    return guard


def judge_of(
    config: runs.TrainConfig, judge: Judge | None = None, needed: str = ""
) -> Judge | None:
    """The judge that is given, or the truth of a config's prompts; None where neither is there.

    With ``needed``, what needs it, BgkitError instead of None.
    """
    found = judge or evaluation.truth_of(config.prompts)
    if needed and found is None:
        raise BgkitError(
            f"The truth about the prompts {config.prompts!r} is not known; give {needed} a judge "
            "(judges.load_judge)."
        )
    return found


def graded(samples: pd.DataFrame, judge: Judge | None) -> pd.DataFrame:
    """Samples with a judge's grades in [0, 1] of what was said and of what the user sees.

    ``samples`` has prompt, response and filtered. Columns that are made (anew): harm and help of
    the response, refusal_harm and refusal_help of the canned refusal to its prompt, system_harm and
    system_help (the refusal's where filtered), and ``graded_by``, the judge's name. Without a judge
    grades are NaN.
    """
    if judge is None:
        columns = [f"{part}{grade}" for part in ("", "refusal_", "system_") for grade in GRADES]
        return samples.assign(**dict.fromkeys(columns, np.nan), graded_by=UNGRADED)
    return evaluation.graded(samples, judge, refusals=True).assign(graded_by=judge.name)


def labelled(samples: pd.DataFrame, contender: Contender) -> pd.DataFrame:
    """Samples with the contender's name and seed in front."""
    names = pd.DataFrame({"design": contender.design, "seed": contender.seed}, samples.index)
    return pd.concat([names, samples], axis=1)


def redeployed(samples: pd.DataFrame, guard: Scorer, tau: float) -> pd.DataFrame:
    """The same responses behind another guard.

    Takes and returns a table of :func:`respond`: ``t``, ``filtered``, ``near``, ``system_harm`` and
    ``system_help`` are made anew. Raises BgkitError for t or harm off [0, 1] and tau off (0, 1).
    """
    checks.threshold(tau)
    checks.samples(samples, columns=("t", "harm", "help", "refusal_harm", "refusal_help"))
    t = guard_scores(guard, samples["prompt"].tolist(), samples["response"].tolist()).astype(float)
    seen = {f"system_{g}": samples[g].where(t < tau, samples[f"refusal_{g}"]) for g in GRADES}
    return samples.assign(t=t, filtered=t >= tau, near=np.abs(t - tau) < NEAR, **seen)


def guards_by_name(
    guards_: Mapping[str, Scorer] | Sequence[str | Scorer],
) -> dict[str, Scorer]:
    """Guards by name: of a mapping as it is, of a list by their own names.

    A name in a list is loaded (:func:`bgkit.scoring.guards.load_guard`), anything else is read as
    :func:`bgkit.scoring.adapters.as_guard` does. Raises BgkitError for no or an unknown guard, and
    for two of one name.
    """
    if isinstance(guards_, str) or not len(guards_):
        raise BgkitError(
            "Transfer needs guards to deploy with: give a list of names, or a mapping of names to "
            "guards, with at least one."
        )
    if isinstance(guards_, Mapping):
        return {name: as_guard(one) for name, one in guards_.items()}
    loaded = [guards.load_guard(g) if isinstance(g, str) else as_guard(g) for g in guards_]
    names = [g if isinstance(g, str) else name_of(s) for g, s in zip(guards_, loaded, strict=True)]
    if len(set(names)) < len(names):
        raise BgkitError(
            f"Two of the guards have the same name ({', '.join(names)}); give a mapping of names "
            "to guards."
        )
    return dict(zip(names, loaded, strict=True))
