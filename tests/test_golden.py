"""Numbers as they were: rewards, metrics, operating points and verdicts on inputs that ship.

A change that moves one on purpose writes ``tests/golden/`` anew, so that the diff shows what moved:

    python tests/test_golden.py

What others pin is left out: help texts and refusals (``tests/cli``), the counts and verdicts of the
whole collection (``tests/notebooks/test_prose.py``, ``tests/sweeps/test_reference.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bgkit.data import data_folder
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.evaluation.thresholds import operating_points
from bgkit.rewards import DESIGNS, compute_reward
from bgkit.runs import load_run
from bgkit.sweeps import claims, collection

FOLDER = Path(__file__).parent / "golden"
#: Relative and absolute: numbers of numpy and scipy alone, which another CPU may sum otherwise.
CLOSE = 1e-6
DESIGN, OTHER = "boundary", "filter_avoidance"


def rewards() -> dict[str, list[float]]:
    """Every design at its own strength and at another one, on either side of two thresholds."""
    t = np.linspace(0, 1, 9)
    columns = {"u": 3 * t - 1, "length": 4 + np.arange(9), "response": ["a tea ."] * 9}
    columns |= {"harmful_request": np.arange(9) % 2 == 0, "refusal": np.arange(9) % 3 == 0}
    return {
        f"{name}, tau {tau}, strength {strength}": compute_reward(
            name, t, np.cos(5 * t), tau, strength=strength, **columns
        ).tolist()
        for name in DESIGNS
        for tau, strength in ((0.5, None), (0.3, 2.5))
    }


def _english() -> dict[str, pd.DataFrame]:
    run = load_run(data_folder() / "runs" / "english" / f"{DESIGN}-0")
    return {name: run.samples(name) for name in ("base", "trained")}


def metrics() -> dict[str, list[float]]:
    """Mean and ends of the interval of every metric of a shipped run, base, and the difference."""
    base, trained = _english().values()
    tables = {"base": summarise(base, {}), DESIGN: summarise(trained, {})}
    tables["difference"] = paired_differences(trained, base, {})
    return {
        f"{name}, {row['metric']}": [
            row.get("mean", row.get("difference")),
            row["low"],
            row["high"],
        ]
        for name, rows in tables.items()
        for row in rows
        if row["kind"] == "all"
    }


def points() -> dict[str, list[float]]:
    """Operating points of the same run's samples at four thresholds, and some ends of intervals."""
    found = operating_points(_english()["trained"].assign(refusal_help=0.5), [0.05, 0.2, 0.5, 0.8])
    kept = [name for name in found if not name.endswith(("_low", "_high"))]
    kept += ["false_negative_low", "false_negative_high", "system_help_low"]
    return {name: found[name].tolist() for name in kept}


def verdicts() -> dict[str, list]:
    """Claims on a fixed part of the shipped collection: runs that come later change nothing."""
    index, values, _ = collection.load()
    part = {"design": [DESIGN, OTHER], "seed": [0, 1, 2], "strength": [2, 8]}
    index = index[index[[*part]].isin(part).all(axis=1)]
    values = values[values["run"].isin(index["run"]) | values["run"].str.startswith("base-")]
    found = claims.frontiers_of(index, values, claims.COMPARED, kind="jailbreak")
    checked = claims.check(found)
    return {
        f"{row.metric}: {row.design} - {row.against}, {row.place}": [row.verdict, row.mean, row.low]
        for row in checked.itertuples()
    }


RECORDS: dict[str, Callable[[], dict[str, list]]] = {
    made.__name__: made for made in (rewards, metrics, points, verdicts)
}


@pytest.mark.parametrize("name", RECORDS)
def test_numbers_are_those_that_were_written_down(name: str) -> None:
    kept, found = json.loads((FOLDER / f"{name}.json").read_text("utf-8")), RECORDS[name]()
    assert kept.keys() == found.keys(), "python tests/test_golden.py, if that is meant"
    for key, values in kept.items():
        close = [v if isinstance(v, str) else pytest.approx(v, CLOSE, CLOSE) for v in values]
        assert found[key] == close, key


def main() -> None:
    """Write the records anew."""
    FOLDER.mkdir(exist_ok=True)
    for name, made in RECORDS.items():
        rounded = {
            key: [v if isinstance(v, str) else float(f"{v:.9g}") for v in values]
            for key, values in made().items()
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in rounded.items()]
        (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
