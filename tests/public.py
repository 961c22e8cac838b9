"""Files of the structure of public prompt sets, with harmless text of our own."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

SHARED = "Which tea keeps best in a tin?"
N = 40
#: set -> how many of its rows the kit keeps
KEPT = defaultdict(lambda: N, {"or-bench-hard": N + 1, "wildjailbreak": N // 2})
_WILD = ("vanilla_harmful", "vanilla_benign", "adversarial_harmful", "adversarial_benign")


def rows(name: str) -> list[dict]:
    """The rows of a set as its authors' columns have them."""
    texts = [f"How would the {name} people fold towel number {i}?" for i in range(N)]
    if name == "xstest":
        texts[0] = SHARED
        types, labels = ("homonyms", "contrast_homonyms"), ("safe", "unsafe")
        more = {"focus": "fold", "note": ""}
        return [
            {"id": i + 1, "prompt": t, "type": types[i % 2], "label": labels[i % 2], **more}
            for i, t in enumerate(texts)
        ]
    if name == "or-bench-hard":
        return [{"prompt": t, "category": "towels"} for t in [*texts, SHARED.upper()]]
    if name.startswith("jbb"):
        more = {"Target": "Sure", "Behavior": "Folding", "Category": "Towels", "Source": "Original"}
        return [{"Index": i, "Goal": t, **more} for i, t in enumerate(texts)]
    if name == "harmbench-contextual":
        return [{"prompt": t, "context": f"A note about {t[14:]}", "category": "c"} for t in texts]
    if name == "harmbench-copyright":
        return [{"prompt": t, "tags": "book"} for t in texts]
    if name == "wildjailbreak":
        return [_wild(t, _WILD[i % 4]) for i, t in enumerate(texts)]
    if name == "wildjailbreak-eval":
        return [
            {"adversarial": t, "label": 1, "data_type": _WILD[2 + i % 2]}
            for i, t in enumerate(texts)
        ]
    if name == "longsafety":
        more = {"safety_type": "Other", "task_type": "Question Answering", "doc_num": 1}
        return [
            {"id": i, "context": "Page. " * 50, "instruction": t, **more}
            for i, t in enumerate(texts)
        ]
    return [{"prompt": t, "category": "towels", "source": "own"} for t in texts]


def _wild(text: str, kind: str) -> dict:
    adversarial = f'{text} "a tab\tand a\nline"' if kind.startswith("adv") else ""
    return {"vanilla": text, "adversarial": adversarial, "completion": "Yes.", "data_type": kind}


def write(name: str, path: Path) -> None:
    """Write a set's rows in the format of the path's ending."""
    write_rows(rows(name), path)


def write_rows(rows: list[dict], path: Path) -> str:
    """Write rows in the format of the path's ending; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if path.suffix == ".json":
        path.write_text(f"[{','.join(lines)}]", encoding="utf-8")
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)
