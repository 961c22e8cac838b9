"""What is being done, how far it is, and how long it will still take, in one line.

Phases nest: one line shows the innermost that has lasted for two seconds, behind the names of those
around it. On a terminal the line renews itself and is gone in the end; in a notebook it is an
output that is updated, so that a saved copy holds it; in a log it is a new line every ten seconds,
and ever more seldom. Nothing is shown by worker processes, by all but the first process of a
launch, and with ``BGKIT_PROGRESS=none`` in the environment.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bgkit.texts import visible

#: column of the metrics -> how it is called on the line
SHOWN = {
    "reward": "reward",
    "filter_rate": "filtered",
    "near_boundary": "near",
    "kl": "KL/token",  # the trainer's is a mean over tokens; an evaluation's is over responses
    "no_spread": "no spread",
}

AFTER = 2.0  # seconds that a phase lasts before it shows itself
WORKING = "working"  # what no phase has a name for
EVERY = 0.5  # seconds between two looks at what goes on
LOG_EVERY = 10.0, 300.0  # seconds between two lines of a log, in the beginning and in the end


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725.2), clock(65)
    ('1:02:05', '1:05')
    """
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass(eq=False)
class Phase:
    """Something that goes on: ``done`` of ``total`` (None: not counted), since ``first``.

    ``more`` stands behind the times; ``stays`` leaves the last line on a terminal; with ``hidden``
    neither this phase nor those inside it are shown.
    """

    what: str
    total: float | None = None
    stays: bool = False
    hidden: bool = False
    first: float = 0.0
    done: float = 0.0
    more: str = ""
    told: bool = False
    began: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self.what = visible(" ".join(self.what.split()))

    def advance(self, n: float = 1) -> None:
        """So much more is done."""
        self.done += n

    def text(self, names: str) -> str:
        """The line: names, count, seconds gone and left."""
        gone, count, left = time.monotonic() - self.began, "", ""
        if self.total is not None:
            count, new = f": {int(self.done)}/{self.total}", self.done - self.first
            seconds = clock(gone / new * (self.total - self.done)) if new > 0 else "?"
            left = f", {seconds} left" if self.done < self.total else ""
        return f"{names or WORKING}{count} [{clock(gone)} gone{left}{self.more}]"


class _Lines:
    """The phases that are open in one thread, and the place where their line is shown."""

    def __init__(self) -> None:
        self.open: list[Phase] = []
        self.thread = 0
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self.written = 0  # characters of the line on a terminal
        self.logged = 0.0  # when the last line was written to a log
        self.known: set[str] = set()  # names of phases that a log has a line of
        self.display = None  # of a notebook

    def enter(self, new: Phase) -> None:
        with self.lock:
            mine = threading.get_ident()
            if _silent() or (self.open and self.thread != mine):
                return
            self.open.append(new)
            if len(self.open) == 1:
                self.thread, self.ended, self.display = mine, threading.Event(), None
                self.known.clear()
                watch = {"target": self._watch, "args": (self.ended,), "name": "progress"}
                threading.Thread(**watch, daemon=True).start()

    def leave(self, old: Phase) -> None:
        with self.lock:
            if old not in self.open:
                return
            if old.told and not any(one.hidden for one in self.open):
                self._show(old, last=True)
            del self.open[self.open.index(old) :]
            if not self.open:
                self.ended.set()

    def _watch(self, ended: threading.Event) -> None:
        """Look at what goes on until the outermost phase ends, in a thread of its own."""
        pause = AFTER
        while not ended.wait(pause):
            pause = EVERY
            with self.lock:
                if ended.is_set() or any(one.hidden for one in self.open):
                    continue
                old = [one for one in self.open if time.monotonic() - one.began >= AFTER]
                if old:  # of what has no name, what goes on inside tells more
                    self._show(old[-1] if any(one.what for one in old) else self.open[-1])

    def _show(self, one: Phase, last: bool = False) -> None:
        around = self.open[: self.open.index(one) + 1]
        names = ", ".join(each.what for each in around if each.what)
        text, now = one.text(names), time.monotonic()
        with contextlib.suppress(OSError, ValueError):  # a terminal or file that was closed
            if _in_notebook():
                self._update({"text/plain": text})
            elif sys.stderr.isatty():
                self.erase()
                if one.stays or not last:
                    text = text[: shutil.get_terminal_size().columns - 1]
                    self.written = 0 if last else len(text)
                    print(text, end="\n" if last else "", file=sys.stderr, flush=True)
            elif self._worth_a_line(names, last and now - one.began >= AFTER):
                self.known.add(names)
                self.logged = now
                print(text, file=sys.stderr, flush=True)
            else:
                return
        one.told = True

    def _worth_a_line(self, names: str, ends: bool) -> bool:
        """Whether a log gets a line: ends and news that have a name do, and what goes on at times.

        The pauses are a tenth of what has gone, within bounds.
        """
        now = time.monotonic()
        pause = min(max(LOG_EVERY[0], (now - self.open[0].began) / 10), LOG_EVERY[1])
        return (names != "" and (ends or names not in self.known)) or now - self.logged >= pause

    def _update(self, bundle: dict[str, str]) -> None:
        from IPython.display import display

        if self.display is None:
            self.display = display(bundle, raw=True, display_id=True)
        else:
            self.display.update(bundle, raw=True)

    def erase(self) -> None:
        """Take the line off a terminal."""
        if self.written:
            print(f"\r{' ' * self.written}\r", end="", file=sys.stderr, flush=True)
            self.written = 0


