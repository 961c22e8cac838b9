"""Sweeps with real kernels: what is run, what is skipped, what is told, what is refused."""

from __future__ import annotations

import json
import re
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
import noop
import pandas as pd
import pytest
from conftest import ROOT

import bgkit
from bgkit import versions
from bgkit.errors import BgkitError
from bgkit.sweeps import drive as sweeps
from bgkit.sweeps import index as sweep_index
from bgkit.sweeps import run as sweep_runs
from bgkit.sweeps import workers as sweep_workers

RECORD = {
    "hash": "h",
    "state": "complete",
    "seconds": 61.0,
    "parameters": {"WAY": "a|b", "SEED": 0, "FOLDER": "x"},
    "metrics": {"loss": [0.25, 0.2, 0.3]},
}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return noop.notebook(tmp_path)


def sweep(book: Path, grid, **settings) -> pd.DataFrame:
    settings = {"say": lambda _: None, **settings}
    common = {"LEDGER": str(book.parent / "ledger")}
    return bgkit.sweep(book, {**common, **grid}, book.parent / "sweep", **settings)


def test_a_sweep_runs_every_combination_once_and_keeps_an_index(book: Path) -> None:
    said: list[str] = []
    index = sweep(book, {"way": ["a", "b"], "SEED": [0, 1]}, workers=2, say=said.append)
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
    assert pd.read_parquet(folder / "index.parquet")["run"].tolist() == index["run"].tolist()
    assert "4 runs: 4 complete" in (folder / "index.md").read_text()
    assert "4 waiting" in said[0] and "[4/4] complete" in said[-2]


def test_what_is_complete_is_skipped_and_a_larger_grid_adds_to_it(book: Path) -> None:
    sweep(book, {"SEED": [0]})
    index = sweep(book, {"SEED": [0, 1]})
    assert noop.ledger(book.parent) == ["a 0", "a 1"]
    assert list(index["attempts"]) == [1, 1]
    sweep(book, {"WAY": "c"})
    whole = pd.read_parquet(book.parent / "sweep" / "index.parquet")
    assert sorted(whole["WAY"]) == ["a", "a", "c"]


@pytest.mark.slow
def test_a_failed_run_is_kept_and_the_others_go_on(book: Path) -> None:
    done = noop.run(book.parent, "--set", "SEED=0:3", "--set", "BAD=1")
    assert done.returncode == 1, done.stderr
    assert noop.ledger(book.parent) == ["a 0", "a 2"]
    index = pd.read_parquet(book.parent / "sweep" / "index.parquet").set_index("SEED")
    assert index["state"].to_dict() == {0: "complete", 1: "failed", 2: "complete"}
    assert index.loc[1, "error"] == "Cell 3 failed: ValueError: a bad seed <b>|"
    executed = nbformat.read(book.parent / "sweep" / index.loc[1, "notebook"], as_version=4)
    assert any(o.output_type == "error" for c in executed.cells for o in c.get("outputs", []))
    text = (book.parent / "sweep" / "index.md").read_text()
    assert "a bad seed &lt;b>\\|" in text

    again = noop.run(book.parent, "--set", "SEED=0:3", "--set", "BAD=1")
    assert again.returncode == 1 and "To do: 0" in again.stdout  # left alone
    retried = noop.run(book.parent, "--set", "SEED=0:3", "--set", "BAD=1", "--retry-failed")
    assert retried.returncode == 1 and "[1/1] failed" in retried.stdout


@pytest.mark.slow
def test_the_command_says_what_it_does_and_a_dry_run_does_nothing(book: Path) -> None:
    done = noop.run(book.parent, "--set", "seed=0:30", "--workers", "2", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "30 runs: 30 waiting" in done.stdout and "2 at a time" in done.stdout
    assert "SEED=19" in done.stdout and "... and 10 more" in done.stdout
    assert not (book.parent / "sweep").exists()
    done = noop.run(book.parent, "--set", "seed=1", "--report-to", "trackio")
    assert done.returncode == 0, done.stderr
    (executed,) = (book.parent / "sweep" / "runs").glob("*/executed.ipynb")
    assert 'REPORT_TO = "trackio"' in executed.read_text().replace('\\"', '"')


def test_threads_and_gpus_are_divided_among_the_workers(book: Path, monkeypatch) -> None:
    monkeypatch.setattr(sweep_workers, "cores", lambda: 6)
    monkeypatch.setattr(sweep_workers, "gpus", lambda: ["0", "1"])
    index = sweep(book, {"SEED": [0, 1], "T": 0.5}, workers=2)
    printed = [
        "".join(
            o.get("text", "") for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])
        )
        for path in (book.parent / "sweep" / notebook for notebook in index["notebook"])
    ]
    assert sorted(printed) == ["threads 3 0\n", "threads 3 1\n"]


def test_gpus_are_those_this_process_may_use(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0: A\necho GPU 1: B\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep_workers.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert sweep_workers.gpus() == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "/nowhere")
    assert sweep_workers.gpus() == []


