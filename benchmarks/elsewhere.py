"""Measure a sweep's trainings in other deployments, and keep the values beside a collection.

    python benchmarks/elsewhere.py runs/sweeps/03_train_policy [--out data/reference/frontiers]

Each complete run of the folder that was not measured yet is (:mod:`bgkit.stress.elsewhere`), half
a minute each on one core; what is done is written after every run, so that a cut one goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from bgkit import environment, runs
from bgkit.evaluation import samples as evaluation
from bgkit.models import devices
from bgkit.progress import say
from bgkit.stress import elsewhere
from bgkit.sweeps import collection

SMALL = {"index": False, "compression": "zstd", "compression_level": 19}  # it is shipped


def main() -> None:
    """Measure what is there and is not known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, default=collection.shipped())
    asked = parser.parse_args()
    environment.prepare()
    devices.pin_threads()
    path = asked.out / elsewhere.FILE
    table = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"run": []})
    for run in collection.find_runs(asked.sweep):
        known = set(table["run"])
        if not run.complete or runs.config_hash(run.config) in known:
            continue
        found = elsewhere.measured(run, evaluation.base_name(run.config) not in known)
        table = pd.concat([table, found], ignore_index=True)
        runs.write_atomically(path, lambda file, t=table: t.to_parquet(file, **SMALL))
        say(f"{run.config.reward} {run.config.strength} seed {run.config.seed}: {len(found)} rows")


if __name__ == "__main__":
    main()
