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
import json
import os
import re
import shutil
import subprocess
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

#: The key of config.json that names what trained a run, where that was not GRPO.
METHOD = "method"


def git_revision() -> str:
    """The commit of the source checkout this code runs from, with ``+`` if it has changes."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    how = {"capture_output": True, "text": True, "timeout": 10, "check": True}
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, **how).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


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
    def measured(self) -> bool:
        """Whether anything was measured with its guard and utility yet: base comes first."""
        return self.complete or (self.folder / "base.json").is_file()

    @property
    def label(self) -> str:
        """The run's name in tables and figures: its reward design, after its method if not GRPO."""
        method = self.read_json("config.json").get(METHOD)
        return f"{method}: {self.config.reward}" if method else self.config.reward

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
        written = self.checkpoints.glob("checkpoint-[0-9]*/trainer_state.json")  # is written last
        return max((path.parent for path in written), key=_step_of, default=None)

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
        first = _step_of(self.last_checkpoint() or Path("0"))
        for path in (self.folder / "records").glob("*.parquet"):
            if _step_of(path) >= first:
                path.unlink()

    def completions(self, last: int = 0) -> pd.DataFrame:
        """All completions recorded so far, in the order of the steps, or those of the ``last``."""
        whole = self.folder / "completions.parquet"
        if self.complete and whole.is_file():
            return pd.read_parquet(whole)
        paths = sorted((self.folder / "records").glob("*.parquet"))
        newest = sorted(set(map(_step_of, paths)))[-last:]
        parts = [pd.read_parquet(path) for path in paths if _step_of(path) in newest]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def curve(self) -> pd.DataFrame:
        """The training curve, one row per step."""
        path = self.folder / "metrics.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame()

    def samples(self, which: str = "trained") -> pd.DataFrame:
        """What the policy, ``trained`` or ``base``, said to the test prompts, one row per prompt.

        Raises BgkitError for a run that is incomplete, or whose samples were not kept (as those of
        the runs that come with the kit), and for another ``which``.
        """
        files = {"trained": "samples.parquet", "base": "base_samples.parquet"}
        if which not in files:
            raise BgkitError(f"A run has the samples 'trained' and 'base', not {which!r}.")
        path = self.folder / files[which]
        if not path.is_file():
            raise BgkitError(
                f"The run {self.folder} has no {path.name}: it is incomplete, or its samples were "
                "not kept. Train it, or sample it anew (bgkit.evaluate, stress.contenders.respond)."
            )
        return pd.read_parquet(path)

    @property
    def result(self) -> dict:
        """What training and evaluation came to: rows, paired differences, seconds, versions."""
        return self.read_json("result.json")

    def finish(self, result: dict) -> None:
        """Join the records, write the result, and remove what only resuming needs."""
        if (self.folder / "records").is_dir():
            write_parquet(self.folder / "completions.parquet", self.completions())
        write_json(self.folder / "result.json", result)
        for folder in (self.folder / "records", self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)


def _step_of(path: Path) -> int:
    """The step of a checkpoint's folder, or of a record's file."""
    return int(re.search(r"\d+", path.name)[0])


def find_run(folder: Path, config: TrainConfig) -> Run | None:
    """The run of this config in a folder, or None if the folder is new or empty.

    Raises BgkitError if the folder holds another config (the difference is shown) or other files.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise BgkitError(f"The folder {folder} is not empty and is no run; choose another one.")
        return None
    stored = load_run(folder).config
    if changed := differences(stored, config):
        given = [key for key, value in changed.items() if is_object(value)]
        again = f"give the same object as {given[0]}=, " if given else ""
        told = [f"{k}: {there} there, {getattr(config, k)} here" for k, there in changed.items()]
        raise BgkitError(
            f"The run folder {folder} belongs to another config ({', '.join(told)}); {again}choose "
            "another folder, or delete it."
        )
    return Run(folder, config)


def open_run(folder: Path, config: TrainConfig, environment: dict) -> Run:
    """The run of this config in a folder, made there if the folder is new (see find_run).

    A run in which nothing was measured yet gets the environment of today.
    """
    run = find_run(folder, config)
    if run is None or not run.measured:
        run = Run(Path(folder), config)
        values = {"config": asdict(config), "hash": config_hash(config), **environment}
        write_json(run.folder / "config.json", values)
    return run


def load_run(folder: Path) -> Run:
    """Open a run for reading; raises BgkitError if it is not one."""
    checks.kind("a name or a path", folder=folder)
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise BgkitError(f"There is no run in {folder} (it has no config.json); check the path.")
    values = read_config(path).get("config")
    if not isinstance(values, dict):
        raise BgkitError(
            f"{path} is not a run's config (it has no key 'config' with the settings); "
            "choose another folder."
        )
    try:
        return Run(path.parent, make_config(values))
    except BgkitError as error:
        raise BgkitError(
            f"The run {folder} has a config that this version of bgkit refuses: {error}"
        ) from error


def folder_of(config: TrainConfig, below: str | Path = "runs") -> Path:
    """Where a run goes without a named folder: ``<below>/<reward>-<utility>-<seed>-<hash>``.

    The hash is that of the config, so that another setting is another run. Of a reward or utility
    that is a file, a folder or on the hub the last part stands for it.
    """
    name = f"{file_name(config.reward)}-{file_name(config.utility)}-{config.seed}"
    return Path(below) / f"{name}-{config_hash(config)}"
