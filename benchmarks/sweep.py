"""What a sweep costs compared with the bare trainings, and what a second worker gains.

    python benchmarks/sweep.py [--steps 40] [--noop 200] [--out FILE]

Runs the four trainings of the grid ``trial`` (policy tiny, ``--steps`` steps) bare, each in its own
Python process with one CPU thread, and in a sweep with one worker of one thread. The two take turns
because a machine's speed drifts. Then sweeps all four with two workers. Each way samples base's
responses once. Prints seconds, the overhead over bare beyond one kernel start for each run, and the
ratio of the two sweeps. With ``--noop N`` also sweeps a notebook that does nothing N times,
with two workers, and reports the seconds per run of the first and of the last quarter.
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

import nbformat

from bgkit.models.devices import provenance
from bgkit.runs import TrainConfig, write_json
from bgkit.sweeps import drive as sweeps
from bgkit.sweeps import grids, kernels
from bgkit.sweeps.grids import open_notebook

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "03_train_policy.ipynb"
#: A training in its own process; arguments: config, run folder, base's folder.
BARE = """
import json, sys
from pathlib import Path
from bgkit import runs
from bgkit.training import trainer as training
config = runs.make_config(json.loads(Path(sys.argv[1]).read_text()))
training.train(config, Path(sys.argv[2]), threads=1, base_samples=Path(sys.argv[3]))
"""


def grid_of(steps: int) -> dict:
    """The four runs."""
    (grid,) = grids.read_grids(open_notebook(NOTEBOOK), "trial")
    return {**grid, "STEPS": [steps]}


def bare_seconds(config: TrainConfig, folder: Path) -> float:
    """Seconds of a training in its own process."""
    name = f"{config.reward}-{config.seed}"
    write_json(folder / f"{name}.json", asdict(config))
    places = [folder / f"{name}.json", folder / name, folder / "base"]
    began = time.monotonic()
    command = [sys.executable, "-c", BARE, *map(str, places)]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def sweep_seconds(grid: dict, folder: Path, workers: int) -> float:
    """Seconds of a sweep."""
    began = time.monotonic()
    index = sweeps.sweep(NOTEBOOK, grid, folder, workers=workers, threads=1)
    assert (index["state"] == "complete").all()
    return time.monotonic() - began


def seconds_by_turns(grid: dict, folder: Path) -> dict[str, float]:
    """Seconds of all trainings, bare and in a sweep."""
    seconds = {"bare": 0.0, "1 worker": 0.0}
    for parameters in grids.expand(open_notebook(NOTEBOOK), grid).values():
        seconds["bare"] += bare_seconds(grids.config_of(parameters), folder / "bare")
        single = {**grid, "REWARD": [parameters["REWARD"]], "SEED": [parameters["SEED"]]}
        seconds["1 worker"] += sweep_seconds(single, folder / "sweep1", 1)
    return seconds


def kernel_start_seconds(folder: Path) -> float:
    """Seconds of an empty notebook."""
    nbformat.write(nbformat.v4.new_notebook(), folder / "empty.ipynb")
    began = time.monotonic()
    kernels.execute(folder / "empty.ipynb", folder / "done.ipynb", {})
    return time.monotonic() - began


def noop_seconds(count: int, folder: Path) -> dict[str, float]:
    """Seconds per run of a notebook that does nothing: of all, the first and the last quarter."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("SEED = 0")])
    book.cells[0].metadata["tags"] = ["parameters"]
    folder.mkdir()
    nbformat.write(book, folder / "noop.ipynb")
    began, place = time.time(), folder / "sweep"
    sweeps.sweep(folder / "noop.ipynb", {"SEED": range(count)}, place, workers=2, threads=1)
    ends = sorted(path.stat().st_mtime - began for path in place.glob("runs/*/run.json"))
    quarter = count // 4
    spans = {"all": (0, count), "first quarter": (0, quarter), "last quarter": (-quarter, count)}
    starts = [0.0, *ends[:-1]]
    return {
        name: round((ends[last - 1] - starts[first]) / len(ends[first:last]), 2)
        for name, (first, last) in spans.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--noop", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    grid = grid_of(arguments.steps)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seconds = {"kernel start": kernel_start_seconds(folder), **seconds_by_turns(grid, folder)}
        seconds["2 workers"] = sweep_seconds(grid, folder / "sweep2", 2)
        empty = noop_seconds(arguments.noop, folder / "noop") if arguments.noop else {}
    runs = len(grid["REWARD"]) * len(grid["SEED"])
    overhead = seconds["1 worker"] - seconds["bare"]
    results = {
        "runs": runs,
        "steps": arguments.steps,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "overhead per run (s)": round(overhead / runs, 2),
        "overhead beyond kernel starts, share of bare": round(
            (overhead - runs * seconds["kernel start"]) / seconds["bare"], 3
        ),
        "two workers against one": round(seconds["1 worker"] / seconds["2 workers"], 2),
    }
    if empty:
        results[f"seconds a run, {arguments.noop} runs that do nothing, two workers"] = empty
    print(results)
    if arguments.out:
        command = shlex.join(["python", *sys.argv])
        write_json(arguments.out, {**provenance(), "command": command, **results})


if __name__ == "__main__":
    main()
