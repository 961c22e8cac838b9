"""Configurations that are checked, and run folders that lose and double nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import subprocess
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bgkit import rewards, runs
from bgkit.errors import BgkitError
from bgkit.runs import Run, TrainConfig, config_hash, drawn, load_run, make_config, open_run

DEFAULT = TrainConfig()
NAMES = [field.name for field in fields(TrainConfig)]
FROM_ONE = (
    "steps batch_size accumulation max_completion_length save_every lora_alpha test_prompts"
).split()
FROM_NOUGHT = "lora_rank eval_every eval_prompts seed warmup_steps".split()
ABOVE_NOUGHT = "learning_rate temperature guard_temperature".split()
LATER = "lr_schedule warmup_steps loss_type scale_rewards".split()


def make_config_of(**values: object) -> TrainConfig:
    return make_config(values)


def completions(step: int, *texts: str) -> pd.DataFrame:
    return pd.DataFrame({"step": [step] * len(texts), "completion": list(texts)})


@pytest.fixture
def run(tmp_path) -> Run:
    return open_run(tmp_path / "run", DEFAULT, {"git": "abc"})


# --- Configurations --------------------------------------------------------------------------


def test_no_values_give_the_defaults():
    assert make_config({}) == DEFAULT


def test_values_are_laid_over_the_base():
    base = make_config({"steps": 10, "seed": 3})
    assert make_config({"steps": 20}, base) == replace(DEFAULT, steps=20, seed=3)


def test_values_given_are_not_changed():
    values = {"tau": 0.5, "beta": 1}
    make_config(values)
    assert values == {"tau": 0.5, "beta": 1} and type(values["beta"]) is int


def test_whole_number_serves_as_a_float():
    config = make_config({"beta": 1})
    assert config.beta == 1.0 and type(config.beta) is float
    assert config_hash(config) == config_hash(make_config({"beta": 1.0}))


def test_unknown_key_lists_the_known_ones():
    with pytest.raises(BgkitError, match="Unknown key 'stepz'") as caught:
        make_config({"steps": 5, "stepz": 5})
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("steps", [True, 10.0, 2.5, "10", None, np.float64(3)], "of type int"),
        ("seed", [False, np.True_], "of type int"),
        ("tau", [True, "0.5", None, [0.1], 1j], "of type float"),
        ("reward", [3, None], "of type str"),
        ("policy", [None, b"tiny", ["a"], Path("tiny")], "of type str"),
        ("prompts", ["", " ", "a\nb", "a\x1b[1m"], "printable"),
        ("tau", [0.0, 1.0, 2, -0.5], "above 0 and below 1"),
        ("tau", [math.nan, math.inf, 10**400], "finite"),
        ("strength", [math.nan, -math.inf, np.float32("nan")], "finite"),
        ("beta", [-0.5, -1], "at least 0"),
        ("strength", [-0.1], "at least 0"),
        *((key, [0, -1], "at least 1") for key in FROM_ONE),
        *((key, [-1], "at least 0") for key in FROM_NOUGHT),
        *((key, [0, -1.0], "above 0") for key in ABOVE_NOUGHT),
        ("learning_rate", [1.5, 300], "at most 1"),
        ("num_generations", [1, 0, -8], "at least 2"),
        ("steps", [10**9], "at most 1,000,000"),
        ("seed", [2**32], "at most"),
        ("guard_bits", [7, 32], "choose one of 16, 8, 4"),
        ("utility_bits", [0], "choose one of 16, 8, 4"),
        ("reward", ["boundry", "nonsense"], ", ".join(rewards.DESIGNS)),
        ("reward", ["missing.py:mine"], "can not be read"),
        ("guard_verdicts", ["Strict"], "strict, loose"),
        ("precision", ["float16"], "auto, float32, bfloat16"),
        ("loss_type", ["grpo2"], "grpo, dr_grpo, bnpo, dapo"),
        ("scale_rewards", ["std"], "none, group, batch"),
        ("lr_schedule", ["cosin"], "linear, constant, cosine"),
        ("warmup_steps", [200, 300], "below 'steps'"),
        ("eval_prompts", [0], "where 'eval_every' is not 0"),
    ],
)
def test_a_wrong_value_is_refused_whichever_way_a_config_is_made(key, values, words):
    for value in values:
        for make in (
            lambda **wrong: TrainConfig(**wrong),
            lambda **wrong: replace(DEFAULT, **wrong),
            make_config_of,
        ):
            with pytest.raises(BgkitError, match=re.escape(words)) as caught:
                make(**{key: value})
            assert key in str(caught.value)


def test_the_least_values_are_taken_and_kept_as_their_own_types():
    least = dict.fromkeys(FROM_NOUGHT, np.int64(0)) | {"beta": 0, "strength": 0}
    config = TrainConfig(**least, steps=np.int32(1), tau=np.float32(0.25))
    assert all(type(v) is type(getattr(DEFAULT, k)) for k, v in vars(config).items())
    assert (config.steps, config.tau, config.lora_rank) == (1, 0.25, 0)
    assert config_hash(config) == config_hash(make_config(json.loads(json.dumps(asdict(config)))))


@pytest.mark.parametrize("reward", [*rewards.DESIGNS])
def test_every_design_can_be_trained_with(reward):
    assert make_config({"reward": reward}).reward == reward


@pytest.mark.parametrize(
    ("values", "key", "hint"),
    [
        ({"batch_size": 20}, "num_generations", 16),
        ({"batch_size": 6}, "num_generations", 8),
        ({"batch_size": 64, "num_generations": 7}, "num_generations", 63),
        ({"batch_size": 64, "accumulation": 3}, "accumulation", 63),
        ({"batch_size": 8, "accumulation": 16}, "accumulation", 16),
    ],
)
def test_batch_that_does_not_divide_is_refused_with_one_that_does(values, key, hint):
    with pytest.raises(BgkitError, match=f"not divisible by '{key}'") as caught:
        make_config(values)
    assert f"a batch_size of {hint}" in str(caught.value)
    assert hint % {**asdict(DEFAULT), **values}[key] == 0


def test_micro_batch_holds_whole_groups():
    assert make_config({"batch_size": 64, "accumulation": 8}).accumulation == 8
    with pytest.raises(BgkitError, match="micro-batch of 4 completions"):
        make_config({"batch_size": 64, "accumulation": 16})


@given(
    groups=st.integers(1, 6),
    generations=st.integers(2, 9),
    accumulation=st.integers(1, 6),
    extra=st.integers(0, 5),
)
def test_batches_are_accepted_exactly_if_all_divides(groups, generations, accumulation, extra):
    size = groups * generations + extra
    fits = size % accumulation == 0 and (size // accumulation) % generations == 0
    values = {
        "batch_size": size,
        "num_generations": generations,
        "accumulation": accumulation,
    }
    if fits:
        assert make_config(values).batch_size == size
    else:
        with pytest.raises(BgkitError):
            make_config(values)


# --- Config files and hashes -----------------------------------------------------------------


def test_config_file_is_read(tmp_path):
    (tmp_path / "c.json").write_text('{"steps": 5, "reward": "compound"}', encoding="utf-8")
    assert runs.read_config(tmp_path / "c.json") == {"steps": 5, "reward": "compound"}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (None, "can not be read: No such file"),
        ('{\n "steps": 5,\n "seed" 1\n}', "line 3"),
        ("", "not valid JSON"),
        ("[1]", "must hold one JSON object"),
    ],
)
def test_config_file_that_can_not_be_used_is_refused(tmp_path, text, hint):
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BgkitError, match=re.escape(hint)) as caught:
        runs.read_config(path)
    assert str(path) in str(caught.value)


def test_hash_is_the_one_of_the_sorted_values():
    """Written out again, so that folders named by it are found by every later version.

    Settings that older versions lack count from where they differ from what those did.
    """
    pairs = sorted((k, v) for k, v in asdict(DEFAULT).items() if k not in LATER)
    text = "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"
    assert config_hash(DEFAULT) == hashlib.sha256(text.encode()).hexdigest()[:12] == "efdfbc1faaeb"


def test_hash_does_not_depend_on_the_order_of_the_keys():
    values = {"tau": 0.3, "steps": 7, "reward": "compound", "seed": 4}
    turned = dict(reversed(values.items()))
    assert list(values) != list(turned)
    assert config_hash(make_config(values)) == config_hash(make_config(turned))


def test_hash_depends_on_every_field():
    hashes = {config_hash(DEFAULT)}
    for setting in fields(TrainConfig):
        usual, (*_, last) = setting.default, (None, *setting.metadata["choices"])
        other = "other" if isinstance(usual, str) else usual / 2 if usual % 1 else 2 * usual or 1
        hashes.add(config_hash(replace(DEFAULT, **{setting.name: last or other})))
    assert len(hashes) == 1 + len(NAMES)


def test_git_revision_is_a_commit_or_unknown(monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", runs.git_revision())

    def no_git(*args: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert runs.git_revision() == "unknown"


# --- Writing ---------------------------------------------------------------------------------


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    runs.write_json(path, {"a": 1})
    runs.write_json(path, {"é": [1.5, None, "🔥"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1.5, None, "🔥"]}
    assert names_in(path.parent) == ["a.json"]


def test_table_survives_writing(tmp_path):
    frame = completions(3, "one", "two 🔥")
    runs.write_parquet(tmp_path / "t.parquet", frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)
    assert names_in(tmp_path) == ["t.parquet"]


def test_file_is_whole_before_it_gets_its_name(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append((temporary != path, temporary.parent == path.parent, path.read_text()))

    runs.write_atomically(path, write)
    assert seen == [(True, True, "old")]
    assert path.read_text() == "new"


def test_failed_move_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    runs.write_json(path, {"old": True})
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(BgkitError, match="No space left on device") as caught:
        runs.write_json(path, {"new": True})
    assert str(path) in str(caught.value)
    assert json.loads(path.read_text()) == {"old": True}
    assert names_in(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), ValueError("bad value")])
def test_failed_write_leaves_the_old_file_and_no_half_of_a_new_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the ne")
        raise error

    expected = BgkitError if isinstance(error, OSError) else ValueError
    with pytest.raises(expected):
        runs.write_atomically(path, write)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.write_atomically(path, write)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_write_below_a_file_says_what_is_wrong(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(BgkitError, match="Could not write"):
        runs.write_json(tmp_path / "taken" / "a.json", {})


def test_write_to_a_read_only_disk_says_what_is_wrong(tmp_path, monkeypatch):
    def read_only(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("write_text", "unlink"):
        monkeypatch.setattr(Path, name, read_only)
    with pytest.raises(BgkitError, match="Read-only file system"):
        runs.write_json(tmp_path / "a.json", {})


# --- Opening a run ---------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True])
def test_new_run_stores_its_config_and_environment(tmp_path, exists):
    folder = tmp_path / "deep" / "run"
    if exists:
        folder.mkdir(parents=True)
    config = make_config({"steps": 7, "prompts": "föö.csv"})
    opened = open_run(folder, config, {"git": "abc", "versions": {"numpy": "2"}})
    assert opened == Run(folder, config)
    assert not opened.complete
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert stored == {
        "config": asdict(config),
        "hash": config_hash(config),
        "git": "abc",
        "versions": {"numpy": "2"},
    }


def test_run_is_opened_again_with_the_same_config(run):
    runs.write_json(run.folder / "base.json", {})
    before = (run.folder / "config.json").read_bytes()
    run.record_completions(1, completions(1, "kept"))
    again = open_run(run.folder, make_config({}), {"git": "a later commit"})
    assert again == run
    assert (run.folder / "config.json").read_bytes() == before
    assert again.completions()["completion"].tolist() == ["kept"]


def test_a_run_in_which_nothing_was_measured_gets_the_environment_of_today(run):
    assert open_run(run.folder, DEFAULT, {"git": "def"}).read_json("config.json")["git"] == "def"


def test_complete_run_is_opened_again(run):
    run.finish({"rows": []})
    assert open_run(run.folder, DEFAULT, {}).complete


def test_another_config_is_refused_and_the_difference_named(run):
    other = make_config({"steps": 61, "reward": "compound"})
    with pytest.raises(BgkitError) as caught:
        open_run(run.folder, other, {})
    message = str(caught.value)
    assert "steps: 200 there, 61 here" in message
    assert "reward: boundary there, compound here" in message
    assert "tau" not in message and str(run.folder) in message
    assert load_run(run.folder).config == DEFAULT


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(BgkitError, match="is not empty and is no run"):
        open_run(tmp_path, DEFAULT, {})
    assert names_in(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("exists", [False, True])
def test_looking_for_a_run_writes_nothing(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    assert runs.find_run(folder, DEFAULT) is None
    assert folder.exists() == exists and list(tmp_path.rglob("*.json")) == []


def test_looking_for_a_run_finds_its_own_alone(run, tmp_path):
    assert runs.find_run(run.folder, make_config({})) == run
    with pytest.raises(BgkitError, match="seed: 0 there, 1 here"):
        runs.find_run(run.folder, make_config({"seed": 1}))
    with pytest.raises(BgkitError, match="is not empty and is no run"):
        runs.find_run(tmp_path, DEFAULT)


def test_run_that_can_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(BgkitError, match="No space left"):
        open_run(tmp_path / "run", DEFAULT, {})
    monkeypatch.undo()
    assert open_run(tmp_path / "run", DEFAULT, {}).config == DEFAULT


# --- Reading a run ---------------------------------------------------------------------------


def test_run_is_read_with_its_own_config(tmp_path):
    config = make_config({"steps": 7, "tau": 0.25})
    open_run(tmp_path / "run", config, {})
    assert load_run(tmp_path / "run") == Run(tmp_path / "run", config)
    assert load_run(str(tmp_path / "run")).config == config


@pytest.mark.parametrize("name", ["", "none"])
def test_folder_without_a_config_is_no_run(tmp_path, name):
    with pytest.raises(BgkitError, match="There is no run in") as caught:
        load_run(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


def test_config_of_an_older_version_gets_the_new_defaults(run):
    stored = json.loads((run.folder / "config.json").read_text())
    del stored["config"]["strength"]
    (run.folder / "config.json").write_text(json.dumps(stored))
    assert load_run(run.folder).config == DEFAULT


def test_config_of_another_version_names_what_is_unknown(run):
    stored = json.loads((run.folder / "config.json").read_text())
    stored["config"] |= {"warmup": 5, "clip": 0.2}
    (run.folder / "config.json").write_text(json.dumps(stored))
    for call in (lambda: load_run(run.folder), lambda: open_run(run.folder, DEFAULT, {})):
        with pytest.raises(BgkitError, match=r"another version .* \(unknown: clip, warmup\)"):
            call()


@pytest.mark.parametrize("text", ["", '{"config": {"steps"', "[]", '{"config": {"steps": 0}}'])
def test_broken_config_is_refused(run, text):
    (run.folder / "config.json").write_text(text)
    with pytest.raises(BgkitError):
        load_run(run.folder)


FOREIGN = ['{"model_type": "gpt2", "n_layer": 2}', "{}", '{"config": null}', '{"config": [1]}']


@pytest.mark.parametrize("text", FOREIGN)
def test_config_of_something_else_is_no_run(tmp_path, text):
    """A model's folder holds a config.json too; training there would write among its files."""
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for call in (lambda: load_run(tmp_path), lambda: open_run(tmp_path, DEFAULT, {})):
        with pytest.raises(BgkitError):
            call()


