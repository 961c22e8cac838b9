"""Where and how precisely to compute: device, number format, threads, worker processes."""

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
from bgkit.runs import git_revision
from bgkit.versions import versions as versions

PAUSE = 0.5  # seconds between two calls to worker processes that they are to end


def launched() -> tuple[int, int]:
    """Number of this process and their count in an ``accelerate launch``; (0, 1) without one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; ``auto`` takes cuda, then mps, then cpu.

    Each process of a launch gets a GPU of its own where no number is named. Raises BgkitError if
    the device does not exist here.
    """
    named = name != "auto"
    if not named:
        known = ("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())
        name = next((kind for kind, there in known if there), "cpu")
    number = os.environ.get("LOCAL_RANK")
    try:
        device = torch.device(f"cuda:{number}" if name == "cuda" and number else name)
        if named:  # else it is there, and who only asks holds no memory of a GPU
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BgkitError(
            f"The device {name!r} does not exist here; use auto, cpu, or one that this machine has "
            f"({'cuda' if torch.cuda.is_available() else 'no GPU found'})."
        ) from error
    return device


def pick_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """float32 or bfloat16; ``auto`` is bfloat16 on a GPU that has it, else float32."""
    if precision == "auto":
        good = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if good else "float32"
    return getattr(torch, precision)


def pin_threads(threads: int = 0) -> int:
    """Set the number of CPU threads of torch and return it.

    0 takes what ``BGKIT_THREADS`` says (a sweep sets it), else all cores, at most four, which the
    processes of a launch share: the testbed's models gain nothing from more.
    """
    checks.kind("a whole number", threads=threads)
    told, here = os.environ.get("BGKIT_THREADS", ""), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    threads = threads or (int(told) if told.isdigit() else 0)
    count = threads or max(1, min(4, (os.cpu_count() or 1) // here))
    torch.set_num_threads(count)
    return count


def start_worker(threads: int = 1) -> None:
    """Initialise a worker process: its threads, and that it ends as soon as its driver is gone."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def workers(count: int, threads: int = 1) -> Iterator[ProcessPoolExecutor]:
    """An executor of worker processes with so many CPU threads each.

    They do not hear Ctrl-C, which a terminal sends to all: the driver hears it, drops what has not
    begun and ends them by SIGTERM, which a training answers with a checkpoint.
    """
    os.environ.update(environment.completed(os.environ))  # they load torch anew
    others = set(multiprocessing.active_children())
    spawned = {"mp_context": multiprocessing.get_context("spawn"), "initializer": start_worker}
    hears = threading.current_thread() is threading.main_thread()
    with ProcessPoolExecutor(count, **spawned, initargs=(threads,)) as pool:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if hears else None  # is inherited
        for _ in range(count):
            pool.submit(int)
        if hears:
            signal.signal(signal.SIGINT, before)
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            while mine := set(multiprocessing.active_children()) - others:
                for worker in mine:  # again, as each may have one more piece of work at hand
                    worker.terminate()
                time.sleep(PAUSE)
            raise


def machine() -> dict[str, str | int]:
    """What this machine is: system, processor, cores, GPU."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"^model name\s*: *(.*)", told, re.MULTILINE)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model[1] if model else platform.processor() or "unknown",
        "cores": os.cpu_count() or 0,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


def peak_memory() -> float:
    """The most memory in use at once since this process began, in MiB.

    On a GPU what torch has allocated there, else the resident memory of the whole process; NaN
    where the system does not tell. It never falls: to compare two pieces of work, run each in a
    process of its own.
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
    """Command, time, machine and versions, for every result file."""
    return {
        "command": shlex.join(["python", "-m", "bgkit", *sys.argv[1:]]),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), "git": git_revision()},
    }
