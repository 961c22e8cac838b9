"""bgkit: train and evaluate a language model together with the safety guard that filters it.

Data flow from prompts through a policy's completions, the guard's t and the utility's u, a reward
and GRPO into a run folder, and from there through an evaluation and its tables and figures into a
notebook. The rooms, from the ground up; a room imports only those above it in this list:

- :mod:`bgkit.rewards`, :mod:`bgkit.data`, :mod:`bgkit.progress`, ...: shared by all rooms
- :mod:`bgkit.testbed`: the embedded world, its computable ground truth, and its models
- :mod:`bgkit.runs`: a run's config, its folder, and its files
- :mod:`bgkit.models`: loading, devices, chat templates, adapters, policies that sample completions
- :mod:`bgkit.scoring`: a guard's t in [0, 1] and a utility's u for each completion
- :mod:`bgkit.prompts`: prompt sets, files and logs, splits, composed benchmarks
- :mod:`bgkit.evaluation`: samples, metrics with intervals, calibration, thresholds, judges
- :mod:`bgkit.fitting`: guards and reward models from labels
- :mod:`bgkit.training`: one GRPO run on a reward; memory and time estimates; sharing a run
- :mod:`bgkit.figures`: every figure, and the report
- :mod:`bgkit.sweeps`: designs side by side, grids of notebook runs, the ablation's tables
- :mod:`bgkit.stress`: trained policies and guards in deployments they were not trained for
- :mod:`bgkit.widgets`: explorers, the training dashboard, the completion browser
- :mod:`bgkit.cli`: the command line

Public names are imported on first use, so ``import bgkit`` is fast.
"""

import os
import sys
from importlib import import_module, metadata

from bgkit import environment

#: public name -> module that defines it
_MODULES = {
    "TrainConfig": "runs",
    "train": "training.trainer",
    "load_run": "runs",
    "evaluate": "evaluation.evaluate",
    "compare": "sweeps.comparison",
    "table": "evaluation.results",
    "sample": "evaluation.evaluate",
    "sweep": "sweeps.drive",
    "load_policy": "models.policies",
    "fit_guard": "fitting.fit",
    "fit_utility": "fitting.fit",
    "load_guard": "scoring.guards",
    "load_utility": "scoring.guards",
    "load_judge": "evaluation.judges",
    "load_prompts": "prompts.load",
    "as_guard": "scoring.adapters",
    "start": "models.notebooks",
    "BgkitError": "errors",
}
#: rooms available as ``bgkit.ROOM``
_ROOMS = ("figures", "widgets")
__all__ = list(_MODULES)

try:
    __version__ = metadata.version("bgkit")
except metadata.PackageNotFoundError:  # a source checkout that is not installed
    __version__ = "unknown"


def __getattr__(name: str):
    if name not in _MODULES and name not in _ROOMS:
        raise AttributeError(f"module 'bgkit' has no attribute {name!r}")
    if "torch" not in sys.modules:  # torch reads these only on import
        os.environ.update(environment.wait_settings(os.environ))
    module = import_module(f"bgkit.{_MODULES.get(name, name)}")
    return module if name in _ROOMS else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_ROOMS])
