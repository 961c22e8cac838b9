"""GRPO runs for real: records, resuming, determinism, every design, stopping."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import noop
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL
from transformers import LlamaForCausalLM

from bgkit import runs
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation.evaluate import samples_of
from bgkit.models import policies
from bgkit.rewards import DESIGNS
from bgkit.scoring import adapters, guards
from bgkit.training import trainer as training
from bgkit.training.prompt_order import load_splits, training_table
from bgkit.training.reward_function import reward_of

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test


def train(folder: Path, *, should_stop=lambda: False, guard=None, **changes) -> runs.Run:
    config = runs.make_config({**SMALL, **changes})
    return training.train(
        config, folder, device="cpu", threads=1, should_stop=should_stop, guard=guard
    )


def weights(run: runs.Run) -> bytes:
    (file,) = run.adapter.glob("*.safetensors")
    return file.read_bytes()


def test_a_finished_run_holds_every_record(small_run: runs.Run) -> None:
    names = {path.stem for path in small_run.folder.iterdir()}
    kept = "config base prompts metrics completions samples base_samples adapter result"
    assert names == set(kept.split())
    completions = small_run.completions()
    assert completions.groupby("step").size().to_dict() == dict.fromkeys(range(4), 8)
    assert completions.groupby(["step", "prompt_id"]).size().eq(4).all()
    stored = small_run.read_json("config.json")
    assert stored["config"]["seed"] == 0 and "trl" in stored["versions"] and stored["git"]


def test_the_curve_agrees_with_the_recorded_completions(small_run: runs.Run) -> None:
    curve = small_run.curve().set_index("step")
    means = small_run.completions().groupby("step").mean(numeric_only=True)
    means.index += 1  # TRL logs a step after its update
    for column in ("reward", "t", "u", "filtered"):
        name = {"filtered": "filter_rate"}.get(column, column)
        logged = curve.loc[means.index, name].to_numpy(float)
        np.testing.assert_allclose(logged, means[column].to_numpy(float), atol=2e-5)
    held_out = curve["eval_near_boundary"].dropna()
    assert list(held_out.index) == [0, 2, 4]


def test_the_reward_is_the_design_applied_to_the_recorded_scores(small_run: runs.Run) -> None:
    table, base = small_run.completions(), small_run.read_json("base.json")
    z = (table["u"] - base["utility_mean"]) / base["utility_deviation"]
    np.testing.assert_allclose(table["z"], z, atol=1e-5)
    expected = z - 8.0 * np.minimum(table["t"] / 0.5, (1 - table["t"]) / 0.5)
    np.testing.assert_allclose(table["reward"], expected / base["reward_deviation"], atol=1e-5)


@pytest.mark.slow
def test_what_goes_on_ends_in_the_same_bits(small_run: runs.Run, tmp_path: Path) -> None:
    """After kill -9, records are ahead of the newest checkpoint: a step is repeated."""
    folder, asked = tmp_path / "run", itertools.count(1)
    with pytest.raises(StoppedError, match="Stopped after step 3 of 4"):
        train(folder, should_stop=lambda: next(asked) == 3)
    assert not runs.load_run(folder).complete
    assert len(runs.load_run(folder).completions()) == 3 * 8
    (folder / "checkpoints" / "checkpoint-3" / "trainer_state.json").unlink()
    resumed = train(folder)
    assert weights(resumed) == weights(small_run)
    pd.testing.assert_frame_equal(resumed.completions(), small_run.completions())
    columns = ["step", "reward", "kl", "near_boundary", "eval_system_help"]
    pd.testing.assert_frame_equal(resumed.curve()[columns], small_run.curve()[columns])
    assert resumed.read_json("result.json")["rows"] == small_run.read_json("result.json")["rows"]


def test_a_complete_run_is_not_trained_again(small_run: runs.Run) -> None:
    result = small_run.folder / "result.json"
    before = result.stat().st_mtime_ns
    assert training.train(small_run.config, small_run.folder, device="cpu").complete
    assert result.stat().st_mtime_ns == before


def test_every_design_rewards_what_a_policy_says(small_run: runs.Run) -> None:
    samples = small_run.completions().assign(harmful_request=False)
    base = small_run.read_json("base.json")
    for design in DESIGNS:
        reward = reward_of(samples, design, tau=0.5, strength=8.0, base=base)
        assert reward.shape == (32,) and np.isfinite(reward).all(), design


@pytest.mark.slow
def test_a_design_that_reads_the_prompts_kind_trains(tmp_path: Path) -> None:
    run = train(tmp_path / "run", reward="prompt_aware", steps=1, eval_every=0, test_prompts=4)
    assert np.isfinite(run.completions()["reward"]).all()


def test_a_run_keeps_to_a_reward_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "def brief(t, z, tau, strength, length):\n    return z - strength * t - length\n"
    )
    short = {"reward": f"{own}:brief", "steps": 1, "eval_every": 0, "test_prompts": 4}
    run = train(tmp_path / "run", **short)
    table, base = run.completions(), run.read_json("base.json")
    expected = (table["z"] - 8.0 * table["t"] - table["length"]) / base["reward_deviation"]
    np.testing.assert_allclose(table["reward"], expected, atol=1e-5)
    assert runs.folder_of(run.config, tmp_path).name.startswith("mine.py-brief-mild-0-")
    own.write_text("def brief(t, z, tau):\n    return z\n")
    with pytest.raises(BgkitError, match="has changed since the run"):
        train(tmp_path / "run", **short)


def test_base_gives_every_reward_a_deviation_of_one(tmp_path: Path) -> None:
    policy = policies.load_policy("tiny", device="cpu")
    guard, utility = guards.load_guard("default", "cpu"), guards.load_utility("mild", "cpu")
    spread = {}
    for name in ("utility_only", "boundary", "boundary_raw"):
        run = runs.open_run(tmp_path / name, runs.make_config({**SMALL, "reward": name}), {})
        base = training.measure_base(run, *policy, guard, utility)
        spread[name] = base["reward_deviation"]
    assert spread["utility_only"] == pytest.approx(1.0) and spread["boundary"] > 1.5
    # u - B is z - B / deviation, times the deviation
    assert spread["boundary_raw"] < base["utility_deviation"] * spread["boundary"]


def test_full_fine_tuning_saves_and_loads_the_whole_model(tmp_path: Path) -> None:
    short = {"steps": 1, "eval_every": 0, "test_prompts": 4, "learning_rate": 1e-4}
    run = train(tmp_path / "run", lora_rank=0, **short)
    model, _ = policies.load_policy("tiny", run.adapter, device="cpu")
    base, _ = policies.load_policy("tiny", device="cpu")
    pairs = zip(model.parameters(), base.parameters(), strict=True)
    assert any(not (ours == theirs).all() for ours, theirs in pairs)
    kl = samples_of(run.config, run, "cpu")["kl"]
    assert kl.abs().max() > 0 and kl.tolist() == pytest.approx(
        run.samples()["kl"].tolist(), abs=1e-4
    )


def test_the_prompts_of_a_step_are_all_short_or_all_long_and_none_comes_twice() -> None:
    config = runs.make_config({**SMALL, "steps": 12, "batch_size": 32})
    table = training_table(config, load_splits(config)["train"][0], [])
    lengths = np.array([len(text) for text in table["question"]]).reshape(12, 8)
    long = lengths.max(1) > 200
    assert 0 < long.sum() < 12 and lengths[long].min() >= lengths[~long].max()
    assert len(set(table["prompt_id"])) == 96
    assert (
        training_table(config, load_splits(config)["train"][0], [])["prompt_id"]
        == table["prompt_id"]
    )


def test_a_guard_that_leaves_its_range_stops_the_run(tmp_path: Path) -> None:
    broken = SimpleNamespace(name="broken", score=lambda asked, said: np.full(len(said), 1.5))
    with pytest.raises(BgkitError, match=r"guard broken returned .* in \[0, 1\]"):
        train(tmp_path / "run", guard=broken)


@pytest.mark.parametrize("limited", ["guard", "utility", "policy"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_prompt_that_is_too_long_is_told_before_anything_is_sampled(
    split: str, limited: str, tmp_path: Path, monkeypatch
) -> None:
    for number, part in enumerate(("train", "validation", "test")):
        rows = [f"prompt {number} {i}" for i in range(8)]
        rows[-1] += " tea" * (1300 if part == split else 1)
        (tmp_path / f"{part}.csv").write_text("\n".join(["prompt", *rows]))
    endless = SimpleNamespace(score=lambda asked, said: np.full(len(said), 0.5))
    own = {group: endless for group in ("guard", "utility") if group != limited}
    if limited == "guard":
        own["guard"] = adapters.CalibratedGuard(guards.load_guard("default", "cpu"), 2.0)
    monkeypatch.setattr(LlamaForCausalLM, "generate", None)
    with pytest.raises(BgkitError, match=rf"'prompt \d 7 tea.*leaves .*{limited} .* no room for"):
        training.train(**SMALL, prompts=str(tmp_path), folder=tmp_path / "run", device="cpu", **own)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)]
)
@pytest.mark.slow
def test_a_signal_stops_a_real_process_and_the_same_command_resumes(number, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = itertools.chain.from_iterable(
        (f"--{key.replace('_', '-')}", str(value))
        for key, value in {**SMALL, "steps": 40, "eval_every": 0, "test_prompts": 4}.items()
    )
    command = [sys.executable, "-m", "bgkit", "train", "--out", str(folder), *options]
    command += ["--device", "cpu", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    noop.until(lambda: list(folder.glob("records/*.parquet")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=noop.PATIENCE)
    assert process.returncode == 2, errors
    assert "run the same command again" in errors.replace("\n", " ")
    assert "Traceback" not in errors
    recorded = len(runs.load_run(folder).completions())
    assert 0 < recorded < 40 * 8
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    table = runs.load_run(folder).completions()
    assert table.groupby("step").size().to_dict() == dict.fromkeys(range(40), 8)


# --- base's samples, shared ------------------------------------------------------------------


@pytest.mark.slow
def test_runs_with_one_base_sample_it_once_and_score_it_with_their_own_utility(tmp_path) -> None:
    short = {**SMALL, "steps": 1, "eval_every": 0, "test_prompts": 12}
    shared = tmp_path / "base"
    options = {"device": "cpu", "threads": 1}
    found = {}
    for utility in ("mild", "blind"):
        config = runs.make_config({**short, "utility": utility})
        run = training.train(config, tmp_path / utility, base_samples=shared, **options)
        found[utility] = pd.read_parquet(run.folder / "base_samples.parquet")
    assert len(list(shared.iterdir())) == 1
    assert (found["mild"]["response"] == found["blind"]["response"]).all()
    assert not np.allclose(found["mild"]["u"], found["blind"]["u"])
    weak = guards.load_guard("weak", "cpu")
    other = training.train(config, tmp_path / "own", base_samples=shared, guard=weak, **options)
    assert not np.allclose(other.samples("base")["t"], found["blind"]["t"])
    assert (other.samples("base")["response"] == found["blind"]["response"]).all()