@pytest.mark.slow
def test_any_executor_does(book: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        sweep(book, {"SEED": [0, 1]}, executor=threads)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        index = sweep(book, {"SEED": [1, 2]}, executor=processes)
    assert noop.ledger(book.parent) == ["a 0", "a 1", "a 2"]
    assert list(index["state"]) == ["complete"] * 2


def test_an_executor_that_does_not_tell_needs_a_number(book: Path) -> None:
    class Silent(Executor):
        def submit(self, function, /, *given, **more):
            future: Future = Future()
            future.set_result(function(*given, **more))
            return future

    with pytest.raises(BgkitError, match=r"The executor Silent does not tell .* workers="):
        sweep(book, {"SEED": 0}, executor=Silent())
    assert not (book.parent / "sweep").exists()
    assert sweep(book, {"SEED": 0}, executor=Silent(), workers=1)["state"].item() == "complete"


@pytest.mark.slow
def test_a_kernel_that_never_starts_breaks_its_run_only(book: Path, monkeypatch, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    index = sweep(book, {"SEED": 0})
    assert index["state"].tolist() == ["broken"]
    assert "Kernel died" in index["error"].iloc[0]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert sweep(book, {"SEED": 0})["state"].tolist() == ["complete"]


@pytest.mark.slow
def test_two_sweeps_at_once_do_every_run_once(book: Path) -> None:
    options = ["--set", "SEED=0:4", "--set", "T=0.5"]
    both = [noop.start(book.parent, *options) for _ in range(2)]
    printed = [process.communicate(timeout=noop.PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert noop.ledger(book.parent) == ["a 0", "a 1", "a 2", "a 3"]
    assert all("4 runs: 4 complete" in text for text in printed)


def test_sweeps_of_other_grids_in_one_folder_keep_each_others_rows(book: Path) -> None:
    """One that was planned before, and ends after, the other was planned and done."""
    inner: list[pd.DataFrame] = []

    def watch(_: sweeps.Sweep) -> None:
        if not inner:
            inner.append(sweep(book, {"WAY": "b"}))

    outer = sweep(book, {"WAY": "a", "T": 0.5}, watch=watch)
    assert (outer["WAY"].tolist(), inner[0]["WAY"].tolist()) == (["a"], ["b"])
    whole = pd.read_parquet(book.parent / "sweep" / "index.parquet")
    assert whole.set_index("WAY")["state"].to_dict() == {"a": "complete", "b": "complete"}
    assert "2 runs: 2 complete" in (book.parent / "sweep" / "index.md").read_text()


def test_the_digest_is_of_the_sources(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("one = 1\n")
    (tmp_path / "sub" / "b.py").write_text("two = 2\n")
    before = versions.code_digest(tmp_path)
    (tmp_path / "a.txt").write_text("no source")
    (tmp_path / "a.py").write_bytes(b"one = 1\r\n")  # the same line elsewhere
    assert versions.code_digest(tmp_path) == before and len(before) == 12
    (tmp_path / "sub" / "b.py").write_text("two = 3\n")
    assert versions.code_digest(tmp_path) != before
    assert versions.versions()["bgkit_code"] == versions.code_digest(ROOT / "bgkit")


def test_a_sweep_that_goes_on_with_other_code_says_so(book: Path) -> None:
    (run,) = sweep(book, {"SEED": 0})["run"]
    plan = sweeps.plan(
        book, {"SEED": [0, 1], "LEDGER": str(book.parent / "ledger")}, book.parent / "sweep"
    )
    assert plan.warning == ""
    file = book.parent / "sweep" / "runs" / run / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "versions": {**record["versions"], "torch": "0.1"}}))
    said: list[str] = []
    assert sweep(book, {"SEED": 0}, say=said.append)["attempts"].tolist() == [1]
    assert "Begun with other versions than today's (see the index): 1." in said[0]


def test_a_lost_worker_breaks_its_run_only(book: Path) -> None:
    class Lossy(ThreadPoolExecutor):
        def submit(self, function, job, *more):
            if job.parameters["SEED"] == 1:
                return super().submit(lambda: 1 / 0)
            return super().submit(function, job, *more)

    with Lossy(1) as executor:
        index = sweep(book, {"SEED": [0, 1]}, executor=executor)
    assert index["state"].tolist() == ["complete", "broken"]
    assert "worker was lost: ZeroDivisionError" in index["error"].iloc[1]


def test_the_estimate_is_by_complete_runs_where_there_are_any(book: Path) -> None:
    grid = {"SEED": range(4), "LEDGER": str(book.parent / "ledger")}
    assert sweeps.plan(book, grid, book.parent / "sweep").seconds_left() is None
    sweep(book, {"SEED": 0})
    plan = sweeps.plan(book, grid, book.parent / "sweep", workers=2)
    (seconds,) = (r["seconds"] for r in plan.records.values() if "seconds" in r)
    assert plan.seconds_left() == pytest.approx(seconds * 3 / 2)
    assert re.search(r"about \d+:\d\d", sweeps.summary(plan))


def test_the_readable_index_escapes_text() -> None:
    other = {**RECORD, "hash": "i", "parameters": {"WAY": "<img>", "SEED": 0}, "state": "waiting"}
    text = sweep_index.readable([RECORD, {k: v for k, v in other.items() if k != "seconds"}])
    assert "a\\|b" in text and "&lt;img>" in text and "<img>" not in text
    assert "0.250 [0.200, 0.300]" in text and "[h](runs/h/executed.ipynb)" in text
    assert "| WAY | state |" in text  # SEED is the same, FOLDER is the sweep's


def test_metrics_are_those_of_the_policy_over_all_prompts(tmp_path: Path) -> None:
    row = {"metric": "m", "mean": 1.0, "low": 0.5, "high": 1.5, "design": "boundary", "kind": "all"}
    rows = [{**row, "design": "base"}, {**row, "kind": "harmful"}, {**row, "mean": 2.0}]
    (tmp_path / "run").mkdir()
    assert sweep_runs.metrics_of(tmp_path) == {}
    (tmp_path / "run" / "result.json").write_text(json.dumps({"rows": rows}))
    assert sweep_runs.metrics_of(tmp_path) == {"m": [2.0, 0.5, 1.5]}
    for broken in ("{", "[]", '{"rows": 3}'):
        (tmp_path / "run" / "result.json").write_text(broken)
        assert sweep_runs.metrics_of(tmp_path) == {}


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
