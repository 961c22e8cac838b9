"""How fast scoring, or a step, is beside other ways."""

from __future__ import annotations

import argparse

from bgkit.cli import options

OPTIONS = {
    "what": (("scoring", "step"), "scoring by guards and reward models, or a step of training"),
    "--size": (1.0, "scales the workloads"),
    "--repeats": (2, "the best of so many"),
    "--threads": (0, "CPU threads (all, at most 4)"),
    **options.DEVICE,
    "--out": (options.file_to_write, "write the rows to this JSON file"),
}


def run(arguments: argparse.Namespace) -> int:
    """Run the measuring program of the source checkout."""
    if arguments.out:
        arguments.out = arguments.out.resolve()  # the program may run in another folder
    values = {name: getattr(arguments, name) for name in ("threads", "device", "size", "repeats")}
    values |= {"out": arguments.out} if arguments.out else {}
    given = [part for k, v in values.items() for part in (f"--{k}", v)]
    return options.run_program(f"benchmarks/bench_{arguments.what}.py", *given)
