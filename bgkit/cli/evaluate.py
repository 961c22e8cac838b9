"""Runs beside base, on test prompts."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.runs import write_json

JUDGED = ("judge_system_harm", "judge_system_help")


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="folders of complete runs"
    )
    command.add_argument("--guard", help="deploy with another guard (the run's)")
    command.add_argument(
        "--tau", type=float, help="deploy with another threshold, above 0 and below 1 (the run's)"
    )
    command.add_argument(
        "--prompts", help="another set (see `bgkit prompts`), or a file (the run's)"
    )
    command.add_argument("--test-prompts", type=int, help="number of prompts (the run's)")
    command.add_argument("--judge", help="grade with another judge, such as api:MODEL")
    command.add_argument("--out", type=Path, help="write the rows to this JSON file")
    options.add_device(command)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, keeping what is drawn until it is done, and print the table."""
    with options.loading():
        from bgkit.evaluation.evaluate import evaluate
        from bgkit.runs import drawn

    with drawn.keeping(drawn.shared(evaluate=str(vars(arguments)), here=str(Path.cwd()))):
        result = evaluate(
            arguments.folders,
            guard=arguments.guard,
            tau=arguments.tau,
            test_prompts=arguments.test_prompts,
            prompts=arguments.prompts,
            judge=arguments.judge,
            device=arguments.device,
        )
        if arguments.out:
            write_json(arguments.out, result)
    options.print_table(result["rows"], JUDGED if arguments.judge else ())
