"""Many machines for a sweep: the workers of a dask scheduler, as an ordinary executor.

Needs the extra ``cluster``. All machines must see the sweep's folder and the notebook under the
same path, and have the same versions. A worker does as many runs at once as it has threads
(``--nthreads``); for one GPU per run, start one worker of one thread per GPU, each with its
CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from typing import NamedTuple

from bgkit.errors import BgkitError
from bgkit.sweeps.run import different
from bgkit.versions import versions

TIMEOUT = 10  # seconds to reach the scheduler
_ADDRESS = re.compile(r"(\w+://)?([^\s/:\[\]]+|\[[^\s\]]+\]):\d+/?")


class Cluster(NamedTuple):
    """An executor, how many runs it does at once, and the CPU threads that each may have."""

    executor: Executor
    slots: int
    threads: int


def probe() -> dict:
    """What a worker tells of itself: machine, cores, versions."""
    return {
        "host": platform.node(),
        "cores": os.cpu_count() or 1,
        "versions": versions(),
    }


@contextlib.contextmanager
def connect(address: str, timeout: float = TIMEOUT) -> Iterator[Cluster]:
    """The workers of the scheduler at ``address`` (``tcp://host:8786``, or ``host:8786``).

    Raises BgkitError if dask is not installed, nothing answers there, there are no workers, or some
    can not import bgkit or have other versions than this machine.
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
        yield of_client(client)


def of_client(client) -> Cluster:
    """The workers of a dask client; raises BgkitError as :func:`connect`."""
    threads = client.nthreads()
    if not threads:
        address = client.scheduler.address
        raise BgkitError(
            f"The dask scheduler at {address} has no workers; start some (`dask worker "
            f"{address} --nthreads 1`) and wait until they have joined."
        )
    found = _ask(client)
    check(found)
    return Cluster(client.get_executor(), sum(threads.values()), _threads(found, threads))


def _ask(client) -> dict[str, dict]:
    try:
        return client.run(probe)
    except Exception as error:  # whatever a worker without bgkit makes of it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BgkitError(
            f"A dask worker can not run bgkit ({reason}); install the same version of it there."
        ) from error


def check(workers: Mapping[str, Mapping]) -> None:
    """Raise BgkitError for workers (address -> probe) with other versions than this machine."""
    ours = versions()
    for address, found in workers.items():
        if difference := different(found["versions"], ours):
            raise BgkitError(
                f"The dask worker {address} on {found['host']} has other versions than this "
                f"machine ({difference}); install the same ones (constraints.txt), as results "
                "would not be comparable."
            )


def _threads(workers: Mapping[str, Mapping], slots: Mapping[str, int]) -> int:
    """CPU threads of a run: the cores of a machine, divided by the runs that it does at once.

    >>> one = {"host": "a", "cores": 8}
    >>> _threads({"x": one, "y": one}, {"x": 1, "y": 1})
    4
    """
    runs, cores = Counter(), {}
    for address, found in workers.items():
        runs[found["host"]] += slots.get(address, 1)
        cores[found["host"]] = found["cores"]
    return max(1, min(cores[host] // runs[host] for host in runs))
