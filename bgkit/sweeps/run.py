"""One run of a sweep: its folder, its state, and the function that an executor's worker calls.

A run folder ``runs/<hash>`` of a sweep holds ``run.json`` (parameters, state, times, versions and,
once complete, metrics), ``executed.ipynb``, ``kernel.log``, and ``results``, which the notebook
gets as its parameter FOLDER. The state is

- ``running``: begun; if nobody holds the folder's lock, its worker was killed;
- ``complete``: never run again;
- ``failed``: a cell raised an error; run again only when asked for;
- ``broken``: stopped, or its kernel died or did not start; the next sweep runs it again.

A lock (also held by the kernel, which inherits it) makes sure that a run is never executed twice at
the same time. What it asks of a file system that machines share: :mod:`bgkit.runs.locks`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError

from bgkit.errors import BgkitError
from bgkit.runs import git_revision, locks, write_json
from bgkit.sweeps import kernels
from bgkit.versions import versions

SWEEP_FILE = "sweep.json"
THREADS = ("BGKIT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerError(BgkitError):
    """A worker that can not do any run of this sweep; the sweep is not gone on with."""


@dataclass(frozen=True)
class Job:
    """A run to be executed, as it travels to a worker. Paths are absolute.

    ``threads`` is the number of CPU threads, ``attempts`` how often the run had been begun when the
    sweep was planned, ``versions`` are those of the process that planned it.
    """

    notebook: Path
    hash: str
    parameters: dict[str, object]
    folder: Path
    cwd: Path
    threads: int
    attempts: int
    versions: dict[str, str]


def read_record(folder: Path) -> dict:
    """What ``run.json`` of a run folder says; {} if there is none (or it is broken)."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {}


def run_job(job: Job, here: kernels.Here | None = None) -> dict:
    """Execute a run and return its record; what goes wrong in the run is told there, not raised.

    A run that another worker has finished meanwhile is not executed again. ``here`` is that of a
    driver in this process; without it raises WorkerError if this worker has other versions than
    the driver, or does not see the sweep's folder.
    """
    if here is None:
        check_worker(job)
    here = here or kernels.Here()
    job.folder.mkdir(exist_ok=True)
    with locks.held(job.folder / "lock", here.stopped.is_set) as lock:
        if lock is None:
            raise CancelledError("The sweep was stopped.")
        record = read_record(job.folder)
        attempts, state = record.get("attempts", 0), record.get("state")
        if state == "complete" or (state == "failed" and attempts != job.attempts):
            return record
        record = {
            "hash": job.hash,
            "notebook": job.notebook.name,
            "parameters": job.parameters,
            "state": "running",
            "attempts": attempts + 1,
            "started": _now(),
            "host": platform.node(),
            "versions": {**versions(), "git": git_revision()},
        }
        write_json(job.folder / "run.json", record)  # a killed run leaves it
        with here.gpu() as gpu:
            record |= _execute(job, here, gpu, lock)
        write_json(job.folder / "run.json", record)
        return record


def _execute(job: Job, here: kernels.Here, gpu: dict[str, str], lock: int) -> dict:
    """Run the notebook; returns what the record says about how it went."""
    begun, state, error = time.monotonic(), "broken", ""
    env = {**dict.fromkeys(THREADS, str(job.threads)), **gpu}
    manager = here.manager(env, job.cwd, job.folder / "kernel.log", (lock,))
    try:
        kernels.execute(
            job.notebook,
            job.folder / "executed.ipynb",
            job.parameters,
            kernel_manager_class=manager,
            on_cell_start=here.check,
        )
        state = "complete"
    except PapermillExecutionError as problem:
        error = f"Cell {problem.exec_count} failed: {problem.ename}: {problem.evalue}"
        state = "broken" if here.stopped.is_set() else "failed"
    except DeadKernelError:
        error = "The kernel died (it was killed, crashed, or ran out of memory)."
    except Exception as problem:  # no start, a full disk, ...: this run's end, not the sweep's
        error = f"{type(problem).__name__}: {problem}"
    seconds = round(time.monotonic() - begun, 3)
    found = {"state": state, "finished": _now(), "seconds": seconds}
    if state == "complete":
        return {**found, "metrics": metrics_of(job.folder / "results")}
    return {**found, "error": error}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def check_worker(job: Job) -> None:
    """Raise WorkerError unless this process can do the job as the driver's own would."""
    ours, sweep = versions(), job.folder.parent.parent
    differ = [
        f"{name} {ours.get(name)} there, {theirs} here"
        for name, theirs in job.versions.items()
        if ours.get(name) != theirs
    ]
    if differ:
        raise WorkerError(
            f"The worker on {platform.node()} has other versions than this machine "
            f"({', '.join(differ)}); install the same ones (constraints.txt), as results would not "
            "be comparable."
        )
    if not (sweep / SWEEP_FILE).is_file() or not job.notebook.is_file():
        raise WorkerError(
            f"The worker on {platform.node()} does not see {sweep} or {job.notebook}; keep both in "
            "a folder that all machines share."
        )


def metrics_of(results: Path) -> dict[str, list]:
    """Metric -> [mean, low, high] over all kinds of prompts, of the trained policy, not of base.

    This is all that a notebook does to have numbers in a sweep's index: write a ``result.json`` in
    its FOLDER (or in one folder below) with ``rows`` of ``metric``, ``mean`` and, if it likes,
    ``low``, ``high``, ``design`` and ``kind``. The newest counts; {} if there is none of this form.
    """
    files = [*results.glob("result.json"), *results.glob("*/result.json")]
    found: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        newest = max(files, key=lambda path: path.stat().st_mtime)
        for row in json.loads(newest.read_text(encoding="utf-8"))["rows"]:
            if row.get("design") != "base" and row.get("kind", "all") == "all":
                found.setdefault(row["metric"], [row.get(key) for key in ("mean", "low", "high")])
    return found


def progress_of(results: Path) -> dict[str, float]:
    """The newest row of a going training's curve; {} before its first checkpoint."""
    for file in results.glob("*/metrics.parquet"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return pd.read_parquet(file).iloc[-1].dropna().to_dict()
    return {}
