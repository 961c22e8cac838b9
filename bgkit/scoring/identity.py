"""Which guard, reward model and policy a run was made with, so that no other one goes on with it.

A guard or utility that is given as a Python object stands in the run's config as ``object:`` and
its name, where nothing else has that name; rows and cards show the name. ``config.json`` holds what
every guard and utility, named or given, gives to a few fixed pairs (:data:`PAIRS`), and how likely
the policy thinks them: a folder's weights may change, and so may what a name on the hub stands for.
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
from bgkit.texts import visible

#: The key of config.json that holds the scores of :data:`PAIRS`, by group.
RECORD = "scores"
_TABLES = (guards.OBVIOUS, guards.EVERYDAY, guards.ANSWERS, guards.EVERYDAY_ANSWERS)
#: Prompts and responses that every guard and utility is asked.
PAIRS = list(dict.fromkeys((pair[0], pair[1]) for table in _TABLES for pair in table))
#: What scores may differ by on another device, in full and in half precision (or fewer bits).
FULL, HALF = 0.01, 0.05
NATS = 2.0  # times these, of a policy's log-probability per token
APART = 0.02  # what a guard's t of the same responses may differ by in the mean
SAMPLES = 64  # of responses, that are scored again
#: What a config says of loading the guard or utility that it names.
LOADING = {"guard": ("guard_bits", "guard_verdicts"), "utility": ("utility_bits",)}
_DEFAULT = runs.TrainConfig()


def settle(
    config: runs.TrainConfig | None, settings: dict, guard: object | None, utility: object | None
) -> tuple[runs.TrainConfig, object | None, Scorer | None]:
    """A config with settings over it, and the guard and utility that are objects.

    A ``guard`` or ``utility`` that is a name is a setting; for an object see :func:`named`.
    """
    given = {"guard": guard, "utility": utility}
    names = {group: thing for group, thing in given.items() if isinstance(thing, str)}
    config = runs.make_config({**settings, **names}, config or runs.TrainConfig())
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
        for key in LOADING[group]:
            if getattr(config, key) != getattr(_DEFAULT, key):
                raise BgkitError(
                    f"{key!r} is for a {group} that the config names, not for an object of your "
                    "own; leave it out of the config."
                )
        name = " ".join(visible(name_of(thing)).split()) or type(thing).__name__
        name += " (object)" if guards.is_embedded(group, name) else ""
        config = replace(config, **{group: OBJECT + name})
    return config


def plain(config: runs.TrainConfig, group: str) -> runs.TrainConfig:
    """A config that says nothing more of its guard (or utility) than the name."""
    keys = (*LOADING[group], *(["guard_temperature"] if group == "guard" else []))
    return replace(config, **{key: getattr(_DEFAULT, key) for key in keys})


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


def record(
    config: runs.TrainConfig, guard: Scorer, utility: Scorer, policy: Speaker
) -> dict[str, dict | None]:
    """What ``config.json`` keeps of a run's guard, utility and policy: see :func:`scores_of`."""
    scorers = {"guard": guard, "utility": utility, "policy": policy}
    return {
        group: scores_of(scorer, twice=runs.is_object(getattr(config, group)))
        for group, scorer in scorers.items()
    }


def scores_of(scorer: Scorer, twice: bool = False) -> dict | None:
    """Scores of :data:`PAIRS`, and within what another device may give others.

    None for a scorer that can not score them, or gives others when asked ``twice``: of such a one
    only the name is known.
    """
    found = _asked(scorer)
    again = _asked(scorer) if twice else found
    if found is None or again is None:
        return None
    if np.abs(found - again).max() > FULL * max(1e-3, np.ptp(found)):
        return None
    scores = [float(f"{value:.6g}") for value in found]
    return {"scores": scores, "within": _tolerance(scorer)}


def _asked(scorer: Scorer) -> np.ndarray | None:
    """(n,) float64 scores of :data:`PAIRS`; None where there are none."""
    prompts, responses = map(list, zip(*PAIRS, strict=True))
    try:
        found = as_numbers(scorer.score(prompts, responses), len(PAIRS), name_of(scorer))
    except Exception:  # somebody's code
        return None
    return found if np.isfinite(found).all() else None


def _tolerance(scorer: Scorer) -> float:
    """What t may differ by on another device: FULL, or HALF where its model is rounded."""
    model = getattr(scorer, "model", None)
    whole = getattr(model, "dtype", torch.float32) is torch.float32
    return FULL if whole and not getattr(model, "is_quantized", False) else HALF


def check(
    run: runs.Run,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
    policy: Speaker | None = None,
) -> None:
    """Raise BgkitError for a guard, utility or policy that is not the one of the run's config.

    Differences are in t, in :data:`NATS`, or in standard deviations of u. Scorers of which only
    the name is known pass.
    """
    recorded = run.read_json("config.json").get(RECORD, {})
    for group, scorer in (("guard", guard), ("utility", utility), ("policy", policy)):
        before = recorded.get(group)
        if scorer is None or before is None or not before["scores"]:
            continue
        was, now = np.array(before["scores"]), _asked(scorer)
        told = "it can not score what was scored before"
        if now is not None:
            scale = {"guard": 1.0, "policy": NATS, "utility": np.std(was)}[group]
            most = scale * max(before["within"], _tolerance(scorer)) + 1e-4 * np.abs(was).max()
            place = int(np.abs(now - was).argmax())
            if abs(now[place] - was[place]) <= most:
                continue
            told = f"it gives {now[place]:.4g} to {PAIRS[place][1]!r} and gave {was[place]:.4g}"
        raise BgkitError(
            f"The {group} {runs.label(getattr(run.config, group))} is not the one of the same name "
            f"that the run {run.folder} was made with: {told}; give that one again, give this one "
            "a name of its own, or choose another folder."
        )


def check_complete(run: runs.Run, guard: object | None, utility: Scorer | None) -> None:
    """:func:`check` with the objects that are given, and with models in local folders.

    Other models have names that say which ones they are, and are not loaded for it.
    """
    config = run.config
    if RECORD not in run.read_json("config.json"):
        return
    if guard is not None or _in_folder("guard", config.guard):
        guard = guards.guard_of(config, check=False, given=guard)
    if utility is None and _in_folder("utility", config.utility):
        utility = guards.utility_of(config, check=False)
    policy = None
    if _in_folder("policy", config.policy):
        policy = Speaker(*policies.load_policy(config.policy, precision=config.precision))
    check(run, guard, utility, policy)


def _in_folder(group: str, name: str) -> bool:
    if group != "policy" and not runs.is_object(name):  # a protocol may stand in front
        _, name = protocols.find(group, name)
    return not guards.is_embedded(group, name) and Path(name).is_dir()


def alike(one: dict | None, other: dict | None) -> bool:
    """Whether two outcomes of :func:`scores_of` may be one policy's; what is not known may be."""
    if one is None or other is None:
        return True
    apart = np.abs(np.subtract(one["scores"], other["scores"]))
    return bool((apart <= NATS * max(one["within"], other["within"])).all())


def scored_by(samples: pd.DataFrame, guard: Scorer) -> bool:
    """Whether the ``t`` of a table of samples is what this guard gives its first responses."""
    some = samples.head(SAMPLES)
    t = guard_scores(guard, some["prompt"].tolist(), some["response"].tolist())
    return bool(np.abs(t - some["t"].to_numpy(float)).mean() <= APART)
