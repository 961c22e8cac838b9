"""Sweeps: one notebook run with many parameters, by papermill, on any executor.

A sweep's folder holds ``sweep.json`` (which notebook), ``runs/<hash>/`` (see
:mod:`bgkit.sweeps.kernels`) and ``index.csv``. The same call resumes an interrupted sweep.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bgkit.errors import BgkitError, StoppedError
from bgkit.progress import phase, say
from bgkit.prompts.tables import short_repr
from bgkit.runs import read_config, write_atomically, write_json
from bgkit.sweeps import grids, kernels
from bgkit.sweeps.grids import SET_BY_SWEEP, Notebook
from bgkit.sweeps.kernels import Job, read_record, run_job

GRACE = 25.0  # seconds that a stopped notebook has to save its work
INDEX_EVERY = 10.0  # seconds between two writes of the index


@dataclass(frozen=True)
class Plan:
    """A sweep's work: jobs and records (parameters, state, ...) of the grid's runs by hash.

    ``varied`` are the parameters in which its runs differ.
    """

    folder: Path
    notebook: Notebook
    jobs: dict[str, Job]
    records: dict[str, dict]
    varied: list[str]

    def __str__(self) -> str:
        states = counts(record["state"] for record in self.records.values())
        return f"{self.notebook.path.name} in {self.folder}: {states}"


def plan(
    notebook: str | Path,
    grid: grids.Grid | Sequence[grids.Grid],
    folder: str | Path | None = None,
    *,
    workers: int = 1,
    threads: int = 0,
    retry_failed: bool = False,
) -> Plan:
    """Plan and check a sweep without writing anything.

    Arguments and errors are those of :func:`sweep`.
    """
    if workers < 1 or threads < 0:
        raise BgkitError("A sweep needs at least 1 worker and 0 (cores / workers) or more threads.")
    threads = threads or max(1, _cores() // workers)
    opened = grids.open_notebook(notebook)
    folder = Path(folder or Path("runs/sweeps") / opened.path.stem).resolve()
    runs = grids.expand(opened, grid)
    file = folder / "sweep.json"
    occupied = folder.is_file() or any(folder.glob("[!.]*"))  # .*: a write of another sweep
    if file.is_file() and (previous := read_config(file)) != _notebook_id(opened):
        raise BgkitError(
            f"The folder {folder} holds a sweep of {previous.get('notebook')}, or of other code "
            "in it; choose another folder, or restore the notebook."
        )
    if occupied and not file.is_file():
        raise BgkitError(
            f"{folder} is a file, or is not empty and is no sweep's folder; choose another folder."
        )
    jobs, records = {}, {}
    done = ("complete",) if retry_failed else ("complete", "failed")
    for name, parameters in runs.items():
        place = folder / "runs" / name
        own = {"FOLDER": str(place / "results"), "BASE_FOLDER": str(folder / "base")}
        parameters = {**parameters, **{k: own[k] for k in own if k in parameters}}
        old = read_record(place)
        jobs[name] = Job(opened.path, parameters, place, Path.cwd(), threads, before=old)
        waiting = {"parameters": parameters, "state": "waiting"}
        records[name] = old if old.get("state") in done else waiting
    varied = grids.varied(list(runs.values()))
    return Plan(folder, opened, jobs, records, varied)


def _notebook_id(notebook: Notebook) -> dict[str, str]:
    return {"notebook": notebook.path.name, "code": notebook.code}


def counts(states: Iterable[str]) -> str:
    """Number of runs in each state, as text.

    >>> counts(["complete", "failed", "complete"])
    '3 runs: 2 complete, 1 failed'
    """
    numbers = Counter(states)
    total = numbers.total()
    parts = ", ".join(f"{number} {state}" for state, number in numbers.items())
    return f"{total} run{'s' if total != 1 else ''}: {parts}"


def sweep(
    notebook: str | Path,
    grid: grids.Grid | Sequence[grids.Grid],
    folder: str | Path | None = None,
    executor: Executor | None = None,
    *,
    workers: int = 1,
    threads: int = 0,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Execute a notebook once for every combination of a grid's values; returns the runs' index.

    ``grid`` maps parameters (in any case) to a value or a list of values; several grids are joined.
    ``folder`` is the sweep's (by default ``runs/sweeps/<notebook>``). ``workers`` notebooks run in
    parallel, each with ``threads`` CPU threads (0: cores divided by workers) and, if there are
    GPUs, one of them. ``executor``, any ``concurrent.futures`` executor, replaces the workers: a
    run sees all GPUs of its worker and has one thread by default. ``retry_failed`` repeats failed
    runs. A failed run does not end the sweep: see ``state`` in the index (:func:`write_index`),
    which is in the grid's order.

    Raises BgkitError before the first run, as :func:`bgkit.sweeps.grids.expand`, and for a folder
    with other contents; StoppedError after Ctrl-C (the same call resumes the sweep). SIGTERM ends
    this process and its kernels at once, without saving.
    """
    if executor is not None:
        threads = threads or 1
    options = {"workers": workers, "threads": threads, "retry_failed": retry_failed}
    with phase("checking the sweep"):
        planned = plan(notebook, grid, folder, **options)
    say(planned)
    write_json(planned.folder / "sweep.json", _notebook_id(planned.notebook))
    (planned.folder / "runs").mkdir(exist_ok=True)
    if executor is not None:
        _run(planned, executor, None)
    else:
        with ThreadPoolExecutor(workers) as pool:
            _run(planned, pool, kernels.Driver(workers, _gpus()))
    say(f"{planned}; its index is {planned.folder / 'index.csv'}")
    return write_index(planned.folder, planned.records).loc[list(planned.jobs)].reset_index()


