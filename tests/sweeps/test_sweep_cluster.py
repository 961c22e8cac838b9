"""Sweeps on the workers of a dask scheduler; needs the extra ``cluster``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import noop
import pytest

GRID = ["--set", "SEED=0:4"]
ALL = [f"a {seed}" for seed in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noop.notebook(tmp_path)
    return tmp_path


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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    """What the same sweep finds on this machine's threads, when nothing happens."""
    return noop.undisturbed(tmp_path_factory.mktemp("undisturbed") / "sweep", *GRID)


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
