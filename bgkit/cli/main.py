"""``python -m bgkit COMMAND``: the parser of all commands, and the handling of errors.

An error that the user can fix is one message on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import NoReturn

from bgkit import environment
from bgkit.errors import BgkitError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BgkitError(f"{message} (`{self.prog} --help` explains)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands, with the command's name in ``command``.

    It raises BgkitError for invalid arguments.
    """
    from bgkit.cli import files, options, runs  # here, where main() handles Ctrl-C

    about = "Train a generator for its safety filter, evaluate and compare."
    main_parser = _Parser(prog="bgkit", description=about)
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    first = (runs.demo, runs.train, files.fit, runs.evaluate, files.judge, files.prompts)
    for run in (*first, runs.plan, runs.push, runs.sweep, runs.collect):
        summary, _, more = (inspect.getdoc(run) or "").partition("\n\n")
        name, summary = run.__name__, summary[:1].lower() + summary[1:].rstrip(".")
        command = commands.add_parser(name, help=summary, epilog=more)
        command.set_defaults(run=run)
        options.add(command, run.__globals__[name.upper()])
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 after an error that the user can fix, 1 after a sweep in which runs failed.
    """
    environment.prepare()
    try:
        given = vars(parser().parse_args(arguments))
        run, _ = given.pop("run"), given.pop("command")
        return run(**given) or 0
    except KeyboardInterrupt:
        message = "bgkit: Interrupted; run the same command again to resume."
    except BgkitError as error:
        message = f"bgkit: {error}"
    except OSError as error:
        message = f"bgkit: {error.strerror or error}: {error.filename or ''}"
    from bgkit.progress import say

    say(message, sys.stderr)
    return 2
