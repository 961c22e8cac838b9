"""Make ``data/runs``: the trained policies that 07_stress_tests tests by default.

    python benchmarks/ship_runs.py SWEEP

The three designs with the guard ``default`` are taken from the sweep of the ablation (SWEEP, its
folder); those with other guards, the scaled pair and rejection fine-tuning are trained here, with
the same settings, in ``runs/shipped``. Of a run folder only what a stress test reads is kept:
config, base, result, the adapter's weights, and for some the completions of training.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from bgkit import runs, sweep_index, training
from bgkit.stress import calibrated, rejection

WORK, OUT = Path("runs/shipped"), Path("data/runs")
KEPT = (
    "config.json base.json result.json completions.parquet metrics.parquet samples.parquet "
    "base_samples.parquet adapter/adapter_model.safetensors adapter/adapter_config.json"
).split()
DESIGNS = ("filter_avoidance", "boundary", "compound")


def swept(sweep: Path) -> dict[str, runs.Run]:
    """The runs of the three designs at the defaults, by name."""
    found = {}
    for hash_ in sweep_index.read_records(sweep):
        for config in (sweep / "runs" / hash_ / "results").glob("*/config.json"):
            run = runs.load_run(config.parent)
            usual = replace(run.config, reward="boundary")
            default = runs.make_config({"eval_every": 0, "test_prompts": 800, "judge": "none"})
            if usual == default and run.config.reward in DESIGNS:
                found[run.config.reward] = run
    return found


def trained(boundary: runs.Run) -> dict[str, runs.Run]:
    """The other runs, trained (or finished) here, by name."""
    config = boundary.config
    others = {name: replace(config, guard=name) for name in ("weak", "other")}
    found = {f"boundary_{name}": training.train(each, WORK / name) for name, each in others.items()}
    pair = calibrated.train_pair(replace(config, guard="overconfident"), WORK / "overconfident")
    found |= {"boundary_overconfident": pair.as_it_is, "boundary_scaled": pair.scaled}
    found["rejection"] = rejection.rejection_fine_tuning(config, WORK / "sft", like=boundary)
    return found


def main() -> None:
    """Train what is missing and copy what is kept."""
    first = swept(Path(sys.argv[1]))
    for name, run in {**first, **trained(first["boundary"])}.items():
        for file in KEPT:
            wanted = name in (*DESIGNS, "rejection") or file != "completions.parquet"
            if wanted and (run.folder / file).is_file():
                (OUT / name / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(run.folder / file, OUT / name / file)
    shutil.copy(WORK / "overconfident" / "temperature.json", OUT)


if __name__ == "__main__":
    main()
