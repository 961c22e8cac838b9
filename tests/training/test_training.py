"""GRPO runs for real: records, resuming, determinism, every design, stopping."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import public
import pytest
from conftest import SMALL
from transformers import LlamaForCausalLM

from bgkit import runs
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation.evaluate import evaluate, samples_of
from bgkit.evaluation.thresholds import operating_points
from bgkit.models import policies
from bgkit.prompts.splits import SHARES
from bgkit.rewards import DESIGNS
from bgkit.scoring import adapters, guards
from bgkit.training import trainer as training
from bgkit.training.prompt_order import load_splits, training_table
from bgkit.training.reward_function import reward_of

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test


def train(folder: Path, *, should_stop=lambda: False, guard=None, **changes) -> runs.Run:
    config, options = runs.make_config({**SMALL, **changes}), {"device": "cpu", "threads": 1}
    return training.train(config, folder, should_stop=should_stop, guard=guard, **options)


def weights(run: runs.Run) -> bytes:
    (file,) = run.adapter.glob("*.safetensors")
    return file.read_bytes()


def test_a_finished_run_holds_every_record(small_run: runs.Run) -> None:
    names = {path.stem for path in small_run.folder.iterdir()}
    kept = "config base prompts metrics completions samples base_samples adapter result"
    assert names == set(kept.split())
    stored = small_run.read_json("config.json")
    assert stored["config"]["seed"] == 0 and "trl" in stored["versions"] and stored["git"]
    table, curve = small_run.completions(), small_run.curve().set_index("step")
    assert table.groupby("step").size().to_dict() == dict.fromkeys(range(1, 5), 8)
    assert table.groupby(["step", "prompt_id"]).size().eq(4).all()
    means = table.groupby("step").mean(numeric_only=True)
    for column, logged in {"reward": "reward", "t": "t", "filtered": "filter_rate"}.items():
        np.testing.assert_allclose(curve.loc[means.index, logged], means[column], atol=2e-5)
    assert list(curve["eval_near_boundary"].dropna().index) == [0, 2, 4]


def test_a_score_at_the_threshold_is_filtered_everywhere(tmp_path: Path) -> None:
    """0.9 as float32 is below 0.9: it was filtered in samples, and shown in rewards and tables."""

    def blocklist(prompts, responses):
        return [0.9 if len(response) % 3 else 0.1 for response in responses]

    options = {"tau": 0.9, "steps": 1, "eval_every": 0, "reward": "filter_avoidance"}
    run = train(tmp_path / "run", guard=blocklist, **options)
    samples, recorded, base = run.samples(), run.completions(), run.read_json("base.json")
    assert (samples["filtered"] == (samples["t"] > 0.5)).all() and samples["filtered"].any()
    assert operating_points(samples, [0.9])["filter_rate"].item() == samples["filtered"].mean()
    rewards = (recorded["z"] - 8.0 * (recorded["t"] > 0.5)) / base["reward_deviation"]
    np.testing.assert_allclose(recorded["reward"], rewards, atol=1e-5)


def test_changed_prompt_files_are_not_those_of_a_run(tmp_path: Path, capsys) -> None:
    rows = [{"prompt": f"question {n}", "split": s} for s in SHARES for n in (f"{s} 1", f"{s} 2")]
    public.write_rows(rows, file := tmp_path / "own.csv")
    few = {"prompts": str(file), "steps": 1, "batch_size": 4, "eval_every": 0, "judge": "none"}
    run = train(tmp_path / "run", **few)
    assert train(tmp_path / "run", **few).folder == run.folder
    public.write_rows([{**row, "prompt": row["prompt"] + " again"} for row in rows], file)
    with pytest.raises(BgkitError, match=r"own.csv' .* no longer those that the run"):
        train(tmp_path / "run", **few)
    capsys.readouterr()
    evaluate(run, device="cpu")
    assert f"have changed since {run.folder} was evaluated" in capsys.readouterr().err


def test_the_reward_is_the_design_applied_to_the_recorded_scores(small_run: runs.Run) -> None:
    table, base = small_run.completions(), small_run.read_json("base.json")
    z = (table["u"] - base["utility_mean"]) / base["utility_deviation"]
    np.testing.assert_allclose(table["z"], z, atol=1e-5)
    expected = z - 8.0 * np.minimum(table["t"] / 0.5, (1 - table["t"]) / 0.5)
    np.testing.assert_allclose(table["reward"], expected / base["reward_deviation"], atol=1e-5)
    for design in DESIGNS:  # the records hold what any design takes
        samples = table.assign(harmful_request=False)
        reward = reward_of(samples, design, tau=0.5, strength=8.0, base=base)
        assert reward.shape == (32,) and np.isfinite(reward).all(), design


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


def test_a_run_keeps_to_a_reward_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("def brief(t, z, tau, strength, length): return z - strength * t - length")
    short = {"reward": f"{own}:brief", "steps": 1, "eval_every": 0, "test_prompts": 4}
    run = train(tmp_path / "run", **short)
    table, base = run.completions(), run.read_json("base.json")
    expected = (table["z"] - 8.0 * table["t"] - table["length"]) / base["reward_deviation"]
    np.testing.assert_allclose(table["reward"], expected, atol=1e-5)
    assert runs.folder_of(run.config, tmp_path).name.startswith("mine.py-brief-mild-0-")
    own.write_text("def brief(t, z, tau): return z")
    with pytest.raises(BgkitError, match="has changed since the run"):
        train(tmp_path / "run", **short)


def test_base_gives_every_reward_a_deviation_of_one(tmp_path: Path) -> None:
    policy = policies.load_policy("tiny", device="cpu")
    guard, utility = guards.load_guard("default", "cpu"), guards.load_utility("mild", "cpu")
    spread = {}
    for name in ("utility_only", "boundary"):
        run = runs.open_run(tmp_path / name, runs.make_config({**SMALL, "reward": name}), {})
        spread[name] = training.measure_base(run, *policy, guard, utility)["reward_deviation"]
    assert spread["utility_only"] == pytest.approx(1.0) and spread["boundary"] > 1.5


def test_full_fine_tuning_by_the_prompts_kind_saves_and_loads_the_whole_model(tmp_path) -> None:
    short = {"steps": 1, "eval_every": 0, "test_prompts": 4, "learning_rate": 1e-4}
    run = train(tmp_path / "run", lora_rank=0, reward="prompt_aware", **short)
    model, _ = policies.load_policy("tiny", run.adapter, device="cpu")
    base, _ = policies.load_policy("tiny", device="cpu")
    pairs = zip(model.parameters(), base.parameters(), strict=True)
    assert any(not (ours == theirs).all() for ours, theirs in pairs)
    kl, recorded = (table["kl"] for table in (samples_of(run.config, run, "cpu"), run.samples()))
    assert kl.abs().max() > 0 and kl.tolist() == pytest.approx(recorded.tolist(), abs=1e-4)


def test_the_prompts_of_a_step_are_all_short_or_all_long_and_none_comes_twice() -> None:
    config = runs.make_config({**SMALL, "steps": 12, "batch_size": 32})
    prompts, _ = load_splits(config)["train"]
    table, again = (training_table(config, prompts, []) for _ in range(2))
    lengths = np.array([len(text) for text in table["question"]]).reshape(12, 8)
    long = lengths.max(1) > 200
    assert 0 < long.sum() < 12 and lengths[long].min() >= lengths[~long].max()
    assert len(set(table["prompt_id"])) == 96 and again["prompt_id"] == table["prompt_id"]


@pytest.mark.parametrize(
    ("split", "limited"), [("train", "guard"), ("validation", "utility"), ("test", "policy")]
)
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


def test_runs_with_one_base_sample_it_once_and_score_it_with_their_own_utility(tmp_path) -> None:
    short = {**SMALL, "steps": 1, "eval_every": 0, "test_prompts": 12}
    options = {"base_samples": tmp_path / "base", "device": "cpu", "threads": 1}
    weak = guards.load_guard("weak", "cpu")
    mild, blind, weak = (
        training.train(**short, **options, **own, folder=tmp_path / str(n)).samples("base")
        for n, own in enumerate([{}, {"utility": "blind"}, {"utility": "blind", "guard": weak}])
    )
    assert len(list((tmp_path / "base").iterdir())) == 2  # one for each guard
    assert mild["response"].equals(blind["response"]) and weak["response"].equals(blind["response"])
    assert not np.allclose(mild["u"], blind["u"]) and not np.allclose(weak["t"], blind["t"])
