"""Environment variables that libraries read on import; set them before importing torch.

``import bgkit`` alone changes nothing, and variables that the user has set are kept.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

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
