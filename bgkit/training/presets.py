"""Named combinations of policy, guard, reward model and prompts (``data/presets.yaml``)."""

from __future__ import annotations

from dataclasses import replace

from bgkit.errors import BgkitError
from bgkit.runs import Run, TrainConfig, load_run
from bgkit.testbed.store import data_folder, read_data

_DATA = read_data("presets.yaml")
#: name -> settings of a run (as in TrainConfig), and ``machine``, a key of
#: bgkit.training.plan.GPUS or cpu; hub name -> shape of a model. See ``data/presets.yaml``.
PRESETS, SHAPES = _DATA["presets"], _DATA["shapes"]


def choose(name: str, **own: object) -> dict:
    """Settings of a preset without ``machine``; what is given in ``own`` replaces its values.

    Values of ``own`` that are empty or zero leave the preset's. Raises BgkitError for an unknown
    preset.

    >>> choose("testbed-cpu", policy="tiny", guard="", steps=0)["policy"]
    'tiny'
    """
    if name not in PRESETS:
        raise BgkitError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    given = {key: value for key, value in own.items() if value}
    settings = {key: value for key, value in PRESETS[name].items() if key != "machine"}
    return {**settings, **given}


def shipped(config: TrainConfig) -> Run | None:
    """The English run of this config that comes with the kit, with its adapter, or None."""
    found = sorted((data_folder() / "runs" / "english").glob("*/config.json"))
    for run in (load_run(path.parent) for path in found if (path.parent / "adapter").is_dir()):
        if replace(run.config, accumulation=config.accumulation) == config:  # the same, in parts
            return run
    return None
