"""A notebook in a kernel process of its own, that can be told to end and never outlives its driver.

papermill does the work. What is added: the kernel's environment, folder and open files (papermill
itself can only change the folder of the whole process), start-ups that are tried again, a kernel
that died told from a cell that failed, a pipe by which the kernel notices at once that its
driver is gone, however that came about, and replies that are found although their event was lost.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets import Type

from bgkit import environment
from bgkit.errors import BgkitError

_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.NullHandler())  # what it would say is in the errors raised
# it takes no annotation with "|" for a parameter; bgkit.sweeps.parameters knows better
logging.getLogger("papermill").addHandler(logging.NullHandler())
STARTS = 3  # how often a kernel is started before it is given up
PAUSE = 1.0  # seconds between two starts
LOOK = 1.0  # seconds between two looks for a reply
#: What the kernel runs first: a thread that ends it when the other end of the pipe is closed.
_END_WITH_DRIVER = (
    "import os, threading; threading.Thread(target=lambda: (os.read({0}, 1), os._exit(1)), "
    "daemon=True).start()"
)


class CellError(BgkitError):
    """A cell of the notebook raised an error."""


class KernelError(BgkitError):
    """The kernel did not start, or died: not the notebook's fault, as far as one can tell."""


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
    """What the notebooks that run in this process share: the GPUs, and being stopped together.

    ``gpus`` holds one entry for each notebook that may run at once (an entry may be repeated): the
    value of its CUDA_VISIBLE_DEVICES. Without entries the kernels see what this process sees.
    """

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self.stopped = threading.Event()
        self._gpus: queue.SimpleQueue[str] | None = queue.SimpleQueue() if gpus else None
        for name in gpus:
            self._gpus.put(name)
        self._calls: set[_Call] = set()

    @contextlib.contextmanager
    def gpu(self) -> Iterator[dict[str, str]]:
        """A GPU for one notebook, as environment variables."""
        if self._gpus is None:
            yield {}
            return
        name = self._gpus.get()
        try:
            yield {"CUDA_VISIBLE_DEVICES": name}
        finally:
            self._gpus.put(name)

    @contextlib.contextmanager
    def _going(self, call: _Call) -> Iterator[None]:
        """Know a notebook that is being executed."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def busy(self) -> bool:
        """Whether any notebook is being executed."""
        return bool(self._calls)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Begin no more kernels and cells; send the running ones a signal."""
        self.stopped.set()
        for call in tuple(self._calls):
            call.signal(number)


@dataclass(eq=False)
class _Call:
    """What one execution hands through papermill to its kernel, and how far that got."""

    here: Here
    environment: Mapping[str, str]
    folder: Path
    log: Path
    files: tuple[int, ...]
    began: bool = False
    process: subprocess.Popen | None = None

    def signal(self, number: int) -> None:
        """Send the kernel a signal; SIGKILL also to the processes that it started."""
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)


class _Client(PapermillNotebookClient):
    """papermill's client, which tells which process it has and when the cells begin."""

    call: _Call

    def start_new_kernel(self, **options) -> None:
        super().start_new_kernel(**options)
        self.call.process = self.km.provisioner.process

    def papermill_execute_cells(self) -> None:
        self.call.began = True
        if self.call.here.stopped.is_set():
            raise KernelError("The sweep was stopped before the first cell.")
        super().papermill_execute_cells()


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, call: _Call, **options):
        """Execute a notebook as papermill's own engine does, in the kernel that ``call`` wants."""
        end, start = os.pipe()
        line = _END_WITH_DRIVER.format(end)
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            kernel_manager_class=KernelManager,
            startup_timeout=options["start_timeout"],
            iopub_timeout=60,  # seconds; the usual 4 are too few where many kernels share a core
            extra_arguments=[f"--IPKernelApp.exec_lines={line}"],
            log=_LOGGER,
        )
        client.call = call
        try:
            with call.log.open("ab") as log:
                return client.execute(
                    env={**os.environ, **call.environment},
                    cwd=str(call.folder),
                    pass_fds=(end, *call.files),
                    stdout=log,
                    stderr=log,
                )
        finally:
            os.close(start)
            os.close(end)


papermill_engines.register("bgkit", _Engine)


def execute(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, object],
    *,
    here: Here | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    files: Sequence[int] = (),
    start_timeout: int = 60,
) -> None:
    """Execute a notebook into ``output``; its kernel works in ``folder`` (the current one).

    ``files`` are descriptors that the kernel inherits; what it writes outside cells goes to
    ``kernel.log`` beside ``output``. May be called in several threads at once. Raises CellError for
    a cell that fails (``output`` holds what was done), KernelError for a kernel that died, or that
    did not start in any of three tries of ``start_timeout`` seconds.
    """
    here = here or Here()
    log = output.with_name("kernel.log")
    for attempt in range(1, STARTS + 1):
        if here.stopped.is_set():
            raise KernelError("The sweep was stopped before the kernel started.")
        call = _Call(here, environment or {}, folder or Path.cwd(), log, tuple(files))
        try:
            with here._going(call):
                _papermill(notebook, output, parameters, call=call, start_timeout=start_timeout)
            return
        except papermill.PapermillExecutionError as error:
            text = f"Cell {error.exec_count} failed: {error.ename}: {error.evalue}"
            raise CellError(text) from error
        except BgkitError:
            raise
        except DeadKernelError as error:
            if call.began:
                reason = "The kernel died (it was killed, crashed, or ran out of memory)."
                raise KernelError(reason) from error
            reason = error
        except Exception as error:  # Jupyter's layers raise many kinds when a kernel does not start
            if call.began:
                raise
            reason = error
        if attempt < STARTS:
            time.sleep(PAUSE)
    raise KernelError(f"The kernel did not start in {STARTS} tries: {reason}") from reason


def _papermill(notebook: Path, output: Path, parameters: Mapping, **options) -> None:
    # jupyter keeps its event loop in the context, which dask's threads share: each has its own here
    contextvars.Context().run(
        papermill.execute_notebook,
        str(notebook.resolve()),
        str(output.resolve()),
        dict(parameters),
        engine_name="bgkit",
        kernel_name="python3",
        language="python",
        progress_bar=False,
        **options,
    )
