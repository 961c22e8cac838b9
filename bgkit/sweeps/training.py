"""What is wrong with the configs of runs that train, found before a sweep starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bgkit.evaluation import judges
from bgkit.models import hub
from bgkit.prompts import compose, sets
from bgkit.prompts import load as prompts
from bgkit.runs import TrainConfig
from bgkit.testbed import store
from bgkit.training import shapes


def check(configs: Sequence[TrainConfig]) -> None:
    """Raise BgkitError for models and prompts that a training would refuse, each looked at once.

    What comes over the network (a name on the hub, a public prompt set) is left to the training.
    """
    for group in ("policy", "guard", "utility", "judge"):
        for name in dict.fromkeys(getattr(config, group) for config in configs):
            _check_model(group, name)
    for name, validation in dict.fromkeys((c.prompts, c.eval_every > 0) for c in configs):
        if not _fetched(name):
            splits = ("train", "test", "validation")[: 2 + validation]
            prompts.manifests(name, dict.fromkeys(splits, (1, 0)))


def _check_model(group: str, name: str) -> None:
    if group == "judge":
        judges.check_judge(name)
    elif hub.local_folder(group, name) is not None:
        shapes.shape_of(group, name)  # no training could load a folder without a usable config
    elif hub.parse(name) is None:
        store.model_path(group, name)


def _fetched(prompt_set: str) -> bool:
    """Whether a prompt set comes over the network."""
    if prompt_set in compose.BENCHMARKS or prompt_set in sets.SETS:
        return True
    return not Path(prompt_set).expanduser().exists() and hub.parse(prompt_set) is not None
