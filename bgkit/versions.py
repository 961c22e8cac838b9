"""Versions of what determines a result; without importing any of it."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

#: The packages whose versions are recorded with every run.
RECORDED = ("bgkit", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine a result, and bgkit's own code.

    ``bgkit_code`` tells two checkouts of the same version apart. It is read anew each time, as the
    kernels of a sweep, too, take the code that is there when they start.
    """
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "bgkit_code": code_digest()}


def code_digest(package: Path = Path(__file__).parent) -> str:
    """12 hex digits that identify a package's sources: names and text of all its .py files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        text = path.read_bytes().replace(b"\r\n", b"\n")  # as a checkout on Windows has them
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()[:12]
