"""Commands about files of texts: fit models to labels, grade responses, show prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.fitting.settings import Settings
from bgkit.progress import say

TABLE = (
    "CSV, JSONL or Parquet file with columns prompt, response, and harmful (guard) or rating "
    "(utility); or prompt, chosen, rejected (utility)"
)
NAMES = 'names of the columns in the file: {"harmful": "label"}'
LEFT_OUT = {"action": "append", "default": [], "metavar": "COLUMN=VALUE"}
FIT = {
    "what": (("guard", "utility"), "kind of model to fit"),
    "table": (Path, TABLE, {"metavar": "LABELLED"}),
    "--out": (Path, "folder of the fitted model", {"required": True}),
    "--columns": (options.json_object, NAMES, {"metavar": "JSON"}),
    "--leave-out": (str, "rows to leave out (may be repeated)", LEFT_OUT),
    "--tau": (0.5, "the guard's threshold"),
    **options.settings_of(Settings),
    **options.DEVICE,
}
JUDGES = (
    "the judge: oracle, default (embedded), english, a folder, a hub name, or api:MODEL on the "
    "server at OPENAI_BASE_URL with the key in OPENAI_API_KEY (%(default)s)"
)
SAMPLING = (
    'request arguments; null removes one: {"temperature": null, "max_completion_tokens": 2000}'
)
JUDGE = {
    "files": (Path, "CSV, JSONL or Parquet files", {"nargs": "+", "metavar": "FILE"}),
    "--judge": ("default", JUDGES),
    "--rubric": (str, "rubric: help_harm, strongreject, xstest, testbed (the judge's)"),
    "--concurrency": (8, "number of parallel requests"),
    "--sampling": (options.json_object, SAMPLING, {"metavar": "JSON"}),
    **options.DEVICE,
}
PROMPTS = {
    "name": (str, "a prompt set, benchmark, file or folder", {"nargs": "?", "metavar": "NAME"}),
    "--split": (str, "one split: train, validation or test (all)"),
    "--n": (int, "number of prompts (all, or a benchmark's size)"),
    "--seed": (0, "seed for sampling --n prompts"),
    "--out": (options.file_to_write, "write the prompts to this JSONL file"),
}


def fit(what: str, table: Path, out: Path, tau: float, leave_out: list[str], **settings) -> None:
    """Fit a guard or a reward model from labelled responses."""
    pairs = [pair.partition("=") for pair in leave_out]
    if wrong := [column for column, mark, _ in pairs if not mark]:
        raise BgkitError(f"--leave-out takes COLUMN=VALUE, not {wrong[0]!r}.")
    with options.loading():
        from bgkit.fitting import fit
        from bgkit.models import devices

    devices.pin_threads()
    settings |= options.given_settings(Settings, settings)
    settings["leave_out"] = {column: value for column, _, value in pairs}
    if what == "guard":
        model = fit.fit_guard(table, out, tau=tau, **settings)
    else:
        model = fit.fit_utility(table, out, **settings)
    say(fit.results(model).round(3).to_string())
    say(f"\n{what.capitalize()}: {out} (results by kind: fit.json)")


def judge(files: list[Path], judge: str, **settings) -> None:
    """Grade files of prompts and responses."""
    with options.loading():
        from bgkit.evaluation import grading, judges, logs

    files = list(dict.fromkeys(files))
    for path in files:  # report bad files before a model is loaded or called
        logs.read_responses(path)
    grader = judges.load_judge(judge, **settings)
    grading.check_copies(grader, files)
    try:
        for path in files:
            grading.grade_file(grader, path, say=say)
    finally:  # report usage also after an error
        if hasattr(grader, "usage_text"):  # a language model
            say(f"Used: {grader.usage_text}")


def prompts(
    name: str | None, split: str | None, n: int | None, seed: int, out: Path | None
) -> None:
    """List the prompt sets, or show the content of one."""
    from bgkit.prompts import compose, load, sets, splits
    from bgkit.runs import write_atomically

    if name is None:
        say(f"{load.TESTBED}, {', '.join(sets.OWN)}: shipped, no network needed")
        for benchmark, recipe in compose.BENCHMARKS.items():
            parts = ", ".join(f"{share:.0%} {part}" for part, share in recipe.shares.items())
            say(f"{benchmark}: benchmark of {parts}")
        say("\n".join(map(sets.describe, sets.SETS)))
        return
    table, manifest = load.load_with_manifest(name, split, n, seed)
    if out:
        text = table.to_json(orient="records", lines=True, force_ascii=False)
        write_atomically(out, lambda file: file.write_text(text, encoding="utf-8"))
    say(json.dumps(manifest, indent=1, ensure_ascii=False))
    if split is None:  # a training's first check
        try:
            for part in splits.SHARES:
                load.load_prompts(name, part)
        except BgkitError as error:
            say(f"A training on {name} will be refused: {error}", sys.stderr)
