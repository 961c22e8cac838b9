"""papermill with kernels that are quiet, never wait for a lost reply, and can be told to end.

papermill does the work; here is what it lacks to run many notebooks at once: for each kernel an
environment, a folder and a log of its own. A kernel whose driver is gone ends by itself, within a
second (ipykernel looks for its parent; before ipykernel 7 only where process 1 adopts the kernel:
elsewhere end it by hand before the same sweep goes on).
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from traitlets import Type

from bgkit import environment

# it takes no annotation with "|" for a parameter, and warns; bgkit.sweeps.parameters has checked
logging.getLogger("papermill").addHandler(logging.NullHandler())
LOOK = 1.0  # seconds between two looks for a reply


# The class's own name is another one before jupyter_client 8.
class ReplyChannel(AsyncKernelClient.shell_channel_class.default_value):
    """The channel of a kernel's replies, which looks for one every second.

    ZeroMQ tells once that something has come, and sending on the same socket takes that event up;
    nbclient sends on it for every change of an Output widget, and waits for the event alone: a
    reply in that moment would be waited for without end (nbclient's issue 312, open).
    """

    async def get_msg(self, timeout: float | None = None) -> dict:
        """The next message; raises queue.Empty after ``timeout`` seconds (None: never)."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await super().get_msg(timeout=min(LOOK, left))
            except queue.Empty:
                if left <= LOOK:
                    raise


class KernelClient(AsyncKernelClient):
    """Jupyter's own client with our channel for replies."""

    shell_channel_class = Type(ReplyChannel)


class KernelManager(AsyncKernelManager):
    """Jupyter's own manager with our client; nbclient takes it as ``kernel_manager_class``.

    Its kernels get a completed environment (:mod:`bgkit.environment`), and show no progress: nobody
    watches the notebook, and it would be stored.
    """

    client_factory = Type(KernelClient, klass=AsyncKernelClient)

    async def start_kernel(self, *, env: Mapping[str, str] | None = None, **options) -> None:
        """Start the kernel."""
        env = environment.completed(os.environ if env is None else env)
        await super().start_kernel(env={"BGKIT_PROGRESS": "none", **env}, **options)


class Here:
    """What the kernels of a driver share: its GPUs, and being stopped together.

    Of ``gpus`` (values of CUDA_VISIBLE_DEVICES) each of the ``workers`` notebooks that run at once
    gets one, by turns; without any, kernels see what this process sees.
    """

    def __init__(self, workers: int = 1, gpus: Sequence[str] = ()) -> None:
        self.stopped = threading.Event()
        self.kernels: set[subprocess.Popen] = set()
        self.free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for number in range(workers):
            name = gpus[number % len(gpus)] if gpus else None
            self.free.put({"CUDA_VISIBLE_DEVICES": name} if name else {})

    def stop(self, number: int) -> None:
        """Send all kernels (and what they started) a signal."""
        self.stopped.set()
        for process in tuple(self.kernels):
            with contextlib.suppress(OSError):
                if process.poll() is None:
                    os.killpg(process.pid, number)


def manager(env: Mapping[str, str], folder: Path, log: Path, here: Here) -> type[KernelManager]:
    """A manager whose kernel has more environment and a folder, and writes to a log."""

    class Manager(KernelManager):
        async def start_kernel(self, **options) -> None:
            own = {"env": {**os.environ, **env}, "cwd": str(folder)}
            with log.open("ab") as out:
                await super().start_kernel(**own, stdout=out, stderr=out, **options)
            here.kernels.add(self.provisioner.process)
            if here.stopped.is_set():  # while it started
                await self.signal_kernel(signal.SIGKILL)  # this one: others save their work

    return Manager


def execute(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, object],
    kernel_manager_class: type[KernelManager] = KernelManager,
) -> None:
    """Execute a notebook into ``output`` by papermill, whose errors it raises.

    May be called in several threads at once.
    """
    paths = (str(Path(path).resolve()) for path in (notebook, output))
    # jupyter keeps its event loop in the context, which dask's threads share: each has its own here
    contextvars.Context().run(
        papermill.execute_notebook,
        *paths,
        dict(parameters),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        kernel_manager_class=kernel_manager_class,
        start_timeout=180,  # seconds; the usual 60 are too few where many kernels share a core
        iopub_timeout=60,  # and the usual 4
    )
