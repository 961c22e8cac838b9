"""Sheets of responses to label, and their labels joined to ``data/english/labelled.jsonl``.

``python tools/english/label.py sheets FOLDER N`` mixes the responses of ``responses.jsonl``
(``sample.py``) with 300 that have labels but no second reading yet, which is made without sight of
the first, shuffles them by a hash, and writes N sheets with only numbers, prompts and responses.
Labels of ``sheet_K.jsonl`` are lines ``number harmful helpful`` (0 or 1; 0, 1 or 2) in
``sheet_K.txt``, by the guideline of ``data/english/README.md``. ``... join FOLDER`` adds them. Run
it once: it changes the table that sheets are drawn from. Earlier second readings stay.
New rows get the fold of their round: the auditor's in round 22, the guard's in round 23.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bgkit.runs import folders

DATA = Path(__file__).parents[2] / "data" / "english"
TABLE, NEW = DATA / "labelled.jsonl", DATA / "responses.jsonl"
AGAIN = 300
#: round -> who is fitted on its prompts
FOLDS = {22: "auditor", 23: "guard"}


def sheet() -> pd.DataFrame:
    """Everything to read, in the order of its hash; ``place`` is the row of those with labels."""
    labelled = pd.read_json(TABLE, lines=True)
    once = labelled[labelled["harmful_request"] & labelled["harmful_again"].isna()]
    again = once.sample(AGAIN, random_state=7)
    parts = [pd.read_json(NEW, lines=True).assign(place=-1), again.assign(place=again.index)]
    seen = set(zip(labelled["prompt"], labelled["response"], strict=True))
    parts[0] = parts[0].drop_duplicates(["prompt", "response"])
    pairs = zip(parts[0]["prompt"], parts[0]["response"], strict=True)
    parts[0] = parts[0][[pair not in seen for pair in pairs]]
    rows = pd.concat(parts, ignore_index=True)
    texts = rows["prompt"] + "\0" + rows["response"] + "\0" + rows.index.astype(str)
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return rows.assign(key=keys).sort_values("key", ignore_index=True)


def write_sheets(folder: Path, n: int) -> None:
    """Every n-th row on each of n sheets."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = sheet()[["prompt", "response"]].rename_axis("number").reset_index()
    for k in range(n):
        path = folder / f"sheet_{k}.jsonl"
        shown[k::n].to_json(path, orient="records", lines=True, force_ascii=False)


def read_labels(files: Iterable[Path], n: int) -> pd.DataFrame:
    """Labels in files of lines ``number harmful helpful``, by number; one for each of n numbers."""
    names = ["number", "harmful", "helpful"]
    tables = [pd.read_csv(file, sep=r"\s+", names=names) for file in files]
    labels = pd.concat(tables).set_index("number").sort_index()
    if labels.index.tolist() != list(range(n)):
        raise SystemExit(f"There must be one label for each of {n} numbers.")
    if not labels["harmful"].isin([0, 1]).all() or not labels["helpful"].isin([0, 1, 2]).all():
        raise SystemExit("Labels must be 0 or 1 (harmful) and 0, 1 or 2 (helpful).")
    return labels


def join(folder: Path) -> None:
    """Add the labels of all sheets to the table: new rows, and second readings of old ones."""
    rows = sheet()
    labels = read_labels(sorted(folder.glob("sheet_*.txt")), len(rows))
    rows = rows.join(labels.rename(columns="{}_now".format)).astype({"harmful_now": bool})
    table = pd.read_json(TABLE, lines=True)
    new = rows[rows["place"] < 0]
    new = new.assign(fold=[FOLDS[number] for number in new["round"]])
    new["harmful"], new["helpful"] = new["harmful_now"], new["helpful_now"]
    table = pd.concat([table, new.reindex(columns=table.columns)], ignore_index=True)
    again = rows[rows["place"] >= 0].set_index("place")
    for name, kind in {"harmful": "boolean", "helpful": "Int64"}.items():
        earlier = table[f"{name}_again"].astype(kind)  # types with missing values
        table[f"{name}_again"] = earlier.fillna(again[f"{name}_now"].astype(kind))
    lines = [
        json.dumps(
            {key: value for key, value in row.items() if pd.notna(value)}, ensure_ascii=False
        )
        for row in table.astype(object).to_dict("records")
    ]
    folders.write_atomically(
        TABLE, lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    )


def main() -> None:
    """Write sheets, or join labels."""
    command, folder, *n = sys.argv[1:]
    if command == "sheets":
        write_sheets(Path(folder), int(n[0]))
    else:
        join(Path(folder))


if __name__ == "__main__":
    main()
