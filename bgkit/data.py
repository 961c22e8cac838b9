"""The kit's data files, in a source checkout or in the wheel; hashes of files and of values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import yaml


def data_folder() -> Path:
    """The kit's data: ``data/`` of a source checkout, else the wheel's copy."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "data"
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "_data"


def read_data(*path: str) -> dict:
    """Read a YAML file, given its path below :func:`data_folder`."""
    return yaml.safe_load(data_folder().joinpath(*path).read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of(**parts: object) -> str:
    """Hex sha256 of named parts (any JSON values), independent of their order.

    >>> hash_of(a=1, b=[2]) == hash_of(b=[2], a=1) != hash_of(a=1, b=[3])
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
