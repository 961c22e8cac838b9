"""Who executes a sweep's runs: threads of this process, any executor, or dask's workers.

dask needs the extra ``cluster``. Its machines must see the sweep's folder and the notebook under
the same path, and have the same versions (each run is checked). A worker does as many runs at once
as it has threads (``--nthreads``); for one GPU per run, start one worker of one thread per GPU,
each with its CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from bgkit.errors import BgkitError

TIMEOUT = 10  # seconds to reach a scheduler
_ADDRESS = re.compile(r"(\w+://)?([^\s/:\[\]]+|\[[^\s\]]+\]):\d+/?")


def slots_of(executor: Executor | None) -> int:
    """How many runs an executor does at once; raises BgkitError for one that does not tell."""
    if executor is None:
        return 1
    client = getattr(executor, "_client", None)  # of dask's ClientExecutor
    if hasattr(client, "nthreads"):
        return sum(client.nthreads().values())
    if isinstance(slots := getattr(executor, "_max_workers", None), int):
        return slots
    raise BgkitError(
        f"The executor {type(executor).__name__} does not tell how many runs it does at once; "
        "say it with workers=."
    )


@contextlib.contextmanager
def connect(address: str, timeout: float = TIMEOUT) -> Iterator[Executor]:
    """The workers of the dask scheduler at ``address`` (``tcp://host:8786``, or ``host:8786``).

    Raises BgkitError if dask is not installed, nothing answers there, or there are no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise BgkitError(
            "--dask needs dask.distributed: install bgkit with the extra cluster, as in "
            "pip install 'bgkit[cluster]'."
        ) from error
    if not _ADDRESS.fullmatch(address):  # dask itself takes twenty seconds over such a mistake
        raise BgkitError(
            f"{address!r} is no address of a dask scheduler; write it as tcp://host:8786."
        )
    try:
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


# --- What this machine has ---------------------------------------------------------------------


def cores() -> int:
    """CPU cores that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(workers: int) -> list[str]:
    """A GPU for each worker, shared if there are fewer; [] on a machine without any."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = _installed_gpus()
    if told is not None:
        names = [part.strip() for part in told.split(",") if part.strip()][: len(names)]
    return list(itertools.islice(itertools.cycle(names), workers)) if names else []


def _installed_gpus() -> list[str]:
    """Numbers of this machine's NVIDIA GPUs, as their driver's tool tells them."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in found.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def shares_gpus(executor: Executor | None) -> bool:
    """Whether the sweep can give each run a GPU: only kernels of this process's threads."""
    return executor is None or isinstance(executor, ThreadPoolExecutor)


def gpu_warning(executor: Executor | None, workers: int) -> str:
    """A line for an executor whose runs all see the same GPUs; "" where there is nothing to say."""
    if shares_gpus(executor) or workers < 2 or not (found := set(gpus(workers))):
        return ""
    return (
        f"This machine has GPUs ({', '.join(sorted(found))}), but with this executor no run gets "
        "one of its own: each sees all that its worker sees; give each worker its "
        "CUDA_VISIBLE_DEVICES, or leave out the executor."
    )
