"""Grade files of prompts and responses."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.progress import say

JUDGE = (
    "oracle, default (embedded), english, a folder, a hub name, or api:MODEL on the server of "
    "OPENAI_BASE_URL with the key in OPENAI_API_KEY (%(default)s)"
)
SAMPLING = (
    'arguments of a request, null removes one: {"temperature": null, "max_completion_tokens": 2000}'
)
OPTIONS = {
    "files": (Path, "CSV, JSONL, Parquet", {"nargs": "+", "metavar": "FILE"}),
    "--judge": ("default", JUDGE),
    "--rubric": (str, "what is graded: help_harm, strongreject, xstest, testbed (the judge's)"),
    "--concurrency": (8, "requests at once"),
    "--sampling": (options.json_object, SAMPLING, {"metavar": "JSON"}),
    **options.DEVICE,
}


def run(arguments: argparse.Namespace) -> None:
    """Grade each file; what is used is told however that ends."""
    with options.loading():
        from bgkit.evaluation import grading, judges, logs

    for path in arguments.files:  # what is bad is told before a model is loaded or asked
        logs.read_responses(path)
    judge = judges.load_judge(
        arguments.judge,
        arguments.device,
        rubric=arguments.rubric,
        concurrency=arguments.concurrency,
        sampling=arguments.sampling,
    )
    try:
        for path in arguments.files:
            grading.grade_file(judge, path, say=say)
    finally:
        if hasattr(judge, "usage"):  # a language model
            say(f"Used: {grading.usage_line(judge)}")
