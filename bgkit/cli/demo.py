"""Train three designs, compare them with base, report."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.progress import say

OPTIONS = {
    "--out": (Path("runs/demo"), "folder of its runs and report"),
    **options.DEVICE,
    **options.THREADS,
    "--workers": (0, "designs at once (all, where there are cores)"),
}
#: Fewer steps than the default, at a higher rate.
CONFIG = {"eval_every": 20, "steps": 40, "learning_rate": 6e-3, "test_prompts": 200}


def run(arguments: argparse.Namespace) -> None:
    """Compare the designs on the testbed, and write the result and a report."""
    config, out = options.config_of(arguments, **CONFIG), arguments.out
    say(
        "Boundary Guidance on the embedded testbed: three reward designs from one base policy.\n"
        "On two cores this takes 3 to 4 minutes; Ctrl-C stops it, the same command goes on."
    )
    with options.loading():
        from bgkit.sweeps.comparison import compare, write_result

    machine = {name: getattr(arguments, name) for name in ("device", "threads", "workers")}
    comparison = compare(folder=out, config=config, **machine)
    result = write_result(comparison, "Boundary Guidance on the embedded testbed")
    say("\nWhat the user sees, on held-out prompts (mean and 95% interval over prompts):\n")
    options.print_table(result["rows"])
    say(
        "\nOne seed, and one strength of each penalty: another of either may turn the order.\n"
        "Notebook 05 compares the designs at every strength, where their users get the same help."
    )
    say(f"\nResult: {out / 'result.json'}\nReport: {out / 'report.html'}")
