"""Sweeps: one notebook with many parameters, by papermill, on any executor.

A sweep's folder holds ``sweep.json`` (which notebook), ``runs/<hash>/`` (see
:mod:`bgkit.sweeps.kernels`) and ``index.csv``. Whatever ends a sweep early, the same call goes on.
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
INDEXED = 10.0  # seconds from one index to the next while runs end


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do: jobs and records (parameters, state, ...) of the grid's runs by hash.

    ``varied`` are the parameters that tell its runs apart.
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
    """Check everything that can be checked before a sweep starts; writes nothing.

    Arguments and errors are those of :func:`sweep`.
    """
    if workers < 1 or threads < 0:
        raise BgkitError("A sweep needs at least 1 worker, and threads of 0 (divided) or more.")
    threads = threads or max(1, _cores() // workers)
    opened = grids.open_notebook(notebook)
    folder = Path(folder or Path("runs/sweeps") / opened.path.stem).resolve()
    found = grids.expand(opened, grid)
    about = folder / "sweep.json"
    other = folder.is_file() or any(folder.glob("[!.]*"))  # .*: what another sweep begins to write
    if about.is_file() and (known := read_config(about)) != _about(opened):
        raise BgkitError(
            f"The folder {folder} holds a sweep of {known.get('notebook')}, or of other code "
            "in it; choose another folder, or bring the notebook back to what it was."
        )
    if other and not about.is_file():
        raise BgkitError(
            f"{folder} is a file, or is not empty and is no sweep's folder; choose another folder."
        )
    jobs, records = {}, {}
    for name, parameters in found.items():
        place = folder / "runs" / name
        own = {"FOLDER": str(place / "results"), "BASE_FOLDER": str(folder / "base")}
        parameters = {**parameters, **{k: own[k] for k in own if k in parameters}}
        old = read_record(place)
        jobs[name] = Job(opened.path, parameters, place, Path.cwd(), threads, before=old)
        kept = old.get("state") == "complete" or (old.get("state") == "failed" and not retry_failed)
        records[name] = old if kept else {"parameters": parameters, "state": "waiting"}
    varied = grids.varied(list(found.values()))
    return Plan(folder, opened, jobs, records, varied)


def _about(notebook: Notebook) -> dict[str, str]:
    return {"notebook": notebook.path.name, "code": notebook.code}


def counts(states: Iterable[str]) -> str:
    """How many runs are in which state.

    >>> counts(["complete", "failed", "complete"])
    '3 runs: 2 complete, 1 failed'
    """
    found = Counter(states)
    total = found.total()
    parts = ", ".join(f"{number} {state}" for state, number in found.items())
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
    ``folder`` is the sweep's (``runs/sweeps/<notebook>``). ``workers`` notebooks run at once, each
    with so many CPU ``threads`` (0: cores divided by workers) and, where there are GPUs, one of
    them. ``executor`` is any ``concurrent.futures`` one, with workers of its own: a run sees all
    GPUs that its worker sees, and has one thread unless told otherwise. ``retry_failed`` starts
    failed runs again. A run that fails does not end the sweep: look at ``state`` in the index
    (:func:`write_index`), which has the grid's order.

    Raises BgkitError before anything starts as :func:`bgkit.sweeps.grids.expand`, and for a folder
    of other things; StoppedError after Ctrl-C (the same call then goes on). SIGTERM ends this
    process and its kernels at once, without a save.
    """
    if executor is not None:
        threads = threads or 1
    how = {"workers": workers, "threads": threads, "retry_failed": retry_failed}
    with phase("checking the sweep"):
        planned = plan(notebook, grid, folder, **how)
    say(planned)
    write_json(planned.folder / "sweep.json", _about(planned.notebook))
    (planned.folder / "runs").mkdir(exist_ok=True)
    if executor is not None:
        _run(planned, executor, None)
    else:
        with ThreadPoolExecutor(workers) as pool:
            _run(planned, pool, kernels.Here(workers, _gpus()))
    say(f"{planned}; its index is {planned.folder / 'index.csv'}")
    return write_index(planned.folder, planned.records).loc[list(planned.jobs)].reset_index()


def _run(planned: Plan, pool: Executor, here: kernels.Here | None) -> None:
    """Submit what is to be done, and take in the records as they come."""
    futures: dict[Future, str] = {}
    indexed = -math.inf
    try:
        for name, job in planned.jobs.items():
            if planned.records[name]["state"] == "waiting":
                futures[pool.submit(run_job, job, here)] = name
        with phase("running notebooks", len(futures)) as shown:
            for number, future in enumerate(as_completed(futures), start=1):
                name = futures[future]
                record = planned.records[name] = _record(future, planned.jobs[name])
                shown.advance()
                if time.monotonic() - indexed > INDEXED:  # it reads the records of all runs
                    write_index(planned.folder, planned.records)
                    indexed = time.monotonic()
                took = f" ({record['seconds']:.1f} s)" if "seconds" in record else ""
                what = grids.describe(record["parameters"], planned.varied)
                why = f": {short_repr(record['error'], 200)}" if record.get("error") else ""
                say(f"[{number}/{len(futures)}] {record['state']}: {what}{took}{why}")
    except KeyboardInterrupt:
        say("Stopping: running notebooks save their work (again: at once) ...")
        for future in futures:
            future.cancel()
        if here is not None:
            here.stop(signal.SIGINT)
            with contextlib.suppress(KeyboardInterrupt):
                wait(futures, GRACE)
            here.stop(signal.SIGKILL)
        index = write_index(planned.folder, planned.records)
        states = counts(index.loc[list(planned.jobs), "state"])
        raise StoppedError(f"Stopped with {states}; run the same sweep again to go on.") from None
    finally:
        for future in futures:  # after any other error, too, such as a full disk
            future.cancel()


def _record(future: Future, job: Job) -> dict:
    """The record of a run that ended; one of our own if its worker was lost."""
    try:
        return future.result()
    except Exception as error:  # the executor's: a killed worker, a lost cluster, a missing folder
        reason = f"Its worker gave no result: {type(error).__name__}: {error}"
        return {"parameters": job.parameters, "state": "broken", "error": reason}


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, as values of CUDA_VISIBLE_DEVICES."""
    import torch  # slow, and grids are checked without it

    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told:
        return [name.strip() for name in told.split(",")]
    return [str(n) for n in range(torch.cuda.device_count())]


def write_index(folder: Path, records: Mapping[str, Mapping]) -> pd.DataFrame:
    """Write ``index.csv`` in a sweep's folder: a row for each run there, and for those in records.

    The columns are run (its hash), state, parameters, metrics (``m``, ``m_low``, ``m_high``),
    seconds, error, versions (JSON, as parameters that are lists), and the paths of notebook and
    results, from the sweep's folder.
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
