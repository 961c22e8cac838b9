"""Which guard, reward model and policy a run was made with, so that no other one goes on with it.

A guard or utility that is given as a Python object stands in the run's config as ``object:`` and
its name; rows and cards show the name. ``config.json`` holds what every guard and utility, named or
given, gives to a few fixed pairs (:data:`PAIRS`), and how likely the policy thinks them: a folder's
weights may change, and so may what a name on the hub stands for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import policies
from bgkit.runs.config import OBJECT
from bgkit.scoring import guards, protocols
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.pairs import places_of
from bgkit.scoring.scorer import Scorer, as_numbers, guard_scores, name_of
from bgkit.testbed.store import model_names
from bgkit.texts import clean_text

#: The key of config.json that holds the scores of :data:`PAIRS`, by group.
RECORD = "scores"
_TOLD = [*guards.OBVIOUS, *guards.EVERYDAY, *guards.ANSWERS, *guards.EVERYDAY_ANSWERS]
#: Prompts and responses that every guard, utility and policy is asked.
PAIRS = list(dict.fromkeys((prompt, response) for prompt, response, _ in _TOLD))
#: What scores may differ by on another device, in full and in half precision (or fewer bits).
FULL, HALF = 0.01, 0.05
NATS = 2.0  # times these, of a policy's log-probability per token
APART = 0.02  # what a guard's t of the same responses may differ by in the mean
SAMPLES = 64  # of responses, that are scored again
#: How a config says that the guard or utility which it names is loaded, and what says nothing.
LOADING = {
    "guard": {"guard_bits": 16, "guard_verdicts": "strict"},
    "utility": {"utility_bits": 16},
}


def settle(
    config: runs.TrainConfig | None, settings: dict, guard: object | None, utility: object | None
) -> tuple[runs.TrainConfig, object | None, Scorer | None]:
    """A config with settings over it, and the guard and utility that are objects.

    A ``guard`` or ``utility`` that is a name is a setting; for an object see :func:`named`.
    """
    given = {"guard": guard, "utility": utility}
    names = {group: thing for group, thing in given.items() if isinstance(thing, str)}
    config = runs.make_config({**settings, **names}, config)
    guard, utility = (None if group in names else thing for group, thing in given.items())
    return named(config, guard, utility), guard, utility


def named(
    config: runs.TrainConfig, guard: object | None = None, utility: Scorer | None = None
) -> runs.TrainConfig:
    """The config with the objects that are given, by their names; None leaves what it says.

    ``guard`` is anything that :func:`bgkit.scoring.adapters.as_guard` takes. Raises BgkitError for
    what is no guard or utility, and for a config that says how to load the one which an object
    replaces.
    """
    given = {"guard": None if guard is None else as_guard(guard), "utility": utility}
    for group, thing in given.items():
        if thing is None:
            continue
        if not hasattr(thing, "score"):
            raise BgkitError(
                f"A {type(thing).__name__} is no {group}: give an object with score(prompts, "
                "responses), which returns one number for each."
            )
        for key, usual in LOADING[group].items():
            if getattr(config, key) != usual:
                raise BgkitError(
                    f"{key!r} is for a {group} that the config names, not for an object of your "
                    "own; leave it out of the config."
                )
        name = " ".join(clean_text(name_of(thing)).split()) or type(thing).__name__
        name += " (object)" if name in model_names(group) else ""
        config = replace(config, **{group: OBJECT + name})
    return config


class Speaker:
    """A policy as a scorer: log-probability per token in nats, its base's if it has an adapter."""

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name = f"the policy in {tokenizer.name_or_path}"
        self.max_length = places_of(model) or math.inf

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt in the chat template."""
        return list(map(len, policies.prompt_ids(self.tokenizer, prompts)))

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) log-probabilities, each divided by its response's tokens."""
        ids = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        said = policies.Completions([], policies.prompt_ids(self.tokenizer, prompts), ids)
        with getattr(self.model, "disable_adapter", contextlib.nullcontext)():
            return policies.log_probabilities(self.model, said) / [max(1, len(row)) for row in ids]


