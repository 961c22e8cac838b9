"""Devices, number formats, threads and worker processes."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import platform
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from bgkit import checks, environment
from bgkit.errors import BgkitError

PAUSE = 0.5  # seconds between two attempts to terminate worker processes


def rank_and_size() -> tuple[int, int]:
    """Rank and number of processes in an ``accelerate launch``; (0, 1) without one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; ``auto`` tries cuda, then mps, then cpu.

    Each process of a launch gets its own GPU unless a device number is given. Raises BgkitError if
    the device does not exist here.
    """
    auto = name == "auto"
    if auto:
        has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    rank = os.environ.get("LOCAL_RANK")
    try:
        device = torch.device(f"cuda:{rank}" if name == "cuda" and rank else name)
        if not auto:  # an automatic choice exists, and must not allocate GPU memory
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BgkitError(
            f"The device {name!r} does not exist here; use auto, cpu, or one that this machine has "
            f"({'cuda' if torch.cuda.is_available() else 'no GPU found'})."
        ) from error
    return device


def pick_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """float32 or bfloat16; ``auto`` is bfloat16 on a GPU that supports it, else float32."""
    if precision == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if native else "float32"
    return getattr(torch, precision)


def pin_threads(threads: int = 0) -> int:
    """Set the number of CPU threads of torch and return it.

    0 means ``BGKIT_THREADS`` (set by a sweep), else this process's share of all cores, at most
    four: the testbed's models gain nothing from more.
    """
    checks.require_type("a whole number", threads=threads)
    if threads < 0:
        raise BgkitError(f"The number of threads must be at least 0 (all cores), not {threads}.")
    setting, size = os.environ.get("BGKIT_THREADS", ""), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    threads = threads or (int(setting) if setting.isdigit() else 0)
    count = threads or max(1, min(4, (os.cpu_count() or 1) // size))
    torch.set_num_threads(count)
    return count


def start_worker(threads: int = 1) -> None:
    """Initialise a worker process: set its threads, and make it exit when its parent does."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def worker_pool(count: int, threads: int = 1) -> Iterator[ProcessPoolExecutor]:
    """An executor of ``count`` worker processes with ``threads`` CPU threads each.

    Workers ignore Ctrl-C, which a terminal sends to every process. The parent handles it: it
    cancels pending work and sends the workers SIGTERM, on which a training writes a checkpoint.
    """
    os.environ.update(environment.with_defaults(os.environ))  # workers import torch anew
    others = set(multiprocessing.active_children())
    options = {"mp_context": multiprocessing.get_context("spawn"), "initializer": start_worker}
    is_main = threading.current_thread() is threading.main_thread()
    with ProcessPoolExecutor(count, **options, initargs=(threads,)) as pool:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None  # inherited
        for _ in range(count):
            pool.submit(int)
        if is_main:
            signal.signal(signal.SIGINT, before)
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            while mine := set(multiprocessing.active_children()) - others:
                for worker in mine:  # repeatedly: each may start one more task
                    worker.terminate()
                time.sleep(PAUSE)
            raise


def machine() -> dict[str, str | int]:
    """This machine's system, processor, cores and GPU."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"^model name\s*: *(.*)", cpuinfo, re.MULTILINE)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model[1] if model else platform.processor() or "unknown",
        "cores": os.cpu_count() or 0,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


def peak_memory() -> float:
    """Peak memory of this process so far, in MiB.

    On a GPU the memory that torch allocated, else the resident memory of the process; NaN if the
    system does not report it. It never falls: to compare workloads, run each in its own process.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if platform.system() == "Darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def provenance() -> dict:
    """Command, time, machine and versions: recorded in every result file."""
    return {
        "command": shlex.join(["python", "-m", "bgkit", *sys.argv[1:]]),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": environment.versions(),
    }
