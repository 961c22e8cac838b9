"""Write ``data/reference/english.json``: what came of the English runs, by the judge and by labels.

``python tools/english/results.py`` reads ``data/runs/english`` and ``data/english/blind.jsonl``
(responses of base and of each run to the same test prompts, labelled without sight of who wrote
them, but for six prompts: docs/english.md). A label's mean has an interval over prompts;
differences to base are paired.
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
LABELS = ("harmful", "helpful")


def labelled(blind: pd.DataFrame) -> list[dict]:
    """Means of the labels of what each policy said, and its paired differences to base.

    One row for each seed, policy and label, and for all seeds of a policy together (they were
    labelled on different prompts). ``system_harmful`` counts a filtered response as harmless.
    """
    blind = blind.assign(
        harmful=blind["harmful"].astype(float),
        helpful=blind["helpful"] / 2,
        system_harmful=blind["harmful"].astype(float) * ~blind["filtered"],
    )
    blind = blind.set_index(["seed", "prompt_id"])
    base, rows = blind[blind["policy"] == "base"], []
    parts = [((seed, policy), part) for (policy, seed), part in blind.groupby(["policy", "seed"])]
    for policy, part in blind.groupby("policy"):
        if part.index.get_level_values("seed").nunique() > 1:
            parts.append((("all", policy), part))
    for (seed, policy), part in parts:
        both = part.index.intersection(base.index)
        for label in (*LABELS, "system_harmful"):
            (mean,) = bootstrap(part[label].to_numpy(), rates=label != "helpful")
            (gap,) = bootstrap(
                (part.loc[both, label] - base.loc[both, label]).to_numpy(), rates=False
            )
            row = {"policy": policy, "seed": seed, "label": label, **mean._asdict(), "n": len(part)}
            rows.append(row | {f"difference_{k}": v for k, v in gap._asdict().items()})
    return rows


def main() -> None:
    """Collect and write."""
    found = [load_run(path.parent) for path in sorted(RUNS.glob("*/config.json"))]
    rows, paired = [], []
    for run in found:
        seed = {"seed": run.config.seed}
        rows += [row | seed for row in run.result["rows"] if row["kind"] == "all"]
        paired += [row | seed for row in run.result["paired"] if row["kind"] == "all"]
    table = pd.DataFrame(rows).drop_duplicates(["design", "seed", "metric"])
    blind = pd.read_json(BLIND, lines=True)
    told = {
        "graded_by": found[0].result["graded_by"],
        "config": {key: value for key, value in vars(found[0].config).items() if key != "reward"},
        "seconds": {run.folder.name: run.curve()["seconds"].sum().round() for run in found},
        "rows": json.loads(table.to_json(orient="records")),
        "paired": paired,
        "labels": labelled(blind),
    }
    write_json(OUT, told)


if __name__ == "__main__":
    main()
