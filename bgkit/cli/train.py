"""One GRPO run into a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say
from bgkit.runs import file_name, find_run, load_run

TRAINER = 'more arguments of TRL\'s trainer: {"use_vllm": true, "vllm_mode": "colocate"}'
SHARED = "compute each prompt once for all of its completions (%(default)s)"
OPTIONS = {
    "--out": (Path, "run folder (runs/<reward>-<utility>-<seed>)"),
    "--resume": (Path, "finish the run in this folder", {"metavar": "RUN"}),
    "--guard-device": ("", "the guard's own device, as cuda:1 (--device)"),
    "--utility-device": ("", "the reward model's own device (--device)"),
    "--no-self-test": (False, "load models that fail their self-test"),
    "--report-to": ("none", "tracker: trackio, wandb, ..."),
    "--trainer": (options.json_object, TRAINER, {"metavar": "JSON"}),
    "--shared-prompts": (("auto", "on", "off"), SHARED, {"default": "auto"}),
    **options.DEVICE,
    **options.THREADS,
}
CONFIG: dict[str, object] = {}
PASSED = ("device", "threads", "report_to", "guard_device", "utility_device", "shared_prompts")


def run(arguments: argparse.Namespace) -> None:
    """Train, or go on with a run, and print what came of it."""
    trainer = arguments.trainer
    if arguments.resume:
        begun = _resumed(arguments)
        config, folder = begun.config, begun.folder
        trainer = begun.read_json("config.json").get("trainer") if trainer is None else trainer
    else:
        config = options.config_of(arguments)
        name = f"{file_name(config.reward)}-{file_name(config.utility)}-{config.seed}"
        folder = arguments.out or Path("runs") / name
        find_run(folder, config)  # refuse a foreign folder before anything slow is imported
    with options.loading():
        from accelerate import PartialState

        from bgkit.models.devices import launched
        from bgkit.training.trainer import train

    given = {name: getattr(arguments, name) for name in PASSED}
    done = train(config, folder, check=not arguments.no_self_test, trainer=trainer, **given)
    PartialState().destroy_process_group()  # its threads may abort a process that just ends
    if not launched()[0]:  # the first process of a launch evaluates and tells
        options.print_table(done.result["rows"])
        say(f"\nRun: {done.folder}")


def _resumed(arguments: argparse.Namespace):
    if arguments.out or arguments.config or (more := options.given(arguments)):
        what = "out" if arguments.out else "config" if arguments.config else next(iter(more))
        raise BgkitError(
            f"--resume goes on with the run's own config; leave out --{what.replace('_', '-')}."
        )
    return load_run(arguments.resume)
