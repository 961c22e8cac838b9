"""A notebook that does nothing but leave a trace: for tests of sweeps, with real kernels."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
from conftest import PATIENCE, ROOT

PARAMETERS = """\
WAY = "a"  # way: a, b, c
SEED = 0  # of nothing
T = 0.0  # seconds before anything is done
BAD = -1  # seed that fails
LEDGER = ""  # file that gets a line whenever the work of a run is done, again or not
HOLD = ""  # file: nothing is done while it is there
FOLDER = "runs"  # where the result goes
REPORT_TO = "none"  # tracker: none, trackio
"""
WORK = """\
import json
import os
import time
from pathlib import Path

started = Path(FOLDER) / "started"
started.parent.mkdir(parents=True, exist_ok=True)
started.write_text(str(os.getpid()))
time.sleep(T)
while HOLD and Path(HOLD).exists():
    time.sleep(0.05)
if SEED == BAD:
    raise ValueError("a bad seed <b>|")
"""
RESULT = """\
with open(LEDGER, "a") as file:  # whatever was there before: no second execution stays unseen
    file.write(f"{WAY} {SEED}" + chr(10))
result = Path(FOLDER) / "run" / "result.json"
result.parent.mkdir(exist_ok=True)
mean = SEED / 10 + "abc".index(WAY)
loss = {"metric": "loss", "mean": mean, "low": mean - 0.1, "high": mean + 0.1}
base = {**loss, "design": "base", "mean": 9.0}
result.write_text(json.dumps({"rows": [base, {**loss, "design": WAY, "kind": "all"}]}))
print("threads", os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def write_notebook(cells: list, path: Path, *sources: str) -> Path:
    """Write a notebook of cells and of more code cells; returns its path."""
    cells = [*cells, *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, path)
    return path


def write(path: Path, parameters: str, *sources: str) -> Path:
    """A notebook of code cells, of which the first holds the parameters."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    return write_notebook([first], path, *sources)


def notebook(folder: Path) -> Path:
    """The notebook that does nothing."""
    return write(folder / "noop.ipynb", PARAMETERS, WORK, RESULT)


def ledger(folder: Path) -> list[str]:
    """A line for each time that the work of a run was done, sorted."""
    path = folder / "ledger"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def outcome(folder: Path) -> list[dict]:
    """What a sweep's index says that must not depend on how often the sweep was interrupted."""
    index = pd.read_csv(folder / "sweep" / "index.csv").fillna("")
    columns = ["WAY", "SEED", "T", "BAD", "state", "error", "loss", "loss_low", "loss_high"]
    return index[columns].sort_values(["WAY", "SEED"]).to_dict("records")


def command(folder: Path, *more: object) -> list[str]:
    """The command line of a sweep of that notebook into ``folder/sweep``."""
    own = ("--set", f"LEDGER={folder}/ledger", "--set", f"HOLD={folder}/hold", *more)
    line = (sys.executable, "-m", "bgkit", "sweep", folder / "noop.ipynb")
    return [str(part) for part in (*line, "--out", folder / "sweep", *own)]


def start(folder: Path, *more: object, line: list[str] | None = None) -> subprocess.Popen:
    """Start a sweep (or another command line) in a process and session of its own."""
    return subprocess.Popen(
        line or command(folder, *more),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell that starts the tests in the background has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen, status: int = 0) -> str:
    """Wait for a process's end, which must have that status, and return what it printed."""
    printed = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == status, printed
    return printed


def states(folder: Path) -> list[str]:
    """States of the runs of a sweep that have ended, sorted."""
    found = [json.loads(path.read_text()) for path in folder.glob("sweep/runs/*/run.json")]
    return sorted(record["state"] for record in found)


def kernels(folder: Path) -> list[int]:
    """Processes of the kernels of runs that have begun and not ended."""
    begun = folder.glob("sweep/runs/*/results/started")
    texts = [path.read_text() for path in begun if not (path.parents[1] / "run.json").exists()]
    return [int(text) for text in texts if text]


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is true; fails after some time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether a process is there (and no zombie)."""
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    return False
