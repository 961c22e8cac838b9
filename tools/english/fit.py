"""Fit what ``data/english`` ships: guard, utility, and the auditor's two heads.

``python tools/english/fit.py`` takes a quarter of an hour on two cores. Guard and utility are
fitted on the prompts of the fold ``guard``, the auditor on those of the fold ``auditor`` and with
another seed; all are measured on the same test prompts. What is there of the same rows is left; a
fit of other rows is made once its folder is deleted.
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
    """Fit all of them anew."""
    environment.prepare()
    devices.pin_threads()
    for name, (other, seed) in FITS.items():
        out = DATA / name
        given = {**SETTINGS, "leave_out": {"fold": other}, "seed": seed}
        if name in ("guard", "auditor/harm"):
            found = bgkit.fit_guard(TABLE, out, **given)
        else:
            found = bgkit.fit_utility(TABLE, out, columns={"rating": "helpful"}, **given)
        say(f"{name}\n{fit.results(found).round(3).to_string()}")
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
