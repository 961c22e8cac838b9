"""How many runs an executor does at once, and with how many CPU threads each."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor

from bgkit.errors import BgkitError
from bgkit.sweeps import kernels


def divided(executor: Executor | None, workers: int | None, threads: int) -> tuple[int, int]:
    """Runs at once and CPU threads of each (0: this machine's cores, divided), as far as not given.

    dask's executor is asked for its workers, whose versions are checked, too. Raises BgkitError for
    an executor that does not tell, and as :func:`bgkit.sweeps.cluster.of_client`.
    """
    client = getattr(executor, "_client", None)  # of dask's ClientExecutor
    if hasattr(client, "nthreads") and not (workers and threads):
        from bgkit.sweeps import cluster

        found = cluster.of_client(client)
        return found.slots if workers is None else workers, threads or found.threads
    if workers is not None:
        return workers, threads
    slots = 1 if executor is None else getattr(executor, "_max_workers", None)
    if not isinstance(slots, int):
        raise BgkitError(
            f"The executor {type(executor).__name__} does not tell how many runs it does at once; "
            "say it with workers=."
        )
    return slots, threads


def shares_gpus(executor: Executor | None) -> bool:
    """Whether the sweep can give each run a GPU: only kernels of this process's threads."""
    return executor is None or isinstance(executor, ThreadPoolExecutor)


def gpu_warning(executor: Executor | None, workers: int) -> str:
    """A line for an executor whose runs all see the same GPUs; "" where there is nothing to say."""
    if shares_gpus(executor) or workers < 2 or not (found := set(kernels.gpus(workers))):
        return ""
    return (
        f"This machine has GPUs ({', '.join(sorted(found))}), but with this executor no run gets "
        "one of its own: each sees all that its worker sees; give each worker its "
        "CUDA_VISIBLE_DEVICES, or leave out the executor."
    )
