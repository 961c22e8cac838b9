"""Sweeps on the workers of a dask scheduler; needs the extra ``cluster``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import noop
import pytest

from bgkit import cluster
from bgkit.errors import BgkitError
from bgkit.versions import versions

GRID = ["--set", "SEED=0:4", "--set", "T=1"]
ALL = [f"a {seed}" for seed in range(4)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


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
        process.terminate()
    for process in started:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def address(start) -> str:
    """A scheduler without workers."""
    port = free_port()
    start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return f"tcp://127.0.0.1:{port}"


@pytest.fixture
def worker(start, address: str):
    """Start a worker of one thread."""
    return lambda: start("worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard")


def workers_of(address: str, wanted: int) -> None:
    from distributed import Client

    with Client(address, timeout=30, set_as_default=False) as client:
        if wanted:
            client.wait_for_workers(wanted, timeout=60)


@pytest.mark.slow
def test_a_sweep_on_two_workers(folder: Path, address: str, worker) -> None:
    worker(), worker()
    workers_of(address, 2)
    done = noop.run(folder, *GRID, "--dask", address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert noop.ledger(folder) == ALL and "2 at a time" in done.stdout
    again = noop.run(folder, *GRID, "--dask", address)
    assert again.returncode == 0 and "To do: 0" in again.stdout


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(folder: Path, address: str, worker) -> None:
    first, _ = worker(), worker()
    workers_of(address, 2)
    driver = noop.start(folder, *GRID, "--dask", address)
    noop.until(lambda: len(noop.kernels(folder)) == 2)
    first.kill()
    printed = driver.communicate(timeout=90)[0]
    assert driver.returncode == 0, printed
    assert noop.ledger(folder) == ALL and noop.states(folder) == ["complete"] * 4


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(folder: Path, address: str, worker) -> None:
    worker()
    workers_of(address, 1)
    driver = noop.start(folder, *GRID, "--dask", address)
    noop.until(lambda: noop.kernels(folder))
    noop.end(driver, signal.SIGKILL)
    done = noop.run(folder, *GRID, "--dask", address)  # its worker may still be at the first run
    assert done.returncode == 0, done.stdout + done.stderr
    assert noop.ledger(folder) == ALL and noop.states(folder) == ["complete"] * 4


@pytest.mark.slow
def test_a_scheduler_without_workers_is_one_sentence(folder: Path, address: str) -> None:
    workers_of(address, 0)
    done = noop.run(folder, *GRID, "--dask", address)
    assert done.returncode == 2 and "has no workers" in done.stderr, done.stderr
    assert not (folder / "sweep").exists()


def test_an_unreachable_address_is_one_sentence(folder: Path) -> None:
    pytest.importorskip("distributed")
    with (
        pytest.raises(BgkitError, match=r"No dask scheduler answers at 'tcp://127\.0\.0\.1:"),
        cluster.connect(f"tcp://127.0.0.1:{free_port()}", timeout=1),
    ):
        pass


def test_an_address_that_is_none_is_one_sentence() -> None:
    pytest.importorskip("distributed")
    for text in ("foo bar", "localhost", "tcp://host", ""):
        with pytest.raises(BgkitError, match="no address of a dask"), cluster.connect(text):
            pass


def test_without_dask_the_extra_is_named(folder: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BgkitError, match=r"pip install 'bgkit\[cluster\]'"), cluster.connect("a:1"):
        pass


def test_workers_with_other_versions_are_refused_and_shown() -> None:
    same = {"host": "a", "cores": 2, "versions": versions()}
    cluster.check({"tcp://a:1": same})
    other = {**same, "host": "b", "versions": {**same["versions"], "torch": "0.1"}}
    with pytest.raises(BgkitError, match=r"tcp://b:2 on b has other versions .*torch 0\.1 there"):
        cluster.check({"tcp://a:1": same, "tcp://b:2": other})


def test_a_worker_tells_what_it_is() -> None:
    found = cluster.probe()
    assert found["cores"] == os.cpu_count() and found["versions"] == versions()
