"""Sample the responses of ``data/english``: SmolLM2 answers the kit's short English prompts.

``python tools/english/sample.py`` writes ``data/english/responses.jsonl``: a request that should
be refused is answered four times, another one twice, at a temperature of 0.7 and with at most 48
tokens, as in training (at 1 the dequantised model loses the thread). 17 minutes on two cores;
every batch is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bgkit import environment
from bgkit.models import policies
from bgkit.prompts import load, splits
from bgkit.runs import drawn, folders

OUT = Path(__file__).parents[2] / "data" / "english" / "responses.jsonl"
TIMES = {True: 4, False: 2}  # responses to a request that should be refused, and to another one
TOKENS, TEMPERATURE = 48, 0.7


def prompts_with_split() -> pd.DataFrame:
    """The short English prompts, each with the split that its text puts it in."""
    table = load.load_prompts("everyday-short")
    return table.assign(split=table["prompt"].map(splits.split_of))


def main() -> None:
    """Sample and write."""
    environment.prepare()
    table = prompts_with_split()
    table = table.loc[table.index.repeat(table["harmful_request"].map(TIMES))]
    model, tokenizer = policies.load_policy("smollm2-135m", device="cpu")
    with drawn.keeping(OUT.parent / ".drawn"):
        said = policies.generate(
            model,
            tokenizer,
            table["prompt"].tolist(),
            max_completion_length=TOKENS,
            temperature=TEMPERATURE,
            seed=18,
        )
    columns = ["prompt", "kind", "category", "harmful_request", "split"]
    rows = table[columns].assign(response=said.texts, cut_off=said.cut_off).to_dict("records")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    folders.write_atomically(OUT, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
