"""Memory and time of a run, before anything is fetched."""

from __future__ import annotations

import argparse

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say

OPTIONS = {
    "--machine": (str, "a GPU of the table, such as T4 or H100 (this machine)"),
    **options.DEVICE,
}
CONFIG: dict[str, object] = {}


def run(arguments: argparse.Namespace) -> None:
    """Print the plan and its verdict."""
    with options.loading():
        from bgkit.prompts import load as prompts
        from bgkit.training import budget, machines

    config, name = options.config_of(arguments), arguments.machine
    if name and name not in machines.GPUS:
        raise BgkitError(f"There is no machine {name!r}; known: {', '.join(machines.GPUS)}.")
    own = machines.this_machine
    here = machines.GPUS[name] if name else own(arguments.device, config.precision)
    texts = prompts.load_prompts(config.prompts, "train", None, config.seed)["prompt"]
    plan = budget.make_plan(config, here, budget.tokens_of(texts))
    for table, digits in ((budget.memory(plan), 3), (budget.step_time(plan), 2)):
        say(f"{table.round(digits).to_string()}\n")
    say(budget.verdict(plan))
