"""Named combinations of policy, guard, reward model and prompts (``data/presets.yaml``)."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd

from bgkit.data import data_folder, read_data
from bgkit.errors import BgkitError
from bgkit.fitting import fit
from bgkit.runs import Run, TrainConfig, load_run, make_config

_DATA = read_data("presets.yaml")
#: name -> settings of a run (as in TrainConfig) and ``machine``, a key of
#: bgkit.training.plan.GPUS or cpu; hub name -> shape of a model.
PRESETS, SHAPES = _DATA["presets"], _DATA["shapes"]


def choose(name: str, **own: object) -> TrainConfig:
    """The config of a preset, with those of ``own`` that are neither empty nor 0.

    Raises BgkitError for an unknown preset.

    >>> choose("testbed-cpu", policy="tiny", guard="", steps=0).steps
    12
    """
    if name not in PRESETS:
        raise BgkitError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    settings = PRESETS[name] | {key: value for key, value in own.items() if value}
    return make_config({key: value for key, value in settings.items() if key != "machine"})


def shipped_run(config: TrainConfig) -> Run | None:
    """The English run with this config that is shipped with its adapter, or None."""
    for adapter in sorted((data_folder() / "runs" / "english").glob("*/adapter")):
        run = load_run(adapter.parent)
        if replace(run.config, accumulation=config.accumulation) == config:
            return run
    return None


def shipped_fits() -> pd.DataFrame:
    """Quality of the shipped English guard and judge of harm: mean, low, high, n by metric."""
    paths = {name: data_folder() / "english" / name for name in ("guard", "auditor/harm")}
    fits = {
        name: json.loads((path / "fit.json").read_text("utf-8")) for name, path in paths.items()
    }
    return pd.concat({name: fit.results(each) for name, each in fits.items()}, names=["model"])
