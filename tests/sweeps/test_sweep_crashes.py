"""Sweeps that are stopped or killed in every way: the same command ends with every run once.

The runs wait in the middle of their work until the test lets them go, so that what is killed has
certainly begun and has certainly not been done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import noop
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc"),
]
thorough = pytest.mark.thorough
GRID = ["--set", "WAY=a,b", "--set", "SEED=0:2", "--workers", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noop.notebook(tmp_path)
    (tmp_path / "hold").touch()
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    """What the same sweep finds when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    noop.notebook(folder)
    noop.ended(noop.start(folder, *GRID))
    return noop.outcome(folder)


@pytest.fixture
def started(folder: Path):
    """A sweep whose first two runs are in the middle of their work; ended after the test."""
    process = noop.start(folder, *GRID)
    noop.until(lambda: len(noop.kernels(folder)) == 2)
    yield process
    for one in [process.pid, *noop.kernels(folder)]:
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)
    process.communicate(timeout=noop.PATIENCE)


def finishes(process: subprocess.Popen, folder: Path, undisturbed: list[dict]) -> str:
    """The sweep ends, each run was done exactly once, with undisturbed results."""
    (folder / "hold").unlink(missing_ok=True)
    printed = noop.ended(process)
    assert noop.ledger(folder) == ["a 0", "a 1", "b 0", "b 1"]
    assert noop.outcome(folder) == undisturbed
    return printed


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=thorough)])
def test_a_stopped_sweep_takes_its_kernels_along_and_goes_on(
    folder: Path, started, undisturbed, number: int
) -> None:
    running, saves = noop.kernels(folder), number == signal.SIGINT
    started.send_signal(number)
    printed = noop.ended(started, 2 if saves else -number)
    assert ("run the same sweep again to resume" in printed) == saves
    assert "Traceback" not in printed
    noop.until(lambda: not any(map(noop.alive, running)), 0 if saves else noop.PATIENCE)
    assert noop.states(folder) == noop.ledger(folder) == []  # stopped, not failed
    assert "[4/4] complete" in finishes(noop.start(folder, *GRID), folder, undisturbed)


@thorough
def test_a_killed_kernel_breaks_its_run_and_the_next_sweep_mends_it_in_the_same_folder(
    folder: Path, started, undisturbed
) -> None:
    checkpoints = [path.with_name("kept") for path in folder.glob("sweep/runs/*/results/started")]
    for path in checkpoints:  # as a training leaves them, which goes on there
        path.touch()
    os.kill(noop.kernels(folder)[0], signal.SIGKILL)
    (folder / "hold").unlink()
    assert "The kernel died" in noop.ended(started, 1)
    assert noop.states(folder) == ["broken", *["complete"] * 3]
    assert len(noop.ledger(folder)) == 3
    assert "[1/1] complete" in finishes(noop.start(folder, *GRID), folder, undisturbed)
    assert len(checkpoints) == 2 and all(path.exists() for path in checkpoints)


@thorough
def test_a_kernel_that_ignores_the_stop_is_killed_by_the_second_one(folder: Path) -> None:
    work = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + noop.WORK
    noop.write(folder / "noop.ipynb", noop.PARAMETERS, work, noop.RESULT)
    process = noop.start(folder)
    noop.until(lambda: noop.kernels(folder))
    (kernel,) = noop.kernels(folder)
    process.send_signal(signal.SIGINT)
    noop.until(lambda: "Stopping" in process.stdout.readline())
    process.send_signal(signal.SIGINT)
    noop.ended(process, 2)
    assert not noop.alive(kernel) and noop.ledger(folder) == []


def test_a_second_sweep_waits_for_the_first_one_and_does_its_work_once_that_is_killed(
    folder: Path, started, undisturbed
) -> None:
    second = noop.start(folder, *GRID)
    noop.until(lambda: "4 waiting" in second.stdout.readline())
    killed = noop.kernels(folder)
    started.kill()
    noop.until(lambda: not any(map(noop.alive, killed)))
    noop.until(lambda: len({*noop.kernels(folder)} - {*killed}) == 2)
    assert noop.ledger(folder) == []
    finishes(second, folder, undisturbed)


# --- On the workers of a dask scheduler (the extra `cluster`) ----------------------------------


@pytest.fixture
def cluster():
    """A scheduler and two workers of one thread, each in a process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as started:
        yield started


@pytest.mark.parametrize(
    "killed", ["none", *(pytest.param(name, marks=thorough) for name in ("worker", "driver"))]
)
def test_a_sweep_on_two_workers_loses_nothing_with_one_of_them_or_its_driver(
    folder: Path, cluster, undisturbed, killed: str
) -> None:
    line = folder, *GRID, "--dask", cluster.scheduler_address
    driver = noop.start(*line)
    noop.until(lambda: len(noop.kernels(folder)) == 2)
    if killed == "worker":
        running = noop.kernels(folder)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        noop.until(lambda: not all(map(noop.alive, running)))
    if killed == "driver":
        driver.kill()
        noop.ended(driver, -signal.SIGKILL)
        driver = noop.start(*line)
        # behind the runs of the first one
        noop.until(lambda: "4 waiting" in driver.stdout.readline())
    finishes(driver, folder, undisturbed)


def test_without_dask_the_extra_is_named(folder: Path, monkeypatch, bgkit_here) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = bgkit_here(*noop.command(folder, "--dask", "tcp://head:8786")[3:])
    assert done.returncode == 2 and "pip install 'bgkit[cluster]'" in done.stderr
