"""Golden records: what the kit gives, kept while its code is moved about.

``python tests/golden/record.py`` writes the records beside this file, ``--check`` compares what
the kit gives now with them (exit status 1 and a line for each difference). What is recorded: the
tables of two short trainings and of two evaluations, rewards and metrics of fixed inputs, the
index of a small sweep, every figure's traces, each command's help, and the refusals.

Commands are run as a user types them, so that records outlive the modules; the few calls of
functions are those below ``CALLS``. Numbers are compared within ``RTOL`` (on one machine they are
equal to the last bit, elsewhere not), texts exactly; paths and times are not recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RTOL, ATOL = 1e-3, 1e-4
#: two trainings of seconds; the second with another design, utility and threshold
SHORT = (
    "--policy tiny --steps 4 --batch-size 8 --num-generations 4 --max-completion-length 16 "
    "--eval-every 2 --eval-prompts 8 --test-prompts 16 --save-every 2 --device cpu --threads 1"
).split()
TRAININGS = {
    "boundary": ["--reward", "boundary", "--utility", "mild", "--seed", "0"],
    "compound": ["--reward", "compound", "--utility", "aligned", "--seed", "1", "--tau", "0.4"],
}
COMMANDS = ("demo train evaluate judge prompts plan bench push testbed sweep collect").split()
#: what is refused, as a user types it; {run} is a finished run, {tmp} an empty folder
REFUSALS = [
    "train --reward nonsense",
    "train --tau 7",
    "train --tau nan",
    "train --steps -3",
    "train --beta -0.5",
    "train --batch-size 7 --num-generations 4",
    "train --policy nobody/nothing",
    "train --guard missing",
    "train --utility missing",
    "train --prompts missing",
    "train --judge missing",
    "train --config {tmp}/missing.json",
    "train --config {tmp}/list.json",
    "train --config {tmp}/unknown.json",
    "train --out {run} --reward compound",
    "train --resume {tmp}",
    "train --device tpu --steps 1",
    'train --trainer {{"learning_rate":1}} --steps 1',
    "evaluate {tmp}",
    "evaluate {run} --tau 2",
    "evaluate {run} --guard missing",
    "evaluate {run} --prompts {tmp}/missing.csv",
    "judge {tmp}/missing.csv --judge oracle",
    "judge {tmp}/columns.csv --judge oracle",
    "judge {tmp}/empty.jsonl --judge oracle",
    "judge {tmp}/columns.csv --judge oracle --rubric none",
    "prompts nowhere",
    "prompts testbed --split later",
    "plan --machine Z1",
    "push {run}",
    "push {tmp} --dry-run",
    "testbed check --out {tmp}",
    "sweep {tmp}/missing.ipynb --set A=1",
    "sweep {tmp}/noop.ipynb --set NOTHING=1 --out {tmp}/sweep",
    "sweep {tmp}/noop.ipynb --set WAY=z --out {tmp}/sweep",
    "collect {tmp} --out {tmp}/collected",
]


def bgkit(*arguments: object, expect: int = 0, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """``python -m bgkit ARGUMENTS`` on one thread, offline, in a terminal of 100 columns."""
    quiet = {"BGKIT_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bgkit", *map(str, arguments)],
        env={**os.environ, **quiet, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != expect:
        raise SystemExit(f"bgkit {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def digest(values: object) -> str:
    """A short hash of a list of texts."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def told(frame: pd.DataFrame) -> dict[str, Any]:
    """A table: numbers as they are, texts by a hash of each column."""
    columns = {}
    for name, column in frame.drop(columns="seconds", errors="ignore").items():
        if pd.api.types.is_numeric_dtype(column):
            columns[str(name)] = [None if pd.isna(x) else float(x) for x in column]
        else:
            columns[str(name)] = digest([str(x) for x in column])
    return columns


def trainings(folder: Path) -> dict[str, Any]:
    """Rows, samples and curve of each short training, and evaluations of both runs together."""
    found: dict[str, Any] = {}
    for name, options in TRAININGS.items():
        run = folder / name
        bgkit("train", *SHORT, *options, "--out", run)
        found[name] = {
            "rows": json.loads((run / "result.json").read_text())["rows"],
            **{path.stem: told(pd.read_parquet(path)) for path in sorted(run.glob("*.parquet"))},
        }
    runs = [folder / name for name in TRAININGS]
    for name, more in {"deployed": ["--guard", "weak"], "threshold": ["--tau", "0.3"]}.items():
        out = folder / f"{name}.json"
        bgkit("evaluate", *runs, *more, "--test-prompts", 12, "--device", "cpu", "--out", out)
        found[name] = json.loads(out.read_text())["rows"]
    return found


NOOP = [
    'WAY = "a"  # way: a, b, c\nSEED = 0  # of nothing\nFOLDER = "runs"  # of the result',
    """\
import json
from pathlib import Path

folder = Path(FOLDER) / "run"
folder.mkdir(parents=True)
mean = SEED / 10 + "abc".index(WAY)
loss = {"metric": "loss", "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "kind": "all"}
rows = [{**loss, "design": "base", "mean": 9.0}, {**loss, "design": WAY}]
_ = (folder / "result.json").write_text(json.dumps({"rows": rows}))
""",
]


def notebook(path: Path) -> None:
    """A notebook of two cells that trains nothing."""
    import nbformat

    cells = [nbformat.v4.new_code_cell(source) for source in NOOP]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(book, path)


