"""bgkit: what happens where a generator meets its safety filter, and how to train for the pair.

The public names below are loaded when they are first used, so that ``import bgkit`` is quick.
"""

import os
import sys
from importlib import import_module, metadata

from bgkit import environment

#: public name -> module that holds it
_WHERE = {
    "BgkitError": "errors",
    "TrainConfig": "runs",
    "make_config": "runs",
    "load_run": "runs",
    "compute_reward": "rewards",
    "load_guard": "scoring.guards",
    "load_utility": "scoring.utilities",
    "load_policy": "models.policies",
    "load_judge": "evaluation.judges",
    "load_prompts": "prompts.load",
    "train": "training.trainer",
    "sample_policy": "evaluation.samples",
    "summarise": "evaluation.samples",
    "compare": "training.comparison",
    "sweep": "sweeps.drive",
    "write_report": "figures.report",
}
__all__ = list(_WHERE)

try:
    __version__ = metadata.version("bgkit")
except metadata.PackageNotFoundError:  # run from a source folder that was not installed
    __version__ = "unknown"


def __getattr__(name: str):
    if name in _WHERE:
        if "torch" not in sys.modules:  # which hears of this only while it is loaded
            os.environ.update(environment.passive(os.environ))
        return getattr(import_module(f"bgkit.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'bgkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
