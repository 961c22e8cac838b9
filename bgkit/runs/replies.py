"""Judges' replies on disk: one small file each, so threads and processes can share a folder.

Keys are hashes of all that determines a reply (:func:`bgkit.data.hash_of`); prompts, responses and
secrets are not stored.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from bgkit.runs.folders import write_json


def default_folder() -> Path:
    """The cache folder: ``BGKIT_CACHE``, or ``.cache/bgkit`` in the home folder."""
    return Path(os.environ.get("BGKIT_CACHE") or Path.home() / ".cache" / "bgkit").expanduser()


class Replies:
    """Replies by key; with a folder they persist across processes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._replies: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """The reply of a key, or None."""
        if key not in self._replies and self.folder is not None:
            with contextlib.suppress(OSError, ValueError):  # missing or unreadable
                text = (self.folder / f"{key}.json").read_text(encoding="utf-8")
                self._replies[key] = json.loads(text)
        return self._replies.get(key)

    def put(self, key: str, reply: str) -> None:
        """Store a reply; raises BgkitError if its file cannot be written."""
        self._replies[key] = reply
        if self.folder is not None:
            write_json(self.folder / f"{key}.json", reply)
