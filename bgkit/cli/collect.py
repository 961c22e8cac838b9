"""What sweeps of trainings found, in small files."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.progress import say

OPTIONS = {
    "sweeps": (Path, "folders of sweeps", {"nargs": "+", "metavar": "SWEEP"}),
    "--out": (Path, "folder; what is there is kept", {"required": True}),
    "--made-by": ("", "the command of the sweep (none)", {"metavar": "TEXT"}),
}


def run(arguments: argparse.Namespace) -> None:
    """Add the complete runs to the collection."""
    with options.loading():
        from bgkit.sweeps import collection

    about = collection.collect(arguments.sweeps, arguments.out, arguments.made_by)
    say(f"{about['runs']} runs in {arguments.out}")
