"""Which guard, reward model and policy a run was made with, so that no other one goes on with it.

A guard or utility that is given as a Python object stands in the run's config as ``object:`` and
its name, where nothing else has that name; rows and cards show the name. ``config.json`` holds what
every guard and utility, named or given, gives to a few fixed pairs (:data:`PAIRS`), and how likely
the policy thinks them: a folder's weights may change, and so may what a name on the hub stands for.
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
from bgkit.scoring import guards, utilities
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import Scorer, name_of

#: The key of config.json that holds the scores of :data:`PAIRS`, by group.
RECORD = "scores"
_TABLES = (guards.OBVIOUS, guards.EVERYDAY, utilities.OBVIOUS, utilities.EVERYDAY)
#: Prompts and responses that every guard and utility is asked.
PAIRS = list(dict.fromkeys((pair[0], pair[1]) for table in _TABLES for pair in table))
#: What scores may differ by on another device, in full and in half precision (or fewer bits).
FULL, HALF = 0.01, 0.05
NATS = 2.0  # times these, of a policy's log-probability per token
#: What they may differ by in the mean over what was said in training, scored in other batches.
APART = {"guard": 0.02, "utility": 0.05}
LONGEST = 80  # letters of a name
SAMPLES = 64  # of what was said, that are scored again
#: What a config says of loading the guard or utility that it names.
LOADING = {"guard": ("guard_bits", "guard_verdicts"), "utility": ("utility_bits",)}
_DEFAULT = runs.TrainConfig()


def settle(
    config: runs.TrainConfig | None, settings: dict, guard: object | None, utility: object | None
) -> tuple[runs.TrainConfig, object | None, Scorer | None]:
    """A config with settings over it, and the guard and utility that are objects.

    A ``guard`` or ``utility`` that is a name is a setting; an object stands in the config by its
    own name (:func:`named`). Raises BgkitError for what no training accepts.
    """
    given = {"guard": guard, "utility": utility}
    names = {group: name for group, name in given.items() if isinstance(name, str)}
    config = runs.make_config({**settings, **names}, config or runs.TrainConfig())
    guard, utility = (None if isinstance(thing, str) else thing for thing in (guard, utility))
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
        if not callable(getattr(thing, "score", None)):
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
        config = replace(config, **{group: OBJECT + _name(group, thing)})
    return config


def _name(group: str, thing: object) -> str:
    """An object's name in one printable line, unlike those of the embedded models."""
    told = "".join(letter if letter.isprintable() else " " for letter in str(name_of(thing)))
    name = " ".join(told.split())[:LONGEST] or type(thing).__name__
    return f"{name} (object)" if guards.is_embedded(group, name) else name


def plain(config: runs.TrainConfig, group: str) -> runs.TrainConfig:
    """A config that says nothing more of its guard (or utility) than the name."""
    keys = (*LOADING[group], *(["guard_temperature"] if group == "guard" else []))
    return replace(config, **{key: getattr(_DEFAULT, key) for key in keys})