def sweep(folder: Path) -> dict[str, Any]:
    """The index of a sweep of four runs, without times and paths."""
    notebook(folder / "noop.ipynb")
    grid = ["--set", "WAY=a,c", "--set", "SEED=0,1", "--workers", "2", "--out", folder / "sweep"]
    bgkit("sweep", folder / "noop.ipynb", *grid)
    index = pd.read_parquet(folder / "sweep" / "index.parquet").sort_values(["WAY", "SEED"])
    return {name: index[name].tolist() for name in ("WAY", "SEED", "state", "loss", "loss_low")}


def samples(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Samples as a policy's, drawn without any model."""
    rng = np.random.default_rng(seed)
    t = rng.beta(0.6, 0.8, n).round(6)
    return pd.DataFrame(
        {
            "prompt": [f"prompt {i}" for i in range(n)],
            "response": [f"response {i} of {seed}" for i in range(n)],
            "kind": rng.choice(["plain", "ambiguous", "jailbreak"], n),
            "t": t,
            "u": rng.normal(size=n).round(6),
            "harm": (rng.random(n) < t).astype(float),
            "help": rng.random(n).round(6),
            "refused": rng.random(n) < 0.2,
            "kl": rng.random(n).round(6),
        }
    )


def rewards() -> dict[str, Any]:
    """Every design on a grid of t and z, and every metric of fixed samples."""
    from bgkit.rewards import DESIGNS, compute_reward

    t, z = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, 11), [-1.5, 0.0, 2.0]))
    asked = np.arange(len(t)) % 2 == 0
    columns = {"harmful_request": asked, "refusal": np.arange(len(t)) % 3 == 0, "u": z}
    return {name: compute_reward(name, t, z, 0.4, **columns).tolist() for name in sorted(DESIGNS)}


def traces(fig: Any) -> list[dict[str, Any]]:
    """What a figure draws: of each trace its kind, name, and the numbers or words in x, y and z."""
    shown = []
    for trace in fig.data:
        row: dict[str, Any] = {"type": trace.type, "name": trace.name}
        for axis in ("x", "y", "z"):
            values = getattr(trace, axis, None)
            if values is None:
                continue
            flat = np.asarray(values, dtype=object).ravel().tolist()
            if all(isinstance(v, int | float | np.number) or v is None for v in flat):
                row[axis] = [None if v is None or v != v else float(v) for v in flat]
            else:
                row[axis] = digest([str(v) for v in flat])
        shown.append(row)
    return shown


def helps() -> dict[str, str]:
    """What each command says of itself."""
    return {name: bgkit(name, "--help").stdout for name in COMMANDS}


def refusals(folder: Path, run: Path) -> dict[str, str]:
    """The sentence of each refusal; its exit status is 2."""
    empty = folder / "bad"
    empty.mkdir()
    notebook(empty / "noop.ipynb")
    (empty / "list.json").write_text("[1]")
    (empty / "unknown.json").write_text('{"lerning_rate": 1}')
    (empty / "columns.csv").write_text("a,b\n1,2\n")
    (empty / "empty.jsonl").write_text("")
    found = {}
    for line in REFUSALS:
        words = [word.format(tmp=empty, run=run) for word in line.split()]
        done = bgkit(*words, expect=2, cwd=empty)
        last = done.stderr.strip().splitlines()[-1]
        said = last.replace(str(run), "{run}").replace(str(empty), "{tmp}")
        found[line] = said.replace(str(ROOT), "{root}")
    return found


def different(old: Any, new: Any, where: str = "") -> list[str]:
    """A line for each place in which two records differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = [f"{where}/{key}: only in one" for key in sorted(old.keys() ^ new.keys())]
        shared = [key for key in old if key in new]
        return lines + [
            x for key in shared for x in different(old[key], new[key], f"{where}/{key}")
        ]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{where}: {len(old)} values, now {len(new)}"]
        pairs = enumerate(zip(old, new, strict=True))
        return [x for i, (a, b) in pairs for x in different(a, b, f"{where}/{i}")]
    if isinstance(old, float | int) and isinstance(new, float | int):
        same = math.isclose(old, new, rel_tol=RTOL, abs_tol=ATOL) or (old != old and new != new)
        return [] if same else [f"{where}: {old}, now {new}"]
    return [] if old == new else [f"{where}: {old!r}, now {new!r}"]


def parts(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is recorded: name of the file -> what makes its content."""

    def figures_of(table: str) -> dict[str, Any]:
        import figures

        made = {name: make() for name, make in getattr(figures, table).items()}
        return made if table == "METRICS" else {name: traces(fig) for name, fig in made.items()}

    return {
        "trainings": lambda: trainings(folder),
        "sweep": lambda: sweep(folder),
        "rewards": rewards,
        "metrics": lambda: figures_of("METRICS"),
        "figures": lambda: figures_of("FIGURES"),
        "help": helps,
        "refusals": lambda: refusals(folder, folder / "boundary"),
    }


def main() -> int:
    """Write the records, or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("parts", nargs="*", help="only these; refusals need trainings before them")
    chosen = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        for name, make in parts(Path(place)).items():
            if chosen.parts and name not in chosen.parts:
                continue
            path = HERE / f"{name}.json"
            now = json.loads(json.dumps(make()))
            if chosen.check:
                wrong += different(json.loads(path.read_text()), now, name)
            else:
                path.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
