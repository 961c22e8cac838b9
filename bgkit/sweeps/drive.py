"""Sweeps: one notebook with many parameters, by papermill, on any executor.

A sweep's folder holds ``sweep.json`` (which notebook), ``runs/<hash>/`` (see
:mod:`bgkit.sweeps.run`), ``index.parquet`` and ``index.md``. Whatever ends a sweep early, the same
call goes on: complete runs are skipped, broken ones are executed again (a notebook that trains
resumes its own run folder), failed ones only with ``retry_failed``.

Runs in threads of this process get one GPU each where there are any. With other executors
(processes, machines) a run sees all GPUs that its worker sees: give each worker its own
CUDA_VISIBLE_DEVICES. Many machines need locks that reach across them (:mod:`bgkit.runs.locks`).
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bgkit.errors import BgkitError, StoppedError
from bgkit.progress import clock, phase, say
from bgkit.prompts.tables import shortened
from bgkit.runs import read_config, write_json
from bgkit.sweeps import grids, kernels
from bgkit.sweeps import index as sweep_index
from bgkit.sweeps import workers as sweep_workers
from bgkit.sweeps.run import SWEEP_FILE, Job, WorkerError, run_job
from bgkit.versions import versions

INDEX_EVERY = 10.0  # seconds between two writings of the index
TICK = 1.0  # seconds between two looks at what is running
GRACE = 25.0  # seconds that a stopped notebook has to save its work

Watch = Callable[["Sweep"], None]


@dataclass
class Sweep:
    """A sweep that is planned or going on: what is to be done, and every run's record so far."""

    notebook: grids.Notebook
    folder: Path
    jobs: list[Job]
    records: dict[str, dict]
    workers: int
    threads: int
    warning: str = ""

    def __post_init__(self) -> None:
        self.varied = grids.varied([job.parameters for job in self.jobs])

    def planned(self) -> list[dict]:
        """Records of the grid's own runs, in its order."""
        return [self.records[job.hash] for job in self.jobs]

    def states(self) -> str:
        """How many of the grid's runs are in which state."""
        return sweep_index.counts(record["state"] for record in self.planned())

    def seconds_left(self) -> float | None:
        """How long the runs that wait will take, by those complete; None while there are none."""
        rest = sum(record["state"] in ("waiting", "running") for record in self.planned())
        took = [r["seconds"] for r in self.records.values() if r["state"] == "complete"]
        if not rest or took:
            return sum(took) / max(1, len(took)) * rest / max(1, min(self.workers, rest))
        return None