def record(**scorers: Scorer) -> dict[str, dict | None]:
    """What ``config.json`` keeps of a run's guard, utility and policy: see :func:`scores_of`."""
    return {group: scores_of(scorer) for group, scorer in scorers.items()}


def scores_of(scorer: Scorer) -> dict | None:
    """Scores of :data:`PAIRS`, and within what another device may give others.

    None for a scorer that can not score them, or gives others when it is asked again: of such a
    one only the name is known.
    """
    prompts, responses = map(list, zip(*PAIRS, strict=True))
    try:
        found, again = (
            as_numbers(scorer.score(prompts, responses), len(PAIRS), name_of(scorer))
            for _ in range(2)
        )
    except Exception:  # somebody's code
        return None
    if not np.isfinite([found, again]).all():
        return None
    if np.abs(found - again).max() > FULL * max(1e-3, np.ptp(found)):
        return None
    model = getattr(scorer, "model", None)
    whole = getattr(model, "dtype", torch.float32) is torch.float32
    within = FULL if whole and not getattr(model, "is_quantized", False) else HALF
    return {"scores": [float(f"{value:.6g}") for value in found], "within": within}


def alike(group: str, before: dict | None, now: dict | None) -> bool:
    """Whether two outcomes of :func:`scores_of` may be one scorer's; what is not known may be.

    Differences are in t, in :data:`NATS`, or in standard deviations of u.
    """
    if before is None or now is None:
        return True
    was = np.array(before["scores"])
    scale = {"guard": 1.0, "policy": NATS, "utility": np.std(was)}[group]
    most = scale * max(before["within"], now["within"]) + 1e-4 * np.abs(was).max()
    return bool(np.abs(now["scores"] - was).max() <= most)


def check(run: runs.Run, **scorers: Scorer | None) -> None:
    """Raise BgkitError for a guard, utility or policy that is not the one of the run's config.

    Scorers of which only the name is known pass.
    """
    recorded = run.read_json("config.json").get(RECORD, {})
    for group, scorer in scorers.items():
        before = recorded.get(group)
        if scorer is None or not (before or {}).get("scores"):  # older runs: empty, if not known
            continue
        told, now = "it can not score what was scored before, or not twice alike", scores_of(scorer)
        if now is not None:
            if alike(group, before, now):
                continue
            pairs = zip(before["scores"], now["scores"], PAIRS, strict=True)
            was, gives, (_, response) = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
            told = f"it gives {gives:.4g} to {response!r} and gave {was:.4g}"
        raise BgkitError(
            f"The {group} {runs.label(getattr(run.config, group))} is not the one of the same name "
            f"that the run {run.folder} was made with: {told}; give that one again, give this one "
            "a name of its own, or choose another folder."
        )


def check_complete(run: runs.Run, guard: object | None, utility: Scorer | None) -> None:
    """:func:`check` with the objects that are given, and with models in local folders.

    Other models have names that say which ones they are, and are not loaded for it.
    """
    config, policy = run.config, None
    if RECORD not in run.read_json("config.json"):  # made before these were kept
        return
    if guard is not None or _in_folder("guard", config.guard):
        guard = guards.guard_of(config, check=False, given=guard)
    if utility is None and _in_folder("utility", config.utility):
        utility = guards.utility_of(config, check=False)
    if _in_folder("policy", config.policy):
        policy = Speaker(*policies.load_policy(config.policy, precision=config.precision))
    check(run, guard=guard, utility=utility, policy=policy)


def _in_folder(group: str, name: str) -> bool:
    if group != "policy" and not runs.is_object(name):  # a protocol may stand in front
        _, name = protocols.find(group, name)
    return name not in model_names(group) and Path(name).is_dir()


def scored_by(samples: pd.DataFrame, guard: Scorer) -> bool:
    """Whether the ``t`` of a table of samples is what this guard gives its first responses."""
    some = samples.head(SAMPLES)
    t = guard_scores(guard, some["prompt"].tolist(), some["response"].tolist())
    return bool(np.abs(t - some["t"].to_numpy(float)).mean() <= APART)
