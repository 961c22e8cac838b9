"""A run's adapter and its model card to the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say
from bgkit.runs import load_run

OPTIONS = {
    "folder": (Path, "folder of a complete run", {"metavar": "RUN"}),
    "--to": ("", "the repository (none)", {"metavar": "OWNER/NAME"}),
    "--dry-run": (False, "only write the card, beside the adapter"),
    "--public": (False, "a public repository (private)"),
}


def run(arguments: argparse.Namespace) -> None:
    """Write the card, and unless it is a dry run push it with the adapter."""
    with options.loading():
        from bgkit.training import model_card

    if not arguments.to and not arguments.dry_run:
        raise BgkitError("Where to? Give --to OWNER/NAME, or --dry-run to see the card first.")
    how = {"dry_run": arguments.dry_run, "private": not arguments.public}
    path = model_card.push(load_run(arguments.folder), arguments.to, **how)
    say(path if arguments.dry_run else f"https://huggingface.co/{arguments.to}")
