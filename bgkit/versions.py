"""Versions of the packages that determine a result, read without importing them."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

#: Packages whose versions every run records.
RECORDED = ("bgkit", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine a result, and a digest of bgkit's code.

    ``bgkit_code`` distinguishes checkouts of the same version. It is computed on each call,
    because the kernels of a sweep load the code that is present when they start.
    """
    result = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            result[name] = "not installed"
    return {**result, "bgkit_code": code_digest()}


def code_digest(package: Path = Path(__file__).parent) -> str:
    """12 hex digits that identify a package's sources: names and text of all its .py files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        text = path.read_bytes().replace(b"\r\n", b"\n")  # line endings of a Windows checkout
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()[:12]
