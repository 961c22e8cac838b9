"""Fit what ``data/english`` ships: guard, utility, and the auditor's two heads.

``python tools/english/fit.py`` takes a quarter of an hour on two cores. Guard and utility are
fitted on the prompts of the fold ``guard``, the auditor on those of the fold ``auditor`` with
another seed; all are measured on the same test prompts. Existing fits of the same rows stay; to
refit on other rows, delete the folder first.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import bgkit
from bgkit import environment
from bgkit.fitting import fit
from bgkit.models import devices
from bgkit.progress import say

DATA = Path(__file__).parents[2] / "data" / "english"
TABLE = DATA / "labelled.jsonl"
SETTINGS = {"lora_rank": 8, "epochs": 4, "learning_rate": 4e-4, "device": "cpu"}
#: folder -> the fold that is left out, and the seed
FITS = {
    "guard": ("auditor", 0),
    "utility": ("auditor", 0),
    "auditor/harm": ("guard", 1),
    "auditor/help": ("guard", 1),
}


def main() -> None:
    """Fit all of them."""
    environment.prepare()
    devices.pin_threads()
    for name, (left_out, seed) in FITS.items():
        out = DATA / name
        options = {**SETTINGS, "leave_out": {"fold": left_out}, "seed": seed}
        if name in ("guard", "auditor/harm"):
            folder = bgkit.fit_guard(TABLE, out, **options)
        else:
            folder = bgkit.fit_utility(TABLE, out, columns={"rating": "helpful"}, **options)
        say(f"{name}\n{fit.results(folder).round(3).to_string()}")
    write_log()


def write_log() -> None:
    """Write the log of scored responses that notebook 02 shows: held-out prompts, with labels."""
    table = pd.read_json(TABLE, lines=True)
    table = table[table["split"] == "test"]
    guard = bgkit.load_guard("english", "cpu")
    t = guard.score(table["prompt"].tolist(), table["response"].tolist())
    log = table[["prompt", "response", "kind", "harmful"]].assign(p_unsafe=t.astype(float).round(4))
    log.to_json(DATA / "scored.jsonl", orient="records", lines=True, force_ascii=False)


if __name__ == "__main__":
    main()
