"""One run of a sweep in its own kernel: papermill, and what it lacks for parallel runs.

A run folder ``runs/<hash>`` of a sweep holds ``executed.ipynb``, ``kernel.log``, ``results`` (the
notebook's parameter FOLDER) and, once the run has ended, ``run.json``: parameters, seconds,
versions, metrics or error, and the state. A ``complete`` run is never run again, a ``failed`` one
(a cell raised an error) only on request; a ``broken`` one (the kernel died or did not start) is run
again by the next sweep, like one that has not ended.

The driver of a run holds a lock, so no run is executed twice at the same time (across machines,
where the folder's file system supports ``flock``). A kernel whose driver is gone ends within a
second (ipykernel watches its parent; before ipykernel 7 only if process 1 adopts the kernel).
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import filelock
import papermill
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from traitlets import Type

from bgkit import environment
from bgkit.runs import write_json

# papermill warns of annotations with "|"; bgkit.sweeps.grids has checked the parameters
logging.getLogger("papermill").addHandler(logging.NullHandler())
POLL = 1.0  # seconds between two polls for a reply
THREADS = ("BGKIT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# jupyter_client below 8 has another name for this class
class ReplyChannel(AsyncKernelClient.shell_channel_class.default_value):
    """The channel of a kernel's replies, polled every second.

    ZeroMQ signals an arrival once, and sending on the same socket consumes that signal. nbclient
    sends on it for every change of an Output widget and waits only for the signal, so it would wait
    forever for a reply that arrives at that moment (nbclient's issue 312, open).
    """

    async def get_msg(self, timeout: float | None = None) -> dict:
        """The next message; raises queue.Empty after ``timeout`` seconds (None: never)."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await super().get_msg(timeout=min(POLL, left))
            except queue.Empty:
                if left <= POLL:
                    raise


class KernelClient(AsyncKernelClient):
    """Jupyter's client with :class:`ReplyChannel`."""

    shell_channel_class = Type(ReplyChannel)


class Driver:
    """Hands out GPUs to the kernels of this process, and stops them together.

    Each of the ``workers`` parallel notebooks gets one of ``gpus`` (values of
    CUDA_VISIBLE_DEVICES), in turn.
    """

    def __init__(self, workers: int = 1, gpus: Sequence[str] = ()) -> None:
        self.stopped = threading.Event()
        self.kernels: set[subprocess.Popen] = set()
        self.free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for number in range(workers):
            name = gpus[number % len(gpus)] if gpus else None
            self.free.put({"CUDA_VISIBLE_DEVICES": name} if name else {})

    def stop(self, number: int) -> None:
        """Send a signal to all kernels and their child processes."""
        self.stopped.set()
        for process in tuple(self.kernels):
            with contextlib.suppress(OSError):
                if process.poll() is None:
                    os.killpg(process.pid, number)


class KernelManager(AsyncKernelManager):
    """Jupyter's manager with :class:`KernelClient`, for nbclient's ``kernel_manager_class``.

    Its kernels get a completed environment (:mod:`bgkit.environment`) and show no progress, which
    would be stored in the notebook. A run's subclass sets ``own``, options of the kernel's process,
    and ``driver``, which may stop it.
    """

    client_factory = Type(KernelClient, klass=AsyncKernelClient)
    own: Mapping[str, object] = MappingProxyType({})
    driver: Driver | None = None

    async def start_kernel(self, *, env: Mapping[str, str] | None = None, **options) -> None:
        """Start the kernel."""
        options |= {"env": os.environ if env is None else env, **self.own}
        env = {"BGKIT_PROGRESS": "none", **environment.with_defaults(options.pop("env"))}
        await super().start_kernel(env=env, **options)
        if self.driver is not None:
            self.driver.kernels.add(self.provisioner.process)
            if self.driver.stopped.is_set():  # while it started
                await self.signal_kernel(signal.SIGKILL)  # only this one: others save their work


def execute(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, object],
    kernel_manager_class: type[KernelManager] = KernelManager,
) -> None:
    """Execute a notebook into ``output`` by papermill, whose errors it raises; thread-safe."""
    paths = (str(Path(path).resolve()) for path in (notebook, output))
    # jupyter keeps its event loop in the context, which dask's threads share: use a new context
    contextvars.Context().run(
        papermill.execute_notebook,
        *paths,
        dict(parameters),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        kernel_manager_class=kernel_manager_class,
        start_timeout=180,  # seconds; the default of 60 is too short if many kernels share a core
        iopub_timeout=60,  # default: 4
    )