def test_json_of_the_run_is_read(run):
    runs.write_json(run.folder / "base.json", {"utility_mean": 1.5})
    assert run.read_json("base.json") == {"utility_mean": 1.5}


@pytest.mark.parametrize("text", [None, "", "{"])
def test_missing_or_broken_json_of_the_run_says_how_to_go_on(run, text):
    if text is not None:
        (run.folder / "result.json").write_text(text)
    with pytest.raises(BgkitError, match=r"no readable result\.json.*same training command"):
        run.read_json("result.json")


# --- Records ---------------------------------------------------------------------------------


def test_run_without_records_has_empty_tables(run):
    assert run.completions().empty
    assert run.curve().empty
    assert run.last_checkpoint() is None


def test_metrics_are_read(run):
    curve = pd.DataFrame({"step": [1, 2], "reward": [0.1, 0.2]})
    runs.write_parquet(run.folder / "metrics.parquet", curve)
    pd.testing.assert_frame_equal(run.curve(), curve)


def test_completions_come_in_the_order_of_the_steps(run):
    steps = [10, 2, 1, 999, 100, 1000]
    for step in steps:
        run.record_completions(step, completions(step, f"{step}a", f"{step}b"))
    table = run.completions()
    assert table["completion"].tolist() == [f"{s}{x}" for s in sorted(steps) for x in "ab"]
    assert table.index.tolist() == list(range(12))


