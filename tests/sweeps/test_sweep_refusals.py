"""Sweeps that are refused: one sentence, exit status 2, and the folder stays as it was."""

from __future__ import annotations

import errno
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import noop
import pytest
from conftest import ROOT

import bgkit
from bgkit.errors import BgkitError
from bgkit.runs import locks
from bgkit.sweeps import drive as sweeps
from bgkit.sweeps import run as sweep_runs


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return noop.notebook(tmp_path)


def sweep(book: Path, grid, **settings):
    settings = {"say": lambda _: None, **settings}
    common = {"LEDGER": str(book.parent / "ledger")}
    return bgkit.sweep(book, {**common, **grid}, book.parent / "sweep", **settings)


def test_the_folder_of_another_notebook_is_refused_and_stays(book: Path) -> None:
    sweep(book, {"SEED": 0})
    before = noop.content(book.parent / "sweep")
    other = noop.write(book.parent / "other.ipynb", noop.PARAMETERS, "pass")
    with pytest.raises(BgkitError, match=r"holds a sweep of noop\.ipynb, or of other code"):
        sweep(other, {"SEED": 0})
    noop.write(book, noop.PARAMETERS, "pass")
    with pytest.raises(BgkitError, match=r"of other code in it; choose another folder"):
        sweep(book, {"SEED": 0})
    assert noop.content(book.parent / "sweep") == before
    (book.parent / "mine").mkdir()
    (book.parent / "mine" / "file").touch()
    with pytest.raises(BgkitError, match="not empty and is no sweep"):
        sweeps.plan(book, {"SEED": 0}, book.parent / "mine")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("PROMPTS=few.csv", "None of the prompts of few.csv belongs to the split"),
        ("JUDGE=api:m", "The judge api:m needs a key"),
        ("GUARD=./empty", "The guard ./empty in empty has no usable config"),
    ],
)
def test_what_every_training_would_refuse_starts_nothing(
    tmp_path: Path, setting: str, words: str, bgkit_here
) -> None:
    (tmp_path / "few.csv").write_text("prompt\nHow do I bake bread?\n")
    (tmp_path / "empty").mkdir()
    before = noop.content(tmp_path)
    given = ["--set", "REWARD=boundary,compound", "--set", setting]
    line = noop.line_of(ROOT / "notebooks" / "03_train_policy.ipynb", tmp_path, *given)
    done = bgkit_here(*line[3:], cwd=tmp_path, OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert done.stderr.startswith("bgkit: ") and words in done.stderr
    assert noop.content(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "SEDE=1"], "has no parameter 'SEDE'; it has WAY, SEED"),
        (["--set", "SEED=0:10001"], "The grid has 10,001 runs; say --yes"),
        (["--grid", "none.yaml"], "The grid none.yaml can not be read"),
        (["--workers", "0"], "at least 1 worker"),
        (["--report-to", "wandbb"], "REPORT_TO must be one of none, trackio, not 'wandbb'"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(
    book: Path, options, words, bgkit_here
) -> None:
    done = bgkit_here(*noop.command(book.parent, *options)[3:], cwd=book.parent)
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert done.stderr.startswith("bgkit: ") and done.stderr.count("\n") == 1
    assert words in done.stderr and not (book.parent / "sweep").exists()


def test_a_worker_that_does_not_see_the_folder_is_told(book: Path) -> None:
    plan = sweeps.plan(book, {"SEED": 0}, book.parent / "sweep")
    with pytest.raises(sweep_runs.WorkerError, match="does not see"):
        sweep_runs.run_job(plan.jobs[0])


@pytest.mark.slow
def test_a_spawned_worker_with_another_version_ends_the_sweep(
    book: Path, monkeypatch, tmp_path: Path
) -> None:
    """A real process of its own, in which torch is another one."""
    code = "from importlib import metadata\nown = metadata.version\n"
    code += "metadata.version = lambda name: '0.1' if name == 'torch' else own(name)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes,
        pytest.raises(sweep_runs.WorkerError, match=r"other versions .*\(torch 0\.1 there, "),
    ):
        sweep(book, {"SEED": [0, 1]}, executor=processes, say=said.append)
    assert noop.ledger(book.parent) == [] and noop.states(book.parent) == []
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert sweep(book, {"SEED": [0, 1]})["state"].tolist() == ["complete"] * 2


def test_a_file_system_without_locks_is_one_sentence(book: Path, monkeypatch) -> None:
    def refuse(*given) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(BgkitError, match=r"has no locks \(No locks available\).*runs\.locks"):
        sweep(book, {"SEED": 0})
    assert noop.ledger(book.parent) == []
