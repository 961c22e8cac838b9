"""Configurations that are checked, and run folders that lose and double nothing."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgkit import environment, rewards, runs
from bgkit.errors import BgkitError
from bgkit.runs import Run, TrainConfig, config_hash, load_run, make_config, open_run

DEFAULT = TrainConfig()
NAMES = [field.name for field in fields(TrainConfig)]
FROM_ONE = "steps batch_size accumulation max_completion_length save_every lora_alpha test_prompts"
FROM_NOUGHT = "lora_rank eval_every eval_prompts seed warmup_steps beta strength"
ABOVE_NOUGHT = "learning_rate temperature guard_temperature"


def completions(step: int, *texts: str) -> pd.DataFrame:
    return pd.DataFrame({"step": [step] * len(texts), "completion": list(texts)})


@pytest.fixture
def run(tmp_path) -> Run:
    return open_run(tmp_path / "run", DEFAULT, {"git": "abc"})


def test_values_are_laid_over_the_base_and_kept_as_their_own_types():
    assert make_config({}) == DEFAULT
    base = make_config({"steps": 10, "seed": 3})
    assert make_config({"steps": 20}, base) == replace(DEFAULT, steps=20, seed=3)
    least = dict.fromkeys(FROM_NOUGHT.split(), np.int64(0))
    config = TrainConfig(**least, steps=np.int32(1), tau=np.float32(0.25))
    assert all(type(v) is type(getattr(DEFAULT, k)) for k, v in vars(config).items())
    assert (config.steps, config.tau, config.lora_rank) == (1, 0.25, 0)
    assert config_hash(config) == config_hash(make_config(json.loads(json.dumps(asdict(config)))))
    with pytest.raises(BgkitError, match=f"Unknown key 'stepz' .*{', '.join(NAMES)}"):
        make_config({"steps": 5, "stepz": 5})


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("steps", [True, np.True_, 10.0, "10", None], "of type int"),
        ("tau", [True, "0.5", [0.1]], "of type float"),
        ("policy", [None, 3, b"tiny", Path("tiny")], "of type str"),
        ("prompts", ["", " ", "a\x1b[1m"], "printable"),
        ("tau", [0.0, 1.0, math.nan], "above 0 and below 1"),
        ("beta", [10**400], "at most 1,000,000"),
        ("strength", [math.nan], "at least 0"),
        *((key, [0], "at least 1") for key in FROM_ONE.split()),
        *((key, [-1], "at least 0") for key in FROM_NOUGHT.split()),
        *((key, [0], "above 0") for key in ABOVE_NOUGHT.split()),
        ("learning_rate", [1.5], "at most 1"),
        ("num_generations", [1], "at least 2"),
        ("steps", [1_000_001], "at most 1,000,000"),
        ("temperature", [math.inf], "at most 1,000,000"),
        ("seed", [2**32], "at most 4,294,967,295"),
        ("guard_bits", [7, 32], "choose one of 16, 8, 4"),
        ("reward", ["boundry"], ", ".join(rewards.DESIGNS)),
        ("guard_verdicts", ["Strict"], "strict, loose"),
        ("loss_type", ["grpo2"], "grpo, dr_grpo, bnpo, dapo"),
        ("warmup_steps", [200], "below 'steps'"),
        ("eval_prompts", [0], "unless 'eval_every' is 0"),
    ],
)
def test_a_wrong_value_is_refused_whichever_way_a_config_is_made(key, values, words):
    for value in values:
        for make in (TrainConfig, lambda **v: replace(DEFAULT, **v), lambda **v: make_config(v)):
            with pytest.raises(BgkitError, match=re.escape(words)) as caught:
                make(**{key: value})
            assert key in str(caught.value)


@given(st.integers(1, 64), st.integers(2, 9), st.integers(1, 6))
def test_batches_are_accepted_exactly_if_micro_batches_hold_whole_groups(size, group, parts):
    values = {"batch_size": size, "num_generations": group, "accumulation": parts}
    if size % (group * parts) == 0:
        assert make_config(values).batch_size == size
    else:
        with pytest.raises(BgkitError, match=r"not divisible by .*a batch_size of \d+") as caught:
            make_config(values)
        hint = int(re.findall(r"\d+", str(caught.value))[-1])
        assert make_config({**values, "batch_size": hint})


def test_the_hash_is_that_of_every_version_and_depends_on_every_field():
    hashes = {config_hash(DEFAULT)}
    assert hashes == {"efdfbc1faaeb"}  # which folders are named by
    for setting in fields(TrainConfig):
        usual, (*_, last) = setting.default, (None, *setting.metadata["choices"])
        other = "other" if isinstance(usual, str) else usual / 2 if usual % 1 else 2 * usual or 1
        hashes.add(config_hash(replace(DEFAULT, **{setting.name: last or other})))
    assert len(hashes) == 1 + len(NAMES)


def test_git_revision_is_a_commit_or_unknown(monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", environment.git_revision())
    monkeypatch.setenv("PATH", "")
    assert environment.git_revision() == "unknown"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space"), BgkitError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_failed_write_leaves_the_old_file_and_no_half_of_a_new_one(tmp_path, error, raised):
    (path := tmp_path / "a.txt").write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the ne")
        assert temporary.parent == path.parent and path.read_text() == "old"
        raise error

    with pytest.raises(raised):
        runs.write_atomically(path, write)
    assert path.read_text() == "old" and names_in(tmp_path) == ["a.txt"]


def test_a_run_stores_its_config_and_the_environment_of_its_first_measurement(tmp_path):
    folder, config = tmp_path / "deep" / "run", make_config({"steps": 7, "prompts": "föö 🔥.csv"})
    environment = {"git": "abc", "versions": {"numpy": "2"}}
    opened = open_run(folder, config, environment)
    assert opened == Run(folder, config) == load_run(str(folder)) and not opened.complete
    stored = {"config": asdict(config), "hash": config_hash(config), **environment}
    assert opened.read_json("config.json") == stored
    assert open_run(folder, config, {"git": "def"}).read_json("config.json")["git"] == "def"
    runs.write_json(folder / "base.json", {})
    assert open_run(folder, config, {"git": "later"}).read_json("config.json")["git"] == "def"


def test_a_folder_of_another_config_or_of_other_files_is_refused_and_left_alone(run, tmp_path):
    assert runs.find_run(run.folder, make_config({})) == run
    assert runs.find_run(tmp_path / "none", DEFAULT) is None
    other = make_config({"steps": 61, "reward": "compound"})
    told = "belongs to another config (reward: boundary there, compound here, steps: 200 there, 61"
    with pytest.raises(BgkitError, match=re.escape(f"{run.folder} {told}")):
        open_run(run.folder, other, {})
    with pytest.raises(BgkitError, match="is not empty and not a run"):
        open_run(tmp_path, DEFAULT, {})
    assert names_in(tmp_path) == ["run"] and load_run(run.folder).config == DEFAULT


def test_config_of_an_older_version_gets_the_new_defaults(tmp_path):
    config = {key: value for key, value in asdict(DEFAULT).items() if key != "strength"}
    runs.write_json(tmp_path / "config.json", {"config": config})
    assert load_run(tmp_path).config == DEFAULT


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"config": {"clip": 0.2}}', r"this version of bgkit rejects: Unknown key 'clip'"),
        ('{\n "config": {},\n "seed" 1\n}', "not valid JSON: .* line 3"),
        ("[1]", "must hold one JSON object"),
        ('{"model_type": "gpt2"}', "is not the config of a run"),  # a model's folder has one, too
    ],
)
def test_a_folder_without_a_runs_config_is_no_run(tmp_path, text, hint):
    with pytest.raises(BgkitError, match=f"There is no run in {tmp_path} "):
        load_run(tmp_path)
    path = tmp_path / "config.json"
    with pytest.raises(BgkitError, match=f"{path} cannot be read"):
        runs.read_config(path)
    path.write_text(text)
    for read in (load_run, lambda folder: open_run(folder, DEFAULT, {})):
        with pytest.raises(BgkitError, match=hint) as caught:
            read(tmp_path)
        assert str(tmp_path) in str(caught.value)


def test_missing_or_broken_json_of_the_run_says_how_to_go_on(run):
    for text in ("{", ""):
        with pytest.raises(BgkitError, match=r"no readable result\.json.*same training command"):
            run.read_json("result.json")
        (run.folder / "result.json").write_text(text)


def checkpoint(run: Run, name: str, finished: bool = True) -> Path:
    (folder := run.checkpoints / name).mkdir(parents=True)
    if finished:
        (folder / "trainer_state.json").write_text("{}")
    return folder


def test_completions_come_in_the_order_of_the_steps_and_none_after_the_last_checkpoint_twice(run):
    assert run.completions().empty and run.curve().empty and run.last_checkpoint() is None
    steps = [10, 2, 1, 999, 100, 1000]
    for step in [*steps, 2]:
        run.record_completions(step, completions(step, f"{step}a", f"{step}b"), process=step // 999)
    table = run.completions()
    assert table["completion"].tolist() == [f"{s}{x}" for s in sorted(steps) for x in "ab"]
    assert table.index.tolist() == list(range(12))
    assert run.completions(last=2)["step"].unique().tolist() == [1000, 1001]  # as in the curve
    checkpoint(run, "checkpoint-140", finished=False)
    for name in ("checkpoint-20", "checkpoint-100", "checkpoint-9", "checkpoint-best"):
        checkpoint(run, name)
    checkpoint(run, "tmp-checkpoint-160")
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-100"
    run.drop_repeated()
    assert run.completions()["step"].unique().tolist() == [2, 3, 11]


@pytest.mark.parametrize("failing", ["completions.parquet", "result.json"])
def test_failed_finish_leaves_the_run_incomplete_and_nothing_recorded_later_is_lost(
    run, monkeypatch, failing
):
    """The disk fills up; the run is resumed from a checkpoint and finishes."""
    for step in (1, 2):
        run.record_completions(step, completions(step, f"text {step}"))
    last, before, replace_file = checkpoint(run, "checkpoint-2"), run.completions(), os.replace

    def fail_on_one(source: Path, target: Path) -> None:
        if Path(target).name == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fail_on_one)
    with pytest.raises(BgkitError, match=failing):
        run.finish({"rows": []})
    assert not run.complete and run.last_checkpoint() == last
    pd.testing.assert_frame_equal(run.completions(), before)
    monkeypatch.undo()
    run.record_completions(2, completions(2, "second time"))
    run.finish({"rows": []})
    assert run.complete and run.completions()["completion"].tolist() == ["text 1", "second time"]
    assert run.completions(last=1)["step"].tolist() == [3]
    assert open_run(run.folder, DEFAULT, {}).result == {"rows": []}
    assert names_in(run.folder) == ["completions.parquet", "config.json", "result.json"]