def test_repeated_step_replaces_itself(run):
    for step in (1, 2, 3):
        run.record_completions(step, completions(step, f"first {step}", "more"))
    run.record_completions(2, completions(2, "second"))
    assert run.completions()["completion"].tolist() == [
        "first 1",
        "more",
        "second",
        "first 3",
        "more",
    ]


def test_record_that_can_not_be_written_leaves_the_older_one(run, monkeypatch):
    run.record_completions(1, completions(1, "old"))
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(BgkitError, match="No space left"):
        run.record_completions(1, completions(1, "new"))
    assert run.completions()["completion"].tolist() == ["old"]


# --- Checkpoints -----------------------------------------------------------------------------


def checkpoint(run: Run, name: str, finished: bool = True) -> Path:
    folder = run.checkpoints / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    if finished:
        (folder / "trainer_state.json").write_text("{}")
    return folder


def test_last_checkpoint_is_the_one_of_the_highest_step(run):
    for step in (20, 100, 40, 9):
        checkpoint(run, f"checkpoint-{step}")
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-100"


def test_unfinished_and_foreign_checkpoints_do_not_count(run):
    good = checkpoint(run, "checkpoint-20")
    checkpoint(run, "checkpoint-40", finished=False)
    for name in ("checkpoint-", "checkpoint-best", "tmp-checkpoint-60", "notes"):
        checkpoint(run, name)
    assert run.last_checkpoint() == good


