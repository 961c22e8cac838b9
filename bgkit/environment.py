"""What a process runs in: variables that libraries read on import, and versions of packages.

Set the variables before importing torch. ``import bgkit`` alone changes nothing, and variables that
the user has set are kept.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

#: Silences the libraries' messages.
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore::FutureWarning",  # for worker processes
}
#: Lets waiting OpenMP threads sleep, which costs 10 % on an idle machine. By default they spin,
#: which makes a step thirty times slower when another process is busy.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
#: Variables that set how threads wait: any OpenMP; GNU; Intel and LLVM.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
#: Packages whose versions every run records.
RECORDED = ("bgkit", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")


def wait_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that let waiting threads sleep; empty if the environment sets how they wait."""
    return {} if any(name in environment for name in WAITING) else PASSIVE


def with_defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment with quiet libraries and sleeping threads, unless it sets them otherwise.

    >>> with_defaults({"GOMP_SPINCOUNT": "100"}).get("OMP_WAIT_POLICY")
    >>> with_defaults({})["OMP_WAIT_POLICY"]
    'PASSIVE'
    """
    return {**QUIET, **wait_settings(environment), **environment}


def prepare() -> None:
    """Apply :func:`with_defaults` to this process; call it before torch is imported."""
    os.environ.update(with_defaults(os.environ))
    warnings.filterwarnings("ignore", category=FutureWarning)


def cache_folder() -> Path:
    """What is made once: ``BGKIT_CACHE``, or ``.cache/bgkit`` in the home folder."""
    return Path(os.environ.get("BGKIT_CACHE") or Path.home() / ".cache" / "bgkit").expanduser()


def versions() -> dict[str, str]:
    """Versions of Python and the packages that determine a result, and of bgkit's code.

    ``git`` is its commit; ``bgkit_code`` distinguishes checkouts of the same version. Both are
    computed on each call, because a sweep's kernels load the code that is there when they start.
    """
    result = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            result[name] = "not installed"
    return {**result, "bgkit_code": code_digest(), "git": git_revision()}


def git_revision() -> str:
    """The commit of the source checkout that this code runs from; ``+`` marks local changes."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    options = {"capture_output": True, "text": True, "timeout": 10, "check": True}
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def code_digest(package: Path = Path(__file__).parent) -> str:
    """12 hex digits that identify a package's sources: names and text of all its .py files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        text = path.read_bytes().replace(b"\r\n", b"\n")  # line endings of a Windows checkout
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()[:12]
