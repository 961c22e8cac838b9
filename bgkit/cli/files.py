"""Commands about files of texts: fit models to labels, grade responses, look at prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say

TABLE = (
    "CSV, JSONL, Parquet: prompt, response, and harmful (guard) or rating (utility); or prompt, "
    "chosen, rejected (utility)"
)
NAMES = 'the table\'s own names: {"harmful": "label"}'
LEFT_OUT = {"action": "append", "default": [], "metavar": "COLUMN=VALUE"}
FIT = {
    "what": (("guard", "utility"), "what is fitted"),
    "table": (Path, TABLE, {"metavar": "LABELLED"}),
    "--out": (Path, "folder of the fitted model", {"required": True}),
    "--encoder": ("minilm", "what is fitted: minilm, a folder, a hub name"),
    "--columns": (options.json_object, NAMES, {"metavar": "JSON"}),
    "--leave-out": (str, "rows that are not used (may be repeated)", LEFT_OUT),
    "--tau": (0.5, "threshold of a guard"),
    "--epochs": (6, "passes over the training rows"),
    "--learning-rate": (1e-3, "the highest one"),
    "--batch-size": (16, "rows a step"),
    "--lora-rank": (16, "of the adapter that is trained; 0: all weights"),
    "--seed": (0, "of the head's first weights and the rows' order"),
    **options.DEVICE,
}
WHO = (
    "oracle, default (embedded), english, a folder, a hub name, or api:MODEL on the server of "
    "OPENAI_BASE_URL with the key in OPENAI_API_KEY (%(default)s)"
)
SAMPLING = (
    'arguments of a request, null removes one: {"temperature": null, "max_completion_tokens": 2000}'
)
JUDGE = {
    "files": (Path, "CSV, JSONL, Parquet", {"nargs": "+", "metavar": "FILE"}),
    "--judge": ("default", WHO),
    "--rubric": (str, "what is graded: help_harm, strongreject, xstest, testbed (the judge's)"),
    "--concurrency": (8, "requests at once"),
    "--sampling": (options.json_object, SAMPLING, {"metavar": "JSON"}),
    **options.DEVICE,
}
PROMPTS = {
    "name": (str, "a set, benchmark, file or folder", {"nargs": "?", "metavar": "NAME"}),
    "--split": (str, "one split: train, validation or test (all)"),
    "--n": (int, "number of prompts (all; a benchmark's own)"),
    "--seed": (0, "seed of the sample of --n prompts"),
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
    settings["leave_out"] = {column: value for column, _, value in pairs}
    if what == "guard":
        found = fit.fit_guard(table, out, tau=tau, **settings)
    else:
        found = fit.fit_utility(table, out, **settings)
    say(fit.results(found).round(3).to_string())
    say(f"\n{what.capitalize()}: {out} (figures by kind: fit.json)")


def judge(files: list[Path], judge: str, **how) -> None:
    """Grade files of prompts and responses."""
    with options.loading():
        from bgkit.evaluation import grading, judges, logs

    for path in files:  # what is bad is told before a model is loaded or asked
        logs.read_responses(path)
    grader = judges.load_judge(judge, **how)
    try:
        for path in files:
            grading.grade_file(grader, path, say=say)
    finally:  # what was used is told however that ends
        if hasattr(grader, "usage_text"):  # a language model
            say(f"Used: {grader.usage_text}")


def prompts(
    name: str | None, split: str | None, n: int | None, seed: int, out: Path | None
) -> None:
    """List the prompt sets, or show what one holds."""
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
    if split is None:  # what a training checks first
        try:
            for part in splits.SHARES:
                load.load_prompts(name, part)
        except BgkitError as error:
            say(f"A training on {name} will be refused: {error}", sys.stderr)
