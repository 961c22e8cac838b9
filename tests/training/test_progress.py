"""What goes on is shown, in few lines and harmless ones; Ctrl-C is heard; waiting threads sleep."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from jupyter_client import AsyncKernelManager

from bgkit import environment, progress
from bgkit.models import devices
from bgkit.progress import phase
from bgkit.sweeps import kernels


@pytest.fixture
def quick(monkeypatch) -> None:
    """Phases show themselves at once."""
    monkeypatch.delenv("BGKIT_PROGRESS")
    monkeypatch.setattr(progress, "AFTER", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.01)


def watching() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "progress"]


def test_the_innermost_phase_that_lasts_is_shown_and_what_is_left(quick, capsys) -> None:
    with phase("evil \x1b[2J\r\nname"), phase("inner", 4) as shown:
        shown.advance(3)
        time.sleep(0.1)
    # a stalled machine may show the outer phase, too, while it alone is open
    shown = [line for line in capsys.readouterr().err.splitlines() if ", inner" in line]
    assert shown[-1] == "evil ⟨U+001B⟩[2J name, inner: 3/4 [0:00 gone, 0:00 left]"
    assert len(shown) == 2  # its beginning and its end


def test_no_thread_outlives_a_phase_that_fails(quick, capsys) -> None:
    with pytest.raises(ZeroDivisionError), phase("outer"), phase("inner"):
        time.sleep(0.05)
        assert watching()
        raise ZeroDivisionError
    time.sleep(0.05)
    assert not watching()


def test_short_phases_workers_and_other_threads_show_nothing(quick, capsys, monkeypatch) -> None:
    with phase("short"):
        pass
    with phase("", hidden=True):
        inner = threading.Thread(target=lambda: phase("thread").__enter__())
        inner.start()
        inner.join()
        time.sleep(0.05)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    with phase("worker"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_a_log_of_a_day_has_few_lines(monkeypatch) -> None:
    lines, now = progress._Lines(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines.open, written = [progress.Phase("training", 10)], []
    for second in range(24 * 3600):
        now[0] = float(second)
        if lines._worth_a_line("training", ends=False):
            written.append(second)
            lines.logged = now[0]
            lines.known.add("training")
    assert written[:4] == [0, 10, 20, 30] and len(written) < 400


@pytest.fixture
def python_hears_ctrl_c() -> Iterator[None]:
    """Ctrl-C is an exception, whatever handler another test's notebook left in this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler) or signal.SIG_DFL
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_a_library_swallows_is_heard_by_the_next_phase(python_hears_ctrl_c) -> None:
    with progress.interruptible() as interrupted:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except BaseException:
            assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt), phase("next"):
            raise AssertionError("not reached")
        with phase("heard only once"):
            pass


def test_ctrl_c_ends_workers_and_what_has_not_begun() -> None:
    others = multiprocessing.active_children()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), devices.workers(1) as pool:
        assert pool.submit(os.getenv, "OMP_WAIT_POLICY").result() == "PASSIVE"
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
        for _ in range(3):
            pool.submit(time.sleep, 60)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == others


# --- how threads wait -----------------------------------------------------------------------


@pytest.mark.parametrize(("told", "waits"), [({}, "PASSIVE"), ({"GOMP_SPINCOUNT": "9"}, "None")])
def test_only_the_first_use_of_bgkit_sets_how_threads_wait(told: dict, waits: str) -> None:
    code = "import os; e = dict(os.environ); import bgkit; print(e == os.environ, end=' ')"
    code += "; bgkit.BgkitError; print(os.environ.get('OMP_WAIT_POLICY'))"
    kept = {k: v for k, v in os.environ.items() if k not in environment.WAITING}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**kept, **told}, capture_output=True, text=True)
    assert done.stdout.split() == ["True", waits]


def test_kernels_wait_as_the_user_says_and_show_nothing(monkeypatch) -> None:
    seen = {}

    async def start(self, *, env, **options):
        seen.update(env)

    monkeypatch.setattr(AsyncKernelManager, "start_kernel", start)
    asyncio.run(kernels.KernelManager().start_kernel(env={}))
    assert (seen["OMP_WAIT_POLICY"], seen["BGKIT_PROGRESS"]) == ("PASSIVE", "none")
    seen.clear()
    asyncio.run(kernels.KernelManager().start_kernel(env={"KMP_BLOCKTIME": "1"}))
    assert "OMP_WAIT_POLICY" not in seen
