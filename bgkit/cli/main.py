"""``python -m bgkit COMMAND``: the parser of all commands, and how errors are told.

Every error that the user can mend is one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from bgkit import environment
from bgkit.errors import BgkitError


class Command(NamedTuple):
    """A command; ``config`` are its own defaults, if it takes the settings of a run."""

    help: str
    run: Callable[[argparse.Namespace], int | None]
    options: Mapping[str, tuple]
    config: Mapping[str, object] | None = None
    more: str = ""  # below the options


def commands() -> dict[str, Command]:
    """All commands by name, which are imported here, where :func:`main` hears of Ctrl-C."""
    from bgkit.cli import files, sweep, train

    return {
        "demo": Command(
            "train three designs, compare them with base, report",
            train.demo,
            train.DEMO,
            train.SHORT,
        ),
        "train": Command("one GRPO run into a run folder", train.train, train.TRAIN, {}),
        "fit": Command(
            "fit a guard or a reward model from labelled responses", files.fit, files.FIT
        ),
        "evaluate": Command("runs beside base, on test prompts", train.evaluate, train.EVALUATE),
        "judge": Command("grade files of prompts and responses", files.judge, files.JUDGE),
        "prompts": Command(
            "list the prompt sets, or show what one holds", files.prompts, files.PROMPTS
        ),
        "plan": Command(
            "memory of a run, before anything is fetched; and its time, measured here",
            train.plan,
            train.PLAN,
            {},
        ),
        "push": Command("a run's adapter and its model card to the hub", train.push, train.PUSH),
        "sweep": Command(
            "one notebook with many parameters, by papermill",
            sweep.sweep,
            sweep.SWEEP,
            more=sweep.STATUS,
        ),
        "collect": Command(
            "what sweeps of trainings found, in small files", sweep.collect, sweep.COLLECT
        ),
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BgkitError(f"{message} (`{self.prog} --help` explains)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; the name of the one that was given is in ``command``.

    It raises BgkitError for arguments that it does not take.
    """
    from bgkit.cli import options

    about = "Train a generator for its safety filter, evaluate and compare."
    parser = _Parser(prog="bgkit", description=about)
    places = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands().items():
        place = places.add_parser(name, help=command.help, epilog=command.more)
        place.set_defaults(run=command.run)
        options.add(place, command.options)
        if command.config is not None:
            options.add_config(place, command.config)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 after an error that the user can mend, 1 after a sweep in which runs failed.
    """
    environment.prepare()
    try:
        parsed = parser().parse_args(arguments)
        return parsed.run(parsed) or 0
    except KeyboardInterrupt:
        message = "bgkit: Interrupted; the same command goes on from what had ended."
    except BgkitError as error:
        message = f"bgkit: {error}"
    except OSError as error:
        message = f"bgkit: {error.strerror or error}: {error.filename or ''}"
    from bgkit.progress import say

    say(message, sys.stderr)
    return 2
