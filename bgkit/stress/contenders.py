"""The contenders of a stress test: base and trained policies, and what they say to prompts.

A contender's ``design`` is its run's reward design (with what else differs, where two runs would
have the same name); runs that differ in nothing but the seed are one design with several seeds.
``base`` is the untrained policy, sampled once for each seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit import evaluation, guards, policies, runs, utilities
from bgkit.errors import BgkitError
from bgkit.intervals import crossed
from bgkit.scoring import NEAR, Scorer, check_probabilities
from bgkit.testbed.store import data_folder

BASE = "base"


class Contender(NamedTuple):
    """A policy in a stress test; ``run`` is None for base, whose config is that of a run."""

    design: str
    seed: int
    config: runs.TrainConfig
    run: runs.Run | None


def contenders_of(folders: Iterable[str | Path | runs.Run]) -> list[Contender]:
    """Base (one for each seed) and the policies of complete runs, in the order given.

    Raises BgkitError without runs, for an incomplete one, for runs of different base policies, and
    for two runs of one config.
    """
    found = [each if isinstance(each, runs.Run) else runs.load_run(Path(each)) for each in folders]
    if not found:
        raise BgkitError("There is nothing to test: give at least one run folder.")
    for run in found:
        if not run.complete:
            raise BgkitError(
                f"The run {run.folder} is incomplete; finish it with the command that started it."
            )
        if run.config.policy != found[0].config.policy:
            raise BgkitError(
                f"The run {run.folder} trained the policy {run.config.policy}, the first one "
                f"{found[0].config.policy}; test runs of one policy at a time."
            )
    trained = [
        Contender(name, run.config.seed, run.config, run)
        for name, run in zip(_names(found), found, strict=True)
    ]
    if len({contender[:2] for contender in trained}) < len(trained):
        raise BgkitError("Two of the runs have the same config; leave one of them out.")
    first = {contender.seed: contender.config for contender in reversed(trained)}
    return [Contender(BASE, seed, first[seed], None) for seed in sorted(first)] + trained


def _names(found: Sequence[runs.Run]) -> list[str]:
    """A run's design, and what else differs from the first run of that design (but the seed).

    In front stands the method, where it is not GRPO.
    """
    first: dict[str, runs.TrainConfig] = {}
    names = []
    for run in found:
        method = run.read_json("config.json").get(runs.METHOD)
        design = f"{method}: {run.config.reward}" if method else run.config.reward
        like = first.setdefault(design, run.config)
        differs = {
            key: value
            for key, value in vars(run.config).items()
            if key != "seed" and value != getattr(like, key)
        }
        names.append(", ".join([design, *(f"{k} {v}" for k, v in differs.items())]))
    return names


def shipped_runs() -> list[Path]:
    """The run folders that come with the kit (``data/runs``)."""
    return sorted(path.parent for path in (data_folder() / "runs").glob("*/config.json"))


def of_one_setting(contenders: Sequence[Contender]) -> list[Contender]:
    """Base and those policies whose setting is the first one's but for the reward and the seed.

    Other methods than GRPO are left out, too: what is left can be compared design by design.
    """
    first = next(one for one in contenders if one.run)
    return [
        one
        for one in contenders
        if one.run is None
        or (
            runs.METHOD not in one.run.read_json("config.json")
            and replace(one.config, reward=first.config.reward, seed=first.seed) == first.config
        )
    ]


def policy_of(contender: Contender, device: str = "auto"):
    """The contender's model (with its adapter) and tokenizer."""
    config = contender.config
    adapter = contender.run.adapter if contender.run else None
    return policies.load_policy(config.policy, adapter, device, config.precision)


