"""The command line: ``python -m bgkit demo|train|sweep|evaluate|judge|...``.

Every error that the user can mend is one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from bgkit import options, presets, sweep_command
from bgkit.errors import BgkitError
from bgkit.options import config_of
from bgkit.runs import find_run, load_run, write_json

SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl", "cut_off", "seen_in_part")
JUDGED = ("judge_system_harm", "judge_system_help")


def _print_table(rows: list[dict], more: tuple[str, ...] = ()) -> None:
    from bgkit.comparison import table

    print(table(rows, SHOWN + more).to_string(), flush=True)


def _demo(arguments: argparse.Namespace) -> None:
    config = config_of(arguments, **presets.DEMO)
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
    trainer = arguments.trainer
    if arguments.resume:
        if arguments.out or arguments.config or (more := options.given(arguments)):
            what = "out" if arguments.out else "config" if arguments.config else next(iter(more))
            raise BgkitError(
                f"--resume goes on with the run's own config; leave out --{what.replace('_', '-')}."
            )
        run, folder = load_run(arguments.resume), arguments.resume
        config, begun = run.config, run.read_json("config.json")
        trainer = begun.get("trainer") if trainer is None else trainer
    else:
        config = config_of(arguments)
        name = f"{config.reward}-{config.utility}-{config.seed}"
        folder = arguments.out or Path("runs") / name
        find_run(folder, config)  # refuse a foreign folder before anything slow is imported
    from bgkit.devices import launched, leave_launch
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
        trainer=trainer,
    )
    leave_launch()
    if launched()[0]:  # the first process of a launch evaluates and tells
        return
    _print_table(run.read_json("result.json")["rows"])
    print(f"\nRun: {run.folder}")


def _reproduce(arguments: argparse.Namespace) -> None:
    from bgkit import comparison

    config = config_of(arguments, **presets.REFERENCE)
    output = arguments.out or arguments.runs / "main.json"
    result = comparison.reproduce(
        arguments.runs,
        output,
        arguments.seeds,
        designs=arguments.designs or comparison.DESIGNS,
        utility_names=arguments.utilities or comparison.UTILITIES,
        config=config,
        device=arguments.device,
        workers=arguments.workers,
        say=lambda text: print(text, flush=True),
    )
    print(f"{len(result['rows'])} rows in {output}")


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
    if arguments.out:
        write_json(arguments.out, result)
    _print_table(result["rows"], JUDGED if arguments.judge else ())


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

    config = config_of(arguments)
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


def _collect(arguments: argparse.Namespace) -> None:
    from bgkit import reference

    about = reference.collect(arguments.sweeps, arguments.out, arguments.made_by)
    print(f"{about['runs']} runs in {arguments.out}")


#: command -> what does it; the exit status is 0 where it returns nothing
COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "demo": _demo,
    "train": _train,
    "reproduce": _reproduce,
    "evaluate": _evaluate,
    "judge": _judge,
    "prompts": _prompts,
    "plan": _plan,
    "bench": _bench,
    "push": _push,
    "testbed": _testbed,
    "sweep": sweep_command.run,
    "collect": _collect,
}


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
        parsed = options.parser().parse_args(arguments)
        return COMMANDS[parsed.command](parsed) or 0
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
