"""A run's adapter and its model card to the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say
from bgkit.runs import load_run


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a complete run")
    command.add_argument("--to", default="", metavar="OWNER/NAME", help="the repository")
    command.add_argument(
        "--dry-run", action="store_true", help="only write the card, beside the adapter"
    )
    command.add_argument("--public", action="store_true", help="a public repository (private)")


def run(arguments: argparse.Namespace) -> None:
    """Write the card, and unless it is a dry run push it with the adapter."""
    with options.loading():
        from bgkit.training import model_card

    if not arguments.to and not arguments.dry_run:
        raise BgkitError("Where to? Give --to OWNER/NAME, or --dry-run to see the card first.")
    private, dry_run = not arguments.public, arguments.dry_run
    path = model_card.push(
        load_run(arguments.folder), arguments.to, dry_run=dry_run, private=private
    )
    say(path if dry_run else f"https://huggingface.co/{arguments.to}")
