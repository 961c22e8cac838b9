"""One run of a sweep, in a kernel of its own: papermill, and what it lacks for many at once.

A run folder ``runs/<hash>`` of a sweep holds ``executed.ipynb``, ``kernel.log``, ``results`` (the
notebook's parameter FOLDER) and once the run has ended ``run.json``: parameters, seconds, versions,
metrics or error, and the state. ``complete`` is never run again, ``failed`` (a cell raised an
error) only when asked for; ``broken`` (the kernel died or did not start) is run again by the next
sweep, as what has not ended.

Its driver holds a lock, so that a run is never executed twice at the same time where the folder's
file system takes ``flock`` across machines. A kernel whose driver is gone ends by itself, within a
second (ipykernel looks for its parent; before ipykernel 7 only where process 1 adopts the kernel).
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
from bgkit.runs import git_revision, write_json
from bgkit.versions import versions

# it takes no annotation with "|" for a parameter, and warns; bgkit.sweeps.grids has checked
logging.getLogger("papermill").addHandler(logging.NullHandler())
LOOK = 1.0  # seconds between two looks for a reply
THREADS = ("BGKIT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# The class's own name is another one before jupyter_client 8.
class ReplyChannel(AsyncKernelClient.shell_channel_class.default_value):
    """The channel of a kernel's replies, which looks for one every second.

    ZeroMQ tells once that something has come, and sending on the same socket takes that event up;
    nbclient sends on it for every change of an Output widget, and waits for the event alone: a
    reply in that moment would be waited for without end (nbclient's issue 312, open).
    """

    async def get_msg(self, timeout: float | None = None) -> dict:
        """The next message; raises queue.Empty after ``timeout`` seconds (None: never)."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await super().get_msg(timeout=min(LOOK, left))
            except queue.Empty:
                if left <= LOOK:
                    raise


class KernelClient(AsyncKernelClient):
    """Jupyter's own client with our channel for replies."""

    shell_channel_class = Type(ReplyChannel)


class Here:
    """What the kernels of a driver share: its GPUs, and being stopped together.

    Of ``gpus`` (values of CUDA_VISIBLE_DEVICES) each of the ``workers`` notebooks that run at once
    gets one, by turns.
    """

    def __init__(self, workers: int = 1, gpus: Sequence[str] = ()) -> None:
        self.stopped = threading.Event()
        self.kernels: set[subprocess.Popen] = set()
        self.free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for number in range(workers):
            name = gpus[number % len(gpus)] if gpus else None
            self.free.put({"CUDA_VISIBLE_DEVICES": name} if name else {})

    def stop(self, number: int) -> None:
        """Send all kernels (and what they started) a signal."""
        self.stopped.set()
        for process in tuple(self.kernels):
            with contextlib.suppress(OSError):
                if process.poll() is None:
                    os.killpg(process.pid, number)


class KernelManager(AsyncKernelManager):
    """Jupyter's own manager with our client; nbclient takes it as ``kernel_manager_class``.

    Its kernels get a completed environment (:mod:`bgkit.environment`), and show no progress: nobody
    watches the notebook, and it would be stored. A run's class has ``own`` options of the kernel's
    process, and ``here`` the driver that may stop it.
    """

    client_factory = Type(KernelClient, klass=AsyncKernelClient)
    own: Mapping[str, object] = MappingProxyType({})
    here: Here | None = None

    async def start_kernel(self, *, env: Mapping[str, str] | None = None, **options) -> None:
        """Start the kernel."""
        options |= {"env": os.environ if env is None else env, **self.own}
        env = {"BGKIT_PROGRESS": "none", **environment.with_defaults(options.pop("env"))}
        await super().start_kernel(env=env, **options)
        if self.here is not None:
            self.here.kernels.add(self.provisioner.process)
            if self.here.stopped.is_set():  # while it started
                await self.signal_kernel(signal.SIGKILL)  # this one: others save their work


def execute(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, object],
    kernel_manager_class: type[KernelManager] = KernelManager,
) -> None:
    """Execute a notebook into ``output`` by papermill, whose errors it raises.

    May be called in several threads at once.
    """
    paths = (str(Path(path).resolve()) for path in (notebook, output))
    # jupyter keeps its event loop in the context, which dask's threads share: each has its own here
    contextvars.Context().run(
        papermill.execute_notebook,
        *paths,
        dict(parameters),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        kernel_manager_class=kernel_manager_class,
        start_timeout=180,  # seconds; the usual 60 are too few where many kernels share a core
        iopub_timeout=60,  # and the usual 4
    )


