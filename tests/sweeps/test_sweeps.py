"""Sweeps with real kernels: what is run, what is skipped, what is told, what is refused."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nbformat
import noop
import pandas as pd
import pytest
from conftest import ROOT

import bgkit
from bgkit import environment, runs
from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.sweeps import drive, kernels


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return noop.notebook(tmp_path)


def sweep(book: Path, grid, **settings) -> pd.DataFrame:
    common = {"LEDGER": str(book.parent / "ledger")}
    return bgkit.sweep(book, {**common, **grid}, book.parent / "sweep", **settings)


@pytest.mark.slow
def test_a_larger_grid_runs_what_is_left_and_the_index_keeps_all(book: Path, capsys) -> None:
    first = sweep(book, {"way": ["c", "a"], "REPORT_TO": "trackio"})
    folder = book.parent / "sweep"
    executed = nbformat.read(folder / first.loc[0, "notebook"], 4)
    assert 'REPORT_TO = "trackio"' in executed.cells[1].source
    index = sweep(book, {"WAY": ["a", "b"], "SEED": [0, 1]}, workers=2)
    assert noop.ledger(book.parent) == ["a 0", "a 1", "b 0", "b 1", "c 0"]
    assert index["state"].tolist() == ["complete"] * 4
    assert index[["WAY", "SEED"]].to_numpy().tolist() == [["a", 0], ["a", 1], ["b", 0], ["b", 1]]
    row = index.iloc[1]
    assert (row["loss"], row["loss_low"], row["loss_high"]) == pytest.approx((0.1, 0.0, 0.2))
    assert row["seconds"] > 0 and json.loads(row["versions"])["python"]
    assert (folder / row["notebook"]).is_file() and (folder / row["results"]).is_dir()
    assert sorted(pd.read_csv(folder / "index.csv")["WAY"]) == [*"aabbc"]
    said = capsys.readouterr().out
    assert "4 runs: 1 complete, 3 waiting" in said and "[3/3] complete: " in said


@pytest.mark.slow
def test_a_failed_run_is_kept_and_the_others_go_on(book: Path, bgkit_here) -> None:
    line = noop.command(book.parent, "--set", "SEED=0:3", "--set", "BAD=1")[3:]
    assert bgkit_here(*line).returncode == 1
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


@pytest.mark.slow
def test_threads_and_gpus_are_divided_among_the_workers(book: Path, monkeypatch) -> None:
    monkeypatch.setattr(drive, "_cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    index = sweep(book, {"SEED": [0, 1], "T": 0.5}, workers=2)
    books = [nbformat.read(book.parent / "sweep" / name, 4) for name in index["notebook"]]
    printed = [each.cells[-1].outputs[0]["text"] for each in books]
    assert sorted(printed) == ["threads 3 3\n", "threads 3 5\n"]


@pytest.mark.slow
def test_a_lost_worker_of_any_executor_breaks_its_run_only(book: Path) -> None:
    class Lossy(ThreadPoolExecutor):
        def submit(self, function, job, *more):
            lost = job.parameters["SEED"] == 1
            return super().submit((lambda *_: 1 / 0) if lost else function, job, *more)

    with Lossy(1) as executor:
        index = sweep(book, {"SEED": [0, 1, 2]}, executor=executor)
    assert noop.ledger(book.parent) == ["a 0", "a 2"]
    assert index["state"].tolist() == ["complete", "broken", "complete"]
    assert "worker returned no result: ZeroDivisionError" in index["error"].iloc[1]


@pytest.mark.slow
def test_a_full_disk_ends_the_sweep_and_starts_no_more(book: Path, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drive, "write_index", full)
    with pytest.raises(OSError, match="No space"):
        sweep(book, {"SEED": range(20)})
    assert len(noop.ledger(book.parent)) < 10  # the first, and what was running then


@pytest.mark.slow
def test_a_run_that_failed_meanwhile_is_executed_again_only_when_asked_for(book: Path) -> None:
    (job,) = drive.plan(book, {"SEED": 0, "BAD": 0}, book.parent / "sweep").jobs.values()
    job.folder.mkdir(parents=True)
    failed = kernels.run_job(job)
    assert failed["state"] == "failed" and kernels.read_record(job.folder) == failed
    executed = job.folder / "executed.ipynb"
    os.utime(executed, ns=(1, 1))
    assert kernels.run_job(job) == failed and executed.stat().st_mtime_ns == 1
    again = replace(job, before=failed)  # as a sweep with retry_failed plans it
    assert kernels.run_job(again)["state"] == "failed"
    assert executed.stat().st_mtime_ns > 1


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
    (tmp_path / "sub" / "b.py").write_text("two = 2\n")
    before = environment.code_digest(tmp_path)
    (tmp_path / "a.txt").write_text("no source")
    (tmp_path / "sub" / "b.py").write_bytes(b"two = 2\r\n")  # the same line elsewhere
    assert environment.code_digest(tmp_path) == before
    (tmp_path / "sub" / "b.py").write_text("two = 3\n")
    assert environment.code_digest(tmp_path) != before
    assert environment.versions()["bgkit_code"] == environment.code_digest(ROOT / "bgkit")


def test_metrics_are_those_of_the_policy_over_all_prompts(tmp_path: Path) -> None:
    row = {"metric": "m", "mean": 1.0, "low": 0.5, "high": 1.5, "design": "boundary", "kind": "all"}
    rows = [{**row, "design": "base"}, {**row, "kind": "harmful"}, {**row, "mean": 2.0}]
    assert kernels.metrics_of(tmp_path) == {}
    (tmp_path / "run").mkdir()
    for text in ("{", "[]", '{"rows": 3}', whole := json.dumps({"rows": rows})):
        (tmp_path / "run" / "result.json").write_text(text)
        told = {"m": [2.0, 0.5, 1.5]} if text is whole else {}
        assert kernels.metrics_of(tmp_path) == told
    shipped = runs.load_run(data_folder() / "runs" / "english" / "boundary-0")
    found = kernels.metrics_of(shipped.folder)
    assert found["filter_rate"][0] == shipped.samples()["filtered"].mean()


@pytest.mark.slow
def test_the_folder_of_another_notebook_or_of_other_things_is_refused_and_stays(book: Path) -> None:
    sweep(book, {"SEED": 0})

    def content() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (book.parent / "sweep").rglob("*")}

    before = content()
    for name in ("other.ipynb", book.name):
        other = noop.write(book.parent / name, noop.PARAMETERS, "pass")
        with pytest.raises(BgkitError, match=r"holds a sweep of noop\.ipynb, or of other code"):
            sweep(other, {"SEED": 0})
    assert content() == before
    for folder in (book.parent, book):
        with pytest.raises(BgkitError, match="no sweep's folder; choose another"):
            bgkit.sweep(book, {"SEED": 0}, folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "SEDE"], "'SEDE' is no setting of a sweep; write it as"),
        (["--workers", "0", "--dry-run"], "at least 1 worker"),
        pytest.param(
            ["--dask", "foo bar"],
            "No dask scheduler answers at 'foo bar'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(book, options, words, bgkit_here) -> None:
    if "--dask" in options:
        pytest.importorskip("distributed")
    done = bgkit_here(*noop.command(book.parent, *options)[3:], cwd=book.parent)
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert done.stderr.startswith("bgkit: ") and done.stderr.count("\n") == 1
    assert words in done.stderr and not (book.parent / "sweep").exists()
