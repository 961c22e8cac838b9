"""bgkit: what happens where a generator meets its safety filter, and how to train for the pair.

The rooms, in the order in which data flows; a room imports only those above it in this list:

- :mod:`bgkit.rewards`, :mod:`bgkit.checks`, :mod:`bgkit.progress`, ...: what every room needs
- :mod:`bgkit.testbed`: the embedded world, its computable truth, and where its models lie
- :mod:`bgkit.runs`: a run's config, its folder, and what is kept on disk
- :mod:`bgkit.models`: loading, devices, chat templates, adapters, policies that sample completions
- :mod:`bgkit.scoring`: a guard's t in [0, 1] and a utility's u of each completion
- :mod:`bgkit.prompts`: prompt sets, files and logs, splits, composed benchmarks
- :mod:`bgkit.evaluation`: samples, metrics with intervals, calibration, thresholds, judges
- :mod:`bgkit.fitting`: guards and reward models from labels
- :mod:`bgkit.training`: one GRPO run on a reward; its plan of memory and time; sharing it
- :mod:`bgkit.figures`: every figure, and the report
- :mod:`bgkit.sweeps`: designs side by side, grids of notebook runs, the ablation's tables
- :mod:`bgkit.stress`: trained pairs under deployments that they were not trained for
- :mod:`bgkit.widgets`: explorers, the training dashboard, the completions' browser
- :mod:`bgkit.cli`: the command line

The public names below are loaded when they are first used, so that ``import bgkit`` is quick.
"""

import os
import sys
from importlib import import_module, metadata

from bgkit import environment

#: public name -> module that holds it
_WHERE = {
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
    "start": "sweeps.notebooks",
    "BgkitError": "errors",
}
#: rooms that notebooks use by their names
_ROOMS = ("figures", "widgets")
__all__ = list(_WHERE)

try:
    __version__ = metadata.version("bgkit")
except metadata.PackageNotFoundError:  # run from a source folder that was not installed
    __version__ = "unknown"


def __getattr__(name: str):
    if name not in _WHERE and name not in _ROOMS:
        raise AttributeError(f"module 'bgkit' has no attribute {name!r}")
    if "torch" not in sys.modules:  # which hears of this only while it is loaded
        os.environ.update(environment.passive(os.environ))
    module = import_module(f"bgkit.{_WHERE.get(name, name)}")
    return module if name in _ROOMS else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_ROOMS])
