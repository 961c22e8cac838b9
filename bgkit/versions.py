"""Versions of what determines a result; without importing any of it."""

from __future__ import annotations

import platform
from importlib import metadata

#: The packages whose versions are recorded with every run.
RECORDED = ("bgkit", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine a result."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
