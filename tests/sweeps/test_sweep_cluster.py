"""Sweeps on the workers of a dask scheduler; needs the extra ``cluster``."""

from __future__ import annotations

import contextvars
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import noop
import pytest
from jupyter_core.utils import ensure_event_loop

import bgkit
from bgkit.errors import BgkitError
from bgkit.sweeps import kernels, workers

GRID = ["--set", "SEED=0:4"]
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

    def run(what: str, *options: object, **variables: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, options)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(
            subprocess.Popen(command, cwd=tmp_path, env=noop.environment(**variables), **quiet)
        )
        return started[-1]

    yield run
    for process in reversed(started):
        process.kill()  # at SIGTERM a worker waits for its scheduler, or the other way round
        process.wait()


@pytest.fixture
def address(start) -> str:
    """A scheduler without workers."""
    port = free_port()
    start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return f"tcp://127.0.0.1:{port}"


@pytest.fixture
def worker(start, address: str):
    """Start a worker of one thread."""
    options = (address, "--nthreads", 1, "--no-nanny", "--no-dashboard")
    return lambda **variables: start("worker", *options, **variables)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    """What the same sweep finds on this machine's threads, when nothing happens."""
    return noop.undisturbed(tmp_path_factory.mktemp("undisturbed") / "sweep", *GRID)


def workers_of(address: str, wanted: int) -> None:
    from distributed import Client

    with Client(address, timeout=noop.PATIENCE, set_as_default=False) as client:
        if wanted:
            client.wait_for_workers(wanted, timeout=noop.PATIENCE)


@pytest.mark.slow
def test_a_sweep_on_two_workers(folder: Path, address: str, worker, undisturbed) -> None:
    worker(), worker()
    workers_of(address, 2)
    done = noop.run(folder, *GRID, "--dask", address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert noop.ledger(folder) == ALL and "2 at a time" in done.stdout
    assert noop.outcome(folder) == undisturbed
    again = noop.run(folder, *GRID, "--dask", address)
    assert again.returncode == 0 and "To do: 0" in again.stdout


@pytest.mark.slow
@pytest.mark.thorough
def test_a_killed_worker_loses_nothing(folder: Path, address: str, worker, undisturbed) -> None:
    noop.hold(folder)
    first, _ = worker(), worker()
    workers_of(address, 2)
    driver = noop.start(folder, *GRID, "--dask", address)
    noop.until(lambda: len(noop.kernels(folder)) == 2)
    running = noop.kernels(folder)
    first.kill()
    noop.until(lambda: not all(map(noop.alive, running)))
    noop.let_go(folder)
    printed = driver.communicate(timeout=noop.PATIENCE)[0]
    assert driver.returncode == 0, printed
    assert noop.ledger(folder) == ALL and noop.states(folder) == ["complete"] * 4
    assert noop.outcome(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.thorough
def test_a_killed_driver_loses_nothing(folder: Path, address: str, worker, undisturbed) -> None:
    noop.hold(folder)
    worker()
    workers_of(address, 1)
    driver = noop.start(folder, *GRID, "--dask", address)
    noop.until(lambda: noop.kernels(folder))
    noop.end(driver, signal.SIGKILL)
    second = noop.start(folder, *GRID, "--dask", address)  # its worker is still at the first run
    noop.until(lambda: "To do: 4" in second.stdout.readline())
    noop.let_go(folder)
    printed = second.communicate(timeout=noop.PATIENCE)[0]
    assert second.returncode == 0, printed
    assert noop.ledger(folder) == ALL and noop.states(folder) == ["complete"] * 4
    assert noop.outcome(folder) == undisturbed


def test_threads_that_share_a_context_run_notebooks_at_once(folder: Path) -> None:
    """As dask's threads do, where jupyter has left its event loop in the context."""
    ensure_event_loop()
    ledger = str(folder / "ledger")
    with ThreadPoolExecutor(2) as pool:
        going = [
            pool.submit(
                contextvars.copy_context().run,
                kernels.execute,
                folder / "noop.ipynb",
                folder / f"{seed}.ipynb",
                {"SEED": seed, "LEDGER": ledger, "T": 2.0},
            )
            for seed in range(2)
        ]
        assert [run.result() for run in going] == [None, None]


def test_an_executor_of_dask_tells_its_workers(folder: Path) -> None:
    """Of itself it tells nothing: what it does at once is known to its client."""
    distributed = pytest.importorskip("distributed")
    said: list[str] = []
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    grid = {"SEED": [0, 1], "LEDGER": str(folder / "ledger")}
    with distributed.Client(processes=False, set_as_default=False, **options) as client:
        executor = client.get_executor()
        assert workers.slots_of(executor) == 2
        book, out = folder / "noop.ipynb", folder / "sweep"
        index = bgkit.sweep(book, grid, out, executor, say=said.append)
    assert index["state"].tolist() == ["complete"] * 2 and "2 at a time" in said[0]


@pytest.mark.slow
@pytest.mark.thorough
def test_a_scheduler_without_workers_is_one_sentence(folder: Path, address: str) -> None:
    workers_of(address, 0)
    done = noop.run(folder, *GRID, "--dask", address)
    assert done.returncode == 2 and "has no workers" in done.stderr, done.stderr
    assert not (folder / "sweep").exists()


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "localhost", "foo bar"])
def test_an_address_where_nothing_answers_is_one_sentence(host: str, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: pytest.fail("dask was started"))
    with (
        pytest.raises(BgkitError, match=f"No dask scheduler answers at '{host}'"),
        workers.connect(host, timeout=1),
    ):
        pass


def test_without_dask_the_extra_is_named(folder: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BgkitError, match=r"pip install 'bgkit\[cluster\]'"), workers.connect("a:1"):
        pass
