"""What determines a training run: its settings, what each means, and the check of all of them.

The words, bounds and choices of a setting stand beside it, once; the options of the command line,
their help and the check are made of them. A config is checked whichever way it is made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import numbers
import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from bgkit.errors import BgkitError
from bgkit.rewards import DESIGNS, find

#: In front of the name of a guard or utility that was given as a Python object.
OBJECT = "object:"
MOST = 1_000_000  # of any number: more was mistyped
#: kind of bound -> how it is checked and called
_BOUNDS = {
    "above": (operator.gt, "above"),
    "least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "at most"),
}
_KINDS = {str: str, int: numbers.Integral, float: numbers.Real}  # NumPy's numbers are among these


def _setting(
    default: str | int | float,
    words: str,
    *,
    choices: Collection = (),
    later: bool = False,
    **bounds: float,
):
    """A setting: what it is, in words with the unit; closed choices, and :data:`_BOUNDS`.

    ``later`` marks what configs of older runs lack.
    """
    told = {"words": words, "choices": tuple(choices), "later": later, "bounds": bounds}
    return dataclasses.field(default=default, metadata=told)


_BITS = (16, 8, 4)
_ELSEWHERE = ("a local folder", "owner/name on the hub")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run; ``bgkit train --help`` explains each setting.

    Whole numbers serve for fractions, and NumPy's numbers for Python's. Raises BgkitError for an
    ill-typed value, one out of range, and settings that do not fit each other. A ``guard`` or
    ``utility`` that begins with ``object:`` names a Python object (:mod:`bgkit.scoring.identity`).
    """

    policy: str = _setting("small", "generator to train")
    guard: str = _setting("default", "safety classifier")
    guard_temperature: float = _setting(
        1.0, "the guard's logits are divided by this; more than 1 makes it less sure", above=0
    )
    guard_verdicts: str = _setting(
        "strict",
        "whether a generative guard's grey verdicts count as unsafe (strict) or safe (loose)",
        choices=("strict", "loose"),
    )
    guard_bits: int = _setting(16, "bits per weight of the guard", choices=_BITS)
    utility: str = _setting("mild", "reward model")
    utility_bits: int = _setting(16, "bits per weight of the reward model", choices=_BITS)
    reward: str = _setting(
        "boundary", "reward design, or FILE.py:FUNCTION of your own", choices=DESIGNS
    )
    prompts: str = _setting(
        "testbed",
        "prompt set: a name that `bgkit prompts` lists, a file, or a folder of files; several with "
        "commas are mixed",
    )
    tau: float = _setting(
        0.5,
        "threshold of the filter: a response with t of tau or more is filtered",
        above=0,
        below=1,
    )
    strength: float = _setting(
        8.0,
        "what the reward's penalty weighs, in standard deviations of base's utility, which has "
        "weight 1; utility_only, guard_only and boundary_raw have none",
        least=0,
    )
    steps: int = _setting(200, "optimiser steps", least=1)
    batch_size: int = _setting(64, "completions per step, a multiple of num_generations", least=1)
    num_generations: int = _setting(8, "completions per prompt, compared with each other", least=2)
    accumulation: int = _setting(1, "micro-batches per step; more need less memory", least=1)
    learning_rate: float = _setting(3e-3, "highest learning rate of AdamW", above=0, most=1)
    lr_schedule: str = _setting(
        "linear",
        "course of the learning rate after the warm-up: down to 0 (linear, cosine) or constant",
        choices=("linear", "constant", "cosine"),
        later=True,
    )
    warmup_steps: int = _setting(
        0, "steps in which the learning rate rises from 0, fewer than steps", least=0, later=True
    )
    beta: float = _setting(
        0.1,
        "weight of the KL penalty of each token, in reward per nat; rewards have a standard "
        "deviation of 1 over base's responses",
        least=0,
    )
    loss_type: str = _setting(
        "grpo",
        "how TRL's loss joins tokens: means per completion (grpo), sums over a constant length "
        "(dr_grpo), means over all tokens of a micro-batch (bnpo) or step (dapo), ... (TRL's docs)",
        choices=("grpo", "dr_grpo", "bnpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
        later=True,
    )
    scale_rewards: str = _setting(
        "none",
        "whose standard deviation of rewards divides the advantages (GRPO was published with that "
        "of a prompt's group)",
        choices=("none", "group", "batch"),
        later=True,
    )
    temperature: float = _setting(1.0, "temperature of sampling", above=0)
    max_completion_length: int = _setting(60, "longest completion, in tokens", least=1)
    lora_rank: int = _setting(16, "rank of the LoRA adapter; 0 trains all weights", least=0)
    lora_alpha: int = _setting(32, "LoRA's scale: alpha / rank multiplies the adapter", least=1)
    precision: str = _setting(
        "auto",
        "number format of all models; auto is bfloat16 on a GPU that has it, else float32",
        choices=("auto", "float32", "bfloat16"),
    )
    eval_every: int = _setting(20, "steps between held-out evaluations; 0: none", least=0)
    eval_prompts: int = _setting(64, "prompts of each held-out evaluation", least=0)
    test_prompts: int = _setting(400, "prompts of the final evaluation", least=1)
    judge: str = _setting(
        "default",
        "who grades the final evaluation beside the truth, or stands for it (also none, oracle, "
        "english, api:MODEL; of two names with a comma the second is compared with the first)",
    )
    save_every: int = _setting(20, "steps between checkpoints", least=1)
    seed: int = _setting(0, "seed of prompts, sampling and adapter", least=0, most=2**32 - 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = _checked(setting, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)  # the dataclass is frozen
        if self.eval_every and not self.eval_prompts:
            raise BgkitError(
                "'eval_prompts' must be at least 1 where 'eval_every' is not 0; an 'eval_every' of "
                "0 switches held-out evaluation off."
            )
        if self.warmup_steps >= self.steps:
            raise BgkitError(
                f"'warmup_steps' must be below 'steps' ({self.steps}), not {self.warmup_steps}."
            )
        if self.batch_size % (unit := self.num_generations * self.accumulation):
            raise BgkitError(
                f"'batch_size' {self.batch_size} is not divisible by 'num_generations' "
                f"{self.num_generations} times 'accumulation' {self.accumulation}; use for "
                f"instance a batch_size of {max(1, self.batch_size // unit) * unit}."
            )


def make_config(values: dict, base: TrainConfig | None = None) -> TrainConfig:
    """A checked configuration from a mapping (and the defaults, or ``base``).

    Raises BgkitError for an unknown key, and for what :class:`TrainConfig` refuses.

    >>> make_config({"reward": "compound", "steps": 10}).steps
    10
    """
    known = TrainConfig.__dataclass_fields__
    if unknown := [key for key in values if key not in known]:
        raise BgkitError(f"Unknown key {unknown[0]!r} in the config; known: {', '.join(known)}.")
    if not isinstance(base, TrainConfig | None):
        raise BgkitError(f"The config must be a TrainConfig, not {base!r} ({type(base).__name__}).")
    return replace(base or TrainConfig(), **values)


def _checked(setting: dataclasses.Field, value: object) -> str | int | float:
    """A setting's value as its own type; raises BgkitError for another type or out of range."""
    name, kind, told = setting.name, type(setting.default), setting.metadata
    if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
        raise BgkitError(
            f"The config's {name!r} must be of type {kind.__name__}, not {value!r} "
            f"({type(value).__name__})."
        )
    with contextlib.suppress(OverflowError):  # of a float; it is out of range then
        value = kind(value)
    if name == "reward":
        find(value)
    elif told["choices"] and value not in told["choices"]:
        choices = ", ".join(map(str, told["choices"]))
        raise BgkitError(f"There is no {name} {value!r}; choose one of {choices}.")
    if kind is str:
        if not (value.strip() and value.isprintable()):
            none = "; 'none' leaves the judge out" if name == "judge" else ""
            raise BgkitError(f"{name!r} must be a name in printable letters, not {value!r}{none}.")
        return value
    bounds = told["bounds"]
    if bounds.keys().isdisjoint(("below", "most")):
        bounds = {**bounds, "most": MOST}
    if not all(_BOUNDS[kind][0](value, bound) for kind, bound in bounds.items()):
        raise BgkitError(f"{name!r} must be {_range(bounds)}, not {value}.")
    return value


def _range(bounds: dict[str, float]) -> str:
    return " and ".join(f"{_BOUNDS[kind][1]} {bound:,}" for kind, bound in bounds.items())


def explain(name: str) -> str:
    """A setting in words: what it is, its choices or embedded models, and its bounds.

    >>> explain("scale_rewards").rpartition(": ")[2], explain("lora_alpha").rpartition("; ")[2]
    ('none, group, batch', 'at least 1')
    """
    told = TrainConfig.__dataclass_fields__[name].metadata
    known = ", ".join(map(str, told["choices"] or _models(name)))
    words = told["words"] + (f": {known}" if known else "")
    return words + (f"; {_range(told['bounds'])}" if told["bounds"] else "")


def _models(setting: str) -> list[str]:
    """Embedded models that a setting may name, and where else one may come from; else nothing."""
    from bgkit.testbed import store

    if setting not in store.GROUPS:
        return []
    with contextlib.suppress(BgkitError):  # a checkout without them, which is to build them
        return [*store.model_names(setting), *_ELSEWHERE]
    return [*_ELSEWHERE]


def read_config(path: Path) -> dict:
    """The mapping in a JSON config file; raises BgkitError with the line of a mistake."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BgkitError(f"The config {path} can not be read: {error.strerror}.") from error
    except ValueError as error:
        raise BgkitError(f"The config {path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise BgkitError(f"The config {path} must hold one JSON object.")
    return values


def config_hash(config: TrainConfig) -> str:
    """12 hex digits that identify a configuration, whatever the order of its keys.

    Settings that older configs lack count only where they are not at their default.
    """
    late = {f.name: f.default for f in fields(config) if f.metadata["later"]}
    kept = {k: v for k, v in asdict(config).items() if k not in late or v != late[k]}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def differences(config: TrainConfig, like: TrainConfig, but: Sequence[str] = ()) -> dict:
    """What a config has other than another one: key -> its value, without the keys ``but``.

    >>> differences(TrainConfig(seed=3, beta=0.2), TrainConfig(), but=["seed"])
    {'beta': 0.2}
    """
    return {k: v for k, v in vars(config).items() if k not in but and v != getattr(like, k)}


def is_object(value: object) -> bool:
    """Whether a setting names a guard or utility that was given as a Python object."""
    return isinstance(value, str) and value.startswith(OBJECT)


def label(name: str) -> str:
    """The name of a guard or utility in tables and cards: an object's own name.

    >>> label("object:my guard"), label("weak")
    ('my guard', 'weak')
    """
    return name.removeprefix(OBJECT)


def file_name(setting: str) -> str:
    """A setting's name as a part of a file's: of a path or a name on the hub the last part.

    >>> file_name("object:my guard"), file_name("my/rewards.py:mine")
    ('my-guard', 'rewards.py-mine')
    """
    return re.sub(r"[^\w.]+", "-", Path(label(setting)).name)
