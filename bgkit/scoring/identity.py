"""Which guard, reward model and policy a run was made with, so it continues with no others.

A config records a guard or utility passed as a Python object as ``object:NAME``; rows and cards
show the name. ``config.json`` also holds a fingerprint of each model: what a guard or utility
gives to a few fixed pairs (:data:`PAIRS`), and how likely they are under the policy. The weights in
a folder may change, and so may what a name on the hub stands for.
"""

from __future__ import annotations

import contextlib
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
from bgkit.scoring.pairs import max_positions
from bgkit.scoring.scorer import Scorer, as_numbers, name_of
from bgkit.testbed.store import model_names
from bgkit.texts import clean_text

#: The key of config.json that holds the fingerprints, by group.
RECORD = "scores"
_EXAMPLES = [*guards.OBVIOUS, *guards.EVERYDAY, *guards.ANSWERS, *guards.EVERYDAY_ANSWERS]
#: Prompts and responses that every guard, utility and policy scores.
PAIRS = list(dict.fromkeys((prompt, response) for prompt, response, _ in _EXAMPLES))
#: How much scores may differ on another device, in full and in half precision (or fewer bits).
TOLERANCE, HALF_TOLERANCE = 0.01, 0.05
NATS = 2.0  # scale of these for a policy's log-probability per token
RESCORED = 64  # responses that are scored again
#: Settings that say how a guard or utility is loaded by its name, with their defaults.
LOADING = {
    "guard": {"guard_bits": 16, "guard_verdicts": "strict"},
    "utility": {"utility_bits": 16},
}


def split_objects(
    config: runs.TrainConfig | None, settings: dict, guard: object | None, utility: object | None
) -> tuple[runs.TrainConfig, object | None, Scorer | None]:
    """The config with settings applied, and the guard and utility if they are objects.

    A ``guard`` or ``utility`` that is a name becomes a setting; objects: :func:`name_objects`.
    """
    given = {"guard": guard, "utility": utility}
    names = {group: scorer for group, scorer in given.items() if isinstance(scorer, str)}
    objects = {group: None if group in names else scorer for group, scorer in given.items()}
    config = name_objects(runs.make_config({**settings, **names}, config), **objects)
    return config, objects["guard"], objects["utility"]


def name_objects(
    config: runs.TrainConfig, guard: object | None = None, utility: Scorer | None = None
) -> runs.TrainConfig:
    """The config with the names of the given objects; None leaves it unchanged.

    ``guard`` is anything that :func:`bgkit.scoring.adapters.as_guard` accepts. Raises BgkitError
    for an object that is no guard or utility, and if the config says how to load the model that an
    object replaces.
    """
    given = {"guard": None if guard is None else as_guard(guard), "utility": utility}
    for group, scorer in given.items():
        if scorer is None:
            continue
        if not hasattr(scorer, "score"):
            raise BgkitError(
                f"A {type(scorer).__name__} is no {group}: give an object with score(prompts, "
                "responses), which returns one number for each."
            )
        for key, default in LOADING[group].items():
            if getattr(config, key) != default:
                raise BgkitError(
                    f"{key!r} is for a {group} that the config names, not for a Python object; "
                    "remove it from the config."
                )
        name = " ".join(clean_text(name_of(scorer)).split()) or type(scorer).__name__
        name += " (object)" if name in model_names(group) else ""
        config = replace(config, **{group: OBJECT + name})
    return config


class PolicyScorer:
    """A policy, without its adapter, as a scorer: log-probability per token in nats."""

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name = f"the policy in {tokenizer.name_or_path}"
        self.max_length = max_positions(model)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt in the chat template."""
        return list(map(len, policies.prompt_ids(self.tokenizer, prompts)))

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) log-probabilities, each divided by its response's tokens."""
        ids = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        texts = policies.Completions([], policies.prompt_ids(self.tokenizer, prompts), ids)
        with getattr(self.model, "disable_adapter", contextlib.nullcontext)():
            return policies.log_probabilities(self.model, texts) / [max(1, len(i)) for i in ids]


def fingerprint(scorer: Scorer) -> dict | None:
    """Scores of :data:`PAIRS`, and how much they may differ on another device.

    None for a scorer that cannot score them or gives other scores the second time; such a scorer is
    known by its name only.
    """
    prompts, responses = map(list, zip(*PAIRS, strict=True))
    try:
        first, second = (
            as_numbers(scorer.score(prompts, responses), len(PAIRS), name_of(scorer))
            for _ in range(2)
        )
    except Exception:  # the user's own code
        return None
    if not np.isfinite([first, second]).all():
        return None
    if np.abs(first - second).max() > TOLERANCE * max(1e-3, np.ptp(first)):
        return None
    model = getattr(scorer, "model", None)
    full = getattr(model, "dtype", torch.float32) is torch.float32
    within = TOLERANCE if full and not getattr(model, "is_quantized", False) else HALF_TOLERANCE
    return {"scores": [float(f"{value:.6g}") for value in first], "within": within}


