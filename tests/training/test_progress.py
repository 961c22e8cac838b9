"""What goes on is shown, in few lines and harmless ones; Ctrl-C is heard; waiting threads sleep."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import IPython
import noop
import pytest
import tqdm.notebook
from conftest import PATIENCE
from jupyter_client import AsyncKernelManager

from bgkit import environment, progress
from bgkit.cli import options
from bgkit.models import devices
from bgkit.progress import Phase, phase
from bgkit.sweeps import kernels
from bgkit.training.callback import RunCallback


@pytest.fixture
def quick(monkeypatch) -> None:
    """Phases show themselves at once."""
    monkeypatch.delenv("BGKIT_PROGRESS")
    monkeypatch.setattr(progress, "AFTER", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.01)


def test_phases_that_last_are_told_with_what_is_left_and_harmlessly(quick, capsys) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        phase("evil \x1b[2J\r\nname"),
        phase("inner", 4) as shown,
    ):
        shown.advance(3)
        noop.until(lambda: shown.due > 0.02 * 3)  # it was shown twice
        progress.say("evil \x1b[2J")
        raise ZeroDivisionError
    out, err = capsys.readouterr()
    assert out == "evil ⟨U+001B⟩[2J\n"
    told = err.splitlines()
    assert any(re.fullmatch(r"evil ⟨U\+001B⟩\[2J name \[[:\d]+\]", line) for line in told)
    lines = [line for line in told if re.fullmatch(r"inner: 3/4 .*\[[:\d]+<[:\d]+\]", line)]
    assert shown.due == pytest.approx(0.02 * 2 ** len(lines))  # each after twice the time before
    noop.until(lambda: "progress" not in [thread.name for thread in threading.enumerate()])


def test_a_line_shown_before_the_run_is_resumed_tells_values_and_the_time_left(capsys) -> None:
    """Ten steps took 1000 s, ten are left; the 20 of an earlier session count for nothing."""
    line = Phase("training", 40, began=time.time() - 1000)
    line.show()
    callback = RunCallback(None, None, None, lambda: False)
    callback.progress = line
    callback.on_train_begin(None, SimpleNamespace(global_step=20), None)
    callback.on_log(None, SimpleNamespace(global_step=30), None, {"reward": -1.234, "loss": 7.0})
    line.show()
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"training: 30/40 .{20} \[1[67]:\d\d<1[67]:\d\d, reward=-1.23\]", last)


def test_a_notebook_shows_one_bar_that_goes_at_the_end_even_if_not_full(monkeypatch) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel="any"))
    monkeypatch.setattr(progress, "tqdm", tqdm.notebook.tqdm)
    line = Phase("grading", 4, done=1)
    line.show()
    text, bar, _ = line.bar.container.children
    assert "grading" in text.value and (bar.value, bar.max) == (1, 4)
    line.close()
    assert bar.bar_style != "danger" and line.bar.container.layout.visibility == "hidden"


def test_short_and_hidden_phases_and_workers_show_nothing(quick, capsys, monkeypatch) -> None:
    def work() -> None:
        with phase("inner"):
            time.sleep(0.05)

    with phase("hidden", hidden=True):
        work()
    with monkeypatch.context() as worker:
        worker.setattr(multiprocessing, "parent_process", lambda: object())
        work()
    with monkeypatch.context() as unwanted:
        unwanted.setenv("BGKIT_PROGRESS", "none")
        work()
    monkeypatch.setattr(progress, "AFTER", 600.0)
    work()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("usual", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_while_libraries_load_can_not_be_swallowed(usual) -> None:
    before = signal.signal(signal.SIGINT, usual)
    try:
        with options.loading():
            inside = signal.getsignal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == usual
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    assert inside == (signal.SIG_IGN if usual == signal.SIG_IGN else signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_ends_workers_and_what_has_not_begun() -> None:
    others = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt), devices.worker_pool(1) as pool:
        assert pool.submit(os.getenv, "OMP_WAIT_POLICY").result() == "PASSIVE"
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
        for _ in range(3):
            pool.submit(time.sleep, PATIENCE)
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < PATIENCE / 2
    assert multiprocessing.active_children() == others


def test_the_first_use_of_bgkit_lets_waiting_threads_sleep() -> None:
    code = "import os, bgkit; bgkit.BgkitError; print(os.environ['OMP_WAIT_POLICY'])"
    kept = {k: v for k, v in os.environ.items() if k not in environment.WAITING}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True)
    assert done.stdout == "PASSIVE\n"


def test_kernels_wait_as_the_user_says_and_show_nothing(monkeypatch) -> None:
    seen = []

    async def start(self, *, env, **options):
        seen.append((env.get("OMP_WAIT_POLICY"), env["BGKIT_PROGRESS"]))

    monkeypatch.setattr(AsyncKernelManager, "start_kernel", start)
    for told in ({}, {"KMP_BLOCKTIME": "1"}):
        asyncio.run(kernels.KernelManager().start_kernel(env=told))
    assert seen == [("PASSIVE", "none"), (None, "none")]
