"""One notebook with many parameters, by papermill.

Exit status: 0 all runs are complete, 1 some failed or broke, 2 refused or stopped.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from bgkit.progress import say

SHOWN_RUNS = 20  # of a dry run
SET = "REWARD=boundary,compound or SEED=0:5 (0 to 4); in every grid, instead of its values"
GRID = "YAML, or a grid of the project (data/sweeps); several are joined"
OPTIONS = {
    "notebook": (Path, "a notebook with a cell of parameters", {"metavar": "NOTEBOOK"}),
    "--set": (str, SET, {"action": "append", "default": [], "metavar": "NAME=VALUES"}),
    "--grid": (str, GRID, {"nargs": "+", "default": [], "metavar": "FILE"}),
    "--out": (Path, "the sweep's folder (runs/sweeps/<notebook>)"),
    "--workers": (1, "runs at once"),
    "--threads": (0, "CPU threads of a run (cores / workers)"),
    "--dask": ("", "run on this dask scheduler's workers (none)", {"metavar": "ADDRESS"}),
    "--retry-failed": (False, "start failed runs again"),
    "--report-to": ("none", "tracker: trackio, wandb, ... (none)"),
    "--dry-run": (False, "check, list, and start nothing"),
    "--yes": (False, "start more than 10,000 runs"),
}


def run(arguments: argparse.Namespace) -> int:
    """Plan and, unless it is a dry run, execute a sweep; returns the exit status."""
    from bgkit.sweeps import drive, grids, workers

    notebook = grids.open_notebook(arguments.notebook)
    settings = grids.parse_settings(notebook, arguments.set)
    files = [each for file in arguments.grid for each in grids.read_grids(notebook, file)]
    what = arguments.notebook, [{**each, **settings} for each in files or [{}]], arguments.out
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
