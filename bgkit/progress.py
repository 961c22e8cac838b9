"""What is being done, how far it is, and how long it will still take, as tqdm shows it.

Phases nest: each that has lasted for two seconds has a line, on a terminal or in a notebook, until
it ends; in a log it is told now and then, ever more seldom. Nothing is shown by worker processes,
by all but the first process of a launch, and with ``BGKIT_PROGRESS=none`` in the environment.
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

from bgkit.texts import visible

AFTER = 2.0  # seconds that a phase lasts before it shows itself
EVERY = 0.5  # seconds between two looks at what goes on
LOG_EVERY = 300.0  # most seconds between two lines of a phase in a log
COUNTED = "{desc}: {n:.0f}/{total_fmt} {bar} [{elapsed}<{remaining}{postfix}]"
UNCOUNTED = "{desc} [{elapsed}{postfix}]"

clock = tqdm.format_interval  # seconds as hours, minutes and seconds


@dataclass(eq=False)
class Phase:
    """Something that goes on: ``done`` of ``total`` (None: not counted), since ``first``.

    ``more`` stands behind the times; with ``hidden`` neither this phase nor those inside it are
    shown.
    """

    what: str
    total: float | None = None
    hidden: bool = False
    first: float = 0.0
    done: float = 0.0
    more: str = ""
    began: float = field(default_factory=time.time)
    due: float = field(default_factory=lambda: AFTER)  # the age at which it is shown next
    bar: tqdm | None = None

    def advance(self, n: float = 1) -> None:
        """So much more is done."""
        self.done += n

    def show(self) -> None:
        """Bring the line up to date, or write a new one into a log."""
        notebook = _in_notebook()
        renews = notebook or sys.stderr.isatty()
        if self.bar is None:
            # a notebook's bar is a widget in the place of {bar}; a written one is not a whole line
            counted = COUNTED if notebook else COUNTED.replace("{bar}", "{bar:20}")
            self.bar = tqdm(
                desc=visible(" ".join(self.what.split())),
                total=self.total,
                leave=False,
                dynamic_ncols=True,
                bar_format=counted if self.total else UNCOUNTED,
                file=sys.stderr if renews else io.StringIO(),
            )
            self.bar.start_t = self.began
        # a run may be resumed only after its line was shown; the time left is of what came since
        self.bar.initial, self.bar.n, self.bar.total = self.first, self.done, self.total
        self.bar.postfix = self.more
        if renews:
            self.bar.refresh()
        else:
            print(self.bar, file=sys.stderr, flush=True)
            self.due += min(self.due, LOG_EVERY)

    def close(self) -> None:
        """Take the line away."""
        if self.bar is not None:
            self.bar.n = self.bar.total = self.done  # one that is not full would stay in a notebook
            self.bar.close()


_OPEN: list[Phase] = []
_LOCK = threading.RLock()
_WATCHED = threading.Event()  # whether a thread shows what is open


def _watch() -> None:
    """Show what lasts, until nothing is open, in a thread of its own."""
    while True:
        time.sleep(EVERY)
        with _LOCK, contextlib.suppress(OSError, ValueError):  # a terminal that was closed
            if not _OPEN:
                _WATCHED.clear()
                return
            if not any(one.hidden for one in _OPEN):
                for one in _OPEN:
                    if time.time() - one.began >= one.due:
                        one.show()


def _silent() -> bool:
    none = os.environ.get("BGKIT_PROGRESS") == "none" or os.environ.get("RANK", "0") != "0"
    return none or multiprocessing.parent_process() is not None


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def phase(what: str, total: float | None = None, *, hidden: bool = False) -> Iterator[Phase]:
    """Show what is done inside, if it takes longer than two seconds.

    Call ``advance`` of the :class:`Phase` for each part of ``total`` that is done.
    """
    one = Phase(what, total, hidden)
    if _silent():
        yield one
        return
    with _LOCK:
        _OPEN.append(one)
        if not _WATCHED.is_set():
            _WATCHED.set()
            threading.Thread(target=_watch, name="progress", daemon=True).start()
    try:
        yield one
    finally:
        with _LOCK, contextlib.suppress(OSError, ValueError):
            _OPEN.remove(one)
            one.close()


def say(text: object, file=None) -> None:
    """Print a line (to standard output), clear of those that are being shown."""
    file = file or sys.stdout
    tqdm.write(visible(text), file=file)
    file.flush()
