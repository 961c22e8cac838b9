"""What is wrong with the configs of runs that train, found before a sweep starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bgkit.errors import BgkitError
from bgkit.evaluation import judges
from bgkit.models import hub
from bgkit.prompts import compose, sets
from bgkit.prompts import load as prompts
from bgkit.runs import TrainConfig
from bgkit.testbed import store
from bgkit.training import shapes

MODELS = ("policy", "guard", "utility", "judge")
JUDGES = ("none", "oracle")  # that are no model


def check(configs: Sequence[TrainConfig]) -> None:
    """Raise BgkitError for models and prompts that a training would refuse, each looked at once.

    What comes over the network (a name on the hub, a public prompt set) is left to the training.
    """
    for group in MODELS:
        for name in dict.fromkeys(getattr(config, group) for config in configs):
            _check_model(group, name)
    asked = ((config.prompts, config.eval_every > 0) for config in configs)
    for name, validation in dict.fromkeys(asked):
        _check_prompts(name, ("train", "test", *(["validation"] if validation else [])))


def _check_model(group: str, name: str) -> None:
    """Raise BgkitError for a model that is neither embedded nor a folder nor on the hub."""
    if group == "judge" and name.startswith("api:"):
        judges.check_judge(name)  # its key and client; nothing is asked
        return
    if group == "judge" and name in JUDGES:
        return
    if hub.local_folder(group, name) is not None:
        if group != "judge":
            shapes.shape_of(group, name)  # no training could load a folder without a usable config
        return
    if hub.parse(name) is not None:
        return
    if name not in (known := store.model_names(group)):
        raise BgkitError(
            f"There is no embedded {group} {name!r}; choose one of {', '.join(known)}, or give "
            "the path of a local folder."
        )


def _check_prompts(name: str, splits: Sequence[str]) -> None:
    """Raise BgkitError for prompts of this machine that lack a split, or are none at all."""
    if not _fetched(name):
        prompts.manifests(name, {split: (1, 0) for split in splits})


def _fetched(prompt_set: str) -> bool:
    """Whether a prompt set comes over the network."""
    if prompt_set in compose.BENCHMARKS or prompt_set in sets.SETS:
        return True
    return not Path(prompt_set).expanduser().exists() and hub.parse(prompt_set) is not None
