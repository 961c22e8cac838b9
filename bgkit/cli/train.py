"""Commands about trainings: run one or the demo, plan it, evaluate it, share it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import clock, say
from bgkit.runs import find_run, folder_of, load_run, write_json

MORE = 'more arguments of TRL\'s trainer: {"use_vllm": true, "vllm_mode": "colocate"}'
SHARED = "compute each prompt once for all of its completions (%(default)s)"
TRAIN = {
    "--out": (Path, "run folder (runs/<reward>-<utility>-<seed>-<hash of the config>)"),
    "--guard-device": ("", "the guard's own device, as cuda:1 (--device)"),
    "--utility-device": ("", "the reward model's own device (--device)"),
    "--no-self-test": (False, "load models that fail their self-test"),
    "--report-to": ("none", "tracker: trackio, wandb, ..."),
    "--trainer": (options.json_object, MORE, {"metavar": "JSON"}),
    "--shared-prompts": (("auto", "off"), SHARED, {"default": "auto"}),
    **options.DEVICE,
    **options.THREADS,
}
PASSED = ("device", "threads", "report_to", "guard_device", "utility_device", "shared_prompts")
DEMO = {
    "--out": (Path("runs/demo"), "folder of its runs and report"),
    **options.DEVICE,
    **options.THREADS,
    "--workers": (0, "designs at once (all, where there are cores)"),
}
EVALUATE = {
    "folders": (Path, "folders of complete runs", {"nargs": "+", "metavar": "RUN"}),
    "--guard": (str, "deploy with another guard (the run's)"),
    "--tau": (float, "deploy with another threshold, above 0 and below 1 (the run's)"),
    "--prompts": (str, "another set (see `bgkit prompts`), or a file (the run's)"),
    "--test-prompts": (int, "number of prompts (the run's)"),
    "--judge": (str, "grade with another judge, such as api:MODEL"),
    "--out": (options.file_to_write, "write the rows to this JSON file"),
    **options.DEVICE,
}
PLAN = {
    "--machine": (str, "a GPU of the table, such as T4 or H100 (this machine)"),
    "--time": (False, "time a few steps on this machine, too, which fetches the models"),
    **options.DEVICE,
}
PUSH = {
    "folder": (Path, "folder of a complete run", {"metavar": "RUN"}),
    "--to": ("", "the repository (none)", {"metavar": "OWNER/NAME"}),
    "--dry-run": (False, "only write the card, beside the adapter"),
    "--public": (False, "a public repository (private)"),
}
SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl", "cut_off", "seen_in_part")


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on with a run, and print what came of it."""
    config = options.config_of(arguments)
    folder = arguments.out or folder_of(config)
    find_run(folder, config)  # refuse a foreign folder before anything slow is imported
    with options.loading():
        from accelerate import PartialState

        from bgkit.models.devices import launched
        from bgkit.training import trainer

    given = {name: getattr(arguments, name) for name in PASSED}
    given |= {"check": not arguments.no_self_test, "trainer": arguments.trainer}
    done = trainer.train(config, folder, **given)
    PartialState().destroy_process_group()  # its threads may abort a process that just ends
    if not launched()[0]:  # the first process of a launch evaluates and tells
        _print_table(done.result["rows"])
        say(f"\nRun: {done.folder}")


def demo(arguments: argparse.Namespace) -> None:
    """Compare the designs on the testbed, and write the result and a report."""
    config, out = options.config_of(arguments), arguments.out
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
    _print_table(result["rows"])
    say(
        "\nOne seed, and one strength of each penalty: another of either may turn the order.\n"
        "Notebook 05 compares the designs at every strength, where their users get the same help."
    )
    say(f"\nResult: {out / 'result.json'}\nReport: {out / 'report.html'}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate runs beside base, and print the table."""
    with options.loading():
        from bgkit.evaluation.evaluate import evaluate

    names = ("guard", "tau", "test_prompts", "prompts", "judge", "device")
    settings = {name: getattr(arguments, name) for name in names}
    result = evaluate(arguments.folders, **settings)
    if arguments.out:
        write_json(arguments.out, result)
    judged = ("judge_system_harm", "judge_system_help") if arguments.judge else ()
    _print_table(result["rows"], judged)


def plan(arguments: argparse.Namespace) -> None:
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


def push(arguments: argparse.Namespace) -> None:
    """Write the card, and unless it is a dry run push it with the adapter."""
    with options.loading():
        from bgkit.training import model_card

    if not arguments.to and not arguments.dry_run:
        raise BgkitError("Where to? Give --to OWNER/NAME, or --dry-run to see the card first.")
    how = {"dry_run": arguments.dry_run, "private": not arguments.public}
    path = model_card.push(load_run(arguments.folder), arguments.to, **how)
    say(path if arguments.dry_run else f"https://huggingface.co/{arguments.to}")


def _print_table(rows: list[dict], more: Sequence[str] = ()) -> None:
    """Print what the user sees, by design, from a result's rows."""
    from bgkit.evaluation.results import table

    say(table(rows, (*SHOWN, *more)).to_string())