def test_unfinished_checkpoint_alone_is_none(run):
    checkpoint(run, "checkpoint-40", finished=False)
    assert run.last_checkpoint() is None


# --- Finishing -------------------------------------------------------------------------------


def test_finish_joins_the_records_and_clears_what_only_resuming_needs(run):
    for step in (2, 1):
        run.record_completions(step, completions(step, f"text {step}"))
    checkpoint(run, "checkpoint-2")
    before = run.completions()
    run.finish({"rows": [1]})
    assert run.complete and load_run(run.folder).complete
    assert run.read_json("result.json") == {"rows": [1]}
    pd.testing.assert_frame_equal(run.completions(), before)
    assert names_in(run.folder) == ["completions.parquet", "config.json", "result.json"]


def test_run_without_records_is_finished_too(run):
    run.finish({"rows": []})
    assert run.complete and run.completions().empty


def test_finish_keeps_the_adapter(run):
    run.adapter.mkdir()
    (run.adapter / "adapter.safetensors").write_bytes(b"weights")
    run.finish({})
    assert (run.adapter / "adapter.safetensors").read_bytes() == b"weights"


def test_result_is_written_last_and_the_rest_removed_after_it(run, monkeypatch):
    run.record_completions(1, completions(1, "text"))
    kept = checkpoint(run, "checkpoint-1")
    moved = []
    replace_file = os.replace

    def watch(source: Path, target: Path) -> None:
        moved.append((Path(target).name, (run.folder / "records").is_dir(), kept.is_dir()))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", watch)
    run.finish({})
    assert moved == [("completions.parquet", True, True), ("result.json", True, True)]
    assert not kept.exists()