def fingerprints(**scorers: Scorer) -> dict[str, dict | None]:
    """The :func:`fingerprint` of each of a run's guard, utility and policy."""
    return {group: fingerprint(scorer) for group, scorer in scorers.items()}


def same_model(group: str, before: dict | None, now: dict | None) -> bool:
    """Whether two outcomes of :func:`fingerprint` may be of the same scorer; true if one is None.

    Differences are in t, in :data:`NATS`, or in standard deviations of u.
    """
    if before is None or now is None:
        return True
    scores = np.array(before["scores"])
    scale = {"guard": 1.0, "policy": NATS, "utility": np.std(scores)}[group]
    limit = scale * max(before["within"], now["within"]) + 1e-4 * np.abs(scores).max()
    return bool(np.abs(now["scores"] - scores).max() <= limit)


def check(run: runs.Run, **scorers: Scorer | None) -> None:
    """Raise BgkitError for a guard, utility or policy other than the one the run was made with.

    Scorers that are known by their name only pass.
    """
    recorded = run.read_json("config.json").get(RECORD, {})
    for group, scorer in scorers.items():
        before = recorded.get(group)
        if scorer is None or not (before or {}).get("scores"):  # empty in older runs, if unknown
            continue
        now = fingerprint(scorer)
        fault = "it cannot score what was scored before, or its scores are not reproducible"
        if now is not None and same_model(group, before, now):
            if group == "policy" or is_scored_by(_recorded(run), scorer, group, before):
                continue
            fault = "it gives other scores to responses of the run"
        elif now is not None:
            scores = zip(before["scores"], now["scores"], PAIRS, strict=True)
            old, new, (_, response) = max(scores, key=lambda pair: abs(pair[0] - pair[1]))
            fault = f"it gives {new:.4g} to {response!r} and gave {old:.4g}"
        raise BgkitError(
            f"The {group} {runs.label(getattr(run.config, group))} is not the one of the same name "
            f"that the run {run.folder} was made with: {fault}; give the original one, give this "
            "one another name, or choose another folder."
        )


def check_complete(run: runs.Run, guard: object | None, utility: Scorer | None) -> None:
    """:func:`check` for objects that are given and for models in local folders.

    Other models are identified by their name, and are not loaded.
    """
    config, policy = run.config, None
    if RECORD not in run.read_json("config.json"):  # of an older version
        return
    if guard is not None or _in_folder("guard", config.guard):
        guard = guards.guard_of(config, check=False, given=guard)
    if utility is None and _in_folder("utility", config.utility):
        utility = guards.utility_of(config, check=False)
    if _in_folder("policy", config.policy):
        policy = PolicyScorer(*policies.load_policy(config.policy, precision=config.precision))
    check(run, guard=guard, utility=utility, policy=policy)


def _in_folder(group: str, name: str) -> bool:
    if group != "policy" and not runs.is_object(name):  # a protocol may come first
        _, name = protocols.find(group, name)
    return name not in model_names(group) and Path(name).is_dir()


def _recorded(run: runs.Run) -> pd.DataFrame:
    """Scored responses of a run: of its evaluation, or of its last step; may be empty."""
    with contextlib.suppress(FileNotFoundError):  # another process of a launch drops records
        evaluated = (run.folder / "samples.parquet").is_file()
        return run.samples() if evaluated else run.completions(last=1)
    return pd.DataFrame()


def is_scored_by(
    samples: pd.DataFrame, scorer: Scorer, group: str = "guard", record: dict | None = None
) -> bool:
    """Whether a scorer gives the first responses of a table the scores that it holds, if any.

    That is ``t`` of a guard, ``u`` of a utility. The mean difference may be twice what ``record``,
    the scorer's :func:`fingerprint`, allows of a single one. False if it cannot score them.
    """
    column = {"guard": "t", "utility": "u"}[group]
    if column not in samples or samples[column].isna().any() or samples.empty:
        return True
    first = samples.head(RESCORED)
    texts, before = (first["prompt"].tolist(), first["response"].tolist()), first[column].to_numpy()
    try:
        scores = as_numbers(scorer.score(*texts), len(first), name_of(scorer))
    except Exception:  # the user's own code
        return False
    scale = 1.0 if group == "guard" else np.std([*(record or {}).get("scores", ()), *before])
    limit = 2 * scale * (record or {}).get("within", TOLERANCE) + 1e-4 * np.abs(before).max()
    return bool(np.abs(scores - before).mean() <= limit)
