"""Sweeps that are stopped or killed in every way: the same command ends with every run once.

The runs wait in the middle of their work until the test lets them go, so that what is killed has
certainly begun and has certainly not been done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import noop
import pandas as pd
import pytest
from conftest import ROOT

from bgkit import runs
from bgkit.training import trainer as training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc"),
]
GRID = ["--set", "WAY=a,b", "--set", "SEED=0:2", "--workers", "2"]
ALL = ["a 0", "a 1", "b 0", "b 1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noop.notebook(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    """What the same sweep finds when nothing happens."""
    return noop.undisturbed(tmp_path_factory.mktemp("undisturbed") / "sweep", *GRID)


@pytest.fixture
def started(folder: Path):
    """A sweep whose first two runs are in the middle of their work; ended after the test."""
    noop.hold(folder)
    process = noop.start(folder, *GRID)
    noop.until(lambda: len(noop.kernels(folder)) == 2)
    yield process
    for one in [process.pid, *noop.kernels(folder)]:
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)
    process.communicate(timeout=noop.PATIENCE)


def finishes(folder: Path, undisturbed: list[dict], to_do: int = 4) -> None:
    """The same command again: every run was done exactly once, with undisturbed results."""
    (folder / "hold").unlink(missing_ok=True)
    done = noop.run(folder, *GRID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[{to_do}/{to_do}] complete" in done.stdout
    assert noop.ledger(folder) == ALL
    assert noop.outcome(folder) == undisturbed


def test_a_stopped_sweep_goes_on(folder: Path, started, undisturbed) -> None:
    running = noop.kernels(folder)
    printed = noop.end(started, signal.SIGINT)
    assert started.returncode == 2
    assert "Stopping" in printed and "run the same sweep again to resume" in printed
    assert "Traceback" not in printed
    assert not any(map(noop.alive, running))
    assert noop.states(folder) == []  # stopped, not failed
    finishes(folder, undisturbed)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_driver_takes_its_kernels_along(
    folder: Path, started, undisturbed, number: int
) -> None:
    running = noop.kernels(folder)
    noop.end(started, number)
    noop.until(lambda: not any(map(noop.alive, running)), 10)
    assert noop.ledger(folder) == []
    finishes(folder, undisturbed)


@pytest.mark.thorough
def test_a_killed_kernel_breaks_its_run_and_the_next_sweep_mends_it(
    folder: Path, started, undisturbed
) -> None:
    os.kill(noop.kernels(folder)[0], signal.SIGKILL)
    noop.let_go(folder)
    printed = started.communicate(timeout=noop.PATIENCE)[0]
    assert started.returncode == 1, printed
    assert "The kernel died" in printed
    assert noop.states(folder) == ["broken", *["complete"] * 3]
    assert len(noop.ledger(folder)) == 3
    finishes(folder, undisturbed, to_do=1)


@pytest.mark.thorough
def test_a_kernel_that_ignores_the_stop_is_killed_by_the_second_one(folder: Path) -> None:
    work = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + noop.WORK
    noop.write(folder / "noop.ipynb", noop.PARAMETERS, work, noop.RESULT)
    process = noop.start(folder, "--set", "T=60")
    noop.until(lambda: noop.kernels(folder))
    (kernel,) = noop.kernels(folder)
    process.send_signal(signal.SIGINT)
    noop.until(lambda: "Stopping" in process.stdout.readline())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=noop.PATIENCE)
    assert process.returncode == 2 and not noop.alive(kernel)
    assert noop.ledger(folder) == []


def test_a_second_sweep_waits_for_what_the_first_one_runs(
    folder: Path, started, undisturbed
) -> None:
    """Beside a sweep that is going on, and finally after it was killed."""
    second = noop.start(folder, *GRID)
    noop.until(lambda: "4 waiting" in second.stdout.readline())
    killed = set(noop.kernels(folder))
    noop.end(started, signal.SIGKILL)
    noop.until(lambda: len(set(noop.kernels(folder)) - killed) == 2)
    noop.let_go(folder)
    printed = second.communicate(timeout=noop.PATIENCE)[0]
    assert second.returncode == 0, printed
    assert noop.ledger(folder) == ALL and noop.outcome(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.thorough
def test_a_training_killed_in_the_middle_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """The notebook of every sweep: it resumes its checkpoint, bit for bit on one CPU thread."""
    settings = "POLICY=tiny STEPS=24 BATCH_SIZE=8 NUM_GENERATIONS=4 EVAL_EVERY=0 TEST_PROMPTS=16"
    settings = f"{settings} JUDGE=none".split()
    sets = [part for setting in settings for part in ("--set", setting)]
    book, mine = ROOT / "notebooks" / "03_train_policy.ipynb", tmp_path / "sweep"
    line = noop.line_of(book, tmp_path, *sets, "--threads", "1")
    killed = noop.start(tmp_path, line=line)
    noop.until(lambda: _curves(mine))  # written after the checkpoint of step 20
    noop.end(killed)
    (before,) = map(pd.read_parquet, _curves(mine))
    again = noop.run(tmp_path, line=line)
    assert again.returncode == 0, again.stdout + again.stderr
    run = runs.load_run(_curves(mine)[0].parent)
    whole = training.train(run.config, tmp_path / "whole", device="cpu", threads=1)
    assert run.curve()["seconds"].head(20).tolist() == before["seconds"].tolist()  # resumed
    curve, undisturbed = (one.curve().drop(columns="seconds") for one in (run, whole))
    pd.testing.assert_frame_equal(curve, undisturbed)
    assert run.read_json("result.json")["rows"] == whole.read_json("result.json")["rows"]
    assert noop.states(tmp_path) == ["complete"]


def _curves(sweep: Path) -> list[Path]:
    return [*sweep.glob("runs/*/results/*/metrics.parquet")]


# --- On the workers of a dask scheduler (the extra `cluster`) ----------------------------------


@pytest.fixture
def start(tmp_path: Path):
    """Start a dask process; all are ended after the test."""
    pytest.importorskip("distributed")
    started: list[subprocess.Popen] = []

    def run(what: str, *options: object) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, options)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=noop.environment(), **quiet))
        return started[-1]

    yield run
    for process in reversed(started):
        process.kill()  # at SIGTERM a worker waits for its scheduler, or the other way round
        process.wait()


@pytest.fixture
def address(start) -> str:
    """A scheduler without workers."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return f"tcp://127.0.0.1:{port}"