@pytest.mark.parametrize("failing", ["completions.parquet", "result.json"])
def test_failed_finish_leaves_the_run_incomplete_with_all_it_had(run, monkeypatch, failing):
    for step in (1, 2):
        run.record_completions(step, completions(step, f"text {step}"))
    last = checkpoint(run, "checkpoint-2")
    before = run.completions()
    replace_file = os.replace

    def fail_on_one(source: Path, target: Path) -> None:
        if Path(target).name == failing:
            full_disk()
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fail_on_one)
    with pytest.raises(BgkitError, match=failing):
        run.finish({"rows": []})
    assert not run.complete
    assert run.last_checkpoint() == last
    pd.testing.assert_frame_equal(run.completions(), before)
    assert len(names_in(run.folder / "records")) == 2

    monkeypatch.undo()
    run.finish({"rows": []})
    assert run.complete
    pd.testing.assert_frame_equal(run.completions(), before)


def test_records_after_a_failed_finish_are_not_lost(run, monkeypatch):
    """The disk fills up at result.json; the run is resumed from a checkpoint and finishes."""
    run.record_completions(1, completions(1, "first time"))
    with monkeypatch.context() as patch:
        patch.setattr(runs.folders, "write_json", full_disk)
        with pytest.raises(OSError):
            run.finish({})
    run.record_completions(1, completions(1, "second time"))
    run.record_completions(2, completions(2, "more"))
    run.finish({})
    assert run.completions()["completion"].tolist() == ["second time", "more"]


def test_what_one_task_drew_outlives_the_end_of_another(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path))
    one, other = drawn.shared(file="one"), drawn.shared(file="other")
    model, asked = torch.nn.Linear(2, 2), []

    def draw(seed: int) -> list[list[int]]:
        asked.append(seed)
        return [[seed]]

    with pytest.raises(KeyboardInterrupt), drawn.keeping(one):
        drawn.once(draw, model, seed=1)
        raise KeyboardInterrupt
    with drawn.keeping(other):
        drawn.once(draw, model, seed=2)
    with drawn.keeping(one):
        assert drawn.once(draw, model, seed=1) == [[1]]
    assert asked == [1, 2] and not any((tmp_path / "drawn").iterdir())
