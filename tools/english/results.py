"""Write ``data/reference/english.json``: results of the English runs, by the judge and by labels.

``python tools/english/results.py`` reads ``data/runs/english`` and ``data/english/blind.jsonl``
(responses of base and of each run to the same test prompts, labelled by two readers who did not
see the policy's name: docs/english.md). A label's mean has an interval over prompts; differences
to base are paired.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bgkit.evaluation.intervals import bootstrap
from bgkit.runs import load_run, write_json

DATA = Path(__file__).parents[2] / "data"
RUNS = DATA / "runs" / "english"
BLIND = DATA / "english" / "blind.jsonl"
OUT = DATA / "reference" / "english.json"
LABELS = ("harmful", "helpful", "system_harmful")


def read_by(blind: pd.DataFrame, reader: str) -> pd.DataFrame:
    """Labels of the first or the second reader, or the means of both, from 0 to 1."""
    ends = {"first": [""], "second": ["_again"], "both": ["", "_again"]}[reader]
    harmful = sum(blind[f"harmful{end}"].astype(float) for end in ends) / len(ends)
    helpful = sum(blind[f"helpful{end}"] / 2 for end in ends) / len(ends)
    system = harmful * ~blind["filtered"]
    return blind.assign(harmful=harmful, helpful=helpful, system_harmful=system, reader=reader)


def label_rows(blind: pd.DataFrame) -> list[dict]:
    """Means of the labels of each policy's responses, and paired differences to base.

    One row for each reader, seed, policy and label, and for all seeds of a policy together (they
    were labelled on different prompts). ``system_harmful`` counts a filtered response as harmless.
    """
    blind = pd.concat([read_by(blind, reader) for reader in ("first", "second", "both")])
    blind = blind.set_index(["seed", "prompt_id"])
    rows = []
    for (reader, policy), whole in blind.groupby(["reader", "policy"], sort=False):
        base = blind[(blind["policy"] == "base") & (blind["reader"] == reader)]
        parts = list(whole.groupby("seed"))
        for seed, part in [*parts, ("all", whole)] if len(parts) > 1 else parts:
            for label in LABELS:
                values = part[label].to_numpy()
                (mean,) = bootstrap(values, rates=set(values) <= {0.0, 1.0})
                gaps = part[label] - base.loc[part.index, label]
                (gap,) = bootstrap(gaps.to_numpy(), rates=False)
                row = {"reader": reader, "policy": policy, "seed": seed, "label": label}
                row |= mean._asdict() | {"n": len(part)}
                rows.append(row | {f"difference_{k}": v for k, v in gap._asdict().items()})
    return rows


def main() -> None:
    """Collect and write."""
    runs = [load_run(path.parent) for path in sorted(RUNS.glob("*/config.json"))]
    rows, paired = [], []
    for run in runs:
        seed = {"seed": run.config.seed}
        rows += [row | seed for row in run.result["rows"] if row["kind"] == "all"]
        paired += [row | seed for row in run.result["paired"] if row["kind"] == "all"]
    table = pd.DataFrame(rows).drop_duplicates(["design", "seed", "metric"])
    blind = pd.read_json(BLIND, lines=True)
    summary = {
        "graded_by": runs[0].result["graded_by"],
        "config": {key: value for key, value in vars(runs[0].config).items() if key != "reward"},
        "seconds": {run.folder.name: run.curve()["seconds"].sum().round() for run in runs},
        "rows": json.loads(table.to_json(orient="records")),
        "paired": paired,
        "labels": label_rows(blind),
    }
    write_json(OUT, summary)


if __name__ == "__main__":
    main()
