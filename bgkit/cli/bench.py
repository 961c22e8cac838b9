"""How fast scoring, or a step, is beside other ways."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument(
        "what",
        choices=("scoring", "step"),
        help="scoring by guards and reward models, or a step of training",
    )
    command.add_argument(
        "--size", type=float, default=1.0, help="scales the workloads (%(default)s)"
    )
    command.add_argument("--repeats", type=int, default=2, help="the best of so many (%(default)s)")
    command.add_argument("--threads", type=int, default=0, help="CPU threads (all, at most 4)")
    options.add_device(command)
    command.add_argument("--out", type=Path, help="write the rows to this JSON file")


def run(arguments: argparse.Namespace) -> int:
    """Run the measuring program of the source checkout."""
    names = ("threads", "device", "size", "repeats", "out")
    values = {name: getattr(arguments, name) for name in names}
    if arguments.out:
        values["out"] = arguments.out.resolve()  # the program may run in another folder
    given = [part for k, v in values.items() if v is not None for part in (f"--{k}", v)]
    return options.run_program(f"benchmarks/bench_{arguments.what}.py", *given)
