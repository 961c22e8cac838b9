"""Judges' replies on disk: one JSONL file that several threads and processes may write to.

A refusal is kept as a reply is: as an empty one with its ``problem``.
Each line is appended by one write, so that lines of two processes do not mix; one that is damaged
(a full disk, a killed process, an edit) is ignored and counted, and its question asked again. Keys
are hashes of all that determines an answer; prompts, responses and secrets are not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from pathlib import Path

from bgkit.errors import BgkitError

FILE = "judge-replies.jsonl"


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

    ``damaged`` counts the lines that were ignored.
    """

    def __init__(self, folder: Path | None = None, file: str = FILE) -> None:
        self.path = None if folder is None else Path(folder).expanduser() / file
        self.damaged = 0
        self._known: dict[str, tuple[str, str]] = {}
        self._read = 0  # bytes of the file that were read
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read what was appended since the last time, by whomever; warns of damaged lines."""
        if self.path is None or not self.path.is_file():
            return
        with self._lock, self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()  # someone is just writing it, or died there
            self._read += sum(map(len, lines))
            entries = [_entry(line) for line in lines if line.strip()]
        self._known |= dict(entry for entry in entries if entry is not None)
        if damaged := entries.count(None):
            self.damaged += damaged
            warnings.warn(
                f"{damaged} damaged lines of {self.path} are ignored; what they held is asked for "
                "again.",
                stacklevel=3,
            )

    def get(self, key: str) -> str | None:
        """The reply of a key, or None."""
        return self._known[key][0] if key in self._known else None

    def problem(self, key: str) -> str:
        """Why the reply of a key is empty, if it was refused."""
        return self._known[key][1] if key in self._known else ""

    def put(self, key: str, reply: str, problem: str = "") -> None:
        """Keep a reply or a refusal; raises BgkitError if the file can not be written."""
        self._known[key] = (reply, problem)
        if self.path is None:
            return
        entry = {"key": key, "reply": reply} | ({"problem": problem} if problem else {})
        entry["sum"] = _sum(entry)
        line = f"\n{json.dumps(entry)}\n".encode()  # its own line even after a torn one
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self.path.open("ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError("the disk is full")
        except OSError as error:
            raise BgkitError(
                f"Could not write {self.path}: {error.strerror or error}. Free some space or set "
                "BGKIT_CACHE to another folder; the same command then goes on where it stopped."
            ) from error


def _sum(entry: dict[str, str]) -> str:
    return key_of(**entry)[:12]


def _entry(line: bytes) -> tuple[str, tuple[str, str]] | None:
    """Key, reply and problem of a line, or None if it is damaged."""
    try:
        entry = json.loads(line)
        whole = entry.pop("sum") == _sum(entry)
        return (entry["key"], (entry["reply"], entry.get("problem", ""))) if whole else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
