"""``python -m bgkit COMMAND``: the parser of all commands, and how errors are told.

Every error that the user can mend is one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

INTERRUPTED = "bgkit: Interrupted; the same command goes on from what had ended."
NAMES = "demo train fit evaluate judge prompts plan push sweep collect".split()
try:
    from bgkit import environment
    from bgkit.cli import options
    from bgkit.errors import BgkitError
    from bgkit.progress import say

    COMMANDS = {name: import_module(f"bgkit.cli.{name}") for name in NAMES}
except KeyboardInterrupt:  # before main() could take it
    print(INTERRUPTED, file=sys.stderr)
    raise SystemExit(2) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BgkitError(f"{message} (`{self.prog} --help` explains)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; the name of the one that was given is in ``command``.

    It raises BgkitError for arguments that it does not take.
    """
    about = "Train a generator for its safety filter, evaluate and compare."
    parser = _Parser(prog="bgkit", description=about)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        help_, _, more = inspect.getdoc(module).partition(".\n")
        help_ = help_.rstrip(".")
        command = commands.add_parser(name, help=help_[:1].lower() + help_[1:], epilog=more.strip())
        options.add(command, module.OPTIONS)
        if hasattr(module, "CONFIG"):
            options.add_config(command, module.CONFIG)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 after an error that the user can mend, 1 after a sweep in which runs failed.
    """
    environment.prepare()
    try:
        parsed = parser().parse_args(arguments)
        return COMMANDS[parsed.command].run(parsed) or 0
    except KeyboardInterrupt:
        message = INTERRUPTED
    except BgkitError as error:
        message = f"bgkit: {error}"
    except OSError as error:
        message = f"bgkit: {error.strerror or error}: {error.filename or ''}"
    say(message, sys.stderr)
    return 2
