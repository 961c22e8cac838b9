"""What sweeps of trainings found, in small files."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.progress import say


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP", help="folders of sweeps")
    command.add_argument("--out", type=Path, required=True, help="folder; what is there is kept")
    command.add_argument("--made-by", default="", metavar="TEXT", help="the command of the sweep")


def run(arguments: argparse.Namespace) -> None:
    """Add the complete runs to the collection."""
    with options.loading():
        from bgkit.sweeps import collection

    about = collection.collect(arguments.sweeps, arguments.out, arguments.made_by)
    say(f"{about['runs']} runs in {arguments.out}")
