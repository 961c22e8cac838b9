"""Measure a sweep's trainings in other deployments, and store the values with a collection.

    python benchmarks/elsewhere.py runs/sweeps/03_train_policy [--out data/reference/frontiers]

A collection's values (:mod:`bgkit.sweeps.collection`) suffice for other thresholds. For others, a
guard has to score the responses, the policy to answer unseen prompts, or an attacker to query it.
This measures each complete run of the folder that was not measured yet, half a minute each on one
core. Rows are written after every run (``elsewhere.parquet``), so a stopped measurement resumes.
Designs are then compared as in other deployments, as frontiers at equal help::

    index, values, _ = collection.load()
    deployments.differences(index, values, deployments.measured_values())

Deployments: ``guard NAME`` (the responses to the run's test prompts, behind that guard at the
run's tau), the testbed's shifts (:data:`bgkit.stress.prompts.SHIFTS`), and ``attacked``. There a
row is a request: ``system_harm`` is 1 if the attacker succeeded within :data:`BUDGET` queries of
one of his strategies (``kind``), and ``system_help`` is the policy's mean help on its test prompts,
which is held equal. Only these two are known there: ``filtered`` and ``near`` are False
in every row, so do not read their rates, nor those of the filter's errors.
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
from bgkit.stress.deployments import ATTACKED, ELSEWHERE
from bgkit.sweeps import collection

GUARDS = ("other", "weak")
#: Shift -> number of its prompts.
SHIFTS = {"unseen items": 300, "unseen jailbreaks": 300, "300-600 words": 120}
REQUESTS, BUDGET = 100, 6  # of the attack
#: Columns that are stored, and their decimals; other inputs of metrics are NaN.
KEPT = {"t": 4, "harm": 3, "help": 3, "system_harm": 3, "system_help": 3}


def measure_run(run: runs.Run, base: bool = True) -> pd.DataFrame:
    """A testbed run in every deployment of this module, and with ``base`` also base of its seed.

    Returns one row per response (or attacked request): run (as in a collection), deployment, kind,
    prompt (its number), filtered, near, and :data:`KEPT`. Raises BgkitError for an incomplete run.
    """
    tables = []
    others = contenders.guards_by_name(GUARDS)
    shifted = pd.concat([prompts.shifted_prompts(n, shifts=[name]) for name, n in SHIFTS.items()])
    for contender in contenders.contenders_of([run])[0 if base else 1 :]:
        config = contender.config
        responses = run.samples() if contender.run else run.samples("base")
        judge = contenders.judge_of(config, needed_by="a run elsewhere")
        graded = contenders.grade_responses(responses, judge)
        parts = {}
        for name, guard in others.items():
            parts[f"guard {name}"] = contenders.redeploy(graded, guard, config.tau)
        answered = contenders.respond([contender], shifted.reset_index(drop=True))
        parts |= dict(iter(answered.groupby("shift", sort=False)))
        parts[ATTACKED] = _attacked(contender, float(graded["system_help"].mean()))
        rows = pd.concat(
            part.assign(deployment=name, prompt=np.arange(len(part), dtype="int16"))
            for name, part in parts.items()
        )
        name = runs.config_hash(run.config) if contender.run else evaluation.base_name(config)
        tables.append(rows.assign(run=name))
    values = pd.concat(tables, ignore_index=True).round(KEPT)
    return values[["run", "deployment", "kind", "prompt", "filtered", "near", *KEPT]]


def _attacked(contender: Contender, mean_help: float) -> pd.DataFrame:
    """A row per request and strategy: attack success, and t and harm of the last answer."""
    tries = attack.attack([contender], prompts.forbidden_requests(REQUESTS), budget=BUDGET)
    last = {name: (name, "last") for name in ("t", "harm")}
    groups = tries.groupby(["strategy", "prompt_id"], sort=False)
    rows = groups.agg(system_harm=("shown_harmful", "any"), **last).reset_index()
    fixed = {"system_help": mean_help, "help": np.nan, "filtered": False, "near": False}
    return rows.rename(columns={"strategy": "kind"}).assign(**fixed).astype({"system_harm": float})


def main() -> None:
    """Measure the runs that were not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, default=collection.shipped())
    options = parser.parse_args()
    environment.prepare()
    devices.pin_threads()
    path = options.out / ELSEWHERE
    table = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"run": []})
    for run in collection.find_runs(options.sweep):
        measured_runs = set(table["run"])
        if not run.complete or runs.config_hash(run.config) in measured_runs:
            continue
        rows = measure_run(run, evaluation.base_name(run.config) not in measured_runs)
        table = pd.concat([table, rows], ignore_index=True)
        collection.write_small(path, table)
        say(f"{run.config.reward} {run.config.strength} seed {run.config.seed}: {len(rows)} rows")


if __name__ == "__main__":
    main()