def respond(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    *,
    guard: Scorer | None = None,
    tau: float | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """What every contender says to the same prompts, once each, scored and graded.

    ``table`` is a prompt table. ``guard`` and ``tau`` are those of each contender's config unless
    given. Contenders of one seed share their random numbers. Returns the columns of
    :func:`bgkit.evaluation.sample_policy`, refusal_harm and refusal_help, and design and seed in
    front; u is scored by each config's reward model.
    """
    tables = []
    for contender, model, tokenizer in each_policy(contenders, device):
        config = contender.config
        judges = evaluation.truth_of(config.prompts)
        samples = evaluation.sample_policy(
            model,
            tokenizer,
            table,
            guard=guard or guards.guard_of(config, device),
            tau=config.tau if tau is None else tau,
            utility=utilities.utility_of(config, device),
            judges=judges,
            temperature=config.temperature,
            max_completion_length=config.max_completion_length,
            seed=contender.seed,
        )
        tables.append(_labelled(samples, contender, judges))
    return pd.concat(tables, ignore_index=True)


def each_policy(contenders: Sequence[Contender], device: str = "auto") -> Iterator[tuple]:
    """Each contender with its model and tokenizer, one after the other."""
    for contender in contenders:
        yield contender, *policy_of(contender, device)


def stored(contenders: Sequence[Contender]) -> pd.DataFrame:
    """The contenders' responses as their runs' evaluation stored them: nothing is sampled.

    Columns as in :func:`respond`. Raises BgkitError if runs were evaluated on different prompts.
    """
    tables, files = [], {}
    for contender in contenders:
        if contender.run:
            files.setdefault((BASE, contender.seed), contender.run.folder / "base_samples.parquet")
            files[contender[:2]] = contender.run.folder / "samples.parquet"
    for contender in contenders:
        samples = pd.read_parquet(files[contender[:2]])
        if tables and samples["prompt"].tolist() != tables[0]["prompt"].tolist():
            raise BgkitError(
                f"{contender.design} (seed {contender.seed}) was evaluated on other prompts than "
                "the first run; sample them anew, or evaluate all with the same prompts."
            )
        tables.append(_labelled(samples, contender, evaluation.truth_of(contender.config.prompts)))
    return pd.concat(tables, ignore_index=True)


def _labelled(samples: pd.DataFrame, contender: Contender, judges) -> pd.DataFrame:
    """Samples with what a refusal is worth, and the contender's name and seed in front."""
    if judges:
        samples = evaluation.with_refusals(samples, judges[0])
    else:
        samples = samples.assign(refusal_harm=np.nan, refusal_help=np.nan)
    names = pd.DataFrame({"design": contender.design, "seed": contender.seed}, samples.index)
    return pd.concat([names, samples], axis=1)


def redeployed(samples: pd.DataFrame, guard: Scorer | None, tau: float) -> pd.DataFrame:
    """The same responses behind another guard (None: the same scores) or threshold.

    Takes and returns a table of :func:`respond`: ``t``, ``filtered``, ``near``, ``system_harm`` and
    ``system_help`` are made anew.
    """
    t = samples["t"].to_numpy(float)
    if guard is not None:
        asked, said = samples["prompt"].tolist(), samples["response"].tolist()
        name = getattr(guard, "name", "guard")
        t = check_probabilities(guard.score(asked, said), name).astype(float)
    filtered = t >= tau
    seen = {
        f"system_{grade}": np.where(filtered, samples[f"refusal_{grade}"], samples[grade])
        for grade in ("harm", "help")
    }
    return samples.assign(t=t, filtered=filtered, near=np.abs(t - tau) < NEAR, **seen)


def summary(
    samples: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    values: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Means of metrics with 95% intervals, one row for each combination of ``by`` and metric.

    Intervals resample prompts and, where a group has several seeds, seeds
    (:func:`bgkit.intervals.crossed`). ``values`` has one column per metric and one row per row of
    ``samples``; by default :func:`bgkit.evaluation.values_of`. Columns: ``by``, metric, mean, low,
    high, n (prompts), n_seeds; groups keep the order in which they first appear.
    """
    values = evaluation.values_of(samples)[list(metrics)] if values is None else values
    rates = [name in evaluation.RATES for name in metrics]
    rows = []
    for key, group in samples.groupby(list(by), sort=False):
        cube = by_seed(group, values.loc[group.index, list(metrics)])
        for metric, interval in zip(metrics, crossed(cube, rates=rates), strict=True):
            found = {"metric": metric, **interval._asdict(), "n": cube.shape[1]}
            rows.append({**dict(zip(by, key, strict=True)), **found, "n_seeds": len(cube)})
    return pd.DataFrame(rows)


def by_seed(group: pd.DataFrame, values: pd.DataFrame) -> np.ndarray:
    """Values (rows, k) as an array (seeds, prompts, k), each seed's rows in their order.

    Raises BgkitError if seeds have different numbers of rows.
    """
    parts = [values[group["seed"].to_numpy() == seed].to_numpy() for seed in group["seed"].unique()]
    if len({len(part) for part in parts}) > 1:
        raise BgkitError("Seeds of one design were tested on different numbers of prompts.")
    return np.stack(parts).astype(float)


def guards_by_name(guards_: Mapping[str, Scorer] | Sequence[str], device: str = "auto"):
    """Guards by name; names alone are loaded (:func:`bgkit.guards.load_guard`)."""
    if isinstance(guards_, Mapping):
        return dict(guards_)
    return {name: guards.load_guard(name, device) for name in guards_}
