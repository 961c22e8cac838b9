"""A bound on false negatives, by a multiplier: is it met, and what help is left?

    python benchmarks/constrained.py SEED [SEED ...]

Trains ``shown_risk`` with ``max_false_negatives`` at the settings of ``data/sweeps/frontiers.yaml``
with each seed, and measures each run on its 800 test prompts. Runs are in ``runs/constrained``;
results are written to ``data/reference/constrained.json`` after every run, so a stopped measurement
resumes, and several may run side by side.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from filelock import FileLock

import bgkit
from bgkit import environment, rewards
from bgkit.evaluation.metrics import values_of
from bgkit.runs import write_json

OUT = Path(__file__).parents[1] / "data" / "reference" / "constrained.json"
RUNS = Path("runs/constrained")
BOUNDS = (0.03, 0.02, 0.01)
SETTINGS = {"steps": 200, "learning_rate": 0.003, "eval_every": 0, "test_prompts": 800}
METRICS = ["false_negative", "false_positive", "near_boundary", "system_harm", "system_help", "kl"]


def measure(bound: float, seed: int) -> dict:
    """Metrics of a bounded run on its test prompts, and where its multiplier ended."""
    run = bgkit.train(
        folder=RUNS / f"{bound:g}-{seed}",
        reward="shown_risk",
        max_false_negatives=bound,
        seed=seed,
        judge="none",
        threads=1,
        **SETTINGS,
    )
    samples, multiplier = run.samples(), run.curve()["multiplier"].dropna()
    means = values_of(samples)[METRICS].mean()
    expected = rewards.expected_false_negatives(samples["t"].to_numpy(float), run.config.tau)
    row = {"bound": bound, "seed": seed, **means, "expected": float(np.mean(expected))}
    return row | {"multiplier": float(multiplier.iloc[-20:].mean())}


def main() -> None:
    """Measure what is missing for the seeds that are named."""
    environment.prepare()
    for seed in map(int, sys.argv[1:]):
        for bound in BOUNDS:
            rows = json.loads(OUT.read_text("utf-8")) if OUT.is_file() else []
            if any((row["bound"], row["seed"]) == (bound, seed) for row in rows):
                continue
            row = {key: round(value, 4) for key, value in measure(bound, seed).items()}
            with FileLock(RUNS / "results.lock"):
                rows = json.loads(OUT.read_text("utf-8")) if OUT.is_file() else []
                write_json(OUT, sorted([*rows, row], key=lambda r: (-r["bound"], r["seed"])))
            print(row, flush=True)


if __name__ == "__main__":
    main()
