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
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bgkit.errors import BgkitError, StoppedError
from bgkit.progress import clock, phase, say
from bgkit.prompts.tables import shortened
from bgkit.runs import read_config, write_json
from bgkit.sweeps import grids, kernels
from bgkit.sweeps import index as sweep_index
from bgkit.sweeps import workers as sweep_workers
from bgkit.sweeps.run import SWEEP_FILE, Job, WorkerError, read_record, run_job
from bgkit.versions import this_process, versions

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
    estimate: float | None = None
    warning: str = ""
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def __post_init__(self) -> None:
        self.varied = grids.varied([job.parameters for job in self.jobs])

    def planned(self) -> list[dict]:
        """Records of the grid's own runs, in its order."""
        return [self.records[job.hash] for job in self.jobs]

    def states(self) -> str:
        """How many of the grid's runs are in which state."""
        return sweep_index.counts(record["state"] for record in self.planned())

    def seconds_left(self) -> float | None:
        """How long the runs that are not done will still take; None while nothing tells."""
        open_ = sum(r["state"] in ("waiting", "running") for r in self.planned())
        if not open_:
            return 0.0
        if self.done:
            return (time.monotonic() - self.began) / self.done * open_
        if self.estimate is None:
            return None
        return max(0.0, self.estimate - (time.monotonic() - self.began))


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
    grids.check_tracker(opened, report_to)
    found = grids.expand(opened, grid, None if yes else grids.MANY)
    _check_folder(folder, opened)
    threads = threads or max(1, sweep_workers.cores() // workers)
    known, records, jobs, before = sweep_index.read_records(folder), {}, [], []
    ours, cwd = versions(), Path.cwd()
    for parameters in found:
        hash_ = grids.hash_of(opened, parameters)
        old = known.pop(hash_, {})
        before += [old] if old else []
        jobs.append(
            Job(
                notebook=opened.path,
                hash=hash_,
                parameters=parameters,
                folder=folder / "runs" / hash_,
                cwd=cwd,
                threads=threads,
                attempts=old.get("attempts", 0),
                versions=ours,
                process=this_process(),
                report_to=report_to,
            )
        )
        kept = old.get("state") == "complete" or (old.get("state") == "failed" and not retry_failed)
        records[hash_] = old if kept else sweep_index.waiting(hash_, parameters)
    planned = Sweep(opened, folder, jobs, {**records, **known}, workers, threads)
    planned.warning = sweep_index.other_versions(before, ours)
    each = [r["seconds"] for r in planned.records.values() if r["state"] == "complete"]
    to_do = sum(record["state"] == "waiting" for record in planned.planned())
    if each or not to_do:  # else nothing tells
        at_once = min(workers, to_do) or 1
        planned.estimate = sum(each) / max(1, len(each)) * to_do / at_once
    return planned


def _check_folder(folder: Path, notebook: grids.Notebook) -> None:
    """Raise BgkitError for a folder with other things in it, or the sweep of another notebook."""
    if not (folder / SWEEP_FILE).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BgkitError(f"{folder} is not empty and is no sweep's folder; choose another one.")
        return
    known = read_config(folder / SWEEP_FILE)
    if known.get("notebook") != notebook.path.name:
        raise BgkitError(
            f"The folder {folder} holds a sweep of another notebook ({known.get('notebook')}); "
            "choose another folder."
        )
    if known.get("code") != notebook.code:
        raise BgkitError(
            f"The folder {folder} holds a sweep of {notebook.path.name} with other code; choose "
            "another folder, or bring the notebook back to what it was."
        )


def summary(planned: Sweep) -> str:
    """What is to be done, how many at once and how long; warnings of :func:`plan` below."""
    states = [record["state"] for record in planned.planned()]
    to_do = states.count("waiting")
    if planned.estimate is None:
        time_ = "how long is not known before a first run is complete"
    else:
        time_ = f"about {clock(planned.estimate)} (an estimate)"
    how = f"{planned.workers} at a time, {planned.threads} CPU thread(s) each"
    return (
        f"{planned.notebook.path.name} in {planned.folder}: {sweep_index.counts(states)}\n"
        f"To do: {to_do}, {how}; {time_}." + (f"\n{planned.warning}" if planned.warning else "")
    )


def sweep(
    notebook: str | Path,
    grid: grids.Grid | Sequence[grids.Grid],
    folder: str | Path | None = None,
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    threads: int = 0,
    retry_failed: bool = False,
    report_to: str = "none",
    yes: bool = False,
    say: Callable[[str], None] = say,
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Execute a notebook once for every combination of a grid's values; returns the runs' index.

    ``grid`` maps parameters (in any case) to a value or a list of values; several grids are joined.
    ``folder`` is the sweep's (``runs/sweeps/<notebook>``). ``executor`` is any
    ``concurrent.futures`` one; without it ``workers`` (1) threads do the work, each with a kernel
    process for one run at a time; one that does not tell how many it has needs ``workers``, too.
    ``threads`` is the number of CPU threads of a run (0: cores divided by ``workers``).
    ``retry_failed`` starts failed runs again. ``report_to`` is the notebook's REPORT_TO. ``say``
    prints lines, ``watch`` is called with the :class:`Sweep` about once a second.
    The index has the columns of :func:`bgkit.sweeps.index.make_index` and the grid's order;
    ``index.parquet`` in the folder has the runs of earlier grids, too. A run that fails does not
    end the sweep: look at the column ``state``.

    Raises BgkitError before anything starts for a wrong grid (see
    :func:`bgkit.sweeps.grids.expand`), more than 10,000 runs without ``yes``, a folder of another
    notebook, and workers whose versions differ; StoppedError after Ctrl-C or SIGTERM (the same
    call then goes on).
    """
    local = executor is None
    workers = sweep_workers.slots_of(executor) if workers is None else workers
    options = {"threads": threads, "retry_failed": retry_failed, "report_to": report_to, "yes": yes}
    with phase("checking the sweep"):
        planned = plan(notebook, grid, folder, workers=workers, **options)
    say(summary(planned))
    if warning := sweep_workers.gpu_warning(executor, workers):
        say(warning)
    _open_folder(planned)
    here = kernels.Here(sweep_workers.gpus(workers))
    executor = executor or ThreadPoolExecutor(workers, "bgkit-sweep")
    try:
        _run(planned, executor, here, say, watch)
    finally:
        if local:
            executor.shutdown(cancel_futures=True)
        index = sweep_index.write_index(planned.folder, planned.records)
    say(f"{planned.states()}; {planned.folder / 'index.md'}")
    return index.set_index("run").loc[[job.hash for job in planned.jobs]].reset_index()


def _open_folder(planned: Sweep) -> None:
    (planned.folder / "runs").mkdir(parents=True, exist_ok=True)
    about = {"notebook": planned.notebook.path.name, "code": planned.notebook.code}
    write_json(planned.folder / SWEEP_FILE, about)
    sweep_index.write_index(planned.folder, planned.records)


def _run(
    planned: Sweep,
    executor: Executor,
    here: kernels.Here,
    say: Callable[[str], None],
    watch: Watch | None,
) -> None:
    """Submit what is to be done and take in the records as they come."""
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    futures: dict[Future, Job] = {}
    # kernels in threads of this process share its GPUs, and are told when to stop
    own = (here,) if sweep_workers.shares_gpus(executor) else ()
    try:
        with _sigterm():
            for job in planned.jobs:
                if planned.records[job.hash]["state"] == "waiting":
                    futures[executor.submit(run_job, job, *own)] = job
            for future in tuple(futures):
                future.add_done_callback(ended.put)
            _collect(planned, futures, ended, say, watch)
    except (KeyboardInterrupt, WorkerError) as error:
        say("Stopping: running notebooks save their work (again: at once) ...")
        _stop(planned, futures, here, patience=5 if own else 0)
        if isinstance(error, WorkerError):
            raise
        raise StoppedError(
            f"Stopped with {planned.states()}; run the same sweep again to go on."
        ) from None


def _collect(
    planned: Sweep, futures: dict, ended: queue.SimpleQueue, say, watch: Watch | None
) -> None:
    """Wait for every future; tell each end, look at what is running, keep the index fresh."""
    written = time.monotonic()
    with phase("running notebooks", len(futures), hidden=watch is not None) as shown:
        while planned.done < len(futures):
            with contextlib.suppress(queue.Empty):
                future = ended.get(timeout=TICK)
                job = futures[future]
                planned.records[job.hash] = _record(future, job)
                shown.done = planned.done = planned.done + 1
                say(_line(planned, job, len(futures)))
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


def _line(planned: Sweep, job: Job, total: int) -> str:
    record = planned.records[job.hash]
    what = grids.describe(job.parameters, planned.varied)
    parts = [f"[{planned.done}/{total}] {record['state']}: {what}"]
    parts += [f"{record['seconds']:.1f} s"] if "seconds" in record else []
    parts += [shortened(record["error"], 200)] if record.get("error") else []
    left = planned.seconds_left()
    return ", ".join(parts) + (f" · {clock(left)} left" if left else "")


def _stop(planned: Sweep, futures: dict[Future, Job], here: kernels.Here, patience: float) -> None:
    """Cancel what has not begun, let running notebooks save, kill those that take too long."""
    for future in reversed(list(futures)):
        future.cancel()
    here.stop()
    deadline = time.monotonic() + GRACE
    try:
        with _sigterm():
            while here.busy() and time.monotonic() < deadline:
                time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    while here.busy():
        here.stop(signal.SIGKILL)
        time.sleep(0.2)
    wait([future for future in futures if future.running()], patience)
    for job in futures.values():
        state = planned.records[job.hash]["state"]
        if state == "waiting" and (record := read_record(job.folder)):
            planned.records[job.hash] = record


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C (in the main thread; elsewhere nothing is changed)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
