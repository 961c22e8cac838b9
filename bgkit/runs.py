"""A run: its configuration, its folder, and records that are never lost or doubled.

A run folder holds ``config.json`` (all that determines the run, with versions and git revision),
``base.json`` (the base policy's utility mean and deviation), ``prompts.json`` (the prompts of each
split: sets, revisions, counts, sha256), ``metrics.parquet``, ``completions.parquet``,
``checkpoints/``, ``adapter/``, and ``result.json``, which is written last: a folder is complete if
and only if it is there. While a run is going, its completions lie in ``records/``, one file per
step and process, so that a resumed run overwrites a repeated step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from bgkit.errors import BgkitError

#: The key of config.json that names what trained a run, where that was not GRPO.
METHOD = "method"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run. Lengths are in tokens.

    ``batch_size`` counts completions per optimiser step and must be divisible by
    ``num_generations`` (completions per prompt) and by ``accumulation`` (micro-batches).
    ``lora_rank`` 0 means full fine-tuning. ``eval_every`` 0 switches held-out evaluation off;
    ``judge`` "none" leaves the judge out of the final evaluation. ``guard_temperature`` scales the
    guard's logits (:class:`bgkit.adapters.CalibratedGuard`), ``guard_verdicts`` says whether its
    grey verdicts count as unsafe, ``guard_bits`` and ``utility_bits`` 8 or 4 quantise.
    """

    policy: str = "small"
    guard: str = "default"
    guard_temperature: float = 1.0
    guard_verdicts: str = "strict"
    guard_bits: int = 16
    utility: str = "mild"
    utility_bits: int = 16
    reward: str = "boundary"
    prompts: str = "testbed"
    tau: float = 0.5
    utility_weight: float = 0.25
    margin_weight: float = 2.0
    filter_penalty: float = 1.0
    filtered_reward: float = -0.5
    steps: int = 100
    batch_size: int = 64
    num_generations: int = 8
    accumulation: int = 1
    learning_rate: float = 6e-3
    beta: float = 0.03
    temperature: float = 1.0
    max_completion_length: int = 60
    lora_rank: int = 16
    lora_alpha: int = 32
    precision: str = "auto"
    eval_every: int = 20
    eval_prompts: int = 64
    test_prompts: int = 400
    judge: str = "default"
    save_every: int = 20
    seed: int = 0

    def weights(self) -> dict[str, float]:
        """The reward's weights."""
        names = ("utility_weight", "margin_weight", "filter_penalty", "filtered_reward")
        return {name: getattr(self, name) for name in names}


_POSITIVE = (
    "steps batch_size accumulation learning_rate temperature max_completion_length save_every "
    "lora_alpha test_prompts guard_temperature"
).split()
_NOT_NEGATIVE = "beta lora_rank eval_every eval_prompts seed".split()


def make_config(values: dict, base: TrainConfig | None = None) -> TrainConfig:
    """A checked configuration from a mapping (and the defaults, or ``base``).

    Raises BgkitError for an unknown key, an ill-typed value, a value out of range, or batch sizes
    that do not divide.

    >>> make_config({"reward": "compound", "steps": 10}).steps
    10
    """
    types_ = typing.get_type_hints(TrainConfig)
    for key, value in values.items():
        if key not in types_:
            raise BgkitError(f"Unknown key {key!r} in the config; known: {', '.join(types_)}.")
        values = {**values, key: _typed(key, value, types_[key])}
    config = replace(base or TrainConfig(), **values)
    _check_ranges(config)
    return config


def _typed(key: str, value: object, wanted: type) -> object:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise BgkitError(
            f"The config's {key!r} must be of type {wanted.__name__}, not {value!r} "
            f"({type(value).__name__})."
        )
    return value


