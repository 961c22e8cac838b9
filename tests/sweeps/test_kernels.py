"""Replies of a kernel are found, although sending on their socket took their event up."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import noop
import pytest
import zmq
import zmq.asyncio
from jupyter_client import AsyncKernelClient
from jupyter_client.session import Session
from jupyter_core.utils import ensure_event_loop

from bgkit.sweeps import kernels

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test

SESSION = Session(key=b"")


async def reply_while_sending(kind: type, patience: float) -> str:
    """Type of the reply that comes while the client is busy and then sends something itself."""
    with (
        zmq.Context() as there,
        there.socket(zmq.ROUTER) as far,
        zmq.asyncio.Context() as here,
        here.socket(zmq.DEALER) as socket,
    ):
        socket.identity = b"client"
        socket.connect(f"tcp://127.0.0.1:{far.bind_to_random_port('tcp://127.0.0.1')}")
        channel = kind(socket, SESSION, None)
        channel.send(SESSION.msg("execute_request"))
        await asyncio.to_thread(far.recv_multipart)
        waiting = asyncio.ensure_future(channel.get_msg(timeout=None))
        await asyncio.sleep(0.2)  # it waits for the event by now
        SESSION.send(far, SESSION.msg("execute_reply"), ident=b"client")
        time.sleep(0.5)  # not asyncio's: its loop shall not see the event
        channel.send(SESSION.msg("comm_msg"))
        return (await asyncio.wait_for(waiting, patience))["msg_type"]


def test_a_reply_is_found_although_its_event_was_taken_up():
    assert asyncio.run(reply_while_sending(kernels.ReplyChannel, noop.PATIENCE)) == "execute_reply"
    with pytest.raises(asyncio.TimeoutError):  # else the issue is mended, and our channel can go
        asyncio.run(reply_while_sending(AsyncKernelClient.shell_channel_class.default_value, 1))


def test_a_wait_ends_at_its_time():
    async def wait() -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
            await kernels.ReplyChannel(socket, SESSION, None).get_msg(timeout=1.2)

    began = time.monotonic()
    with pytest.raises(queue.Empty):
        asyncio.run(wait())
    assert time.monotonic() - began > 1.19


def test_a_kernel_that_starts_after_the_stop_is_ended_and_no_other(tmp_path: Path) -> None:
    driver = kernels.Driver()
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleeps, start_new_session=True) as other:  # saves its work, so to say
        try:
            driver.kernels.add(other)
            driver.stopped.set()
            manager = type("Manager", (kernels.KernelManager,), {"driver": driver})
            with pytest.raises(RuntimeError):
                kernels.execute(noop.notebook(tmp_path), tmp_path / "done.ipynb", {}, manager)
            assert other.poll() is None
            (started,) = driver.kernels - {other}
            assert started.wait(noop.PATIENCE) is not None
        finally:
            other.kill()


def test_threads_that_share_a_context_run_notebooks_at_once_with_that_channel(tmp_path) -> None:
    """As dask's threads do, where jupyter has left its event loop in the context."""
    ensure_event_loop()
    book, ledger = noop.notebook(tmp_path), str(tmp_path / "ledger")
    real = kernels.ReplyChannel.get_msg
    with (
        mock.patch.object(kernels.ReplyChannel, "get_msg", autospec=True, side_effect=real) as get,
        ThreadPoolExecutor(2) as pool,
    ):
        for seed in range(2):
            run, out = contextvars.copy_context().run, tmp_path / f"{seed}.ipynb"
            given = {"SEED": seed, "LEDGER": ledger, "T": 2.0}
            pool.submit(run, kernels.execute, book, out, given)
    assert noop.ledger(tmp_path) == ["a 0", "a 1"] and get.called
