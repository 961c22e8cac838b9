"""Options of commands, including those of a run's config, and functions for several commands."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from bgkit.progress import phase
from bgkit.runs.config import TrainConfig, explain, make_config, read_config

DEVICE = {"--device": ("auto", "device to compute on: auto, cpu, cuda, cuda:1, mps")}
THREADS = {"--threads": (0, "number of CPU threads (all cores, at most 4)")}
METAVARS = {str: "NAME", int: "N", float: "X"}
CONFIG = "JSON object of the settings below, or a run's config.json; options override it"
CONFIG_FILE = {"--config": (Path, CONFIG, {"metavar": "FILE"})}


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """The phase in which a command imports slow modules.

    Ctrl-C ends the process at once, because some libraries swallow the exception while imported.
    """
    # a background job ignores SIGINT, and should continue to
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with phase("loading PyTorch and its libraries"):
            yield
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def add(command: argparse.ArgumentParser, options: Mapping[str, tuple]) -> None:
    """Add options: name -> kind, help and, optionally, more arguments for argparse.

    A kind is False (a flag), a tuple of choices, a type (no default), or a default, which is
    appended to the help unless that has brackets.
    """
    for name, (kind, text, *more) in options.items():
        if kind is False:
            arguments = {"action": "store_true"}
        elif isinstance(kind, tuple):
            arguments = {"choices": kind}
        elif callable(kind):
            arguments = {"type": kind}
        else:
            arguments = {"type": type(kind), "default": kind}
            text += "" if "(" in text else " (%(default)s)"
        command.add_argument(name, help=text, **arguments, **dict(*more))


def settings_of(record: type, **defaults: object) -> dict[str, tuple]:
    """An option for each setting of a record; the command's ``defaults`` differ from the record's.

    Defaults stand in the help only: :func:`given_settings` tells what a user has set.
    """
    options = {}
    for field in fields(record):
        default = defaults.get(field.name, field.default)
        text = f"{explain(field)} ({default})".replace("%", "%%")
        option = (type(default), text, {"metavar": METAVARS[type(default)]})
        options[f"--{field.name.replace('_', '-')}"] = option
    return options


def given_settings(record: type, given: dict) -> dict[str, object]:
    """The settings of a record that a user has set, taken out of the options ``given``."""
    settings = {field.name: given.pop(field.name) for field in fields(record)}
    return {name: value for name, value in settings.items() if value is not None}


def config_of(given: dict, **defaults: object) -> TrainConfig:
    """The training config from a command's options, its --config file and its defaults.

    Removes the settings from the options ``given``. Raises BgkitError for invalid settings.
    """
    file = given.pop("config")
    values = read_config(file) if file else {}
    if isinstance(of_run := values.get("config"), dict):  # the config.json of a run
        values = of_run
    return make_config({**defaults, **values, **given_settings(TrainConfig, given)})


def json_object(text: str) -> dict:
    """Parse an option as a JSON object."""
    try:
        return {**json.loads(text)}
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid JSON object") from error


def file_to_write(text: str) -> Path:
    """Parse an option as the path of a file, not of a folder."""
    if (path := Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name the file to write")
    return path
