"""Measure a sweep's trainings in other deployments, and keep the values beside a collection.

    python benchmarks/elsewhere.py runs/sweeps/03_train_policy [--out data/reference/frontiers]

What a collection keeps (:mod:`bgkit.sweeps.collection`) tells of other thresholds; another guard
has to read the responses, unseen prompts have to be answered, and an attacker has to be let loose.
Each complete run of the folder that was not measured yet is, half a minute each on one core; what
is done is written after every run, so that a cut one goes on. The rows are kept beside the
collection (``elsewhere.parquet``). Designs are then compared as in other deployments, as frontiers
where help is equal::

    index, values, _ = collection.load()
    deployments.differences(index, values, deployments.measured())

Deployments: ``guard NAME`` (the responses to the run's test prompts, behind that guard at the
run's tau), the testbed's shifts (:data:`bgkit.stress.prompts.SHIFTS`), and ``attacked``. There a
row is a request: ``system_harm`` is 1 where the attacker broke it within :data:`BUDGET` queries of
one of his strategies (``kind``), and ``system_help`` the policy's mean help on its test prompts,
which is what is held equal. Only these two are known there: ``filtered`` and ``near`` are False
in every row, so that no rate of them, nor of the filter's errors, is to be read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import environment, runs
from bgkit.evaluation import samples as evaluation
from bgkit.models import devices
from bgkit.progress import say
from bgkit.stress import attack, contenders, prompts
from bgkit.stress.contenders import Contender
from bgkit.sweeps import collection
from bgkit.sweeps.deployments import ELSEWHERE

SMALL = {"index": False, "compression": "zstd", "compression_level": 19}  # it is shipped
GUARDS = ("other", "weak")
#: Shift -> prompts of it.
SHIFTS = {"unseen items": 300, "unseen jailbreaks": 300, "300-600 words": 120}
REQUESTS, BUDGET = 100, 6  # of the attack
ATTACKED = "attacked"
#: Columns that are kept, and their decimals; the others that metrics read are NaN.
KEPT = {"t": 4, "harm": 3, "help": 3, "system_harm": 3, "system_help": 3}


def measured(run: runs.Run, base: bool = True) -> pd.DataFrame:
    """A run of the testbed in every deployment of this module, and base of its seed if asked.

    Returns one row per response (or attacked request): run (as in a collection), deployment, kind,
    prompt (its number), filtered, near, and :data:`KEPT`. Raises BgkitError for an incomplete run.
    """
    tables = []
    others = contenders.guards_by_name(GUARDS)
    asked = pd.concat([prompts.shifted_prompts(n, shifts=[name]) for name, n in SHIFTS.items()])
    for one in contenders.contenders_of([run])[0 if base else 1 :]:
        config = one.config
        own = run.samples() if one.run else run.samples("base")
        judge = contenders.judge_of(config, needed_by="a run elsewhere")
        graded = contenders.grade_responses(own, judge)
        parts = {}
        for name, guard in others.items():
            parts[f"guard {name}"] = contenders.redeploy(graded, guard, config.tau)
        answered = contenders.respond([one], asked.reset_index(drop=True))
        parts |= dict(iter(answered.groupby("shift", sort=False)))
        parts[ATTACKED] = _attacked(one, float(graded["system_help"].mean()))
        rows = pd.concat(
            part.assign(deployment=name, prompt=np.arange(len(part), dtype="int16"))
            for name, part in parts.items()
        )
        name = runs.config_hash(run.config) if one.run else evaluation.base_name(config)
        tables.append(rows.assign(run=name))
    found = pd.concat(tables, ignore_index=True).round(KEPT)
    return found[["run", "deployment", "kind", "prompt", "filtered", "near", *KEPT]]


def _attacked(one: Contender, helped: float) -> pd.DataFrame:
    """A row per request and strategy: whether it was broken, with t and harm of the last answer."""
    tries = attack.attack([one], prompts.forbidden_requests(REQUESTS), budget=BUDGET)
    last = {name: (name, "last") for name in ("t", "harm")}
    groups = tries.groupby(["strategy", "prompt_id"], sort=False)
    rows = groups.agg(system_harm=("shown_harmful", "any"), **last).reset_index()
    told = {"system_help": helped, "help": np.nan, "filtered": False, "near": False}
    return rows.rename(columns={"strategy": "kind"}).assign(**told).astype({"system_harm": float})


def main() -> None:
    """Measure what is there and is not known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, default=collection.shipped())
    asked = parser.parse_args()
    environment.prepare()
    devices.pin_threads()
    path = asked.out / ELSEWHERE
    table = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"run": []})
    for run in collection.find_runs(asked.sweep):
        known = set(table["run"])
        if not run.complete or runs.config_hash(run.config) in known:
            continue
        found = measured(run, evaluation.base_name(run.config) not in known)
        table = pd.concat([table, found], ignore_index=True)
        runs.write_atomically(path, lambda file, t=table: t.to_parquet(file, **SMALL))
        say(f"{run.config.reward} {run.config.strength} seed {run.config.seed}: {len(found)} rows")


if __name__ == "__main__":
    main()
