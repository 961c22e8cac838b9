"""A run: its config, its folder, and records that are neither lost nor duplicated.

A run folder holds ``config.json`` (the config, with versions and git revision), ``base.json`` (mean
and standard deviation of the base policy's utility), ``prompts.json`` (the prompts of each split:
sets, revisions, counts, sha256), ``metrics.parquet``, ``completions.parquet``, ``checkpoints/``,
``adapter/``, and ``result.json``, which is written last: a run is complete if and only if it is
there. During training, completions are stored in ``records/``, one file per step and process, so a
resumed run overwrites a repeated step.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.runs.config import (
    TrainConfig,
    config_hash,
    differences,
    file_name,
    is_object,
    make_config,
    read_config,
)

#: Key of config.json for the training method, if it was not GRPO.
METHOD = "method"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` and move the file into place; a failure changes nothing.

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
            "folder; the same command then resumes."
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
    """A run folder; create it with :func:`open_run`, read it with :func:`load_run`."""

    folder: Path
    config: TrainConfig

    @property
    def complete(self) -> bool:
        """Whether the run has its result."""
        return (self.folder / "result.json").is_file()

    @property
    def has_measurements(self) -> bool:
        """Whether its guard and utility have scored anything yet; base is scored first."""
        return self.complete or (self.folder / "base.json").is_file()

    @property
    def label(self) -> str:
        """Name in tables and figures: the reward design, preceded by the method if not GRPO."""
        method = self.read_json("config.json").get(METHOD)
        return f"{method}: {self.config.reward}" if method else self.config.reward

    @property
    def strength(self) -> float:
        """The weight of the reward's penalty; if a bound moved it, that of the last step."""
        if not self.config.max_false_negatives:
            return self.config.strength
        return float(self.curve()["multiplier"].dropna().iloc[-1])

    @property
    def steps_done(self) -> int:
        """How many steps have recorded completions; all of a complete run."""
        records = (self.folder / "records").glob("*.parquet")
        return self.config.steps if self.complete else max(map(_step_of, records), default=-1) + 1

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
        states = self.checkpoints.glob("checkpoint-[0-9]*/trainer_state.json")  # written last
        return max((path.parent for path in states), key=_step_of, default=None)

    def read_json(self, name: str) -> dict:
        """Read one of the run's JSON files; raises BgkitError if it is missing or invalid."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BgkitError(
                f"The run {self.folder} has no readable {name}: it is incomplete. Run the same "
                "training command again to finish it."
            ) from error

    def record_completions(self, step: int, frame: pd.DataFrame, process: int = 0) -> None:
        """Store one process's completions of a step; a repeated step is overwritten."""
        write_parquet(self.folder / "records" / f"{step:06d}-{process}.parquet", frame)

    def drop_repeated(self) -> None:
        """Delete completions after the newest checkpoint, which will be sampled again.

        Otherwise a launch with fewer processes would keep records of the missing processes.
        """
        first = _step_of(self.last_checkpoint() or Path("0"))
        for path in (self.folder / "records").glob("*.parquet"):
            if _step_of(path) >= first:
                path.unlink()

    def completions(self, last: int = 0) -> pd.DataFrame:
        """Completions recorded so far; of the ``last`` steps if it is not 0.

        The column ``step`` counts from 1, as in :meth:`curve`; the files count from 0.
        """
        merged = self.folder / "completions.parquet"
        in_one = self.complete and merged.is_file()
        table = pd.read_parquet(merged) if in_one else self._merge_records(last)
        if "step" not in table:
            return table
        newest = table["step"].drop_duplicates().nlargest(last) if last else table["step"]
        table = table[table["step"].isin(newest)].reset_index(drop=True)
        return table.assign(step=table["step"] + 1)

    def _merge_records(self, last: int = 0) -> pd.DataFrame:
        """The records of all steps, or of the ``last`` ones, in their order."""
        paths = sorted((self.folder / "records").glob("*.parquet"))
        newest = sorted(set(map(_step_of, paths)))[-last:]
        parts = [pd.read_parquet(path) for path in paths if _step_of(path) in newest]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def curve(self) -> pd.DataFrame:
        """The training curve, one row per step."""
        path = self.folder / "metrics.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame()

    def samples(self, which: str = "trained") -> pd.DataFrame:
        """Completions of the ``trained`` or ``base`` policy to the test prompts, one row each.

        Raises BgkitError for an incomplete run, one without stored samples (such as the runs that
        ship with bgkit), and for another ``which``.
        """
        files = {"trained": "samples.parquet", "base": "base_samples.parquet"}
        if which not in files:
            raise BgkitError(f"A run has the samples 'trained' and 'base', not {which!r}.")
        path = self.folder / files[which]
        if not path.is_file():
            raise BgkitError(
                f"The run {self.folder} has no {path.name}: it is incomplete, or its samples were "
                "not stored. Train it, or sample again (bgkit.load_policy, bgkit.sample)."
            )
        return pd.read_parquet(path)

    @property
    def result(self) -> dict:
        """Results of training and evaluation: rows, paired differences, seconds, versions."""
        return self.read_json("result.json")

    def finish(self, result: dict) -> None:
        """Merge the records, write the result, and delete the files needed only to resume."""
        if (self.folder / "records").is_dir():
            write_parquet(self.folder / "completions.parquet", self._merge_records())
        write_json(self.folder / "result.json", result)
        for folder in (self.folder / "records", self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)


