"""Progress bars: what is running, how far it is, and the time left, drawn by tqdm.

Phases nest. On a terminal or in a notebook, a phase that lasts longer than two seconds has a line
until it ends; in a log it is printed at growing intervals. Worker processes and all but the first
process of a launch show nothing, nor does any process with ``BGKIT_PROGRESS=none``.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tqdm.auto import tqdm

from bgkit.texts import clean_text

AFTER = 2.0  # seconds before a phase is shown
EVERY = 0.5  # seconds between updates
LOG_EVERY = 300.0  # longest interval in seconds between two log lines of a phase
COUNTED = "{desc}: {n:.0f}/{total_fmt} {bar} [{elapsed}<{remaining}{postfix}]"
UNCOUNTED = "{desc} [{elapsed}{postfix}]"

clock = tqdm.format_interval  # seconds as hours, minutes and seconds


@dataclass(eq=False)
class Phase:
    """A running task: ``done`` of ``total`` (None: not counted), starting from ``first``.

    ``more`` is appended after the times. ``hidden`` hides this phase and all phases inside it.
    """

    what: str
    total: float | None = None
    hidden: bool = False
    first: float = 0.0
    done: float = 0.0
    more: str = ""
    began: float = field(default_factory=time.time)
    due: float = field(default_factory=lambda: AFTER)  # age in seconds at which it is shown next
    bar: tqdm | None = None

    def advance(self, n: float = 1) -> None:
        """Count ``n`` more as done."""
        self.done += n

    def show(self) -> None:
        """Update the line, or print a new one to a log."""
        notebook = _in_notebook()
        redraws = notebook or sys.stderr.isatty()
        if self.bar is None:
            # a notebook puts a widget in place of {bar}; text bars are kept short
            counted = COUNTED if notebook else COUNTED.replace("{bar}", "{bar:20}")
            self.bar = tqdm(
                desc=clean_text(" ".join(self.what.split())),
                total=self.total,
                leave=False,
                dynamic_ncols=True,
                bar_format=counted if self.total else UNCOUNTED,
                file=sys.stderr if redraws else io.StringIO(),
            )
            self.bar.start_t = self.began
        # a resumed run sets `first` late; the time left counts only what was done since
        self.bar.initial, self.bar.n, self.bar.total = self.first, self.done, self.total
        self.bar.postfix = self.more
        if redraws:
            self.bar.refresh()
        else:
            print(self.bar, file=sys.stderr, flush=True)
            self.due += min(self.due, LOG_EVERY)

    def close(self) -> None:
        """Remove the line."""
        if self.bar is not None:
            self.bar.n = self.bar.total = self.done  # a notebook keeps a bar that is not full
            self.bar.close()


_OPEN: list[Phase] = []
_LOCK = threading.RLock()
_WATCHED = threading.Event()  # whether a thread updates the open phases


def _watch() -> None:
    """Update the open phases until none is left; runs in its own thread."""
    while True:
        time.sleep(EVERY)
        with _LOCK, contextlib.suppress(OSError, ValueError):  # the terminal was closed
            if not _OPEN:
                _WATCHED.clear()
                return
            if not any(running.hidden for running in _OPEN):
                for running in _OPEN:
                    if time.time() - running.began >= running.due:
                        running.show()


def _silent() -> bool:
    off = os.environ.get("BGKIT_PROGRESS") == "none" or os.environ.get("RANK", "0") != "0"
    return off or multiprocessing.parent_process() is not None


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def phase(what: str, total: float | None = None, *, hidden: bool = False) -> Iterator[Phase]:
    """Show progress of the block if it takes longer than two seconds.

    Call ``advance`` of the :class:`Phase` for each finished part of ``total``.
    """
    running = Phase(what, total, hidden)
    if _silent():
        yield running
        return
    with _LOCK:
        _OPEN.append(running)
        if not _WATCHED.is_set():
            _WATCHED.set()
            threading.Thread(target=_watch, name="progress", daemon=True).start()
    try:
        yield running
    finally:
        with _LOCK, contextlib.suppress(OSError, ValueError):
            _OPEN.remove(running)
            running.close()


def say(text: object, file=None) -> None:
    """Print a line, by default to standard output, without breaking the progress bars."""
    file = file or sys.stdout
    tqdm.write(clean_text(text), file=file)
    file.flush()
