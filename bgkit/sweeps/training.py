"""What a sweep knows of runs that train: what is wrong with their configs, how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bgkit.errors import BgkitError

if TYPE_CHECKING:
    from bgkit.runs import TrainConfig

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
    from bgkit.models import hub
    from bgkit.testbed import store

    if group == "judge" and name.startswith("api:"):
        from bgkit.evaluation import judges

        judges.check_judge(name)  # its key and client; nothing is asked
        return
    if group == "judge" and name in JUDGES:
        return
    if hub.local_folder(group, name) is not None or hub.parse(name) is not None:
        return
    if name not in (known := store.model_names(group)):
        raise BgkitError(
            f"There is no embedded {group} {name!r}; choose one of {', '.join(known)}, or give "
            "the path of a local folder."
        )


def _check_prompts(name: str, splits: Sequence[str]) -> None:
    """Raise BgkitError for prompts of this machine that lack a split, or are none at all."""
    from bgkit.prompts import load as prompts

    if not _fetched(name):
        prompts.manifests(name, {split: (1, 0) for split in splits})


def _fetched(prompt_set: str) -> bool:
    """Whether a prompt set comes over the network."""
    from bgkit.models import hub
    from bgkit.prompts import compose as benchmarks
    from bgkit.prompts import sets

    if prompt_set in benchmarks.BENCHMARKS or prompt_set in sets.SETS:
        return True
    return not Path(prompt_set).expanduser().exists() and hub.parse(prompt_set) is not None


def seconds_of(configs: Sequence[TrainConfig]) -> float | None:
    """Mean seconds of trainings, by :mod:`bgkit.training.budget` from a few of them.

    None where that needs what is not here yet. Raises BgkitError for a local model without a
    readable shape, for no training could load it.
    """
    from bgkit.models import hub
    from bgkit.prompts import load as prompts
    from bgkit.training import budget, machines

    some = configs[:: max(1, len(configs) // 8)]
    names = [getattr(config, group) for config in some for group in MODELS]
    remote = any(hub.parse(name) and not Path(name).is_dir() for name in names)
    try:
        machine = machines.this_machine("auto", some[0].precision)
        texts = prompts.load_prompts(some[0].prompts, "train", None, 0)["prompt"]
        lengths = budget.tokens_of(texts)
        plans = [budget.make_plan(config, machine, lengths) for config in some]
    except BgkitError:
        if remote or _fetched(some[0].prompts):
            return None
        raise
    return sum(float(budget.step_time(each)["expected"].iloc[-1]) for each in plans) / len(plans)
