"""``python -m bgkit sweep NOTEBOOK``: its options, and what it prints."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from bgkit.progress import say

SHOWN_RUNS = 20  # of a dry run
STATUS = "Exit status: 0 all runs are complete, 1 some failed or broke, 2 refused or stopped."


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the others."""
    sweep = commands.add_parser(
        "sweep", help="one notebook with many parameters, by papermill", epilog=STATUS
    )
    sweep.add_argument(
        "notebook", type=Path, metavar="NOTEBOOK", help="a notebook with a cell of parameters"
    )
    sweep.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="REWARD=boundary,compound or SEED=0:5 (0 to 4); in every grid, instead of its values",
    )
    sweep.add_argument(
        "--grid",
        nargs="+",
        default=[],
        metavar="FILE",
        help="YAML, or a grid of the project (data/sweeps); several are joined",
    )
    sweep.add_argument("--out", type=Path, help="the sweep's folder (runs/sweeps/<notebook>)")
    sweep.add_argument("--workers", type=int, default=1, help="runs at once (%(default)s)")
    sweep.add_argument(
        "--threads", type=int, default=0, help="CPU threads of a run (cores / workers)"
    )
    sweep.add_argument(
        "--dask", default="", metavar="ADDRESS", help="run on this dask scheduler's workers"
    )
    sweep.add_argument("--retry-failed", action="store_true", help="start failed runs again")
    sweep.add_argument("--report-to", default="none", help="tracker: trackio, wandb, ... (none)")
    sweep.add_argument("--dry-run", action="store_true", help="check, list, and start nothing")
    sweep.add_argument("--yes", action="store_true", help="start more than 10,000 runs")


def grids_of(arguments: argparse.Namespace) -> list[dict[str, list]]:
    """The grids that the options describe; --set replaces what the files say."""
    from bgkit.sweeps import grids

    notebook = grids.open_notebook(arguments.notebook)
    settings = grids.parse_settings(notebook, arguments.set)
    found = [each for file in arguments.grid for each in grids.read_grids(notebook, file)]
    return [{**each, **settings} for each in found or [{}]]


def run(arguments: argparse.Namespace) -> int:
    """Plan and, unless it is a dry run, execute a sweep; returns the exit status."""
    from bgkit.sweeps import drive as sweeps

    grid = grids_of(arguments)
    options = {
        "threads": arguments.threads,
        "retry_failed": arguments.retry_failed,
        "report_to": arguments.report_to,
        "yes": arguments.yes,
    }
    if arguments.dry_run:
        plan = sweeps.plan(
            arguments.notebook, grid, arguments.out, workers=arguments.workers, **options
        )
        _print_plan(plan)
        return 0
    with contextlib.ExitStack() as stack:
        options["workers"] = arguments.workers
        if arguments.dask:
            from bgkit.sweeps import cluster

            sweeps.plan(arguments.notebook, grid, arguments.out, **options)  # refuse it first
            found = stack.enter_context(cluster.connect(arguments.dask))
            options |= {"executor": found.executor, "workers": found.slots}
            options["threads"] = arguments.threads or found.threads
        index = sweeps.sweep(
            arguments.notebook,
            grid,
            arguments.out,
            **options,
        )
    return 0 if (index["state"] == "complete").all() else 1


def _print_plan(plan) -> None:
    from bgkit.sweeps import drive as sweeps
    from bgkit.sweeps import grids

    say(sweeps.summary(plan))
    for job in plan.jobs[:SHOWN_RUNS]:
        what = grids.describe(job.parameters, plan.varied)
        say(f"  {job.hash} {plan.records[job.hash]['state']}: {what}")
    if len(plan.jobs) > SHOWN_RUNS:
        say(f"  ... and {len(plan.jobs) - SHOWN_RUNS} more")
