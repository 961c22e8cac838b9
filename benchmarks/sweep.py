"""What a sweep costs beside the bare trainings, and what a second worker brings.

    python benchmarks/sweep.py [--steps 40] [--out FILE]

Runs four trainings of the grid ``trial`` (policy tiny, ``--steps`` steps) three ways, one after the
other on the same machine: bare, as four commands ``python -m bgkit train`` with one CPU thread; as
a sweep with one worker of one thread; and with two workers. Prints seconds, the overhead over bare
beyond one kernel start for each run, and the ratio of the two sweeps.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bgkit import grids, kernels, sweeps
from bgkit.comparison import provenance
from bgkit.runs import write_json

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "03_train_policy.ipynb"
EMPTY = '{"cells": [], "metadata": {"kernelspec": {"name": "python3", "display_name": "p", \
"language": "python"}}, "nbformat": 4, "nbformat_minor": 5}'


def grid_of(steps: int) -> dict:
    """The four runs."""
    (grid,) = grids.read_grids(grids.open_notebook(NOTEBOOK), "trial")
    return {**grid, "STEPS": [steps]}


def bare(grid: dict, folder: Path) -> float:
    """Seconds of the trainings as commands, one after the other."""
    notebook = grids.open_notebook(NOTEBOOK)
    configs = [grids.config_of(notebook, each) for each in grids.expand(notebook, grid)]
    began = time.monotonic()
    for number, config in enumerate(configs):
        write_json(folder / f"{number}.json", asdict(config))
        options = [
            "--config",
            folder / f"{number}.json",
            "--threads",
            "1",
            "--out",
            folder / f"{number}",
        ]
        command = [sys.executable, "-m", "bgkit", "train", *map(str, options)]
        subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def swept(grid: dict, folder: Path, workers: int) -> float:
    """Seconds of the sweep."""
    began = time.monotonic()
    index = sweeps.sweep(NOTEBOOK, grid, folder, workers=workers, threads=1)
    assert (index["state"] == "complete").all()
    return time.monotonic() - began


def kernel_start(folder: Path) -> float:
    """Seconds of an empty notebook."""
    (folder / "empty.ipynb").write_text(EMPTY)
    began = time.monotonic()
    kernels.execute(folder / "empty.ipynb", folder / "done.ipynb", {})
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    grid = grid_of(arguments.steps)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seconds = {"kernel start": kernel_start(folder), "bare": bare(grid, folder / "bare")}
        seconds |= {f"{n} worker(s)": swept(grid, folder / f"sweep{n}", n) for n in (1, 2)}
    runs = len(grid["REWARD"]) * len(grid["SEED"])
    over = seconds["1 worker(s)"] - seconds["bare"]
    found = {
        "runs": runs,
        "steps": arguments.steps,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "overhead per run (s)": round(over / runs, 2),
        "overhead beyond kernel starts, share of bare": round(
            (over - runs * seconds["kernel start"]) / seconds["bare"], 3
        ),
        "two workers against one": round(seconds["1 worker(s)"] / seconds["2 worker(s)"], 2),
    }
    print(found)
    if arguments.out:
        command = shlex.join(["python", *sys.argv])
        write_json(arguments.out, {**provenance(), "command": command, **found})


if __name__ == "__main__":
    main()
