"""One notebook with many parameters, by papermill."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from bgkit.progress import say

SHOWN_RUNS = 20  # of a dry run
STATUS = "Exit status: 0 all runs are complete, 1 some failed or broke, 2 refused or stopped."


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.epilog = STATUS
    command.add_argument(
        "notebook", type=Path, metavar="NOTEBOOK", help="a notebook with a cell of parameters"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="REWARD=boundary,compound or SEED=0:5 (0 to 4); in every grid, instead of its values",
    )
    command.add_argument(
        "--grid",
        nargs="+",
        default=[],
        metavar="FILE",
        help="YAML, or a grid of the project (data/sweeps); several are joined",
    )
    command.add_argument("--out", type=Path, help="the sweep's folder (runs/sweeps/<notebook>)")
    command.add_argument("--workers", type=int, default=1, help="runs at once (%(default)s)")
    command.add_argument(
        "--threads", type=int, default=0, help="CPU threads of a run (cores / workers)"
    )
    command.add_argument(
        "--dask", default="", metavar="ADDRESS", help="run on this dask scheduler's workers"
    )
    command.add_argument("--retry-failed", action="store_true", help="start failed runs again")
    command.add_argument("--report-to", default="none", help="tracker: trackio, wandb, ... (none)")
    command.add_argument("--dry-run", action="store_true", help="check, list, and start nothing")
    command.add_argument("--yes", action="store_true", help="start more than 10,000 runs")


def run(arguments: argparse.Namespace) -> int:
    """Plan and, unless it is a dry run, execute a sweep; returns the exit status."""
    from bgkit.sweeps import drive, grids, workers

    what = arguments.notebook, _grids(arguments), arguments.out
    names = ("workers", "threads", "retry_failed", "report_to", "yes")
    chosen = {name: getattr(arguments, name) for name in names}
    if arguments.dry_run:
        plan = drive.plan(*what, **chosen)
        say(drive.summary(plan))
        for job in plan.jobs[:SHOWN_RUNS]:
            told = grids.describe(job.parameters, plan.varied)
            say(f"  {job.hash} {plan.records[job.hash]['state']}: {told}")
        if len(plan.jobs) > SHOWN_RUNS:
            say(f"  ... and {len(plan.jobs) - SHOWN_RUNS} more")
        return 0
    with contextlib.ExitStack() as stack:
        if arguments.dask:
            drive.plan(*what, **chosen)  # refuse it first
            executor = stack.enter_context(workers.connect(arguments.dask))
            chosen |= {"executor": executor, "workers": None}
        index = drive.sweep(*what, **chosen)
    return 0 if (index["state"] == "complete").all() else 1


def _grids(arguments: argparse.Namespace) -> list[dict[str, list]]:
    """The grids that the options describe; --set replaces what the files say."""
    from bgkit.sweeps import grids

    notebook = grids.open_notebook(arguments.notebook)
    settings = grids.parse_settings(notebook, arguments.set)
    found = [each for file in arguments.grid for each in grids.read_grids(notebook, file)]
    return [{**each, **settings} for each in found or [{}]]
