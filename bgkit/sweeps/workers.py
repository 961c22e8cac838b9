"""Who executes a sweep's runs: threads of this process, any executor, or dask's workers.

dask needs the extra ``cluster``. Its machines must see the sweep's folder and the notebook under
the same path, and have the same versions (each run is checked). A worker does as many runs at once
as it has threads (``--nthreads``); for one GPU per run, start one worker of one thread per GPU,
each with its CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import Executor

from bgkit.errors import BgkitError

TIMEOUT = 10  # seconds to reach a scheduler


def slots_of(executor: Executor | None) -> int:
    """How many runs an executor does at once; raises BgkitError for one that does not tell."""
    if executor is None:
        return 1
    if client := getattr(executor, "_client", None):  # of dask's ClientExecutor
        return sum(client.nthreads().values())
    if slots := getattr(executor, "_max_workers", None):
        return slots
    raise BgkitError(
        f"The executor {type(executor).__name__} does not tell how many runs it does at once; "
        "say it with workers=."
    )


@contextlib.contextmanager
def connect(address: str, timeout: float = TIMEOUT) -> Iterator[Executor]:
    """The workers of the dask scheduler at ``address`` (``tcp://host:8786``).

    Raises BgkitError if dask is not installed, nothing answers there, or there are no workers.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise BgkitError("--dask needs dask.distributed: pip install 'bgkit[cluster]'.") from error
    try:  # without dask's client, which starts threads before it looks
        socket.create_connection(get_address_host_port(address), timeout).close()
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a TimeoutError is an OSError
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BgkitError(
            f"No dask scheduler answers at {address!r} ({reason}); check the address (such as "
            "tcp://host:8786) and that `dask scheduler` runs there."
        ) from error
    with client:
        if not client.nthreads():
            raise BgkitError(
                f"The dask scheduler at {address} has no workers; start some (`dask worker "
                f"{address} --nthreads 1`) and wait until they have joined."
            )
        yield client.get_executor()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [part.strip() for part in told.split(",") if part.strip()]
    try:
        command = ["nvidia-smi", "--list-gpus"]  # which hangs where the driver does
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(found))]
