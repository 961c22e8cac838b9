"""``python -m bgkit COMMAND``: the parser of all commands, and how errors are told.

Every error that the user can mend is one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from bgkit import environment
from bgkit.errors import BgkitError

#: Command -> the module in which it is a function and, in capitals, its options; its help; and
#: what stands below the options.
COMMANDS = {
    "demo": ("train", "train three designs, compare them with base, report"),
    "train": ("train", "one GRPO run into a run folder"),
    "fit": ("files", "fit a guard or a reward model from labelled responses"),
    "evaluate": ("train", "runs beside base, on test prompts"),
    "judge": ("files", "grade files of prompts and responses"),
    "prompts": ("files", "list the prompt sets, or show what one holds"),
    "plan": ("train", "memory of a run, before anything is fetched; and its time, measured here"),
    "push": ("train", "a run's adapter and its model card to the hub"),
    "sweep": (
        "sweep",
        "one notebook with many parameters, by papermill",
        "Exit status: 0 all runs are complete, 1 some failed or broke, 2 refused or stopped.",
    ),
    "collect": ("sweep", "what sweeps of trainings found, in small files"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BgkitError(f"{message} (`{self.prog} --help` explains)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; the name of the one that was given is in ``command``.

    It raises BgkitError for arguments that it does not take.
    """
    from bgkit.cli import options  # where main() hears of Ctrl-C, like the commands

    about = "Train a generator for its safety filter, evaluate and compare."
    parser = _Parser(prog="bgkit", description=about)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (place, words, *more) in COMMANDS.items():
        module = import_module(f"bgkit.cli.{place}")
        command = commands.add_parser(name, help=words, epilog=" ".join(more))
        command.set_defaults(run=getattr(module, name))
        options.add(command, getattr(module, name.upper()))
        if name in options.CONFIGS:
            options.add_config(command, options.CONFIGS[name])
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
