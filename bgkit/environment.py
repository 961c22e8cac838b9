"""What libraries read from the environment when they are loaded: set it before torch is.

Nothing here happens by ``import bgkit``, and what the user's environment says already is left.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

#: Keeps the libraries' chatter off the terminal and out of outputs.
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore::FutureWarning",  # for worker processes
}
#: Threads of OpenMP that wait for each other sleep, which costs a tenth on an idle machine. By
#: default they spin, and beside another busy process a step takes thirty times as long.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
#: By these a user says how threads wait (any OpenMP; GNU's; Intel's and LLVM's).
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def passive(environment: Mapping[str, str]) -> dict[str, str]:
    """What makes waiting threads sleep; nothing where an environment says how they wait."""
    return {} if any(name in environment for name in WAITING) else PASSIVE


def completed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment with quiet libraries and threads that do not spin, unless it says otherwise.

    >>> completed({"GOMP_SPINCOUNT": "100"}).get("OMP_WAIT_POLICY")
    >>> completed({})["OMP_WAIT_POLICY"]
    'PASSIVE'
    """
    return {**QUIET, **passive(environment), **environment}


def prepare() -> None:
    """Complete this process's environment; what torch reads is heard only before it is loaded."""
    os.environ.update(completed(os.environ))
    warnings.filterwarnings("ignore", category=FutureWarning)