def plan(
    notebook: str | Path,
    grid: grids.Grid | Sequence[grids.Grid],
    folder: str | Path | None = None,
    *,
    workers: int = 1,
    threads: int = 0,
    retry_failed: bool = False,
    report_to: str = "none",
    yes: bool = False,
) -> Sweep:
    """Check everything that can be checked before a sweep starts; writes nothing.

    Arguments and errors are those of :func:`sweep`.
    """
    opened = grids.open_notebook(notebook)
    folder = Path(folder or Path("runs/sweeps") / opened.path.stem).resolve()
    if workers < 1 or threads < 0:
        raise BgkitError("A sweep needs at least 1 worker, and threads of 0 (divided) or more.")
    if report_to != "none":
        opened.check(opened.name_of("REPORT_TO"), report_to)
    found = grids.expand(opened, grid, None if yes else grids.MANY)
    _check_folder(folder, opened)
    threads = threads or max(1, sweep_workers.cores() // workers)
    known, ours = sweep_index.read_records(folder), versions()
    records, jobs, others = {}, [], 0
    for given in found:
        hash_ = grids.hash_of(opened, given)
        old, place = known.pop(hash_, {}), folder / "runs" / hash_
        own = {"FOLDER": place / "results", "BASE_FOLDER": folder / "base", "REPORT_TO": report_to}
        parameters = {**given, **{k: str(v) for k, v in own.items() if k in given}}
        attempts = old.get("attempts", 0)
        jobs.append(Job(opened.path, hash_, parameters, place, Path.cwd(), threads, attempts, ours))
        kept = old.get("state") == "complete" or (old.get("state") == "failed" and not retry_failed)
        records[hash_] = old if kept else sweep_index.waiting(hash_, parameters)
        theirs = old.get("versions", {})  # those of earlier kits have fewer
        others += any(theirs.get(name, version) != version for name, version in ours.items())
    planned = Sweep(opened, folder, jobs, {**records, **known}, workers, threads)
    if others:
        planned.warning = f"Begun with other versions than today's (see the index): {others}."
    return planned


def _check_folder(folder: Path, notebook: grids.Notebook) -> None:
    """Raise BgkitError for a folder with other things in it, or the sweep of another notebook."""
    if (folder / SWEEP_FILE).is_file():
        if (known := read_config(folder / SWEEP_FILE)) != _about(notebook):
            raise BgkitError(
                f"The folder {folder} holds a sweep of {known.get('notebook')}, or of other code "
                "in it; choose another folder, or bring the notebook back to what it was."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BgkitError(f"{folder} is not empty and is no sweep's folder; choose another one.")


def _about(notebook: grids.Notebook) -> dict[str, str]:
    return {"notebook": notebook.path.name, "code": notebook.code}


def summary(planned: Sweep) -> str:
    """What is to be done, how many at once and how long; warnings of :func:`plan` below."""
    to_do = sum(record["state"] == "waiting" for record in planned.planned())
    time_ = "how long is not known before a first run is complete"
    if (left := planned.seconds_left()) is not None:
        time_ = f"about {clock(left)} (an estimate)"
    how = f"{planned.workers} at a time, {planned.threads} CPU thread(s) each"
    text = f"{planned.notebook.path.name} in {planned.folder}: {planned.states()}\n"
    return f"{text}To do: {to_do}, {how}; {time_}.\n{planned.warning}".rstrip()


def sweep(
    notebook: str | Path,
    grid: grids.Grid | Sequence[grids.Grid],
    folder: str | Path | None = None,
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    say: Callable[[str], None] = say,
    watch: Watch | None = None,
    **options: object,
) -> pd.DataFrame:
    """Execute a notebook once for every combination of a grid's values; returns the runs' index.

    ``grid`` maps parameters (in any case) to a value or a list of values; several grids are joined.
    ``folder`` is the sweep's (``runs/sweeps/<notebook>``). ``executor`` is any
    ``concurrent.futures`` one; without it ``workers`` (1) threads do the work, each with a kernel
    process for one run at a time; one that does not tell how many it has needs ``workers``, too.
    ``options`` are: ``threads``, the number of CPU threads of a run (0: cores divided by
    ``workers``), ``retry_failed``, which starts failed runs again, ``report_to``, the notebook's
    REPORT_TO, and ``yes`` for more than 10,000 runs. ``say`` prints lines, ``watch`` is called with
    the :class:`Sweep` about once a second. The index has the columns of
    :func:`bgkit.sweeps.index.make_index` and the grid's order; ``index.parquet`` in the folder has
    the runs of earlier grids, too. A run that fails does not end the sweep: look at ``state``.

    Raises BgkitError before anything starts for a wrong grid (see
    :func:`bgkit.sweeps.grids.expand`), a folder of another notebook, and workers whose versions
    differ; StoppedError after Ctrl-C or SIGTERM (the same call then goes on).
    """
    workers = sweep_workers.slots_of(executor) if workers is None else workers
    with phase("checking the sweep"):
        planned = plan(notebook, grid, folder, workers=workers, **options)
    say(summary(planned))
    (planned.folder / "runs").mkdir(parents=True, exist_ok=True)
    write_json(planned.folder / SWEEP_FILE, _about(planned.notebook))
    sweep_index.write_index(planned.folder, planned.records)
    pool = executor or ThreadPoolExecutor(workers, "bgkit-sweep")
    try:
        _run(planned, pool, say, watch)
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)
        index = sweep_index.write_index(planned.folder, planned.records)
    say(f"{planned.states()}; {planned.folder / 'index.md'}")
    return index.set_index("run").loc[[job.hash for job in planned.jobs]].reset_index()


def _run(planned: Sweep, pool: Executor, say: Callable[[str], None], watch: Watch | None) -> None:
    """Submit what is to be done and take in the records as they come."""
    # kernels in threads of this process share its GPUs, and are told when to stop
    local = isinstance(pool, ThreadPoolExecutor)
    gpus = itertools.islice(itertools.cycle(sweep_workers.gpus()), planned.workers)
    here = kernels.Here(list(gpus))
    futures: dict[Future, Job] = {}
    try:
        with _sigterm():
            for job in planned.jobs:
                if planned.records[job.hash]["state"] == "waiting":
                    futures[pool.submit(run_job, job, *([here] if local else []))] = job
            _collect(planned, dict(futures), say, watch)
    except (KeyboardInterrupt, WorkerError) as error:
        say("Stopping: running notebooks save their work (again: at once) ...")
        for future in reversed(futures):
            future.cancel()
        if local:
            _stop(here, [future for future in futures if future.running()])
        if isinstance(error, WorkerError):
            raise
        on_disk = sweep_index.read_records(planned.folder)
        planned.records = sweep_index.merged(planned.records, on_disk)
        raise StoppedError(
            f"Stopped with {planned.states()}; run the same sweep again to go on."
        ) from None


def _collect(planned: Sweep, waiting: dict[Future, Job], say, watch: Watch | None) -> None:
    """Wait for every future; tell each end, look at what is running, keep the index fresh."""
    written, total = time.monotonic(), len(waiting)
    with phase("running notebooks", total, hidden=watch is not None) as shown:
        while waiting:
            for future in wait(waiting, TICK, FIRST_COMPLETED).done:
                job = waiting.pop(future)
                record = planned.records[job.hash] = _record(future, job)
                shown.advance()
                parts = [f"{record['state']}: {grids.describe(job.parameters, planned.varied)}"]
                parts += [f"{record['seconds']:.1f} s"] if "seconds" in record else []
                parts += [shortened(record["error"], 200)] if record.get("error") else []
                left = planned.seconds_left()
                parts += [f"{clock(left)} left"] if left else []
                say(f"[{total - len(waiting)}/{total}] {', '.join(parts)}")
            if time.monotonic() - written > INDEX_EVERY:
                sweep_index.write_index(planned.folder, planned.records)
                written = time.monotonic()
            if watch:
                watch(planned)


def _record(future: Future, job: Job) -> dict:
    """The record of a run that ended; one of our own if its worker was lost."""
    try:
        return future.result()
    except WorkerError:
        raise
    except ImportError as error:
        raise WorkerError(
            f"A worker can not run bgkit ({error}); install the same version of it there."
        ) from error
    except (Exception, CancelledError) as error:  # the executor's: a killed worker, a lost cluster
        reason = f"The worker was lost: {type(error).__name__}: {error}"
        record = sweep_index.waiting(job.hash, job.parameters)
        return {**record, "state": "broken", "error": reason}


def _stop(here: kernels.Here, running: list[Future]) -> None:
    """Let running notebooks save, kill those that take too long, or at the next Ctrl-C."""
    here.stop()
    with contextlib.suppress(KeyboardInterrupt), _sigterm():
        wait(running, GRACE)
    here.stop(signal.SIGKILL)
    wait(running, GRACE)


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C (in the main thread; elsewhere nothing is changed)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