def _check_ranges(config: TrainConfig) -> None:
    from bgkit.rewards import DESIGNS

    if config.reward not in DESIGNS:
        raise BgkitError(
            f"There is no reward {config.reward!r}; choose one of {', '.join(DESIGNS)}."
        )
    if not 0 < config.tau < 1:
        raise BgkitError(f"'tau' must lie strictly between 0 and 1, not {config.tau}.")
    for name, value in asdict(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BgkitError(f"{name!r} must be a finite number, not {value}.")
    if config.guard_verdicts not in ("strict", "loose"):
        raise BgkitError("'guard_verdicts' must be strict or loose.")
    if config.precision not in ("auto", "float32", "bfloat16"):
        raise BgkitError("'precision' must be auto, float32 or bfloat16.")
    for name, low in [(n, 0) for n in _POSITIVE] + [(n, -1) for n in _NOT_NEGATIVE]:
        if not getattr(config, name) > low and not (low == -1 and getattr(config, name) >= 0):
            least = "positive" if low == 0 else "zero or more"
            raise BgkitError(f"{name!r} must be {least}, not {getattr(config, name)}.")
    if config.num_generations < 2:
        raise BgkitError("'num_generations' must be at least 2: GRPO compares within a group.")
    for name in ("num_generations", "accumulation"):
        size = getattr(config, name)
        if config.batch_size % size:
            below = max(size, config.batch_size // size * size)
            raise BgkitError(
                f"'batch_size' {config.batch_size} is not divisible by {name!r} {size}; "
                f"use for instance a batch_size of {below}."
            )
    if config.batch_size // config.accumulation % config.num_generations:
        raise BgkitError(
            f"A micro-batch of {config.batch_size // config.accumulation} completions (batch_size "
            f"/ accumulation) is not divisible by 'num_generations' {config.num_generations}."
        )


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
    """12 hex digits that identify a configuration, whatever the order of its keys."""
    text = json.dumps(asdict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def git_revision() -> str:
    """The commit of the source checkout this code runs from, with ``+`` if it has changes."""
    here = Path(__file__).resolve().parent
    try:
        run = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if dirty else "")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` and move the file into place; on failure nothing is changed.

    Raises BgkitError if the disk is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise BgkitError(
            f"Could not write {path}: {error.strerror or error}. Free some space or choose another "
            "folder; the same command then goes on where it stopped."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table atomically."""
    write_atomically(path, lambda file: frame.to_parquet(file, index=False))


@dataclass(frozen=True)
class Run:
    """A run folder; make one with :func:`open_run`, or :func:`load_run` for reading."""

    folder: Path
    config: TrainConfig

    @property
    def complete(self) -> bool:
        """Whether the result was written."""
        return (self.folder / "result.json").is_file()

    @property
    def adapter(self) -> Path:
        """Folder of the trained adapter (or of the whole model after full fine-tuning)."""
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        """Folder of the trainer's checkpoints."""
        return self.folder / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The newest finished checkpoint, or None."""
        found = [
            path
            for path in self.checkpoints.glob("checkpoint-*")
            if (path / "trainer_state.json").is_file()  # the trainer writes it last
            and path.name.split("-")[1].isdigit()
        ]
        return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)

    def read_json(self, name: str) -> dict:
        """One of the run's JSON files; raises BgkitError if it is missing or broken."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BgkitError(
                f"The run {self.folder} has no readable {name}: it is incomplete. Run the same "
                "training command again to finish it."
            ) from error

    def record_completions(self, step: int, frame: pd.DataFrame, process: int = 0) -> None:
        """Keep a process's completions of one step (a repeated step replaces itself)."""
        write_parquet(self.folder / "records" / f"{step:06d}-{process}.parquet", frame)

    def drop_repeated(self) -> None:
        """Forget the completions after the newest checkpoint: they will be sampled again.

        Without it, a launch of fewer processes than before would leave those of the others.
        """
        checkpoint = self.last_checkpoint()
        step = int(checkpoint.name.split("-")[1]) if checkpoint else 0
        for path in self._records():
            if _step_of(path) >= step:
                path.unlink()

    def _records(self) -> list[Path]:
        return sorted((self.folder / "records").glob("*.parquet"))

    def completions(self, last: int = 0) -> pd.DataFrame:
        """All completions recorded so far, in the order of the steps, or those of the ``last``."""
        whole = self.folder / "completions.parquet"
        if self.complete and whole.is_file():
            return pd.read_parquet(whole)
        parts = self._records()
        newest = sorted({_step_of(path) for path in parts})[-last:]
        parts = [path for path in parts if _step_of(path) in newest]
        return (
            pd.concat([pd.read_parquet(p) for p in parts], ignore_index=True)
            if parts
            else pd.DataFrame()
        )

    def metrics(self) -> pd.DataFrame:
        """The training curve, one row per step."""
        path = self.folder / "metrics.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame()

    def finish(self, result: dict) -> None:
        """Join the records, write the result, and remove what only resuming needs."""
        if (self.folder / "records").is_dir():
            write_parquet(self.folder / "completions.parquet", self.completions())
        write_json(self.folder / "result.json", result)
        shutil.rmtree(self.folder / "records", ignore_errors=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def _step_of(record: Path) -> int:
    return int(record.name[:6])


def find_run(folder: Path, config: TrainConfig) -> Run | None:
    """The run of this config in a folder, or None if the folder is new or empty.

    Raises BgkitError if the folder holds another config (the difference is shown) or other files.
    """
    folder = Path(folder)
    if (folder / "config.json").is_file():
        stored = load_run(folder).config
        if stored != config:
            raise BgkitError(
                f"The run folder {folder} belongs to another config "
                f"({_difference(stored, config)}); choose another folder, or delete it."
            )
        return Run(folder, config)
    if folder.is_dir() and any(folder.iterdir()):
        raise BgkitError(f"The folder {folder} is not empty and is no run; choose another one.")
    return None


def open_run(folder: Path, config: TrainConfig, environment: dict) -> Run:
    """The run of this config in a folder, made there if the folder is new (see find_run)."""
    folder = Path(folder)
    if (run := find_run(folder, config)) is not None:
        return run
    values = {"config": asdict(config), "hash": config_hash(config), **environment}
    write_json(folder / "config.json", values)
    return Run(folder, config)


def load_run(folder: Path) -> Run:
    """Open a run for reading; raises BgkitError if it is not one."""
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise BgkitError(f"There is no run in {folder} (it has no config.json); check the path.")
    values = read_config(path).get("config")
    if not isinstance(values, dict):
        raise BgkitError(
            f"{path} is not a run's config (it has no key 'config' with the settings); "
            "choose another folder."
        )
    known = {field.name for field in fields(TrainConfig)}
    if unknown := set(values) - known:
        raise BgkitError(
            f"The run {folder} was made by another version of bgkit (unknown: "
            f"{', '.join(sorted(unknown))}); use that version to read it."
        )
    return Run(folder, make_config(values))


def differences(config: TrainConfig, like: TrainConfig, but: Sequence[str] = ()) -> dict:
    """What a config has other than another one: key -> its value, without the keys ``but``.

    >>> differences(TrainConfig(seed=3, beta=0.1), TrainConfig(), but=["seed"])
    {'beta': 0.1}
    """
    values = vars(config).items()
    return {key: v for key, v in values if key not in but and v != getattr(like, key)}


def _difference(old: TrainConfig, new: TrainConfig) -> str:
    before, after = asdict(old), asdict(new)
    return ", ".join(
        f"{k}: {before[k]} there, {after[k]} here" for k in before if before[k] != after[k]
    )
