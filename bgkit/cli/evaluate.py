"""Runs beside base, on test prompts."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.runs import write_json

OPTIONS = {
    "folders": (Path, "folders of complete runs", {"nargs": "+", "metavar": "RUN"}),
    "--guard": (str, "deploy with another guard (the run's)"),
    "--tau": (float, "deploy with another threshold, above 0 and below 1 (the run's)"),
    "--prompts": (str, "another set (see `bgkit prompts`), or a file (the run's)"),
    "--test-prompts": (int, "number of prompts (the run's)"),
    "--judge": (str, "grade with another judge, such as api:MODEL"),
    "--out": (options.file_to_write, "write the rows to this JSON file"),
    **options.DEVICE,
}


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, and print the table."""
    with options.loading():
        from bgkit.evaluation.evaluate import evaluate

    names = ("guard", "tau", "test_prompts", "prompts", "judge", "device")
    settings = {name: getattr(arguments, name) for name in names}
    result = evaluate(arguments.folders, **settings)
    if arguments.out:
        write_json(arguments.out, result)
    judged = ("judge_system_harm", "judge_system_help") if arguments.judge else ()
    options.print_table(result["rows"], judged)
