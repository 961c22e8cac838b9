"""Sweeps with real kernels: what is run, what is skipped, what is told, what is refused."""

from __future__ import annotations

import errno
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import nbformat
import noop
import pandas as pd
import pytest
from conftest import ROOT

import bgkit
from bgkit import environment
from bgkit.errors import BgkitError
from bgkit.sweeps import drive, kernels

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return noop.notebook(tmp_path)


def sweep(book: Path, grid, **settings) -> pd.DataFrame:
    common = {"LEDGER": str(book.parent / "ledger")}
    return bgkit.sweep(book, {**common, **grid}, book.parent / "sweep", **settings)


def test_a_sweep_runs_every_combination_once_and_keeps_an_index(book: Path, capsys) -> None:
    index = sweep(book, {"way": ["a", "b"], "SEED": [0, 1]}, workers=2)
    folder = book.parent / "sweep"
    assert noop.ledger(book.parent) == ["a 0", "a 1", "b 0", "b 1"]
    assert list(index["state"]) == ["complete"] * 4
    assert list(zip(index["WAY"], index["SEED"], strict=True)) == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip
    row = index.iloc[1]
    assert (row["loss"], row["loss_low"], row["loss_high"]) == pytest.approx((0.1, 0.0, 0.2))
    assert row["seconds"] > 0 and json.loads(row["versions"])["python"]
    assert (folder / row["notebook"]).is_file() and (folder / row["results"]).is_dir()
    said = capsys.readouterr().out
    assert "4 runs: 4 waiting" in said and "[4/4] complete: " in said


def test_what_is_complete_is_skipped_and_a_larger_grid_adds_to_it(book: Path) -> None:
    sweep(book, {"SEED": 0, "REPORT_TO": "trackio"})
    (file,) = (book.parent / "sweep" / "runs").glob("*/run.json")
    assert (
        'REPORT_TO = "trackio"' in nbformat.read(file.parent / "executed.ipynb", 4).cells[1].source
    )
    index = sweep(book, {"SEED": [0, 1]})
    assert noop.ledger(book.parent) == ["a 0", "a 1"]
    assert index["state"].tolist() == ["complete"] * 2
    sweep(book, {"WAY": "c"})
    whole = pd.read_csv(book.parent / "sweep" / "index.csv")
    assert sorted(whole["WAY"]) == ["a", "a", "c"]


@pytest.mark.slow
def test_a_failed_run_is_kept_and_the_others_go_on(book: Path, bgkit_here) -> None:
    line = noop.command(book.parent, "--set", "SEED=0:3", "--set", "BAD=1")[3:]
    done = bgkit_here(*line)
    assert done.returncode == 1, done.stderr
    assert noop.ledger(book.parent) == ["a 0", "a 2"]
    index = pd.read_csv(book.parent / "sweep" / "index.csv").set_index("SEED")
    assert index["state"].to_dict() == {0: "complete", 1: "failed", 2: "complete"}
    assert index.loc[1, "error"] == "Cell 3 failed: ValueError: a bad seed <b>|"
    executed = nbformat.read(book.parent / "sweep" / index.loc[1, "notebook"], as_version=4)
    assert any(o.output_type == "error" for c in executed.cells for o in c.get("outputs", []))
    again = bgkit_here(*line)
    assert again.returncode == 1 and "2 complete, 1 failed" in again.stdout  # left alone
    assert "[1/1]" not in again.stdout
    retried = bgkit_here(*line, "--retry-failed")
    assert retried.returncode == 1 and "[1/1] failed" in retried.stdout


def test_a_dry_run_lists_what_would_be_done_and_does_nothing(book: Path, bgkit_here) -> None:
    done = bgkit_here(*noop.command(book.parent, "--set", "seed=0:30", "--dry-run")[3:])
    assert done.returncode == 0, done.stderr
    assert "30 runs: 30 waiting" in done.stdout
    assert done.stdout.count(" waiting: SEED=") == 30
    assert not (book.parent / "sweep").exists()


