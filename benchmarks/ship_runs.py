"""Make ``data/runs``: the trained policies that 07_stress_tests tests by default.

    python benchmarks/ship_runs.py

Trains (or finishes) every run in ``runs/shipped``, each in a process of its own with one CPU
thread, with the settings of the ablation's grids; about 8 minutes. Copies only what a stress test
reads of a run folder: config, base, result, curve, the adapter's weights, and the training's
completions; sampled test responses and checkpoints are left out.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from bgkit import runs
from bgkit.models import devices

WORK, OUT = Path("runs/shipped"), Path("data/runs")
#: `boundary` with the default guard, more test prompts, no held-out curve and no judge.
CONFIG = runs.make_config({"eval_every": 0, "test_prompts": 800, "judge": "none"})
KEPT = (
    "config.json base.json result.json metrics.parquet completions.parquet "
    "adapter/adapter_model.safetensors adapter/adapter_config.json"
).split()
SHIPPED = ("filter_avoidance", "boundary", "compound", "rejection")


def grpo(reward: str) -> None:
    """One GRPO run."""
    from bgkit.training import trainer as training

    training.train(replace(CONFIG, reward=reward), WORK / reward, threads=1)


def rejection() -> None:
    """Rejection fine-tuning with as many tokens as the run ``boundary`` generated."""
    from rejection import generated_tokens, rejection_fine_tuning

    tokens = generated_tokens(runs.load_run(WORK / "boundary"))
    rejection_fine_tuning(CONFIG, WORK / "rejection", tokens, threads=1)


def keep(source: Path, name: str) -> None:
    """Copy the shipped files of a run folder."""
    for file in KEPT:
        if (source / file).is_file():  # rejection fine-tuning has no curve
            (OUT / name / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, OUT / name / file)


def main() -> None:
    """Train missing runs, one at a time, and copy their files."""
    for job in ((grpo, "boundary"), (grpo, "compound"), (grpo, "filter_avoidance"), (rejection,)):
        with devices.worker_pool(1) as pool:  # a process for each, which reports its peak memory
            pool.submit(*job).result()
    for name in SHIPPED:
        keep(WORK / name, name)


if __name__ == "__main__":
    main()
