"""One run of a sweep: its folder, its state, and the function that an executor's worker calls.

A run folder ``runs/<hash>`` of a sweep holds ``run.json`` (parameters, state, times, versions and,
once complete, metrics), ``executed.ipynb``, ``kernel.log``, and ``results``, which the notebook
gets as its parameter FOLDER (and, as BASE_FOLDER, one that all runs share). The state is

- ``running``: begun; if nobody holds the folder's lock, its worker was killed;
- ``complete``: never run again;
- ``failed``: a cell raised an error; run again only when asked for;
- ``broken``: stopped, or its kernel died or did not start; the next sweep runs it again.

A lock (also held by the kernel, which inherits it) makes sure that a run is never executed twice at
the same time, whatever drivers and workers were killed or started beside each other. On many
machines this asks something of the file system that they share, see :mod:`bgkit.runs.locks`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bgkit.errors import BgkitError
from bgkit.runs import git_revision, locks, write_json
from bgkit.sweeps import kernels
from bgkit.versions import this_process, versions

SWEEP_FILE = "sweep.json"


class WorkerError(BgkitError):
    """A worker that can not do any run of this sweep; the sweep is not gone on with."""


@dataclass(frozen=True)
class Job:
    """A run to be executed, as it travels to a worker. Paths are absolute.

    ``threads`` is the number of CPU threads (0: as the kernel likes), ``attempts`` how often the
    run had been begun when the sweep was planned. ``versions`` are those of the ``process``
    (machine and number) that planned it.
    """

    notebook: Path
    hash: str
    parameters: dict[str, object]
    folder: Path
    cwd: Path
    threads: int
    attempts: int
    versions: dict[str, str]
    process: tuple[str, int]
    report_to: str = "none"

    @property
    def results(self) -> Path:
        """What the notebook gets as FOLDER."""
        return self.folder / "results"

    def notebook_parameters(self) -> dict[str, object]:
        """The parameters, with those that the sweep sets."""
        shared = self.folder.parent.parent / "base"
        own = {"FOLDER": self.results, "BASE_FOLDER": shared, "REPORT_TO": self.report_to}
        return {**self.parameters, **{k: str(v) for k, v in own.items() if k in self.parameters}}


def read_record(folder: Path) -> dict:
    """What ``run.json`` of a run folder says; {} if there is none (or it is broken)."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and "state" in record else {}


def run_job(job: Job, here: kernels.Here | None = None) -> dict:
    """Execute a run and return its record; what goes wrong in the run is told there, not raised.

    A run that another worker has finished meanwhile is not executed again. Raises WorkerError if
    this worker has other versions than the driver, or does not see the sweep's folder.
    """
    here = here or kernels.Here()
    check_worker(job)
    job.folder.mkdir(exist_ok=True)
    with locks.held(job.folder / "lock", here.stopped.is_set) as descriptor:
        record = read_record(job.folder)
        attempts = record.get("attempts", 0)
        news = attempts != job.attempts  # somebody else was here since the sweep was planned
        if record.get("state") == "complete" or (record.get("state") == "failed" and news):
            return record
        if descriptor is None:  # stopped while it waited
            return record or {
                "hash": job.hash,
                "parameters": job.parameters,
                "state": "waiting",
            }
        record = {
            "hash": job.hash,
            "notebook": job.notebook.name,
            "parameters": job.parameters,
            "state": "running",
            "attempts": attempts + 1,
            "started": _now(),
            "host": platform.node(),
            "versions": {**versions(), "git": git_revision()},  # a killed run leaves them, too
        }
        write_json(job.folder / "run.json", record)
        record |= _execute(job, here, descriptor)
        write_json(job.folder / "run.json", record)
        return record


def _execute(job: Job, here: kernels.Here, descriptor: int) -> dict:
    """Run the notebook; returns what the record says about how it went."""
    begun, error, state = time.monotonic(), "", "complete"
    names = "BGKIT_THREADS OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS".split()
    environment = dict.fromkeys(names, str(job.threads)) if job.threads else {}
    try:
        with here.gpu() as gpu:
            begun = time.monotonic()
            kernels.execute(
                job.notebook,
                job.folder / "executed.ipynb",
                job.notebook_parameters(),
                here=here,
                environment={**environment, **gpu},
                folder=job.cwd,
                files=[descriptor],
            )
    except kernels.CellError as problem:
        stopped = here.stopped.is_set()
        error, state = str(problem), "broken" if stopped else "failed"
    except kernels.KernelError as problem:
        error, state = str(problem), "broken"
    except Exception as problem:  # a full disk, a lost file system: this run's, not the sweep's end
        error, state = f"{type(problem).__name__}: {problem}", "broken"
    found = {
        "state": state,
        "finished": _now(),
        "seconds": round(time.monotonic() - begun, 3),
    }
    if state == "complete":
        return {**found, "metrics": metrics_of(job.results)}
    return {**found, "error": error}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def different(
    theirs: Mapping[str, str],
    ours: Mapping[str, str],
    words: tuple[str, str] = ("there", "here"),
) -> str:
    """What differs between two machines' versions, in words; "" if nothing does.

    >>> different({"python": "3.11.7", "torch": "2.9"}, {"python": "3.11.7", "torch": "2.13"})
    'torch 2.9 there, 2.13 here'
    """
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    return ", ".join(
        f"{name} {theirs.get(name, 'unknown')} {words[0]}, {ours.get(name, 'unknown')} {words[1]}"
        for name in names
    )


def check_worker(job: Job) -> None:
    """Raise WorkerError unless this process can do the job as the driver's own would."""
    if this_process() == job.process and job.folder.parent.is_dir():
        return
    if found := different(versions(), job.versions):
        raise WorkerError(
            f"The worker on {platform.node()} has other versions than this machine ({found}); "
            "install the same ones (constraints.txt), as results would not be comparable."
        )
    if not (job.folder.parent.parent / SWEEP_FILE).is_file() or not job.notebook.is_file():
        raise WorkerError(
            f"The worker on {platform.node()} does not see {job.folder.parent.parent} or "
            f"{job.notebook}; keep both in a folder that all machines share."
        )


def result_files(results: Path) -> list[Path]:
    """The ``result.json`` of a run and of the folders right below its results, newest first."""
    found = [*results.glob("result.json"), *results.glob("*/result.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def result_rows(results: Path) -> list[dict]:
    """The ``rows`` of the newest ``result.json``; [] if there are none.

    This is all that a notebook does to have numbers in a sweep's index: write a ``result.json`` in
    its FOLDER (or in one folder below) with ``rows`` of ``metric``, ``mean`` and, if it likes,
    ``low``, ``high``, ``design`` and ``kind``.
    """
    for file in result_files(results)[:1]:
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            rows = json.loads(file.read_text(encoding="utf-8")).get("rows", [])
            return [row for row in rows if isinstance(row, dict) and "metric" in row]
    return []


def metrics_of(results: Path) -> dict[str, list]:
    """Metric -> [mean, low, high] over all kinds of prompts, of the trained policy, not of base."""
    found: dict[str, list] = {}
    for row in result_rows(results):
        if row.get("design") != "base" and row.get("kind", "all") == "all":
            values = [row.get(key) for key in ("mean", "low", "high")]
            found.setdefault(str(row["metric"]), values)
    return found


def progress_of(results: Path) -> dict[str, float]:
    """The newest row of a going training's curve; {} before its first checkpoint."""
    import pandas as pd

    for file in results.glob("*/metrics.parquet"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return pd.read_parquet(file).iloc[-1].dropna().to_dict()
    return {}
