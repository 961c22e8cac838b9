"""A lock of the operating system, by which the processes of a sweep keep out of each other's way.

It ends with the last process that holds it or inherited it. The lock is ``flock``: where machines
share a folder, its file system must take such a lock across machines. NFS 4 does (unless mounted
with ``nolock`` or ``local_lock``), CephFS does, Lustre does if mounted with ``flock`` (not
``localflock``). Elsewhere, start one sweep at a time in a folder, and see that the workers of a
crashed one have ended before you start it again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bgkit.errors import BgkitError

try:
    import fcntl
except ImportError:  # Windows: do not start two sweeps in one folder at the same time there
    fcntl = None

WAIT = 0.5  # seconds between two tries to get a lock


@contextlib.contextmanager
def held(path: Path, stopped: Callable[[], bool] = lambda: False) -> Iterator[int | None]:
    """Hold the lock of a file: waits while another process does; None if ``stopped`` meanwhile.

    Gives the descriptor; a process that inherits it holds the lock, too. Raises BgkitError where
    the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not stopped() and not _taken(descriptor, path):
            time.sleep(WAIT)
        yield None if stopped() else descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int, path: Path) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BgkitError(
            f"The file system of {path.parent} has no locks ({error.strerror}), so that a run "
            "could be executed twice; choose a folder on one that has (see bgkit.runs.locks)."
        ) from error
    return True