class Speaker:
    """A policy as a scorer: log-probability per token in nats, its base's if it has an adapter."""

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) log-probabilities, each divided by its response's tokens."""
        ids = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        said = policies.Completions([], policies.prompt_ids(self.tokenizer, prompts), ids)
        off = getattr(self.model, "disable_adapter", contextlib.nullcontext)
        with off():
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

    ``scores`` is empty for a scorer that can not score them. None for one that gives others when
    asked ``twice``: of such a one only the name is known.
    """
    found = [_asked(scorer, *zip(*PAIRS, strict=True)) for _ in range(2 if twice else 1)]
    if any(each is None for each in found):  # it may be made for the training's prompts alone
        return {"scores": [], "within": _tolerance(scorer)}
    if twice and np.abs(found[0] - found[1]).max() > FULL * max(1e-3, np.ptp(found[0])):
        return None
    scores = [float(f"{value:.6g}") for value in found[0]]
    return {"scores": scores, "within": _tolerance(scorer)}


def _asked(scorer: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray | None:
    """(n,) finite scores; None where there are none."""
    try:
        found = _numbers(scorer.score(list(prompts), list(responses)))
    except Exception:  # somebody's code
        return None
    return found if found.shape == (len(prompts),) and np.isfinite(found).all() else None


def _numbers(values: object) -> np.ndarray:
    return torch.as_tensor(values).detach().double().cpu().numpy()


def check(
    run: runs.Run,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
    policy: Speaker | None = None,
) -> None:
    """Raise BgkitError for a guard, utility or policy that is not the one of the run's config.

    Asked are the fixed pairs, and, but of a policy, some of what was said in training. Runs of
    older versions, which did not record scores, pass.
    """
    recorded = run.read_json("config.json").get(RECORD, {})
    for group, scorer in (("guard", guard), ("utility", utility), ("policy", policy)):
        if scorer is None or recorded.get(group) is None:
            continue
        title, where = f"{group} {runs.label(getattr(run.config, group))}", f"the run {run.folder}"
        require_same(title, recorded[group], scorer, where)
        said = run.completions(last=1) if group in APART else pd.DataFrame()
        if not said.empty:
            said = said.iloc[np.unique(np.linspace(0, len(said) - 1, SAMPLES).astype(int))]
            texts = list(zip(said["prompt"], said["response"], strict=True))
            before = said["t" if group == "guard" else "u"].to_numpy(float)
            _require(title, texts, before, scorer, where, mean=APART[group])


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
        utility = utilities.utility_of(config, check=False)
    policy = None
    if _in_folder("policy", config.policy):
        policy = Speaker(*policies.load_policy(config.policy, precision=config.precision))
    check(run, guard, utility, policy)


def _in_folder(group: str, name: str) -> bool:
    place = name.rpartition("=")[2]  # behind a protocol's name
    return not guards.is_embedded(group, place) and Path(place).is_dir()


def require_same(title: str, before: dict | None, scorer: Scorer, where: str) -> None:
    """Raise BgkitError unless a scorer gives what :func:`scores_of` gave before.

    ``title`` begins with guard, utility or policy. None, or scores of other pairs, can not be
    compared.
    """
    if before is not None and len(before["scores"]) == len(PAIRS):
        within = max(before["within"], _tolerance(scorer))
        _require(title, PAIRS, np.array(before["scores"]), scorer, where, most=within)


def alike(one: dict | None, other: dict | None) -> bool:
    """Whether two outcomes of :func:`scores_of` may be one policy's; what is not known may be."""
    if one is None or other is None or len(one["scores"]) != len(other["scores"]):
        return True
    apart = np.abs(np.subtract(one["scores"], other["scores"]))
    return bool((apart <= NATS * max(one["within"], other["within"])).all())


def _require(
    title: str,
    texts: Sequence[tuple[str, str]],
    before: np.ndarray,
    scorer: Scorer,
    where: str,
    *,
    most: float = np.inf,
    mean: float = np.inf,
) -> None:
    """Raise BgkitError unless scores differ by ``most`` at most, and ``mean`` in the mean.

    Both are in t, in :data:`NATS`, or in standard deviations of u.
    """
    now = _asked(scorer, *zip(*texts, strict=True))
    if now is None:
        told = f"it can not score {len(texts)} texts that were scored before"
    else:
        apart, noise = np.abs(now - before), 1e-4 * np.abs(before).max()
        scales = {"guard": 1.0, "policy": NATS}
        scale = scales.get(title.partition(" ")[0], float(np.std(before)))
        if apart.max() <= most * scale + noise and apart.mean() <= mean * scale + noise:
            return
        place = int(apart.argmax())
        told = f"it gives {now[place]:.4g} to {texts[place][1][:60]!r} and gave {before[place]:.4g}"
    raise BgkitError(
        f"The {title} is not the one of the same name that {where} was made with: {told}; give "
        "that one again, give this one a name of its own, or choose another folder."
    )


def _tolerance(scorer: Scorer) -> float:
    """What t may differ by on another device: FULL, or HALF where any of the models is rounded."""
    scorers = (scorer, *getattr(scorer, "guards", ()))
    models = [getattr(one, "model", None) for one in scorers]
    rounded = [
        getattr(model, "dtype", torch.float32) is not torch.float32
        or getattr(model, "is_quantized", False)
        for model in models
    ]
    return HALF if any(rounded) else FULL


def scored_by(samples: pd.DataFrame, guard: Scorer) -> bool:
    """Whether the ``t`` of a table of samples is what this guard gives its first responses."""
    some = samples.head(SAMPLES)
    t = _numbers(guard.score(some["prompt"].tolist(), some["response"].tolist()))
    return bool(np.abs(t - some["t"].to_numpy(float)).mean() <= APART["guard"])
