"""Judges' replies on disk: an SQLite file that several threads and processes may write to.

Keys are hashes of all that determines a reply; prompts, responses and secrets are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from bgkit.errors import BgkitError

FILE = "judge-replies.sqlite"
WAIT = 60.0  # seconds for another process to end its writing


def default_folder() -> Path:
    """Where replies are kept: ``BGKIT_CACHE``, or ``.cache/bgkit`` in the home folder."""
    return Path(os.environ.get("BGKIT_CACHE") or Path.home() / ".cache" / "bgkit")


def key_of(**parts: object) -> str:
    """sha256 of named parts (anything that JSON can hold), whatever their order.

    >>> key_of(a=1, b=[2]) == key_of(b=[2], a=1) != key_of(a=1, b=[3])
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Replies:
    """Replies by key, in a folder's file or, for None, only in memory.

    Raises BgkitError, here and later, for a file that can not be read or written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = None if folder is None else Path(folder).expanduser() / FILE
        self._lock = threading.Lock()
        with self._told():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                self.path or ":memory:", WAIT, isolation_level=None, check_same_thread=False
            )
        self._do("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply)")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise BgkitError(
                f"The replies in {self.path} can not be read or written ({error}); free some "
                "space, remove the file, or set BGKIT_CACHE to another folder. The same command "
                "then goes on."
            ) from error

    def _do(self, statement: str, *values: str) -> list[tuple[str]]:
        with self._told(), self._lock:
            return self._file.execute(statement, values).fetchall()

    def get(self, key: str) -> str | None:
        """The reply of a key, or None."""
        found = self._do("SELECT reply FROM replies WHERE key = ?", key)
        return found[0][0] if found else None

    def put(self, key: str, reply: str) -> None:
        """Keep a reply."""
        self._do("INSERT OR REPLACE INTO replies (key, reply) VALUES (?, ?)", key, reply)
