"""What only a CUDA device can show: the same scores there, and a training."""

from __future__ import annotations

from pathlib import Path

import bench_scoring as bench
import numpy as np
import pytest
import torch
from conftest import SMALL

from bgkit import runs
from bgkit.scoring import guards
from bgkit.training import trainer as training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
PROMPTS = [prompt for prompt, _, _ in guards.OBVIOUS]
RESPONSES = [response for _, response, _ in guards.OBVIOUS]


@pytest.mark.parametrize("load", [guards.load_guard, guards.load_utility])
def test_scores_are_those_of_a_cpu(load) -> None:
    name = "default" if load is guards.load_guard else "mild"
    on_cpu, on_gpu = (load(name, device, "float32") for device in ("cpu", "cuda"))
    np.testing.assert_allclose(
        on_gpu.score(PROMPTS, RESPONSES), on_cpu.score(PROMPTS, RESPONSES), atol=1e-3
    )


@pytest.mark.parametrize("workload", ["guard template", "skewed lengths"])
def test_all_ways_to_score_agree(workload: str) -> None:
    kind, shape = next(iter(bench.DECODERS["cpu"].values()))
    work = bench.workloads(bench.store_words(), size=0.1)[workload]
    scorer = bench.random_decoder(kind, shape, torch.device("cuda"), work.template)
    table = bench.compare_scoring(scorer, work, repeats=1)
    assert table["difference"].max() < 0.05  # bfloat16; in float32 on a CPU it is 1e-6


def test_a_training_on_the_gpu(tmp_path: Path) -> None:
    run = training.train(runs.make_config(SMALL), tmp_path / "run", device="cuda")
    assert run.complete
    assert run.completions().groupby("step").size().to_dict() == dict.fromkeys(range(1, 5), 8)
    reward = run.curve()["reward"]
    assert np.isfinite(reward[1:]).all() and len(reward) == 5  # first, base: no step yet
