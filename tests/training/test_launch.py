"""Training in real processes: stopped by a signal, and several of one ``accelerate launch``."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import noop
import numpy as np
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from conftest import ROOT, SMALL
from trl import GRPOConfig

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import devices
from bgkit.training import grpo
from bgkit.training import trainer as training
from bgkit.training.prompt_order import load_splits, training_table
from bgkit.training.reward_function import reward_of

#: The launcher's GPU mode is the one that starts processes; they train on the CPU.
LAUNCH = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--main_process_port", "0", "-m"]


def start(folder: Path, config: dict, launcher: list[str] = LAUNCH) -> subprocess.Popen:
    """Start a training in processes of its own."""
    command = [sys.executable, "-m", *launcher, "bgkit", "train", "--out", str(folder)]
    for key, value in {**config, "device": "cpu", "threads": 1}.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    return noop.start(folder.parent, line=command)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)]
)
def test_a_signal_stops_a_real_process_and_the_same_command_resumes(number, tmp_path: Path) -> None:
    folder, config = tmp_path / "run", {**SMALL, "steps": 40, "eval_every": 0, "test_prompts": 4}
    process = start(folder, config, [])
    noop.until(lambda: list(folder.glob("records/*.parquet")))
    process.send_signal(number)
    said = noop.ended(process, 2)
    assert "run the same command again" in said.replace("\n", " ") and "Traceback" not in said
    assert 0 < len(runs.load_run(folder).completions()) < 40 * 8
    noop.ended(start(folder, config, []))
    table = runs.load_run(folder).completions()
    assert table.groupby("step").size().to_dict() == dict.fromkeys(range(1, 41), 8)


@pytest.mark.slow
def test_two_processes_make_one_run_of_the_prompts_of_one(tmp_path: Path) -> None:
    config = {**SMALL, "batch_size": 32, "test_prompts": 24}
    output = noop.ended(start(tmp_path / "two", config))
    assert output.count("Run:") == 1, output  # one process tells
    run = runs.load_run(tmp_path / "two")
    assert run.result["processes"] == 2 and not (run.folder / "records").exists()
    table = run.completions()
    assert table.groupby("step").size().to_dict() == dict.fromkeys(range(1, 5), 32)
    assert table.groupby(["step", "prompt_id"]).size().eq(SMALL["num_generations"]).all()
    prompts = training_table(run.config, load_splits(run.config)["train"][0], [])
    assert set(prompts["prompt_id"]) == set(table["prompt_id"])
    curve = run.curve().set_index("step")
    assert list(curve["eval_near_boundary"].dropna().index) == [0, 2, 4]
    means = table.groupby("step")["reward"].mean()
    np.testing.assert_allclose(curve.loc[means.index, "reward"], means, atol=2e-5)
    told = {"tau": run.config.tau, "strength": run.config.strength}
    reward = reward_of(table, "boundary", **told, base=run.read_json("base.json"))
    np.testing.assert_allclose(table["reward"], reward, atol=1e-5)


@pytest.mark.thorough
def test_a_signal_stops_all_at_one_step_and_one_process_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = {**SMALL, "steps": 30, "eval_every": 0, "test_prompts": 4, "save_every": 1}
    process = start(folder, config)
    noop.until(lambda: list(folder.glob("checkpoints/*/trainer_state.json")))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=noop.PATIENCE)
    assert process.returncode != 0, output
    stopped = runs.load_run(folder)
    assert not stopped.complete and stopped.last_checkpoint()
    run = training.train(runs.make_config(config), folder, device="cpu", threads=1)
    assert run.completions().groupby("step").size().to_dict() == dict.fromkeys(range(1, 31), 8)


def arguments(folder: Path, more: dict | None = None, **values) -> GRPOConfig:
    """The trainer's arguments for a small run on the CPU."""
    config, place = runs.make_config({**SMALL, **values}), devices.pick_device("cpu")
    return grpo.trainer_arguments(config, folder, place, more=more)


def test_a_step_that_can_not_be_divided_is_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(BgkitError, match=r"8 completions .* among 3 processes; use a batch_size"):
        arguments(tmp_path)


def test_the_launch_shares_no_policy_out(monkeypatch, tmp_path: Path) -> None:
    shipped = load_config_from_file(str(ROOT / "data" / "accelerate" / "several_gpus.yaml"))
    assert not {**shipped.fsdp_config, **shipped.deepspeed_config}
    monkeypatch.setattr(grpo.QuietTrainer, "is_fsdp_enabled", True, raising=False)
    monkeypatch.setattr(grpo.GRPOTrainer, "__init__", lambda self, **_: None)
    with pytest.raises(BgkitError, match="whole policy on each GPU: use data/accelerate"):
        grpo.QuietTrainer(model=None, args=arguments(tmp_path))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"use_vlm": True}, r"TRL rejects the arguments of the trainer .*'use_vlm'"),
        ({"use_vllm": True, "optim": "none such"}, "TRL rejects"),
        *(({name: 1}, f"'{name}' .*leave it out") for name in ("beta", *grpo.RESERVED)),
    ],
)
def test_wrong_arguments_of_the_trainer(more: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match=said):
        arguments(tmp_path, more)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_trainer_has_the_config_and_the_further_arguments(tmp_path, schedule: str) -> None:
    more = {"use_vllm": True, "vllm_mode": "colocate", "epsilon": 0.3}
    config = {"loss_type": "dr_grpo", "scale_rewards": "batch", "warmup_steps": 1}
    made = arguments(tmp_path, more, **config, lr_schedule=schedule)
    assert {name: getattr(made, name) for name in (*more, *config)} == more | config
    warmed = {"constant": "constant_with_warmup"}  # TRL's own has no warm-up
    assert made.lr_scheduler_type == warmed.get(schedule, schedule)