# --- A run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A run to be executed, as it travels to a worker. Paths are absolute.

    ``before`` is its record when the sweep was planned ({}: it had not ended).
    """

    notebook: Path
    parameters: dict[str, object]
    folder: Path
    cwd: Path
    threads: int
    before: dict


def run_job(job: Job, here: Here | None = None) -> dict:
    """Execute a run and return its record; what goes wrong in the run is told there, not raised.

    A run that another worker is at is waited for, and not executed again if it completes or fails.
    ``here`` is that of a driver in this process. Raises CancelledError once that is stopped.
    """
    here = here or Here()
    job.folder.mkdir(exist_ok=True)
    lock = filelock.FileLock(job.folder / "lock")
    while not here.stopped.is_set():
        with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=1):
            return _once(job, here)
    raise CancelledError


def _once(job: Job, here: Here) -> dict:
    record = read_record(job.folder)
    state = record.get("state")
    if state == "complete" or (state == "failed" and record != job.before):
        return record
    (job.folder / "run.json").unlink(missing_ok=True)
    gpu = here.free.get()
    try:
        record = _execute(job, here, gpu)
    finally:
        here.free.put(gpu)
    if here.stopped.is_set() and record["state"] != "complete":
        raise CancelledError
    write_json(job.folder / "run.json", record)
    return record


def _execute(job: Job, here: Here, gpu: Mapping[str, str]) -> dict:
    """Run the notebook; returns its record."""
    begun, state, error = time.monotonic(), "broken", ""
    env = {**os.environ, **dict.fromkeys(THREADS, str(job.threads)), **gpu}
    try:
        with (job.folder / "kernel.log").open("ab") as log:
            own = {"env": env, "cwd": str(job.cwd), "stdout": log, "stderr": log}
            manager = type("Manager", (KernelManager,), {"own": own, "here": here})
            execute(job.notebook, job.folder / "executed.ipynb", job.parameters, manager)
        state = "complete"
    except papermill.PapermillExecutionError as problem:
        state = "failed"
        error = f"Cell {problem.exec_count} failed: {problem.ename}: {problem.evalue}"
    except DeadKernelError:
        error = "The kernel died (it was killed, crashed, or ran out of memory)."
    except Exception as problem:  # no start, a full disk, ...: this run's end, not the sweep's
        error = f"{type(problem).__name__}: {problem}"
    return {
        "parameters": job.parameters,
        "state": state,
        "seconds": round(time.monotonic() - begun, 3),
        "error": error,
        "versions": {**versions(), "git": git_revision()},
        "metrics": metrics_of(job.folder / "results") if state == "complete" else {},
    }


def metrics_of(results: Path) -> dict[str, list]:
    """Metric -> [mean, low, high] over all kinds of prompts, of the trained policy, not of base.

    A notebook writes ``result.json`` in its FOLDER (or one below; the newest counts), with ``rows``
    of ``metric``, ``mean`` and, if it likes, ``low``, ``high``, ``design`` and ``kind``. {} if
    there is none of this form.
    """
    files = [*results.glob("result.json"), *results.glob("*/result.json")]
    found: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        newest = max(files, key=lambda path: path.stat().st_mtime)
        for row in json.loads(newest.read_text(encoding="utf-8"))["rows"]:
            if row.get("design") != "base" and row.get("kind", "all") == "all":
                found.setdefault(row["metric"], [row.get(key) for key in ("mean", "low", "high")])
    return found


def read_record(folder: Path) -> dict:
    """What ``run.json`` of a run folder says; {} if there is none (or it is broken)."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {}
