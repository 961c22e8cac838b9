"""Do an average of the last adapters, or a KL target, make runs of one config agree better?

    python benchmarks/stability.py SEED [SEED ...]

Trains ``boundary`` at the defaults with each seed, once plainly and once with a ``beta`` that moves
towards a KL target (what a plain run's completions have in the mean); of the plain run the last
adapter and the mean of those of the last 50 steps are measured, on validation prompts. Runs are in
``runs/stability``; results are printed, one line of JSON each (``data/reference/stability.json``
holds those of seeds 31 to 35).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

import bgkit
from bgkit import environment
from bgkit.evaluation.metrics import values_of
from bgkit.models import policies
from bgkit.runs import Run
from bgkit.training import grpo

RUNS = Path("runs/stability")
LAST = 50  # steps whose adapters are averaged
#: KL per token; of beta's logarithm per step at twice the target; steps before beta moves
TARGET, RATE, WAIT = 0.13, 0.05, 20
PROMPTS = 800
METRICS = ["near_boundary", "false_negative", "system_harm", "system_help"]
SETTINGS = {"reward": "boundary", "eval_every": 0, "judge": "none", "test_prompts": 8}


class Averaging(TrainerCallback):
    """Sums a policy's trainable weights after each of the last steps."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = 0

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        """Add the weights of this step."""
        if state.global_step > state.max_steps - LAST:
            self.steps += 1
            for name, weight in model.named_parameters():
                if weight.requires_grad:
                    sums = self.sums.setdefault(name, torch.zeros_like(weight, requires_grad=False))
                    sums += weight.detach() / LAST


class KLTarget(grpo.QuietTrainer):
    """A trainer whose beta moves so that the KL per token approaches :data:`TARGET`."""

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Raise beta after a step above the target, lower it after one below."""
        super().log(logs, start_time)
        if "kl" in (entry := self.state.log_history[-1]) and self.state.global_step > WAIT:
            self.beta *= math.exp(RATE * max(-1.0, min(1.0, entry["kl"] / TARGET - 1)))


def measure(run: Run, adapter: Path) -> dict[str, float]:
    """Means of a policy's metrics on validation prompts."""
    policy = policies.load_policy(run.config.policy, adapter)
    samples = bgkit.sample(policy, n=PROMPTS, split="validation", seed=9)
    kl = run.curve()["kl"].tail(LAST).mean()  # per token; of the last adapters, not of their mean
    return {**values_of(samples)[METRICS].mean(), "kl": kl}


def plain(seed: int) -> dict[str, dict[str, float]]:
    """A plain run: its last adapter, and the mean of the last ones."""
    folder, averaging = RUNS / f"plain-{seed}", Averaging()
    run = bgkit.train(folder=folder, seed=seed, threads=1, callbacks=[averaging], **SETTINGS)
    mean = folder / "mean"
    if not mean.is_dir() and averaging.steps != LAST:
        sys.exit(f"{folder} was trained in several parts: delete it, and begin again.")
    if averaging.steps:
        mean.mkdir()
        (file,) = run.adapter.glob("*.safetensors")
        stored = load_file(file)
        named = {name.replace(".default", ""): w for name, w in averaging.sums.items()}
        assert set(named) == set(stored), "the adapter has other weights"
        save_file(named, mean / file.name)
        for other in run.adapter.glob("*.json"):
            (mean / other.name).write_bytes(other.read_bytes())
    return {"last adapter": measure(run, run.adapter), f"mean of last {LAST}": measure(run, mean)}


def with_target(seed: int) -> dict[str, dict[str, float]]:
    """A run with a KL target."""
    usual, grpo.QuietTrainer = grpo.QuietTrainer, KLTarget
    try:
        run = bgkit.train(folder=RUNS / f"target-{seed}", seed=seed, threads=1, **SETTINGS)
    finally:
        grpo.QuietTrainer = usual
    return {"KL target": measure(run, run.adapter)}


def main() -> None:
    """Train and measure with each seed."""
    environment.prepare()
    for seed in map(int, sys.argv[1:]):
        for name, row in (plain(seed) | with_target(seed)).items():
            print(
                json.dumps({"seed": seed, "what": name} | {k: round(v, 4) for k, v in row.items()}),
                flush=True,
            )


if __name__ == "__main__":
    main()