_LINES = _Lines()
_INTERRUPTED = threading.Event()


def _silent() -> bool:
    none = os.environ.get("BGKIT_PROGRESS") == "none" or os.environ.get("RANK", "0") != "0"
    return none or multiprocessing.parent_process() is not None


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def phase(what: str, total: float | None = None, **options: bool) -> Iterator[Phase]:
    """Show what is done inside, if it takes longer than two seconds.

    Call ``advance`` of the :class:`Phase`, of which ``options`` are, for each part of ``total``
    that is done. An empty ``what`` stands for whatever no phase inside tells more of.
    """
    if _INTERRUPTED.is_set():
        _INTERRUPTED.clear()
        raise KeyboardInterrupt
    one = Phase(what, total, **options)
    try:
        _LINES.enter(one)
        yield one
    finally:
        _LINES.leave(one)


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Let no Ctrl-C be lost; yields an event that tells whether there was one.

    Some libraries swallow the exception while they are imported, or make another one of it: the
    next phase then raises it again.
    """

    def interrupt(number: int, frame: object) -> None:
        _INTERRUPTED.set()
        raise KeyboardInterrupt

    _INTERRUPTED.clear()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = usual and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield _INTERRUPTED
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _INTERRUPTED.clear()


def say(text: object, file=None) -> None:
    """Print a line (to standard output), clear of the one that is being shown."""
    with _LINES.lock:
        _LINES.erase()
        print(visible(text), file=file or sys.stdout, flush=True)


class Progress:
    """The line over the steps of a run, a context manager around the work.

    ``start`` sets the step that a resumed run begins at, ``update`` the newest step and its values.
    """

    def __init__(self, total: int, what: str, shown: Mapping[str, str] = SHOWN) -> None:
        self.total, self.what, self.shown = total, what, shown

    def __enter__(self) -> Progress:
        self._phase = Phase(self.what, self.total, stays=True)
        _LINES.enter(self._phase)
        return self

    def __exit__(self, *exception) -> None:
        _LINES.leave(self._phase)

    def start(self, step: int) -> None:
        """Begin at a step."""
        self._phase.first = self._phase.done = step

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Show a step and its values."""
        parts = [f", {name}={values[key]:.2f}" for key, name in self.shown.items() if key in values]
        self._phase.done, self._phase.more = step, "".join(parts)
