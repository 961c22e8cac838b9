"""One shuffled sheet with responses of several policies, for blind labels.

``python tools/english/blind.py sheet OUT.jsonl RUN ...`` takes the responses of base and the runs
(of one seed) to 80 test prompts that were not labelled before, each text once, shuffled by a hash,
and writes only numbers, prompts and responses. Two readers who do not know of each other label
it by the guideline of ``data/english/README.md``, in lines ``number harmful helpful`` (0 or 1; 0, 1
or 2). ``... join FIRST.txt,SECOND.txt RUN ...`` adds their labels to ``data/english/blind.jsonl``.
Do not look at the runs' results in between.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
from label import read_labels

from bgkit.runs import load_run

BLIND = Path(__file__).parents[2] / "data" / "english" / "blind.jsonl"
PROMPTS = 80
KEYS = ["policy", "seed", "prompt_id"]


def responses_of(folders: list[str]) -> pd.DataFrame:
    """Responses of base and the policies to 80 prompts that have no labels yet."""
    runs = [load_run(Path(folder)) for folder in folders]
    seed = {run.config.seed for run in runs}
    if len(seed) != 1:
        raise SystemExit("Give runs of one seed: they share base's responses.")
    known = pd.read_json(BLIND, lines=True) if BLIND.is_file() else pd.DataFrame(columns=KEYS)
    parts = {"base": runs[0].samples("base")}
    parts |= {run.config.reward: run.samples() for run in runs}
    tables = [
        rows.reset_index(names="place")[["place", "prompt", "response", "filtered"]].assign(
            policy=name
        )
        for name, rows in parts.items()
    ]
    table = pd.concat(tables, ignore_index=True).rename(columns={"place": "prompt_id"})
    fresh = sorted(
        set(table["prompt_id"]) - set(known.loc[known["seed"] != min(seed), "prompt_id"])
    )
    chosen = pd.Series(fresh).sample(PROMPTS, random_state=1)
    return table[table["prompt_id"].isin(chosen)].assign(seed=min(seed))


def sheet_of(table: pd.DataFrame) -> pd.DataFrame:
    """The texts to label, each once, in the order of their hashes."""
    texts = table[["prompt", "response"]].drop_duplicates()
    keys = [hashlib.sha256(repr(pair).encode()).hexdigest() for pair in texts.to_numpy().tolist()]
    return texts.assign(key=keys).sort_values("key")[["prompt", "response"]].reset_index(drop=True)


def main() -> None:
    """Write the sheet, or join its labels."""
    command, file, *folders = sys.argv[1:]
    table = responses_of(folders)
    sheet = sheet_of(table)
    if command == "sheet":
        sheet.to_json(file, orient="records", lines=True)
        return
    for path, end in zip(file.split(","), ("", "_again"), strict=True):
        labels = read_labels([Path(path)], len(sheet))
        sheet[f"harmful{end}"] = labels["harmful"] == 1
        sheet[f"helpful{end}"] = labels["helpful"]
    joined = table.merge(sheet, on=["prompt", "response"]).sort_values(["policy", "prompt_id"])
    names = [*KEYS, "prompt", "response", "filtered", *sheet.columns[2:]]
    joined = joined[names]
    with BLIND.open("a", encoding="utf-8") as stream:
        for row in joined.to_dict("records"):
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
