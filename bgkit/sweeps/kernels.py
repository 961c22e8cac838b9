"""papermill with kernels that are quiet, never wait for a lost reply, and can be told to end.

papermill does the work; here is what it lacks to run many notebooks at once: for each kernel an
environment, a folder and a GPU of its own, and a pipe by which it notices that its driver is gone.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from traitlets import Type

from bgkit import environment
from bgkit.errors import StoppedError

# it takes no annotation with "|" for a parameter; bgkit.sweeps.parameters knows better
logging.getLogger("papermill").addHandler(logging.NullHandler())
LOOK = 1.0  # seconds between two looks for a reply
#: What a kernel runs first: a thread that ends it when the other end of the pipe is closed.
END_WITH_DRIVER = (
    "--IPKernelApp.exec_lines=import os, threading; threading.Thread(target=lambda: "
    "(os.read({}, 1), os._exit(1)), daemon=True).start()"
)


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


@functools.cache
def _pipe(process: int) -> tuple[int, int]:
    """A pipe that closes when this process ends, however that comes about."""
    return os.pipe()


class Here:
    """What the kernels of this process share: GPUs, and being stopped together.

    ``gpus`` has a CUDA_VISIBLE_DEVICES for each notebook that may run at once (it may be repeated);
    without any, kernels see what this process sees.
    """

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self.stopped = threading.Event()
        self.kernels: set[subprocess.Popen] = set()
        self._gpus: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._shared = not gpus
        for name in gpus:
            self._gpus.put({"CUDA_VISIBLE_DEVICES": name})

    @contextlib.contextmanager
    def gpu(self) -> Iterator[dict[str, str]]:
        """A GPU for one notebook, as environment variables."""
        taken = {} if self._shared else self._gpus.get()
        try:
            yield taken
        finally:
            self._gpus.put(taken)

    def manager(
        self, env: Mapping[str, str], folder: Path, log: Path, files: tuple[int, ...]
    ) -> type[KernelManager]:
        """Managers of kernels with more environment, in a folder, that inherit open files."""
        here = self

        class Manager(KernelManager):
            async def start_kernel(self, *, extra_arguments: Sequence[str], **options) -> None:
                end, _ = _pipe(os.getpid())
                with log.open("ab") as out:
                    await super().start_kernel(
                        env={**os.environ, **env},
                        cwd=str(folder),
                        extra_arguments=[*extra_arguments, END_WITH_DRIVER.format(end)],
                        pass_fds=(end, *files),
                        stdout=out,
                        stderr=out,
                        **options,
                    )
                here.kernels.add(self.provisioner.process)

        return Manager

    def check(self, **cell) -> None:
        """Raise StoppedError once all is stopped; nbclient takes it as ``on_cell_start``."""
        if self.stopped.is_set():
            raise StoppedError("The sweep was stopped.")

    def stop(self, number: int = signal.SIGINT) -> None:
        """Send all kernels (and what they started) a signal; no more cells begin."""
        self.stopped.set()
        for process in tuple(self.kernels):
            with contextlib.suppress(OSError):
                if process.poll() is None:
                    os.killpg(process.pid, number)


def execute(
    notebook: str | Path, output: str | Path, parameters: Mapping[str, object], **options
) -> None:
    """Execute a notebook into ``output`` by papermill, whose errors it raises.

    ``options`` are papermill's and nbclient's. May be called in several threads at once.
    """
    settings = {
        "kernel_name": "python3",
        "language": "python",
        "progress_bar": False,
        "kernel_manager_class": KernelManager,
        "start_timeout": 180,  # seconds; the usual 60 are too few where many kernels share a core
        "iopub_timeout": 60,  # and the usual 4
    }
    paths = (str(Path(path).resolve()) for path in (notebook, output))
    # jupyter keeps its event loop in the context, which dask's threads share: each has its own here
    run = contextvars.Context().run
    run(papermill.execute_notebook, *paths, dict(parameters), **{**settings, **options})
