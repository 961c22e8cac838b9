"""Fit a guard or a reward model from labelled responses."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say

TABLE = (
    "CSV, JSONL, Parquet: prompt, response, and harmful (guard) or rating (utility); or prompt, "
    "chosen, rejected (utility)"
)
SETTINGS = {
    "--epochs": (6, "passes over the training rows"),
    "--learning-rate": (1e-3, "the highest one"),
    "--batch-size": (16, "rows a step"),
    "--lora-rank": (16, "of the adapter that is trained; 0: all weights"),
    "--seed": (0, "of the head's first weights and the rows' order"),
}
OPTIONS = {
    "what": (("guard", "utility"), "what is fitted"),
    "table": (Path, TABLE, {"metavar": "LABELLED"}),
    "--out": (Path, "folder of the fitted model", {"required": True}),
    "--encoder": ("minilm", "what is fitted: minilm, a folder, a hub name"),
    "--columns": (
        options.json_object,
        'the table\'s own names: {"harmful": "label"}',
        {"metavar": "JSON"},
    ),
    "--leave-out": (
        str,
        "rows that are not used (may be repeated)",
        {"action": "append", "default": [], "metavar": "COLUMN=VALUE"},
    ),
    "--tau": (0.5, "threshold of a guard"),
    **SETTINGS,
    **options.DEVICE,
}


def run(arguments: argparse.Namespace) -> None:
    """Fit, and print how good it is on held-out prompts."""
    pairs = [pair.partition("=") for pair in arguments.leave_out]
    if wrong := [column for column, mark, _ in pairs if not mark]:
        raise BgkitError(f"--leave-out takes COLUMN=VALUE, not {wrong[0]!r}.")
    with options.loading():
        from bgkit.fitting import fit
        from bgkit.models import devices

    devices.pin_threads()
    names = [option.strip("-").replace("-", "_") for option in SETTINGS]
    names += ["columns", "device", "encoder", *(["tau"] if arguments.what == "guard" else [])]
    settings = {name: getattr(arguments, name) for name in names}
    settings["leave_out"] = {column: value for column, _, value in pairs}
    fit_it = fit.fit_guard if arguments.what == "guard" else fit.fit_utility
    found = fit_it(arguments.table, arguments.out, **settings)
    say(fit.results(found).round(3).to_string())
    say(f"\n{arguments.what.capitalize()}: {arguments.out} (figures by kind: fit.json)")
