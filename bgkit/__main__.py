"""The command line: ``python -m bgkit demo|train|sweep|evaluate|judge|...``.

Every error that the user can mend is one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path

from bgkit import sweep_command
from bgkit.errors import BgkitError
from bgkit.runs import TrainConfig, find_run, load_run, make_config, read_config, write_json

SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl")
JUDGED = ("judge_system_harm", "judge_system_help")
DEMO = {"eval_every": 20, "steps": 80, "test_prompts": 400}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bgkit", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train three designs, compare them with base, report")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder (%(default)s)")
    demo.set_defaults(run=_demo)

    train = commands.add_parser("train", help="one GRPO run into a run folder")
    train.add_argument("--out", type=Path, help="run folder (runs/<reward>-<utility>-<seed>)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="finish the run in this folder")
    train.add_argument("--guard-device", default="", help="the guard's own device, as cuda:1")
    train.add_argument("--utility-device", default="", help="the reward model's own device")
    train.add_argument("--no-self-test", action="store_true", help="load models that fail theirs")
    train.add_argument("--report-to", default="none", help="trackio, wandb, ... (%(default)s)")
    train.add_argument(
        "--trainer",
        type=_object,
        metavar="JSON",
        help='more arguments of TRL\'s trainer: {"use_vllm": true, "vllm_mode": "colocate"}',
    )
    train.set_defaults(run=_train)

    reproduce = commands.add_parser("reproduce", help="the reference table over several seeds")
    reproduce.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="such as 0,1,2")
    reproduce.add_argument("--out", type=Path, default=Path("data/reference/main.json"))
    reproduce.add_argument("--runs", type=Path, default=Path("runs/reference"))
    reproduce.add_argument("--designs", type=_names, help="comma-separated rewards")
    reproduce.add_argument("--utilities", type=_names, help="comma-separated utilities")
    reproduce.add_argument("--workers", type=int, default=max(1, os.cpu_count() or 1))
    reproduce.set_defaults(run=_reproduce)

    for command in (demo, train, reproduce):
        _add_config(command)

    evaluate = commands.add_parser("evaluate", help="runs beside base, on test prompts")
    evaluate.add_argument("folders", type=Path, nargs="+", metavar="RUN")
    evaluate.add_argument("--guard", help="deploy with another guard")
    evaluate.add_argument("--tau", type=float, help="deploy with another threshold")
    evaluate.add_argument("--prompts", help="a set (see `bgkit prompts`), or a file")
    evaluate.add_argument("--test-prompts", type=int, help="number of prompts")
    evaluate.add_argument("--judge", help="grade with another judge, such as api:MODEL")
    evaluate.add_argument("--out", type=Path, help="write the rows to this JSON file")
    evaluate.set_defaults(run=_evaluate)

    for command in (demo, train, reproduce, evaluate):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    for command in (demo, train):
        command.add_argument(
            "--threads", type=int, default=0, help="CPU threads (all cores, at most 4)"
        )

    for add in (_add_judge, _add_prompts, _add_plan, _add_bench, _add_push, _add_testbed):
        add(commands)
    sweep_command.add_to(commands)
    return parser


def _add_judge(commands) -> None:
    judge = commands.add_parser("judge", help="grade files of prompts and responses")
    judge.add_argument("files", type=Path, nargs="+", metavar="FILE", help="CSV, JSONL, Parquet")
    judge.add_argument(
        "--judge",
        default="default",
        help="oracle, default (embedded), a folder, a hub name, or api:MODEL on the server of "
        "OPENAI_BASE_URL with the key in OPENAI_API_KEY (%(default)s)",
    )
    judge.add_argument("--rubric", help="help_harm, strongreject, xstest, testbed")
    judge.add_argument("--concurrency", type=int, default=8, help="requests at once (%(default)s)")
    judge.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens"
    )
    judge.add_argument(
        "--sampling",
        type=_object,
        metavar="JSON",
        help='of a request, null removes one: {"temperature": null, "max_completion_tokens": 2000}',
    )
    judge.add_argument("--estimate", action="store_true", help="tokens and cost only; ask nothing")
    judge.set_defaults(run=_judge)
    judge.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")


def _add_plan(commands) -> None:
    plan = commands.add_parser("plan", help="memory and time of a run, before anything is fetched")
    plan.add_argument("--machine", help="a GPU of the table, such as T4 or H100 (this machine)")
    plan.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    _add_config(plan)
    plan.set_defaults(run=_plan)


def _add_bench(commands) -> None:
    bench = commands.add_parser("bench", help="how fast scoring, or a step, is beside other ways")
    bench.add_argument("what", choices=("scoring", "step"))
    bench.add_argument("--size", type=float, default=1.0, help="scales the workloads (%(default)s)")
    bench.add_argument("--repeats", type=int, default=2, help="the best of so many (%(default)s)")
    bench.add_argument("--threads", type=int, default=0, help="CPU threads (all, at most 4)")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda")
    bench.add_argument("--out", type=Path, help="write the rows to this JSON file")
    bench.set_defaults(run=_bench)


def _add_push(commands) -> None:
    push = commands.add_parser("push", help="a run's adapter and its model card to the hub")
    push.add_argument("folder", type=Path, metavar="RUN")
    push.add_argument("--to", default="", metavar="OWNER/NAME", help="the repository")
    push.add_argument(
        "--dry-run", action="store_true", help="only write the card, beside the adapter"
    )
    push.add_argument("--public", action="store_true", help="a public repository (private)")
    push.set_defaults(run=_push)


def _add_testbed(commands) -> None:
    testbed = commands.add_parser("testbed", help="the embedded models: build, check")
    testbed.add_argument("action", choices=("build", "check"))
    testbed.add_argument("--out", type=Path, help="folder (data/testbed)")
    testbed.add_argument("--workers", type=int, help="processes (one per core)")
    testbed.set_defaults(run=_testbed)


def _add_prompts(commands) -> None:
    prompts = commands.add_parser("prompts", help="list the prompt sets, or show what one holds")
    prompts.add_argument("name", nargs="?", metavar="NAME", help="a set, benchmark, file or folder")
    prompts.add_argument("--split", help="train, validation or test (all)")
    prompts.add_argument("--n", type=int, help="number of prompts (all; a benchmark's own)")
    prompts.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    prompts.add_argument("--out", type=Path, help="write the prompts to this JSONL file")
    prompts.set_defaults(run=_prompts)


def _add_config(command: argparse.ArgumentParser) -> None:
    """One option for each field of the training config, and a JSON file of them."""
    group = command.add_argument_group("config", "what determines a run; options beat --config")
    group.add_argument("--config", type=Path, metavar="FILE", help="JSON object of the keys below")
    for name, kind in typing.get_type_hints(TrainConfig).items():
        option = f"--{name.replace('_', '-')}"
        default = getattr(TrainConfig(), name)
        group.add_argument(option, dest=f"config_{name}", type=kind, help=f"({default})")


def _config(arguments: argparse.Namespace, **defaults) -> TrainConfig:
    values = read_config(arguments.config) if arguments.config else {}
    prefix = "config_"
    given = {
        key.removeprefix(prefix): value
        for key, value in vars(arguments).items()
        if key.startswith(prefix) and value is not None
    }
    return make_config({**defaults, **values, **given})


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds such as 0,1,2") from error


def _object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _print_table(rows: list[dict], more: tuple[str, ...] = ()) -> None:
    from bgkit.comparison import table

    print(table(rows, SHOWN + more).to_string(), flush=True)


def _demo(arguments: argparse.Namespace) -> None:
    config = _config(arguments, **DEMO)
    print(
        "Boundary Guidance on the embedded testbed: three reward designs from one base policy.\n"
        "On two cores this takes about 5 minutes; Ctrl-C stops it, the same command goes on.",
        flush=True,
    )
    from bgkit.comparison import compare

    result = compare(config, arguments.out, device=arguments.device, threads=arguments.threads)
    print("\nWhat the user sees, on held-out prompts (mean and 95% interval over prompts):\n")
    _print_table(result["rows"])
    print(f"\nResult: {arguments.out / 'result.json'}\nReport: {arguments.out / 'report.html'}")


def _train(arguments: argparse.Namespace) -> None:
    if arguments.resume:
        config, folder = load_run(arguments.resume).config, arguments.resume
    else:
        config = _config(arguments)
        name = f"{config.reward}-{config.utility}-{config.seed}"
        folder = arguments.out or Path("runs") / name
        find_run(folder, config)  # refuse a foreign folder before anything slow is imported
    from bgkit.devices import launched
    from bgkit.training import train

    run = train(
        config,
        folder,
        device=arguments.device,
        threads=arguments.threads,
        report_to=arguments.report_to,
        guard_device=arguments.guard_device,
        utility_device=arguments.utility_device,
        check=not arguments.no_self_test,
        trainer=arguments.trainer,
    )
    if launched()[0]:  # the first process of a launch evaluates and tells
        return
    _print_table(run.read_json("result.json")["rows"])
    print(f"\nRun: {run.folder}")


def _reproduce(arguments: argparse.Namespace) -> None:
    from bgkit import comparison

    config = _config(arguments, **comparison.REFERENCE)

    result = comparison.reproduce(
        arguments.runs,
        arguments.out,
        arguments.seeds,
        designs=arguments.designs or comparison.DESIGNS,
        utility_names=arguments.utilities or comparison.UTILITIES,
        config=config,
        device=arguments.device,
        workers=arguments.workers,
        say=lambda text: print(text, flush=True),
    )
    print(f"{len(result['rows'])} rows in {arguments.out}")


def _evaluate(arguments: argparse.Namespace) -> None:
    from bgkit.comparison import evaluate_folders

    result = evaluate_folders(
        arguments.folders,
        guard=arguments.guard,
        tau=arguments.tau,
        test_prompts=arguments.test_prompts,
        prompt_set=arguments.prompts,
        judge=arguments.judge,
        device=arguments.device,
    )
    _print_table(result["rows"], JUDGED if arguments.judge else ())
    if arguments.out:
        write_json(arguments.out, result)


def _prompts(arguments: argparse.Namespace) -> None:
    """List the sets, or print a set's manifest and write its prompts."""
    import json

    from bgkit import benchmarks, prompts, sets
    from bgkit.runs import write_atomically

    if arguments.name is None:
        print(f"{prompts.TESTBED}, {', '.join(sets.OWN)}: shipped, no network needed")
        for name, recipe in benchmarks.BENCHMARKS.items():
            parts = ", ".join(f"{share:.0%} {part}" for part, share in recipe.shares.items())
            print(f"{name}: benchmark of {parts}")
        print("\n".join(map(sets.describe, sets.SETS)))
        return
    table, manifest = prompts.load_with_manifest(
        arguments.name, arguments.split, arguments.n, arguments.seed
    )
    if arguments.out:
        text = table.to_json(orient="records", lines=True, force_ascii=False)
        write_atomically(arguments.out, lambda file: file.write_text(text, encoding="utf-8"))
    print(json.dumps(manifest, indent=1, ensure_ascii=False))