@pytest.fixture
def worker(start, address: str):
    """Start a worker of one thread and wait for it."""
    from distributed import Client

    def run(count: int) -> list[subprocess.Popen]:
        options = (address, "--nthreads", 1, "--no-nanny", "--no-dashboard")
        found = [start("worker", *options) for _ in range(count)]
        with Client(address, timeout=noop.PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=noop.PATIENCE)
        return found

    return run


@pytest.mark.slow
def test_a_sweep_on_two_workers(folder: Path, address: str, worker, undisturbed) -> None:
    worker(2)
    done = noop.run(folder, *GRID, "--dask", address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert noop.ledger(folder) == ALL and noop.outcome(folder) == undisturbed


@pytest.mark.thorough
def test_a_killed_worker_loses_nothing(folder: Path, address: str, worker, undisturbed) -> None:
    noop.hold(folder)
    first, _ = worker(2)
    driver = noop.start(folder, *GRID, "--dask", address)
    noop.until(lambda: len(noop.kernels(folder)) == 2)
    running = noop.kernels(folder)
    first.kill()
    noop.until(lambda: not all(map(noop.alive, running)))
    noop.let_go(folder)
    printed = driver.communicate(timeout=noop.PATIENCE)[0]
    assert driver.returncode == 0, printed
    assert noop.ledger(folder) == ALL and noop.outcome(folder) == undisturbed


@pytest.mark.thorough
def test_a_killed_driver_loses_nothing(folder: Path, address: str, worker, undisturbed) -> None:
    noop.hold(folder)
    worker(1)
    driver = noop.start(folder, *GRID, "--dask", address)
    noop.until(lambda: noop.kernels(folder))
    noop.end(driver, signal.SIGKILL)
    second = noop.start(folder, *GRID, "--dask", address)  # its worker is still at the first run
    noop.until(lambda: "4 waiting" in second.stdout.readline())
    noop.let_go(folder)
    printed = second.communicate(timeout=noop.PATIENCE)[0]
    assert second.returncode == 0, printed
    assert noop.ledger(folder) == ALL and noop.outcome(folder) == undisturbed


def test_without_dask_the_extra_is_named(folder: Path, monkeypatch, bgkit_here) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = bgkit_here(*noop.command(folder, "--dask", "tcp://head:8786")[3:])
    assert done.returncode == 2 and "pip install 'bgkit[cluster]'" in done.stderr
