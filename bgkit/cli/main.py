"""``python -m bgkit COMMAND``: the parser of all commands, and how errors are told.

Every error that the user can mend is one sentence on standard error and exit status 2.
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
    """The parser of all commands; the name of the one that was given is in ``command``.

    It raises BgkitError for arguments that it does not take.
    """
    from bgkit.cli import files, options, runs  # where main() hears of Ctrl-C

    about = "Train a generator for its safety filter, evaluate and compare."
    whole = _Parser(prog="bgkit", description=about)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    known = (runs.demo, runs.train, files.fit, runs.evaluate, files.judge, files.prompts)
    for run in (*known, runs.plan, runs.push, runs.sweep, runs.collect):
        words, _, more = (inspect.getdoc(run) or "").partition("\n\n")
        name, words = run.__name__, words[:1].lower() + words[1:].rstrip(".")
        command = commands.add_parser(name, help=words, epilog=more)
        command.set_defaults(run=run)
        options.add(command, run.__globals__[name.upper()])
        if name in options.CONFIGS:
            options.add_config(command, options.CONFIGS[name])
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 after an error that the user can mend, 1 after a sweep in which runs failed.
    """
    environment.prepare()
    try:
        given = vars(parser().parse_args(arguments))
        run, _ = given.pop("run"), given.pop("command")
        return run(**given) or 0
    except KeyboardInterrupt:
        message = "bgkit: Interrupted; the same command goes on from what had ended."
    except BgkitError as error:
        message = f"bgkit: {error}"
    except OSError as error:
        message = f"bgkit: {error.strerror or error}: {error.filename or ''}"
    from bgkit.progress import say

    say(message, sys.stderr)
    return 2
