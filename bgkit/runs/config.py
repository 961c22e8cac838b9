"""The config of a training run: its settings, their help texts, bounds and choices.

Each setting declares its help text, bounds and choices once; validation and the command line's
options are derived from them. Every config is validated when it is created.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import numbers
import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from bgkit.data import hash_of
from bgkit.errors import BgkitError
from bgkit.rewards import DESIGNS, find_reward, penalises_shown
from bgkit.testbed import store

#: Prefix of the name of a guard or utility that was passed as a Python object.
OBJECT = "object:"
MOST = 1_000_000  # upper bound of any number: more is a typing error
#: kind of bound -> comparison and words
_BOUNDS = {
    "above": (operator.gt, "above"),
    "least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "at most"),
}
_KINDS = {str: str, int: numbers.Integral, float: numbers.Real}  # includes NumPy's numbers


def setting(
    default: str | int | float,
    help_text: str,
    *,
    choices: Collection = (),
    later: bool = False,
    **bounds: float,
):
    """A setting with its help text (and unit), choices, and bounds (:data:`_BOUNDS`).

    ``later`` marks settings that the configs of older runs lack.
    """
    metadata = {"help": help_text, "choices": tuple(choices), "later": later, "bounds": bounds}
    return dataclasses.field(default=default, metadata=metadata)


_BITS = (16, 8, 4)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run; ``bgkit train --help`` explains each setting.

    Integers are accepted for floats, and NumPy's numbers for Python's. Raises BgkitError for values
    of a wrong type or out of range, and for inconsistent settings. A ``guard`` or ``utility`` that
    begins with ``object:`` names a Python object (:mod:`bgkit.scoring.identity`).
    """

    policy: str = setting("small", "language model to train")
    guard: str = setting("default", "safety classifier")
    guard_temperature: float = setting(
        1.0, "divides the guard's logits; larger values make it less confident", above=0
    )
    guard_verdicts: str = setting(
        "strict",
        "whether a generative guard's borderline verdicts count as unsafe (strict) or safe (loose)",
        choices=("strict", "loose"),
    )
    guard_bits: int = setting(16, "bits per weight of the guard", choices=_BITS)
    utility: str = setting("mild", "reward model")
    utility_bits: int = setting(16, "bits per weight of the reward model", choices=_BITS)
    reward: str = setting(
        "boundary", "reward design, or your own as FILE.py:FUNCTION", choices=DESIGNS
    )
    prompts: str = setting(
        "testbed",
        "prompt set: a name from `bgkit prompts`, a file, or a folder of files; separate several "
        "by commas to mix them",
    )
    tau: float = setting(
        0.5, "threshold of the filter: a response with t >= tau is filtered", above=0, below=1
    )
    strength: float = setting(
        8.0,
        "weight of the reward's penalty, in standard deviations of base's utility (weight 1); not "
        "used by utility_only, guard_only and boundary_raw",
        least=0,
    )
    max_false_negatives: float = setting(
        0.0,
        "bound on the share of completions that the guard expects to be harmful and shown, which "
        "moves the strength while training; 0 keeps the strength",
        least=0,
        most=1,
        later=True,
    )
    steps: int = setting(200, "optimiser steps", least=1)
    batch_size: int = setting(64, "completions per step, a multiple of num_generations", least=1)
    num_generations: int = setting(8, "completions per prompt, the group of GRPO", least=2)
    accumulation: int = setting(1, "micro-batches per step; more use less memory", least=1)
    learning_rate: float = setting(3e-3, "peak learning rate of AdamW", above=0, most=1)
    lr_schedule: str = setting(
        "linear",
        "learning rate after the warm-up: decays to 0 (linear, cosine) or stays constant",
        choices=("linear", "constant", "cosine"),
        later=True,
    )
    warmup_steps: int = setting(
        0, "steps over which the learning rate rises from 0; fewer than steps", least=0, later=True
    )
    beta: float = setting(
        0.1,
        "weight of the KL penalty per token, in reward per nat; rewards are scaled to a standard "
        "deviation of 1 over base's responses",
        least=0,
    )
    loss_type: str = setting(
        "grpo",
        "how TRL's loss averages over tokens: per completion (grpo), by a constant length "
        "(dr_grpo), over a micro-batch (bnpo) or a step (dapo); see TRL's docs for the others",
        choices=("grpo", "dr_grpo", "bnpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
        later=True,
    )
    scale_rewards: str = setting(
        "none",
        "over which rewards the standard deviation that divides the advantages is taken (the GRPO "
        "paper: group)",
        choices=("none", "group", "batch"),
        later=True,
    )
    temperature: float = setting(1.0, "sampling temperature", above=0)
    max_completion_length: int = setting(60, "maximum tokens per completion", least=1)
    lora_rank: int = setting(16, "rank of the LoRA adapter; 0 trains all weights", least=0)
    lora_alpha: int = setting(32, "scale of LoRA: alpha / rank multiplies the adapter", least=1)
    precision: str = setting(
        "auto",
        "number format of all models; auto is bfloat16 on a GPU that supports it, else float32",
        choices=("auto", "float32", "bfloat16"),
    )
    eval_every: int = setting(20, "steps between held-out evaluations; 0 turns them off", least=0)
    eval_prompts: int = setting(64, "prompts per held-out evaluation", least=0)
    test_prompts: int = setting(400, "prompts in the final evaluation", least=1)
    judge: str = setting(
        "default",
        "model that grades the final evaluation, besides or instead of the truth (also none, "
        "oracle, english, api:MODEL; of two names, A,B, the second is compared with the first)",
    )
    save_every: int = setting(20, "steps between checkpoints", least=1)
    seed: int = setting(0, "seed for prompts, sampling and the adapter", least=0, most=2**32 - 1)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.eval_every and not self.eval_prompts:
            raise BgkitError(
                "'eval_prompts' must be at least 1 unless 'eval_every' is 0, which turns held-out "
                "evaluation off."
            )
        if self.warmup_steps >= self.steps:
            raise BgkitError(
                f"'warmup_steps' must be below 'steps' ({self.steps}), not {self.warmup_steps}."
            )
        if self.max_false_negatives and not (self.strength and penalises_shown(self.reward)):
            raise BgkitError(
                f"'max_false_negatives' moves the penalty of what is shown, but {self.reward!r} "
                f"at a strength of {self.strength:g} has none that could move; choose shown_risk, "
                "for instance, and a strength above 0, or a bound of 0."
            )
        if self.batch_size % (unit := self.num_generations * self.accumulation):
            raise BgkitError(
                f"'batch_size' {self.batch_size} is not divisible by 'num_generations' "
                f"{self.num_generations} times 'accumulation' {self.accumulation}; use, for "
                f"instance, a batch_size of {max(1, self.batch_size // unit) * unit}."
            )


def make_config(values: dict, base: TrainConfig | None = None) -> TrainConfig:
    """A config from a mapping; other settings come from ``base`` or the defaults.

    Raises BgkitError for an unknown key, and as :class:`TrainConfig`.

    >>> make_config({"reward": "compound", "steps": 10}).steps
    10
    """
    names = TrainConfig.__dataclass_fields__
    if unknown := [key for key in values if key not in names]:
        raise BgkitError(f"Unknown key {unknown[0]!r} in the config; known: {', '.join(names)}.")
    if not isinstance(base, TrainConfig | None):
        raise BgkitError(f"The config must be a TrainConfig, not {base!r} ({type(base).__name__}).")
    return replace(base or TrainConfig(), **values)


def check_settings(record: object) -> None:
    """Convert the settings of a new frozen record to their types; BgkitError for invalid ones."""
    for field in fields(record):
        object.__setattr__(record, field.name, _check_value(field, getattr(record, field.name)))


def _check_value(field: dataclasses.Field, value: object) -> str | int | float:
    """A setting's value, converted to its type; BgkitError for another type or out of range."""
    name, kind, metadata = field.name, type(field.default), field.metadata
    if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
        raise BgkitError(
            f"{name!r} must be of type {kind.__name__}, not {value!r} ({type(value).__name__})."
        )
    with contextlib.suppress(OverflowError):  # of a huge float: out of range below
        value = kind(value)
    if name == "reward":
        find_reward(value)
    elif metadata["choices"] and value not in metadata["choices"]:
        choices = ", ".join(map(str, metadata["choices"]))
        raise BgkitError(f"There is no {name} {value!r}; choose one of {choices}.")
    if kind is str:
        if not (value.strip() and value.isprintable()):
            hint = "; 'none' turns the judge off" if name == "judge" else ""
            raise BgkitError(f"{name!r} must be a name in printable letters, not {value!r}{hint}.")
        return value
    bounds = metadata["bounds"]
    if bounds.keys().isdisjoint(("below", "most")):
        bounds = {**bounds, "most": MOST}
    if not all(_BOUNDS[kind][0](value, bound) for kind, bound in bounds.items()):
        raise BgkitError(f"{name!r} must be {_describe(bounds)}, not {value}.")
    return value


def _describe(bounds: dict[str, float]) -> str:
    return " and ".join(f"{_BOUNDS[kind][1]} {bound:,}" for kind, bound in bounds.items())


def explain(field: dataclasses.Field) -> str:
    """The help of a setting: its text, its choices or embedded models, and its bounds.

    >>> explain(TrainConfig.__dataclass_fields__["scale_rewards"]).rpartition(": ")[2]
    'none, group, batch'
    """
    metadata = field.metadata
    choices = list(map(str, metadata["choices"]))
    if field.name in store.GROUPS:
        with contextlib.suppress(BgkitError):  # a checkout whose models are not built yet
            choices = store.model_names(field.name)
        choices = [*choices, "a local folder", "owner/name on the hub"]
    text = metadata["help"] + (f": {', '.join(choices)}" if choices else "")
    return text + (f"; {_describe(metadata['bounds'])}" if metadata["bounds"] else "")


def read_config(path: Path) -> dict:
    """The mapping in a JSON config file; raises BgkitError with the line of a syntax error."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BgkitError(f"The config {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BgkitError(f"The config {path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise BgkitError(f"The config {path} must hold one JSON object.")
    return values


def config_hash(config: TrainConfig) -> str:
    """12 hex digits that identify a configuration, whatever the order of its keys.

    Settings that older configs lack count only if they are not at their default.
    """
    later = {f.name: f.default for f in fields(config) if f.metadata["later"]}
    hashed = {k: v for k, v in asdict(config).items() if k not in later or v != later[k]}
    return hash_of(**hashed)[:12]


def differences(config: TrainConfig, like: TrainConfig, but: Sequence[str] = ()) -> dict:
    """Settings in which a config differs from another, without the keys ``but``: key -> value.

    >>> differences(TrainConfig(seed=3, beta=0.2), TrainConfig(), but=["seed"])
    {'beta': 0.2}
    """
    return {k: v for k, v in vars(config).items() if k not in but and v != getattr(like, k)}


def is_object(value: object) -> bool:
    """Whether a setting names a guard or utility that was passed as a Python object."""
    return isinstance(value, str) and value.startswith(OBJECT)


def label(name: str) -> str:
    """The name of a guard or utility for tables and cards, without ``object:``.

    >>> label("object:my guard"), label("weak")
    ('my guard', 'weak')
    """
    return name.removeprefix(OBJECT)


def file_name(setting: str) -> str:
    """A setting's value as part of a file name; of a path or a hub name, the last part.

    >>> file_name("object:my guard"), file_name("my/rewards.py:mine")
    ('my-guard', 'rewards.py-mine')
    """
    return re.sub(r"[^\w.]+", "-", Path(label(setting)).name)
