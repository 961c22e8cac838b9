"""What each command of the command line takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from bgkit.cli import sweep as sweep_command
from bgkit.errors import BgkitError
from bgkit.runs.config import TrainConfig, explain, make_config, read_config
from bgkit.training import presets

ABOUT = "Train a generator for its safety filter, evaluate and compare."
DEVICE = "where to compute: auto, cpu, cuda, cuda:1, mps (%(default)s)"
METAVARS = {str: "NAME", int: "N", float: "X"}
PREFIX = "config_"  # of the settings of a run among parsed arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BgkitError(f"{message} (`{self.prog} --help` explains)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; the name of the one that was given is in ``command``.

    It raises BgkitError for arguments that it does not take.
    """
    parser = _Parser(prog="bgkit", description=ABOUT)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_demo,
        _add_train,
        _add_evaluate,
        _add_judge,
        _add_prompts,
        _add_plan,
        _add_bench,
        _add_push,
        _add_testbed,
        sweep_command.add_to,
        _add_collect,
    ):
        add(commands)
    return parser


def _add_demo(commands) -> None:
    demo = commands.add_parser("demo", help="train three designs, compare them with base, report")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        help="folder of its runs and report (%(default)s)",
    )
    _add_config(demo, presets.DEMO)
    _add_machine(demo)


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help=DEVICE)
    command.add_argument(
        "--threads", type=int, default=0, help="CPU threads (all cores, at most 4)"
    )


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="one GRPO run into a run folder")
    train.add_argument("--out", type=Path, help="run folder (runs/<reward>-<utility>-<seed>)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="finish the run in this folder")
    train.add_argument("--guard-device", default="", help="the guard's own device, as cuda:1")
    train.add_argument("--utility-device", default="", help="the reward model's own device")
    train.add_argument(
        "--no-self-test", action="store_true", help="load models that fail their self-test"
    )
    train.add_argument(
        "--report-to", default="none", help="tracker: trackio, wandb, ... (%(default)s)"
    )
    train.add_argument(
        "--trainer",
        type=_object,
        metavar="JSON",
        help='more arguments of TRL\'s trainer: {"use_vllm": true, "vllm_mode": "colocate"}',
    )
    _add_config(train)
    _add_machine(train)


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser("evaluate", help="runs beside base, on test prompts")
    evaluate.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="folders of complete runs"
    )
    evaluate.add_argument("--guard", help="deploy with another guard (the run's)")
    evaluate.add_argument(
        "--tau", type=float, help="deploy with another threshold, above 0 and below 1 (the run's)"
    )
    evaluate.add_argument(
        "--prompts", help="another set (see `bgkit prompts`), or a file (the run's)"
    )
    evaluate.add_argument("--test-prompts", type=int, help="number of prompts (the run's)")
    evaluate.add_argument("--judge", help="grade with another judge, such as api:MODEL")
    evaluate.add_argument("--out", type=Path, help="write the rows to this JSON file")
    evaluate.add_argument("--device", default="auto", help=DEVICE)


def _add_collect(commands) -> None:
    collect = commands.add_parser("collect", help="what sweeps of trainings found, in small files")
    collect.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP", help="folders of sweeps")
    collect.add_argument("--out", type=Path, required=True, help="folder; what is there is kept")
    collect.add_argument("--made-by", default="", metavar="TEXT", help="the command of the sweep")


def _add_judge(commands) -> None:
    judge = commands.add_parser("judge", help="grade files of prompts and responses")
    judge.add_argument("files", type=Path, nargs="+", metavar="FILE", help="CSV, JSONL, Parquet")
    judge.add_argument(
        "--judge",
        default="default",
        help="oracle, default (embedded), a folder, a hub name, or api:MODEL on the server of "
        "OPENAI_BASE_URL with the key in OPENAI_API_KEY (%(default)s)",
    )
    judge.add_argument(
        "--rubric", help="what is graded: help_harm, strongreject, xstest, testbed (the judge's)"
    )
    judge.add_argument("--concurrency", type=int, default=8, help="requests at once (%(default)s)")
    judge.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="price of a million tokens"
    )
    judge.add_argument(
        "--sampling",
        type=_object,
        metavar="JSON",
        help='arguments of a request, null removes one: {"temperature": null, '
        '"max_completion_tokens": 2000}',
    )
    judge.add_argument("--estimate", action="store_true", help="tokens and cost only; ask nothing")
    judge.add_argument("--device", default="auto", help=DEVICE)


