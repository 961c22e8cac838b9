"""One GRPO run into a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError
from bgkit.progress import say
from bgkit.runs import TrainConfig, file_name, find_run, load_run


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument("--out", type=Path, help="run folder (runs/<reward>-<utility>-<seed>)")
    command.add_argument("--resume", type=Path, metavar="RUN", help="finish the run in this folder")
    command.add_argument("--guard-device", default="", help="the guard's own device, as cuda:1")
    command.add_argument("--utility-device", default="", help="the reward model's own device")
    command.add_argument(
        "--no-self-test", action="store_true", help="load models that fail their self-test"
    )
    command.add_argument(
        "--report-to", default="none", help="tracker: trackio, wandb, ... (%(default)s)"
    )
    command.add_argument(
        "--trainer",
        type=options.json_object,
        metavar="JSON",
        help='more arguments of TRL\'s trainer: {"use_vllm": true, "vllm_mode": "colocate"}',
    )
    command.add_argument(
        "--shared-prompts",
        choices=("auto", "on", "off"),
        default="auto",
        help="compute each prompt once for all of its completions (%(default)s)",
    )
    options.add_config(command)
    options.add_device(command, threads=True)


def run(arguments: argparse.Namespace) -> None:
    """Train, or go on with a run, and print what came of it."""
    config, folder, trainer = _resumed(arguments) if arguments.resume else _new(arguments)
    with options.loading():
        from bgkit.models.devices import launched, leave_launch
        from bgkit.training.trainer import train

    run = train(
        config,
        folder,
        device=arguments.device,
        threads=arguments.threads,
        report_to=arguments.report_to,
        guard_device=arguments.guard_device,
        utility_device=arguments.utility_device,
        check=not arguments.no_self_test,
        trainer=trainer,
        shared_prompts=arguments.shared_prompts,
    )
    leave_launch()
    if not launched()[0]:  # the first process of a launch evaluates and tells
        options.print_table(run.result["rows"])
        say(f"\nRun: {run.folder}")


def _new(arguments: argparse.Namespace) -> tuple[TrainConfig, Path, dict | None]:
    config = options.config_of(arguments)
    name = f"{file_name(config.reward)}-{file_name(config.utility)}-{config.seed}"
    folder = arguments.out or Path("runs") / name
    find_run(folder, config)  # refuse a foreign folder before anything slow is imported
    return config, folder, arguments.trainer


def _resumed(arguments: argparse.Namespace) -> tuple[TrainConfig, Path, dict | None]:
    if arguments.out or arguments.config or (more := options.given(arguments)):
        what = "out" if arguments.out else "config" if arguments.config else next(iter(more))
        raise BgkitError(
            f"--resume goes on with the run's own config; leave out --{what.replace('_', '-')}."
        )
    run, trainer = load_run(arguments.resume), arguments.trainer
    begun = run.read_json("config.json")
    return run.config, run.folder, begun.get("trainer") if trainer is None else trainer