def _step_of(path: Path) -> int:
    """The step in the name of a checkpoint folder or a record file."""
    return int(re.search(r"\d+", path.name)[0])


def find_run(folder: Path, config: TrainConfig) -> Run | None:
    """The run of this config in a folder, or None if the folder is new or empty.

    Raises BgkitError if the folder holds another config (the message shows the differences) or
    other files.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            fault = "is a file" if folder.is_file() else "is not empty and not a run"
            raise BgkitError(f"The folder {folder} {fault}; choose another one.")
        return None
    stored = load_run(folder).config
    if changed := differences(stored, config):
        objects = [key for key, value in changed.items() if is_object(value)]
        hint = f"pass the same object as {objects[0]}=, " if objects else ""
        changes = [f"{k}: {old} there, {getattr(config, k)} here" for k, old in changed.items()]
        raise BgkitError(
            f"The run folder {folder} belongs to another config ({', '.join(changes)}); {hint}"
            "choose another folder, or delete it."
        )
    return Run(folder, config)


def open_run(folder: Path, config: TrainConfig, environment: dict) -> Run:
    """The run of this config in a folder (see :func:`find_run`), created if the folder is new.

    A run without measurements records the current environment.
    """
    run = find_run(folder, config)
    if run is None or not run.has_measurements:
        run = Run(Path(folder), config)
        values = {"config": asdict(config), "hash": config_hash(config), **environment}
        write_json(run.folder / "config.json", values)
    return run


def load_run(folder: Path) -> Run:
    """Open a run for reading; raises BgkitError if the folder is not a run."""
    checks.require_type("a name or a path", folder=folder)
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise BgkitError(f"There is no run in {folder} (it has no config.json); check the path.")
    values = read_config(path).get("config")
    if not isinstance(values, dict):
        raise BgkitError(
            f"{path} is not the config of a run (it has no key 'config' with the settings); "
            "choose another folder."
        )
    try:
        return Run(path.parent, make_config(values))
    except BgkitError as error:
        raise BgkitError(
            f"The run {folder} has a config that this version of bgkit rejects: {error}"
        ) from error


def folder_of(config: TrainConfig, below: str | Path = "runs") -> Path:
    """Default folder of a run: ``<below>/<reward>-<utility>-<seed>-<config hash>``.

    A reward or utility given as a file, folder or hub name is represented by its last part.
    """
    name = f"{file_name(config.reward)}-{file_name(config.utility)}-{config.seed}"
    return Path(below) / f"{name}-{config_hash(config)}"