def _add_plan(commands) -> None:
    plan = commands.add_parser("plan", help="memory and time of a run, before anything is fetched")
    plan.add_argument("--machine", help="a GPU of the table, such as T4 or H100 (this machine)")
    plan.add_argument("--device", default="auto", help=DEVICE)
    _add_config(plan)


def _add_bench(commands) -> None:
    bench = commands.add_parser("bench", help="how fast scoring, or a step, is beside other ways")
    bench.add_argument(
        "what",
        choices=("scoring", "step"),
        help="scoring by guards and reward models, or a step of training",
    )
    bench.add_argument("--size", type=float, default=1.0, help="scales the workloads (%(default)s)")
    bench.add_argument("--repeats", type=int, default=2, help="the best of so many (%(default)s)")
    bench.add_argument("--threads", type=int, default=0, help="CPU threads (all, at most 4)")
    bench.add_argument("--device", default="auto", help=DEVICE)
    bench.add_argument("--out", type=Path, help="write the rows to this JSON file")


def _add_push(commands) -> None:
    push = commands.add_parser("push", help="a run's adapter and its model card to the hub")
    push.add_argument("folder", type=Path, metavar="RUN", help="folder of a complete run")
    push.add_argument("--to", default="", metavar="OWNER/NAME", help="the repository")
    push.add_argument(
        "--dry-run", action="store_true", help="only write the card, beside the adapter"
    )
    push.add_argument("--public", action="store_true", help="a public repository (private)")


def _add_testbed(commands) -> None:
    testbed = commands.add_parser("testbed", help="the embedded models: build, check")
    testbed.add_argument(
        "action",
        choices=("build", "check"),
        help="train the models anew, or compare them with their sha256",
    )
    testbed.add_argument("--out", type=Path, help="folder of the models (data/testbed)")
    testbed.add_argument("--workers", type=int, help="processes that train (one per core)")


def _add_prompts(commands) -> None:
    prompts = commands.add_parser("prompts", help="list the prompt sets, or show what one holds")
    prompts.add_argument("name", nargs="?", metavar="NAME", help="a set, benchmark, file or folder")
    prompts.add_argument("--split", help="one split: train, validation or test (all)")
    prompts.add_argument("--n", type=int, help="number of prompts (all; a benchmark's own)")
    prompts.add_argument(
        "--seed", type=int, default=0, help="seed of the sample of --n prompts (%(default)s)"
    )
    prompts.add_argument("--out", type=Path, help="write the prompts to this JSONL file")


def _add_config(
    command: argparse.ArgumentParser, defaults: Mapping[str, object] = MappingProxyType({})
) -> None:
    """One option for each setting of a run, and a JSON file of them.

    ``defaults`` are the command's own.
    """
    group = command.add_argument_group(
        "config", "what determines a run, with its default; options beat --config"
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="JSON object of the keys below")
    for name, usual in {**vars(TrainConfig()), **defaults}.items():
        text = f"{explain(name)} ({usual})".replace("%", "%%")
        option, kind = f"--{name.replace('_', '-')}", type(usual)
        group.add_argument(
            option, dest=f"{PREFIX}{name}", type=kind, metavar=METAVARS[kind], help=text
        )


def config_of(arguments: argparse.Namespace, **defaults) -> TrainConfig:
    """The training config that the options of a command and its --config file make.

    ``defaults`` of the command give way to both. Raises BgkitError for what no training accepts.
    """
    values = read_config(arguments.config) if arguments.config else {}
    return make_config({**defaults, **values, **given(arguments)})


def given(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings of a run that the options of a command set."""
    return {
        key.removeprefix(PREFIX): value
        for key, value in vars(arguments).items()
        if key.startswith(PREFIX) and value is not None
    }


def _object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value