# --- A run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A run to execute, in the form that is sent to a worker. Paths are absolute.

    ``before`` is its record when the sweep was planned ({} if it had not ended).
    """

    notebook: Path
    parameters: dict[str, object]
    folder: Path
    cwd: Path
    threads: int
    before: dict


def run_job(job: Job, driver: Driver | None = None) -> dict:
    """Execute a run and return its record, which holds the error if it fails.

    If another worker executes the run, this waits, and does not repeat a run that completes or
    fails. Raises CancelledError once ``driver`` is stopped.
    """
    driver = driver or Driver()
    job.folder.mkdir(exist_ok=True)
    lock = filelock.FileLock(job.folder / "lock")
    while not driver.stopped.is_set():
        with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=1):
            return _run_unless_done(job, driver)
    raise CancelledError


def _run_unless_done(job: Job, driver: Driver) -> dict:
    record = read_record(job.folder)
    state = record.get("state")
    if state == "complete" or (state == "failed" and record != job.before):
        return record
    (job.folder / "run.json").unlink(missing_ok=True)
    gpu = driver.free.get()
    try:
        record = _execute_job(job, driver, gpu)
    finally:
        driver.free.put(gpu)
    if driver.stopped.is_set() and record["state"] != "complete":
        raise CancelledError
    write_json(job.folder / "run.json", record)
    return record


def _execute_job(job: Job, driver: Driver, gpu: Mapping[str, str]) -> dict:
    """Run the notebook and return the run's record."""
    start, state, error = time.monotonic(), "broken", ""
    env = {**os.environ, **dict.fromkeys(THREADS, str(job.threads)), **gpu}
    try:
        with (job.folder / "kernel.log").open("ab") as log:
            own = {"env": env, "cwd": str(job.cwd), "stdout": log, "stderr": log}
            manager = type("Manager", (KernelManager,), {"own": own, "driver": driver})
            execute(job.notebook, job.folder / "executed.ipynb", job.parameters, manager)
        state = "complete"
    except papermill.PapermillExecutionError as problem:
        state = "failed"
        error = f"Cell {problem.exec_count} failed: {problem.ename}: {problem.evalue}"
    except DeadKernelError:
        error = "The kernel died (it was killed, crashed, or ran out of memory)."
    except Exception as problem:  # no start, a full disk, ...: ends this run, not the sweep
        error = f"{type(problem).__name__}: {problem}"
    return {
        "parameters": job.parameters,
        "state": state,
        "seconds": round(time.monotonic() - start, 3),
        "error": error,
        "versions": environment.versions(),
        "metrics": metrics_of(job.folder / "results") if state == "complete" else {},
    }


def metrics_of(results: Path) -> dict[str, list]:
    """Metric -> [mean, low, high] of the trained policy over all kinds of prompts.

    Read from the newest ``result.json`` that the notebook wrote to its FOLDER or a folder in it.
    Its ``rows`` have ``metric``, ``mean`` and, optionally, ``low``, ``high``, ``design`` and
    ``kind``. {} if there is no such file.
    """
    files = [*results.glob("result.json"), *results.glob("*/result.json")]
    metrics: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        newest = max(files, key=lambda path: path.stat().st_mtime)
        for row in json.loads(newest.read_text(encoding="utf-8"))["rows"]:
            if row.get("design") != "base" and row.get("kind", "all") == "all":
                metrics.setdefault(row["metric"], [row.get(key) for key in ("mean", "low", "high")])
    return metrics


def read_record(folder: Path) -> dict:
    """The content of a run folder's ``run.json``; {} if it is missing or not readable."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {}
