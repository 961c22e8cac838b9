"""The command line: ``python -m bgkit demo|train|sweep|evaluate|judge|...``.

Every error that the user can mend is one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

INTERRUPTED = "bgkit: Interrupted; run the same command again to go on."
try:
    from bgkit import environment, progress
    from bgkit.cli import options
    from bgkit.cli import sweep as sweep_command
    from bgkit.cli.options import config_of
    from bgkit.errors import BgkitError, StoppedError
    from bgkit.progress import phase, say
    from bgkit.runs import find_run, load_run, write_json
    from bgkit.training import presets
except KeyboardInterrupt:  # before main() could take it
    print(INTERRUPTED, file=sys.stderr)
    raise SystemExit(2) from None

LOADING = "loading PyTorch and its libraries"
SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl", "cut_off", "seen_in_part")
JUDGED = ("judge_system_harm", "judge_system_help")


def _print_table(rows: list[dict], more: tuple[str, ...] = ()) -> None:
    from bgkit.evaluation.results import table

    say(table(rows, SHOWN + more).to_string())


def _demo(arguments: argparse.Namespace) -> None:
    config = config_of(arguments, **presets.DEMO)
    say(
        "Boundary Guidance on the embedded testbed: three reward designs from one base policy.\n"
        "On two cores this takes about 5 minutes; Ctrl-C stops it, the same command goes on."
    )
    with phase(LOADING):
        from bgkit.sweeps.comparison import compare, write_result

    options = {"device": arguments.device, "threads": arguments.threads}
    comparison = compare(folder=arguments.out, config=config, **options)
    result = write_result(comparison, "Boundary Guidance on the embedded testbed")
    say("\nWhat the user sees, on held-out prompts (mean and 95% interval over prompts):\n")
    _print_table(result["rows"])
    say(f"\nResult: {arguments.out / 'result.json'}\nReport: {arguments.out / 'report.html'}")


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
    with phase(LOADING):
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
    )
    leave_launch()
    if launched()[0]:  # the first process of a launch evaluates and tells
        return
    _print_table(run.read_json("result.json")["rows"])
    say(f"\nRun: {run.folder}")


def _evaluate(arguments: argparse.Namespace) -> None:
    with phase(LOADING):
        from bgkit.evaluation.evaluate import evaluate
        from bgkit.runs import drawn

    with drawn.keeping(drawn.shared(evaluate=str(vars(arguments)), here=str(Path.cwd()))):
        result = evaluate(
            arguments.folders,
            guard=arguments.guard,
            tau=arguments.tau,
            test_prompts=arguments.test_prompts,
            prompts=arguments.prompts,
            judge=arguments.judge,
            device=arguments.device,
        )
        if arguments.out:
            write_json(arguments.out, result)
    _print_table(result["rows"], JUDGED if arguments.judge else ())


def _prompts(arguments: argparse.Namespace) -> None:
    """List the sets, or print a set's manifest and write its prompts."""
    import json

    from bgkit.prompts import compose as benchmarks
    from bgkit.prompts import load as prompts
    from bgkit.prompts import sets
    from bgkit.runs import write_atomically

    if arguments.name is None:
        say(f"{prompts.TESTBED}, {', '.join(sets.OWN)}: shipped, no network needed")
        for name, recipe in benchmarks.BENCHMARKS.items():
            parts = ", ".join(f"{share:.0%} {part}" for part, share in recipe.shares.items())
            say(f"{name}: benchmark of {parts}")
        say("\n".join(map(sets.describe, sets.SETS)))
        return
    table, manifest = prompts.load_with_manifest(
        arguments.name, arguments.split, arguments.n, arguments.seed
    )
    if arguments.out:
        text = table.to_json(orient="records", lines=True, force_ascii=False)
        write_atomically(arguments.out, lambda file: file.write_text(text, encoding="utf-8"))
    say(json.dumps(manifest, indent=1, ensure_ascii=False))


def _judge(arguments: argparse.Namespace) -> None:
    with phase(LOADING):
        from bgkit.evaluation import grading

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
        say(f"{path}: {grading.tokens_line(grading.estimate_file(judge, path))}")
    if arguments.estimate:
        return
    try:
        for path in arguments.files:
            grading.grade_file(judge, path, say=say)
    finally:
        if asks:
            say(f"Used: {grading.usage_line(judge)}")


def _plan(arguments: argparse.Namespace) -> None:
    with phase(LOADING):
        from bgkit.prompts import load as prompts
        from bgkit.training import budget, machines

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
    say(
        f"{budget.memory(plan).round(3).to_string()}\n\n{budget.step_time(plan).round(2).to_string()}"
    )
    say(f"\n{budget.verdict(plan)}")


def _program(file: str, *arguments: object) -> int:
    """Run a program of the source checkout, which a wheel leaves out."""
    from bgkit.testbed import store

    path = store.data_folder().parent / file
    if not path.is_file():
        raise BgkitError(f"This needs {file} of a source checkout; run it in one.")
    return subprocess.call([sys.executable, path, *map(str, arguments)])


def _bench(arguments: argparse.Namespace) -> int:
    options = ["--threads", arguments.threads, "--device", arguments.device]
    options += ["--size", arguments.size, "--repeats", arguments.repeats]
    options += ["--out", arguments.out.resolve()] if arguments.out else []
    return _program(f"benchmarks/bench_{arguments.what}.py", *options)


def _push(arguments: argparse.Namespace) -> None:
    with phase(LOADING):
        from bgkit.training import model_card

    if not arguments.to and not arguments.dry_run:
        raise BgkitError("Where to? Give --to OWNER/NAME, or --dry-run to see the card first.")
    run = load_run(arguments.folder)
    path = model_card.push(
        run, arguments.to, dry_run=arguments.dry_run, private=not arguments.public
    )
    say(path if arguments.dry_run else f"https://huggingface.co/{arguments.to}")


def _testbed(arguments: argparse.Namespace) -> int:
    from bgkit.testbed import store

    root = arguments.out or store.testbed_folder()
    if arguments.action == "check":
        files = store.manifest(root)["files"]
        for file, entry in files.items():
            store.verify(root / file, entry["sha256"])
        say(f"{len(files)} files in {root} are as they were shipped")
        return 0
    return _program("tools/testbed/build.py", root, arguments.workers or os.cpu_count() or 1)


def _collect(arguments: argparse.Namespace) -> None:
    with phase(LOADING):
        from bgkit.sweeps import collection

    about = collection.collect(arguments.sweeps, arguments.out, arguments.made_by)
    say(f"{about['runs']} runs in {arguments.out}")


#: command -> what does it; the exit status is 0 where it returns nothing
COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "demo": _demo,
    "train": _train,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 after an error that the user can mend, 1 after a sweep in which runs failed.
    """
    environment.prepare()
    with progress.interruptible() as interrupted:
        try:
            parsed = options.parser().parse_args(arguments)
            with phase(""):
                return COMMANDS[parsed.command](parsed) or 0
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) or (
                interrupted.is_set() and not isinstance(error, StoppedError)
            ):
                message = INTERRUPTED
            elif isinstance(error, BgkitError):
                message = f"bgkit: {error}"
            elif isinstance(error, OSError):
                message = f"bgkit: {error.strerror or error}: {error.filename or ''}"
            else:
                raise
    print(progress.plain(message), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