def test_threads_and_gpus_are_divided_among_the_workers(book: Path, monkeypatch) -> None:
    monkeypatch.setattr(drive, "_cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    index = sweep(book, {"SEED": [0, 1], "T": 0.5}, workers=2)
    books = [nbformat.read(book.parent / "sweep" / name, 4) for name in index["notebook"]]
    printed = [each.cells[-1].outputs[0]["text"] for each in books]
    assert sorted(printed) == ["threads 3 3\n", "threads 3 5\n"]


@pytest.mark.slow
def test_any_executor_does(book: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        sweep(book, {"SEED": [0, 1]}, executor=threads)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        index = sweep(book, {"SEED": [1, 2]}, executor=processes)
    assert noop.ledger(book.parent) == ["a 0", "a 1", "a 2"]
    assert list(index["state"]) == ["complete"] * 2


def test_a_lost_worker_breaks_its_run_only(book: Path) -> None:
    class Lossy(ThreadPoolExecutor):
        def submit(self, function, job, *more):
            if job.parameters["SEED"] == 1:
                return super().submit(lambda: 1 / 0)
            return super().submit(function, job, *more)

    with Lossy(1) as executor:
        index = sweep(book, {"SEED": [0, 1]}, executor=executor)
    assert index["state"].tolist() == ["complete", "broken"]
    assert "worker returned no result: ZeroDivisionError" in index["error"].iloc[1]


def test_a_full_disk_ends_the_sweep_and_starts_no_more(book: Path, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drive, "write_index", full)
    with pytest.raises(OSError, match="No space"):
        sweep(book, {"SEED": range(4)})
    assert len(noop.ledger(book.parent)) < 3  # the first, and what was running then


def test_a_run_that_failed_meanwhile_is_executed_again_only_when_asked_for(book: Path) -> None:
    (job,) = drive.plan(book, {"SEED": 0, "BAD": 0}, book.parent / "sweep").jobs.values()
    job.folder.mkdir(parents=True)
    failed = kernels.run_job(job)
    assert failed["state"] == "failed" and kernels.read_record(job.folder) == failed
    executed = (job.folder / "executed.ipynb").stat()
    assert kernels.run_job(job) == failed
    assert (job.folder / "executed.ipynb").stat() == executed
    again = replace(job, before=failed)  # as a sweep with retry_failed plans it
    assert kernels.run_job(again)["state"] == "failed"
    assert (job.folder / "executed.ipynb").stat() != executed


@pytest.mark.slow
def test_a_kernel_that_never_starts_breaks_its_run_only(book: Path, monkeypatch, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    index = sweep(book, {"SEED": 0})
    assert index["state"].tolist() == ["broken"]
    assert "Kernel died" in index["error"].iloc[0]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert sweep(book, {"SEED": 0})["state"].tolist() == ["complete"]


def test_the_digest_is_of_the_sources(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("one = 1\n")
    (tmp_path / "sub" / "b.py").write_text("two = 2\n")
    before = environment.code_digest(tmp_path)
    (tmp_path / "a.txt").write_text("no source")
    (tmp_path / "a.py").write_bytes(b"one = 1\r\n")  # the same line elsewhere
    assert environment.code_digest(tmp_path) == before and len(before) == 12
    (tmp_path / "sub" / "b.py").write_text("two = 3\n")
    assert environment.code_digest(tmp_path) != before
    assert environment.versions()["bgkit_code"] == environment.code_digest(ROOT / "bgkit")


def test_metrics_are_those_of_the_policy_over_all_prompts(tmp_path: Path) -> None:
    row = {"metric": "m", "mean": 1.0, "low": 0.5, "high": 1.5, "design": "boundary", "kind": "all"}
    rows = [{**row, "design": "base"}, {**row, "kind": "harmful"}, {**row, "mean": 2.0}]
    (tmp_path / "run").mkdir()
    assert kernels.metrics_of(tmp_path) == {}
    (tmp_path / "run" / "result.json").write_text(json.dumps({"rows": rows}))
    assert kernels.metrics_of(tmp_path) == {"m": [2.0, 0.5, 1.5]}
    for broken in ("{", "[]", '{"rows": 3}'):
        (tmp_path / "run" / "result.json").write_text(broken)
        assert kernels.metrics_of(tmp_path) == {}


def test_the_folder_of_another_notebook_or_of_other_things_is_refused_and_stays(book: Path) -> None:
    sweep(book, {"SEED": 0})
    before = noop.content(book.parent / "sweep")
    other = noop.write(book.parent / "other.ipynb", noop.PARAMETERS, "pass")
    with pytest.raises(BgkitError, match=r"holds a sweep of noop\.ipynb, or of other code"):
        sweep(other, {"SEED": 0})
    noop.write(book, noop.PARAMETERS, "pass")
    with pytest.raises(BgkitError, match=r"of other code in it; choose another folder"):
        sweep(book, {"SEED": 0})
    assert noop.content(book.parent / "sweep") == before
    for folder in (book.parent, book):
        with pytest.raises(BgkitError, match="no sweep's folder; choose another"):
            bgkit.sweep(book, {"SEED": 0}, folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "SEDE"], "'SEDE' is no setting of a sweep; write it as"),
        (["--set", "SEED=0:10001"], "10,001 runs; a sweep takes at most 10,000"),
        (["--grid", "none.yaml"], "The grid none.yaml cannot be read"),
        (["--workers", "0", "--dry-run"], "at least 1 worker"),
        (["--dask", "foo bar"], "No dask scheduler answers at 'foo bar'"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(
    book: Path, options, words, bgkit_here
) -> None:
    pytest.importorskip("distributed")
    done = bgkit_here(*noop.command(book.parent, *options)[3:], cwd=book.parent)
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert done.stderr.startswith("bgkit: ") and done.stderr.count("\n") == 1
    assert words in done.stderr and not (book.parent / "sweep").exists()


@pytest.mark.slow
def test_the_training_notebook_in_a_sweep(tmp_path: Path) -> None:
    """The unit of every sweep: its numbers are in the index, its run folder below the sweep's."""
    grid = {"REWARD": "compound", "POLICY": "tiny", "STEPS": 2, "BATCH_SIZE": 8}
    grid |= {"NUM_GENERATIONS": 4, "EVAL_EVERY": 0, "TEST_PROMPTS": 16}
    book = ROOT / "notebooks" / "03_train_policy.ipynb"
    index = bgkit.sweep(book, grid, tmp_path / "sweep", threads=1)
    (row,) = index.to_dict("records")
    assert row["state"] == "complete", row["error"]
    assert row["filter_rate_low"] <= row["filter_rate"] <= row["filter_rate_high"]
    (run,) = (tmp_path / "sweep" / row["results"]).iterdir()
    assert bgkit.load_run(run).complete
