"""List the prompt sets, or show what one holds."""

from __future__ import annotations

import argparse
import json
import sys

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say

OPTIONS = {
    "name": (str, "a set, benchmark, file or folder", {"nargs": "?", "metavar": "NAME"}),
    "--split": (str, "one split: train, validation or test (all)"),
    "--n": (int, "number of prompts (all; a benchmark's own)"),
    "--seed": (0, "seed of the sample of --n prompts"),
    "--out": (options.file_to_write, "write the prompts to this JSONL file"),
}


def run(arguments: argparse.Namespace) -> None:
    """List the sets, or print a set's manifest and write its prompts."""
    from bgkit.prompts import compose, sets, splits
    from bgkit.prompts import load as prompts
    from bgkit.runs import write_atomically

    if arguments.name is None:
        say(f"{prompts.TESTBED}, {', '.join(sets.OWN)}: shipped, no network needed")
        for name, recipe in compose.BENCHMARKS.items():
            parts = ", ".join(f"{share:.0%} {part}" for part, share in recipe.shares.items())
            say(f"{name}: benchmark of {parts}")
        say("\n".join(map(sets.describe, sets.SETS)))
        return
    table, manifest = prompts.load_with_manifest(
        arguments.name, arguments.split, arguments.n, arguments.seed
    )
    if arguments.out:
        text = table.to_json(orient="records", lines=True, force_ascii=False)
        write_atomically(arguments.out, lambda file: file.write_text(text, encoding="utf-8"))
    say(json.dumps(manifest, indent=1, ensure_ascii=False))
    if arguments.split is None:  # what a training checks first
        try:
            prompts.manifests(arguments.name, dict.fromkeys(splits.SHARES, (None, 0)))
        except BgkitError as error:
            say(f"A training on {arguments.name} will be refused: {error}", sys.stderr)