def _judge(arguments: argparse.Namespace) -> None:
    from bgkit import grading

    for path in arguments.files:
        grading.read_responses(path)  # a bad file is told before a model is loaded or asked
    judge = grading.make_judge(
        arguments.judge,
        arguments.rubric,
        arguments.device,
        concurrency=arguments.concurrency,
        price=arguments.price,
        sampling=arguments.sampling,
    )
    asks = arguments.judge != "oracle"
    for path in arguments.files if asks else []:
        print(f"{path}: {grading.tokens_line(grading.estimate_file(judge, path))}", flush=True)
    if arguments.estimate:
        return
    try:
        for path in arguments.files:
            grading.grade_file(judge, path, say=lambda text: print(text, flush=True))
    finally:
        if asks:
            print(f"Used: {grading.usage_line(judge)}", flush=True)


def _plan(arguments: argparse.Namespace) -> None:
    from bgkit import budget, machines, prompts

    config = _config(arguments)
    if arguments.machine and arguments.machine not in machines.GPUS:
        raise BgkitError(
            f"There is no machine {arguments.machine!r}; known: {', '.join(machines.GPUS)}."
        )
    if arguments.machine:
        machine = machines.GPUS[arguments.machine]
    else:
        machine = machines.this_machine(arguments.device, config.precision)
    texts = prompts.load_prompts(config.prompts, "train", None, config.seed)["prompt"]
    plan = budget.make_plan(config, machine, budget.tokens_of(texts))
    print(
        f"{budget.memory(plan).round(3).to_string()}\n\n{budget.step_time(plan).round(2).to_string()}"
    )
    print(f"\n{budget.verdict(plan)}")


