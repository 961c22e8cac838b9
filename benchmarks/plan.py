"""What a plan says of a step and of memory, beside trainings of the testbed's policies.

Usage: python benchmarks/plan.py [cpu|cuda]
Each policy is trained for some steps of the default config, in a process of its own. Memory is
compared on a GPU only: what a CPU's process holds is mostly libraries.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from pathlib import Path

import bench_scoring as bench
import bench_step
import pandas as pd
import torch

from bgkit import runs
from bgkit.models import devices
from bgkit.prompts import load as prompts
from bgkit.training import budget, machines
from bgkit.training import trainer as training

STEPS = 6  # after the first
POLICIES = ("tiny", "small", "large")


def measured(policy: str, device: str) -> dict[str, float]:
    """Median seconds of a step by part (on a GPU also GB of memory), beside those of the plan."""
    devices.pin_threads()
    config = runs.make_config(
        {"policy": policy, "steps": STEPS + 1, "eval_every": 0, "test_prompts": 8, "judge": "none"}
    )
    place = devices.pick_device(device)
    texts = prompts.load_prompts(config.prompts, "train", None, 0)["prompt"]
    plan = budget.make_plan(config, machines.this_machine(str(place)), budget.tokens_of(texts))
    time_, memory = budget.step_time(plan).set_index("phase")["expected"], budget.memory(plan)
    clock = bench_step.StepClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        bench.PeakMemory(place) as peak,
        clock.watching(),
    ):
        training.train(
            config,
            Path(folder) / "run",
            device=str(place),
            threads=torch.get_num_threads(),
            callbacks=[clock],
        )
    found = pd.DataFrame(clock.rows[1:]).median()
    told = {
        "generation": time_["sampling"],
        "scoring": time_["scoring"],
        "update": time_["reference"] + time_["update"],
        "step": time_["step"],
    }
    row = {f"{part}, s": found[part] for part in told}
    row |= {f"plan, {part}": seconds for part, seconds in told.items()}
    row["plan / measured"] = told["step"] / found["step"]
    if place.type == "cuda":
        row |= {"memory, GB": peak.peak / 1e3, "plan, GB": memory["high"].iloc[-1]}
    return row


def main(device: str = "auto") -> None:
    """Print one row per policy."""
    rows = {}
    for policy in POLICIES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows[policy] = pool.apply(measured, (policy, device))
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:2])
