"""Memory of a run, before anything is fetched; and its time, measured here."""

from __future__ import annotations

import argparse

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import clock, say

OPTIONS = {
    "--machine": (str, "a GPU of the table, such as T4 or H100 (this machine)"),
    "--time": (False, "time a few steps on this machine, too, which fetches the models"),
    **options.DEVICE,
}
CONFIG: dict[str, object] = {}


def run(arguments: argparse.Namespace) -> None:
    """Print the memory by parts, whether it suffices, and how long the steps take."""
    with options.loading():
        from bgkit.prompts import load as prompts
        from bgkit.training import plan

    config, name = options.config_of(arguments), arguments.machine
    if name and name not in plan.GPUS:
        raise BgkitError(f"There is no machine {name!r}; known: {', '.join(plan.GPUS)}.")
    here = plan.GPUS[name] if name else plan.this_machine(arguments.device, config.precision)
    texts = prompts.load_prompts(config.prompts, "train", None, config.seed)["prompt"]
    table = plan.memory(config, here, plan.tokens_of(texts))
    say(f"{table.round(3).to_string()}\n\n{plan.verdict(table, here)}")
    if arguments.time:
        seconds = plan.step_time(config, arguments.device)
        whole = clock(seconds * config.steps)
        say(f"A step takes {seconds:.2f} s on this machine: {config.steps} steps about {whole}.")
