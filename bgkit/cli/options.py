"""Options of commands, those of a run's config among them, and what several commands do."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from bgkit.progress import phase
from bgkit.runs.config import TrainConfig, explain, make_config, read_config

DEVICE = {"--device": ("auto", "where to compute: auto, cpu, cuda, cuda:1, mps")}
THREADS = {"--threads": (0, "CPU threads (all cores, at most 4)")}
METAVARS = {str: "NAME", int: "N", float: "X"}
CONFIG = "JSON object of the keys below, or a run's config.json"
#: Commands that take the settings of a run -> their own defaults; the demo has fewer steps than
#: usual, at a higher rate.
CONFIGS: dict[str, dict[str, object]] = {
    "demo": {"eval_every": 20, "steps": 40, "learning_rate": 6e-3, "test_prompts": 200},
    "train": {},
    "plan": {},
}


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """The phase in which a command imports what is slow.

    Ctrl-C ends the process at once: some libraries swallow the exception while they are imported.
    """
    # a background job ignores it, and so it shall
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with phase("loading PyTorch and its libraries"):
            yield
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def add(command: argparse.ArgumentParser, options: Mapping[str, tuple]) -> None:
    """Add options: name -> kind, help and, where it needs them, more arguments of argparse.

    A kind is False (a flag), a tuple of choices, a type (no default), or a default, which the help
    tells unless it holds brackets of its own.
    """
    for name, (kind, text, *more) in options.items():
        if kind is False:
            given = {"action": "store_true"}
        elif isinstance(kind, tuple):
            given = {"choices": kind}
        elif callable(kind):
            given = {"type": kind}
        else:
            given = {"type": type(kind), "default": kind}
            text += "" if "(" in text else " (%(default)s)"
        command.add_argument(name, help=text, **given, **dict(*more))


def add_config(command: argparse.ArgumentParser, defaults: Mapping[str, object]) -> None:
    """One option for each setting of a run, with the command's own defaults, and --config."""
    about = "what determines a run, with its default; options beat --config"
    told = {"--config": (Path, CONFIG, {"metavar": "FILE"})}
    for name, usual in {**vars(TrainConfig()), **defaults}.items():
        words = f"{explain(name)} ({usual})".replace("%", "%%")
        option = (type(usual), words, {"metavar": METAVARS[type(usual)]})
        told[f"--{name.replace('_', '-')}"] = option
    add(command.add_argument_group("config", about), told)


def config_of(command: str, given: dict) -> TrainConfig:
    """The training config of a command's options, their --config file and its defaults.

    It takes its settings out of the options that were ``given``. Raises BgkitError for what no
    training accepts.
    """
    file = given.pop("config")
    values = read_config(file) if file else {}
    if isinstance(of_run := values.get("config"), dict):  # the config.json of a run
        values = of_run
    own = {name: given.pop(name) for name in TrainConfig.__dataclass_fields__}
    chosen = {name: value for name, value in own.items() if value is not None}
    return make_config({**CONFIGS[command], **values, **chosen})


def json_object(text: str) -> dict:
    """An option's JSON object."""
    try:
        return {**json.loads(text)}
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no valid JSON object") from error


def file_to_write(text: str) -> Path:
    """An option's path of a file, which is no folder."""
    if (path := Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name the file to write in it")
    return path
