"""One run of a sweep, as an executor's worker does it, and what is known of all of them.

A run folder ``runs/<hash>`` of a sweep holds ``executed.ipynb``, ``kernel.log``, ``results``, which
the notebook gets as its parameter FOLDER, and once the run has ended ``run.json``: parameters,
seconds, versions, metrics or error, and the state,

- ``complete``: never run again;
- ``failed``: a cell raised an error; run again only when asked for;
- ``broken``: its kernel died or did not start; the next sweep runs it again, as all that have not
  ended.

A lock sees to it that a run is never executed twice at the same time, where the file system of a
sweep's folder takes ``flock`` across machines. Its driver holds it: what a kernel that outlives its
driver may do, see :mod:`bgkit.sweeps.kernels`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import filelock
import pandas as pd
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError

from bgkit.runs import git_revision, write_atomically, write_json
from bgkit.sweeps import kernels
from bgkit.sweeps.grids import SET_BY_SWEEP
from bgkit.versions import versions

THREADS = ("BGKIT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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


def run_job(job: Job, here: kernels.Here | None = None) -> dict:
    """Execute a run and return its record; what goes wrong in the run is told there, not raised.

    A run that another worker is at is waited for, and not executed again if it completes or fails.
    ``here`` is that of a driver in this process. Raises CancelledError once that is stopped.
    """
    here = here or kernels.Here()
    job.folder.mkdir(exist_ok=True)
    lock = filelock.FileLock(job.folder / "lock")
    while not here.stopped.is_set():
        with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=1):
            return _once(job, here)
    raise CancelledError


def _once(job: Job, here: kernels.Here) -> dict:
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


def _execute(job: Job, here: kernels.Here, gpu: Mapping[str, str]) -> dict:
    """Run the notebook; returns its record."""
    begun, state, error = time.monotonic(), "broken", ""
    env = {**dict.fromkeys(THREADS, str(job.threads)), **gpu}
    manager = kernels.manager(env, job.cwd, job.folder / "kernel.log", here)
    try:
        kernels.execute(job.notebook, job.folder / "executed.ipynb", job.parameters, manager)
        state = "complete"
    except PapermillExecutionError as problem:
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


# --- What is known of all runs ---------------------------------------------------------------


def read_record(folder: Path) -> dict:
    """What ``run.json`` of a run folder says; {} if there is none (or it is broken)."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {}


def write_index(folder: Path, records: Mapping[str, Mapping]) -> pd.DataFrame:
    """Write ``index.csv`` in a sweep's folder: a row for each run there, and for those in records.

    ``records`` (by hash) are those of the sweep that is going on. The columns are run (its hash),
    state, parameters, metrics (``m``, ``m_low``, ``m_high``), seconds, error, versions (JSON, as
    parameters that are lists), and the paths of notebook and results, from the sweep's folder.
    """
    places = sorted(path.parent for path in (folder / "runs").glob("*/run.json"))
    ended = {place.name: found for place in places if (found := read_record(place))}
    index = pd.DataFrame([_row(name, record) for name, record in {**records, **ended}.items()])
    write_atomically(folder / "index.csv", lambda file: index.to_csv(file, index=False))
    return index.set_index("run")


def _row(name: str, record: Mapping) -> dict:
    row = {"run": name, "state": record["state"]}
    for key, value in record["parameters"].items():
        if key not in SET_BY_SWEEP:
            row[key] = json.dumps(value) if isinstance(value, list | dict) else value
    for metric, (mean, low, high) in record.get("metrics", {}).items():
        row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
    place, ended = f"runs/{name}", "versions" in record
    return {
        **row,
        "seconds": record.get("seconds"),
        "error": record.get("error"),
        "versions": json.dumps(record["versions"]) if ended else None,
        "notebook": f"{place}/executed.ipynb" if ended else None,
        "results": f"{place}/results" if ended else None,
    }