def _run(planned: Plan, pool: Executor, driver: kernels.Driver | None) -> None:
    """Submit the waiting runs and collect their records as they end."""
    futures: dict[Future, str] = {}
    indexed = -math.inf
    try:
        for name, job in planned.jobs.items():
            if planned.records[name]["state"] == "waiting":
                futures[pool.submit(run_job, job, driver)] = name
        with phase("running notebooks", len(futures)) as progress:
            for number, future in enumerate(as_completed(futures), start=1):
                name = futures[future]
                record = planned.records[name] = _record(future, planned.jobs[name])
                progress.advance()
                if time.monotonic() - indexed > INDEX_EVERY:  # it reads the records of all runs
                    write_index(planned.folder, planned.records)
                    indexed = time.monotonic()
                seconds = f" ({record['seconds']:.1f} s)" if "seconds" in record else ""
                run = grids.describe(record["parameters"], planned.varied)
                error = f": {short_repr(record['error'], 200)}" if record.get("error") else ""
                say(f"[{number}/{len(futures)}] {record['state']}: {run}{seconds}{error}")
    except KeyboardInterrupt:
        say("Stopping: running notebooks save their work; Ctrl-C again stops at once ...")
        for future in futures:
            future.cancel()
        if driver is not None:
            driver.stop(signal.SIGINT)
            with contextlib.suppress(KeyboardInterrupt):
                wait(futures, GRACE)
            driver.stop(signal.SIGKILL)
        index = write_index(planned.folder, planned.records)
        states = counts(index.loc[list(planned.jobs), "state"])
        raise StoppedError(f"Stopped with {states}; run the same sweep again to resume.") from None
    finally:
        for future in futures:  # also after any other error, such as a full disk
            future.cancel()


def _record(future: Future, job: Job) -> dict:
    """The record of a run that ended, or a ``broken`` one if its worker was lost."""
    try:
        return future.result()
    except Exception as error:  # the executor's: a killed worker, a lost cluster, a missing folder
        reason = f"Its worker returned no result: {type(error).__name__}: {error}"
        return {"parameters": job.parameters, "state": "broken", "error": reason}


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, as values of CUDA_VISIBLE_DEVICES."""
    import torch  # slow, and grids are checked without it

    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return [name.strip() for name in visible.split(",")]
    return [str(n) for n in range(torch.cuda.device_count())]


def write_index(folder: Path, records: Mapping[str, Mapping]) -> pd.DataFrame:
    """Write ``index.csv`` to a sweep's folder: a row for each run in it and each of ``records``.

    Columns: run (its hash), state, parameters, metrics (``m``, ``m_low``, ``m_high``), seconds,
    error, versions, and the paths of notebook and results relative to the sweep's folder. Versions,
    and parameters that are lists or dicts, are JSON.
    """
    places = sorted(path.parent for path in (folder / "runs").glob("*/run.json"))
    ended = {place.name: record for place in places if (record := read_record(place))}
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
