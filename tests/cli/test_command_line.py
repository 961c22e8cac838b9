"""The command line as a user meets it: real processes, bad input, the demo in small."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SMALL

from bgkit.cli import main as command_line
from bgkit.testbed import store


def options(values: dict) -> list[str]:
    return [part for k, v in values.items() for part in (f"--{k.replace('_', '-')}", str(v))]


def refused(done, *words: str) -> None:
    """Exit status 2, one message that holds the words, no stack trace."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("bgkit: ")]) == 1


@pytest.mark.slow
def test_the_demo_writes_result_and_report(bgkit_command, tmp_path: Path) -> None:
    small = {**SMALL, "steps": 2, "test_prompts": 12, "device": "cpu"}
    done = bgkit_command("demo", "--out", tmp_path / "demo", *options(small))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    designs = {row["design"] for row in result["rows"]}
    assert designs == {"base", "filter_avoidance", "boundary", "compound"}
    assert {"command", "machine", "versions", "paired"} <= set(result)
    assert {row["design"] for row in result["paired"]} == designs - {"base"}
    assert (tmp_path / "demo" / "report.html").is_file()
    assert all(word in done.stdout for word in ("filter_rate", "system_help", "compound"))


@pytest.mark.slow
def test_runs_are_evaluated_beside_each_other_with_another_threshold(
    bgkit_here, small_run, weak_run, tmp_path
) -> None:
    out, few = tmp_path / "rows.json", ["--test-prompts", "8", "--device", "cpu"]
    done = bgkit_here("evaluate", small_run.folder, weak_run.folder, *few, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    first, second = "boundary", "boundary, guard weak, steps 2, eval_every 0"
    designs = list(dict.fromkeys(row["design"] for row in found["rows"]))
    # they were trained with different guards, through which base says different things
    assert designs == ["base of boundary", f"base of {second}", first, second]
    assert {row["design"] for row in found["paired"]} == {first, second}
    assert second in done.stdout
    other = ["--guard", "weak", "--tau", "0.3", "--out", out]
    assert bgkit_here("evaluate", small_run.folder, *few, *other).returncode == 0
    rows = json.loads(out.read_text())["rows"]
    assert {(row["guard"], row["tau"]) for row in rows} == {("weak", 0.3)}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --guard best", ["no embedded guard 'best'", "overconfident"]),
        ("train --prompts everday", ["no prompt set 'everday'", "did you mean 'everyday'"]),
        ("train --judge default,nosuch", ["no embedded judge 'nosuch'"]),
        ("train --device cuda:77", ["device 'cuda:77' does not exist"]),
        ("train --threads -3", ["threads must be at least 0 (all cores), not -3"]),
        ("train --out number.json", ["number.json is a file; choose another"]),
        ("train --steps 2.5", ["--steps: invalid int value: '2.5'"]),
        ('train --trainer {"loss_type":"dapo"', ["--trainer", "not a valid JSON object"]),
        ("train --config number.json", ["Unknown key 'config'"]),
        ("demo --guard-bits 7", ["16, 8, 4"]),
        ("plan --machine T5", ["no machine 'T5'; known: T4"]),
        ("fit guard t.csv --out o --leave-out a", ["takes COLUMN=VALUE"]),
        ("evaluate nowhere --out .", ["'.' is a folder; name the file"]),
        ("trian", ["choose from"]),
        ("", ["COMMAND"]),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_made(
    bgkit_here, tmp_path: Path, command: str, words: list[str]
) -> None:
    (tmp_path / "number.json").write_text('{"config": 3}')
    refused(bgkit_here(*command.split(), cwd=tmp_path), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["number.json"]


def test_every_option_of_every_command_is_explained_in_words() -> None:
    (commands,) = (a for a in command_line.parser()._actions if a.dest == "command")
    for name, command in commands.choices.items():
        for action in command._actions:
            words = re.sub(r"\(.*?\)", "", action.help or "")  # a default alone is no explanation
            assert len(re.findall(r"[A-Za-z]{2,}", words)) >= 2, (name, action.dest)
    text = " ".join(commands.choices["train"].format_help().split())
    assert "a response with t >= tau is filtered; above 0 and below 1 (0.5)" in text
    assert "--guard NAME safety classifier: default, other, overconfident, weak, a" in text
    assert "none, group, batch (none)" in text
    assert "at least 1 (40)" in commands.choices["demo"].format_help()  # its own default


def test_help_loads_no_torch() -> None:
    code = "import sys; from bgkit import __main__ as m\ntry: m.main(['train', '--help'])\n"
    code += "finally: assert not {'torch', 'transformers', 'trl'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_the_config_of_a_run_is_a_config_and_with_changes_that_of_another_run(
    bgkit_here, small_run
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_run.folder.iterdir()}
    command = ["train", "--config", small_run.folder / "config.json", "--out", small_run.folder]
    done = bgkit_here(*command)
    assert done.returncode == 0 and f"Run: {small_run.folder}" in done.stdout
    refused(bgkit_here(*command, "--steps", "3"), "steps: 4 there, 3 here")
    assert before == {path: path.stat().st_mtime_ns for path in small_run.folder.iterdir()}


def test_a_tampered_model_and_a_folder_that_can_not_be_made(bgkit_here, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(bgkit_here("train", "--out", tmp_path / "file" / "run"), "Could not write")
    shutil.copytree(store.testbed_folder(), tmp_path / "testbed", copy_function=os.symlink)
    file = tmp_path / "testbed" / "guard" / "default" / "model.safetensors"
    content = file.read_bytes()
    file.unlink()  # the link
    file.write_bytes(content[:-1] + b"?")
    done = bgkit_here("train", "--out", tmp_path / "run", BGKIT_TESTBED=str(tmp_path / "testbed"))
    refused(done, "damaged or was changed", "sha256")


@pytest.mark.slow
def test_a_full_disk_loses_nothing(bgkit_command, bgkit_here, tmp_path: Path) -> None:
    """A process that may write no file above 60 kB meets what a full disk gives: failed writes."""
    small = {**SMALL, "eval_every": 0, "test_prompts": 4, "device": "cpu"}
    arguments = ["train", "--out", tmp_path / "run", *options(small)]
    limit = resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY)
    done = bgkit_command(*arguments, before=lambda: resource.setrlimit(*limit))
    refused(done, "Could not write")
    assert not (tmp_path / "run" / "result.json").exists()
    assert (tmp_path / "run" / "base.json").exists()
    again = bgkit_here(*arguments)
    assert again.returncode == 0, again.stderr


def test_training_on_a_file_of_prompts(bgkit_here, tmp_path: Path) -> None:
    splits = ("train", "validation", "test")
    lines = [f"how do i make a tea for sleep {split} ?,mine,{split}" for split in splits]
    file, folder = tmp_path / "prompts.csv", tmp_path / "run"
    file.write_text("\n".join(["prompt,kind,split", *lines]))
    small = {**SMALL, "prompts": file, "steps": 1, "eval_every": 1, "test_prompts": 4}
    done = bgkit_here("train", "--out", folder, *options({**small, "device": "cpu"}))
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "result.json").read_text())["rows"]
    assert "false_negative" not in {row["metric"] for row in rows}  # no truth about such prompts
    kept = json.loads((folder / "prompts.json").read_text())
    assert {split: kept[split]["prompts"] for split in splits} == dict.fromkeys(splits, 1)


def test_prompts_lists_shows_and_writes_sets(bgkit_here, tmp_path: Path) -> None:
    done = bgkit_here("prompts")
    words = ("everyday", "jailbreak: benchmark of 50%", "or-bench-hard: 1,319 rows", "ODC-BY")
    assert all(word in done.stdout for word in words)
    out = tmp_path / "own.jsonl"
    done = bgkit_here("prompts", "everyday", "--split", "test", "--n", "7", "--out", out)
    manifest = json.loads(done.stdout)
    again = bgkit_here("prompts", out)  # what was written is a prompt file
    assert json.loads(again.stdout)["sha256"] == manifest["sha256"] and manifest["prompts"] == 7


def test_prompts_tells_what_a_training_will_refuse(bgkit_here, tmp_path) -> None:
    (tmp_path / "a.csv").write_text("prompt,split\na,train\nb,dev\nc,test\n")
    done = bgkit_here("prompts", "a.csv", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["name"] == "a.csv"
    for words in ("A training on a.csv will be refused", "no split 'validation'; choose one of"):
        assert words in done.stderr
    assert bgkit_here("prompts", "everyday").stderr == ""