def _bench(arguments: argparse.Namespace) -> None:
    from bgkit import bench, bench_step, devices
    from bgkit.comparison import provenance

    threads = devices.pin_threads(arguments.threads)
    if arguments.what == "scoring":
        rows = bench.scoring(arguments.device, arguments.size, arguments.repeats)
    else:
        rows = bench_step.steps(arguments.device, max(1, round(6 * arguments.size)))
    if arguments.out:
        write_json(arguments.out, {**provenance(), "threads": threads, "rows": rows})


def _push(arguments: argparse.Namespace) -> None:
    from bgkit import model_card

    if not arguments.to and not arguments.dry_run:
        raise BgkitError("Where to? Give --to OWNER/NAME, or --dry-run to see the card first.")
    run = load_run(arguments.folder)
    path = model_card.push(
        run, arguments.to, dry_run=arguments.dry_run, private=not arguments.public
    )
    print(path if arguments.dry_run else f"https://huggingface.co/{arguments.to}")


def _testbed(arguments: argparse.Namespace) -> None:
    from bgkit.testbed import store

    root = arguments.out or store.testbed_folder()
    if arguments.action == "check":
        files = store.manifest(root)["files"]
        for file, entry in files.items():
            store.verify(root / file, entry["sha256"])
        print(f"{len(files)} files in {root} are as they were shipped")
        return
    from bgkit.testbed.build import build

    build(root, arguments.workers, say=lambda text: print(text, flush=True))


def _quiet_libraries() -> None:
    """Keep the libraries' chatter off the terminal; the progress line stays."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # for worker processes
    warnings.filterwarnings("ignore", category=FutureWarning)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 after an error that the user can mend, 1 after a sweep in which runs failed.
    """
    _quiet_libraries()
    try:
        parsed = _parser().parse_args(arguments)
        return parsed.run(parsed) or 0
    except BgkitError as error:
        print(f"bgkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bgkit: Interrupted; run the same command again to go on.", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"bgkit: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
