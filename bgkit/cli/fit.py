"""Fit a guard or a reward model from labelled responses."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say

DEFAULTS = {"epochs": 6, "learning_rate": 1e-3, "batch_size": 16, "lora_rank": 16, "seed": 0}
HELP = {
    "epochs": "passes over the training rows",
    "learning_rate": "the highest one",
    "batch_size": "rows a step",
    "lora_rank": "of the adapter that is trained; 0: all weights",
    "seed": "of the head's first weights and the rows' order",
}


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument("what", choices=("guard", "utility"), help="what is fitted")
    command.add_argument(
        "table",
        type=Path,
        metavar="LABELLED",
        help="CSV, JSONL, Parquet: prompt, response, and harmful (guard) or rating (utility); or "
        "prompt, chosen, rejected (utility)",
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the fitted model")
    command.add_argument(
        "--encoder", default="minilm", help="what is fitted: minilm, a folder, a hub name"
    )
    command.add_argument(
        "--columns",
        type=options.json_object,
        metavar="JSON",
        help='the table\'s own names: {"harmful": "label"}',
    )
    command.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="rows that are not used (may be repeated)",
    )
    command.add_argument(
        "--tau", type=float, default=0.5, help="threshold of a guard (%(default)s)"
    )
    for name, usual in DEFAULTS.items():
        option = f"--{name.replace('_', '-')}"
        command.add_argument(
            option, type=type(usual), default=usual, help=f"{HELP[name]} (%(default)s)"
        )
    options.add_device(command)


def run(arguments: argparse.Namespace) -> None:
    """Fit, and print how good it is on held-out prompts."""
    leave_out = {}
    for pair in arguments.leave_out:
        column, mark, value = pair.partition("=")
        if not mark:
            raise BgkitError(f"--leave-out takes COLUMN=VALUE, not {pair!r}.")
        leave_out[column] = value
    with options.loading():
        from bgkit.fitting import fit
        from bgkit.models import devices

    devices.pin_threads()
    settings = {name: getattr(arguments, name) for name in DEFAULTS}
    settings |= {"columns": arguments.columns, "leave_out": leave_out, "device": arguments.device}
    settings |= {"encoder": arguments.encoder}
    if arguments.what == "guard":
        found = fit.fit_guard(arguments.table, arguments.out, tau=arguments.tau, **settings)
    else:
        found = fit.fit_utility(arguments.table, arguments.out, **settings)
    say(fit.results(found).round(3).to_string())
    say(f"\n{arguments.what.capitalize()}: {arguments.out} (figures by kind: fit.json)")
