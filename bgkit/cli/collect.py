"""What sweeps of trainings found, in small files."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.progress import say

OPTIONS = {
    "sweeps": (Path, "folders of sweeps", {"nargs": "+", "metavar": "SWEEP"}),
    "--out": (Path, "folder; what is there is kept", {"required": True}),
}


def run(arguments: argparse.Namespace) -> None:
    """Add the complete runs to the collection."""
    with options.loading():
        from bgkit.sweeps import collection

    size = collection.collect(arguments.sweeps, arguments.out)
    say(f"{size} runs in {arguments.out}")
