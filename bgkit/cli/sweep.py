"""Commands about sweeps: run one notebook with many parameters, and collect what was found."""

from __future__ import annotations

import argparse
import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say

SHOWN_RUNS = 20  # of a dry run
SET = "REWARD=boundary,compound or SEED=0:5 (0 to 4); in every grid, instead of its values"
GRID = "YAML, or a grid of the project (data/sweeps); several are joined"
SWEEP = {
    "notebook": (Path, "a notebook with a cell of parameters", {"metavar": "NOTEBOOK"}),
    "--set": (str, SET, {"action": "append", "default": [], "metavar": "NAME=VALUES"}),
    "--grid": (str, GRID, {"nargs": "+", "default": [], "metavar": "FILE"}),
    "--out": (Path, "the sweep's folder (runs/sweeps/<notebook>)"),
    "--workers": (1, "runs at once"),
    "--threads": (0, "CPU threads of a run (cores / workers; with --dask 1)"),
    "--dask": ("", "run on this dask scheduler's workers (none)", {"metavar": "ADDRESS"}),
    "--retry-failed": (False, "start failed runs again"),
    "--dry-run": (False, "check, list, and start nothing"),
}
COLLECT = {
    "sweeps": (Path, "folders of sweeps", {"nargs": "+", "metavar": "SWEEP"}),
    "--out": (Path, "folder; what is there is kept", {"required": True}),
}


def sweep(arguments: argparse.Namespace) -> int:
    """Plan and, unless it is a dry run, execute a sweep; returns the exit status."""
    from bgkit.sweeps import drive, grids

    notebook = grids.open_notebook(arguments.notebook)
    settings = grids.parse_settings(notebook, arguments.set)
    files = [each for file in arguments.grid for each in grids.read_grids(notebook, file)]
    what = arguments.notebook, [{**each, **settings} for each in files or [{}]], arguments.out
    how = {name: getattr(arguments, name) for name in ("workers", "threads", "retry_failed")}
    if arguments.dry_run:
        plan = drive.plan(*what, **how)
        say(plan)
        for name in list(plan.jobs)[:SHOWN_RUNS]:
            record = plan.records[name]
            told = grids.describe(record["parameters"], plan.varied)
            say(f"  {name} {record['state']}: {told}")
        if len(plan.jobs) > SHOWN_RUNS:
            say(f"  ... and {len(plan.jobs) - SHOWN_RUNS} more")
        return 0
    with _dask(arguments.dask) if arguments.dask else contextlib.nullcontext() as executor:
        index = drive.sweep(*what, executor, **how)
    return 0 if (index["state"] == "complete").all() else 1


def collect(arguments: argparse.Namespace) -> None:
    """Add the complete runs to the collection."""
    with options.loading():
        from bgkit.sweeps import collection

    size = collection.collect(arguments.sweeps, arguments.out)
    say(f"{size} runs in {arguments.out}")


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    """The workers of the dask scheduler at ``address`` (``tcp://host:8786``)."""
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise BgkitError("--dask needs dask.distributed: pip install 'bgkit[cluster]'.") from error
    try:  # without dask's client, which starts threads before it looks
        socket.create_connection(get_address_host_port(address), timeout=10).close()
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a TimeoutError is an OSError
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BgkitError(
            f"No dask scheduler answers at {address!r} ({reason}); check the address (such as "
            "tcp://host:8786) and that `dask scheduler` runs there."
        ) from error
    with client:
        yield client.get_executor()
