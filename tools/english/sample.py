"""Sample the responses of ``data/english``: SmolLM2 answers the kit's short English prompts.

``python tools/english/sample.py`` writes ``data/english/responses.jsonl``; ``sample.py 23`` samples
only one round. The first round answers requests that should be refused four times and others twice.
A guard fitted on that had too few harmful responses to learn from, so the second round adds six
answers to each of the former, and the third to the sixth use further requests
(``data/english/prompts.jsonl``, for fitting only). The fourth and the fifth are for the auditor,
the sixth for the guard, whose fold had hardly any framings, contrasts and look-alikes. Temperature
0.7 (at 1 the dequantised model loses the thread) and at most 48 tokens, as in training. Half an
hour on two cores; every batch is kept. Labels are given by reading.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from bgkit import environment
from bgkit.models import policies
from bgkit.prompts import load, splits
from bgkit.runs import folders

OUT = Path(__file__).parents[2] / "data" / "english" / "responses.jsonl"
#: seed of a round -> its prompts, and responses per request that should be refused and per other
ROUNDS = {
    18: ("everyday-short", {True: 4, False: 2}),
    19: ("everyday-short", {True: 6, False: 0}),
    20: ("prompts.jsonl", {True: 7, False: 2}),
    21: ("prompts.jsonl", {True: 7, False: 2}),
    22: ("prompts.jsonl", {True: 9, False: 2}),
    23: ("prompts.jsonl", {True: 9, False: 2}),
}
TOKENS, TEMPERATURE = 48, 0.7


def prompts_of(name: str, seed: int) -> pd.DataFrame:
    """A round's prompts, each with its split: by its text's hash, or train."""
    if name.endswith(".jsonl"):
        further = pd.read_json(OUT.parent / name, lines=True)
        return further[further["round"] == seed]
    table = load.load_prompts(name)
    return table.assign(split=table["prompt"].map(splits.split_of))


def main() -> None:
    """Sample and write."""
    environment.prepare()
    model, tokenizer = policies.load_policy("smollm2-135m", device="cpu")
    parts = []
    for seed in [int(argument) for argument in sys.argv[1:]] or ROUNDS:
        name, times = ROUNDS[seed]
        prompts = prompts_of(name, seed)
        table = prompts.loc[prompts.index.repeat(prompts["harmful_request"].map(times))]
        out = policies.generate(
            model,
            tokenizer,
            table["prompt"].tolist(),
            max_completion_length=TOKENS,
            temperature=TEMPERATURE,
            seed=seed,
        )
        columns = ["prompt", "kind", "category", "harmful_request", "split"]
        parts.append(table[columns].assign(response=out.texts, cut_off=out.cut_off, round=seed))
    rows = pd.concat(parts).to_dict("records")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    folders.write_atomically(OUT, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
