"""Commands about runs: plan, train, evaluate and share one, compare several, sweep and collect."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

from bgkit.cli import options
from bgkit.errors import BgkitError, reason_of
from bgkit.progress import clock, say
from bgkit.runs import TrainConfig, find_run, folder_of, load_run, write_json

MORE = 'more arguments for TRL\'s trainer: {"use_vllm": true, "vllm_mode": "colocate"}'
SHARED = "compute each prompt once for all of its completions (%(default)s)"
TRAIN = {
    "--out": (Path, "run folder (runs/<reward>-<utility>-<seed>-<hash of the config>)"),
    "--guard-device": ("", "device of the guard, such as cuda:1 (--device)"),
    "--utility-device": ("", "device of the reward model (--device)"),
    "--no-self-test": (False, "load models that fail their self-test"),
    "--report-to": ("none", "experiment tracker: trackio, wandb, ..."),
    "--trainer": (options.json_object, MORE, {"metavar": "JSON"}),
    "--shared-prompts": (("auto", "off"), SHARED, {"default": "auto"}),
    **options.DEVICE,
    **options.THREADS,
    **options.CONFIG_FILE,
    **options.settings_of(TrainConfig),
}
#: Fewer steps at a higher learning rate.
DEMO_CONFIG = {"steps": 40, "learning_rate": 6e-3, "test_prompts": 200}
DEMO = {
    "--out": (Path("runs/demo"), "folder for the runs and the report"),
    **options.DEVICE,
    **options.THREADS,
    "--workers": (0, "number of designs trained in parallel (all, if there are enough cores)"),
    **options.CONFIG_FILE,
    **options.settings_of(TrainConfig, **DEMO_CONFIG),
}
EVALUATE = {
    "folders": (Path, "folders of complete runs", {"nargs": "+", "metavar": "RUN"}),
    "--guard": (str, "deploy with another guard (the run's)"),
    "--tau": (float, "deploy with another threshold, above 0 and below 1 (the run's)"),
    "--prompts": (str, "another prompt set (see `bgkit prompts`) or a file (the run's)"),
    "--test-prompts": (int, "number of prompts (the run's)"),
    "--judge": (str, "grade with another judge, such as api:MODEL"),
    "--out": (options.file_to_write, "write the rows to this JSON file"),
    **options.DEVICE,
}
PLAN = {
    "--machine": (str, "GPU to plan for, such as T4 or H100 (this machine)"),
    "--time": (False, "also time a few steps on this machine, which downloads the models"),
    **options.DEVICE,
    **options.CONFIG_FILE,
    **options.settings_of(TrainConfig),
}
PUSH = {
    "folder": (Path, "folder of a complete run", {"metavar": "RUN"}),
    "--to": ("", "repository on the hub (none)", {"metavar": "OWNER/NAME"}),
    "--dry-run": (False, "only write the model card, next to the adapter"),
    "--public": (False, "make the repository public (private)"),
}
SET = "REWARD=boundary,compound or SEED=0:5 (0 to 4); replaces the values in every grid"
REPEATED = {"action": "append", "default": [], "metavar": "NAME=VALUES", "dest": "settings"}
GRID = "YAML file, or a grid of the project (data/sweeps); several are joined"
SWEEP = {
    "notebook": (Path, "a notebook with a parameters cell", {"metavar": "NOTEBOOK"}),
    "--set": (str, SET, REPEATED),
    "--grid": (str, GRID, {"nargs": "+", "default": [], "metavar": "FILE"}),
    "--out": (Path, "the sweep's folder (runs/sweeps/<notebook>)"),
    "--workers": (1, "number of parallel runs"),
    "--threads": (0, "CPU threads per run (cores / workers; 1 with --dask)"),
    "--dask": ("", "run on the workers of this dask scheduler (none)", {"metavar": "ADDRESS"}),
    "--retry-failed": (False, "run failed runs again"),
    "--dry-run": (False, "check and list the runs, start none"),
}
COLLECT = {
    "sweeps": (Path, "folders of sweeps", {"nargs": "+", "metavar": "SWEEP"}),
    "--out": (Path, "folder of the collection; its runs are kept", {"required": True}),
}


def train(out: Path | None, no_self_test: bool, **given) -> None:
    """Train a policy with GRPO and evaluate it."""
    config = options.config_of(given)
    folder = out or folder_of(config)
    find_run(folder, config)  # rejects a wrong folder before the slow imports
    with options.loading():
        from accelerate import PartialState

        from bgkit.models.devices import rank_and_size
        from bgkit.training import trainer

    run = trainer.train(config, folder, check=not no_self_test, **given)
    PartialState().destroy_process_group()  # its threads may abort the process at its end
    if not rank_and_size()[0]:  # the first process of a launch evaluates and reports
        _print_table(run.result["rows"])
        say(f"\nRun: {run.folder}")


def demo(out: Path, **given) -> None:
    """Train three designs, compare them with base, and write a report."""
    config = options.config_of(given, **DEMO_CONFIG)
    say(
        "Boundary Guidance on the embedded testbed: three reward designs from one base policy.\n"
        "On two cores this takes 3 to 4 minutes; Ctrl-C stops it, the same command resumes it."
    )
    with options.loading():
        from bgkit.sweeps.comparison import compare, write_result

    comparison = compare(folder=out, config=config, **given)
    result = write_result(comparison, "Boundary Guidance on the embedded testbed")
    say("\nWhat the user sees, on held-out prompts (mean and 95 % interval over prompts):\n")
    _print_table(result["rows"])
    say(
        "\nThis is one seed and one strength; others may rank the designs differently.\n"
        "Notebook 05 compares the designs at every strength, at equal help."
    )
    say(f"\nResult: {out / 'result.json'}\nReport: {out / 'report.html'}")


def evaluate(folders: list[Path], out: Path | None, judge: str | None, **settings) -> None:
    """Compare runs with base on test prompts."""
    with options.loading():
        from bgkit.evaluation.evaluate import evaluate

    result = evaluate(folders, judge=judge, **settings)
    if out:
        write_json(out, result)
    _print_table(result["rows"], ("judge_system_harm", "judge_system_help") if judge else ())


def plan(machine: str | None, time: bool, device: str, **given) -> None:
    """Estimate the memory of a run before any download; optionally measure its time."""
    config = options.config_of(given)
    with options.loading():
        from bgkit.training import plan

    table, verdict = plan.estimate(config, machine, device)
    say(f"{table.round(3).to_string()}\n\n{verdict}")
    if time:
        seconds = plan.step_time(config, device)
        total = clock(seconds * config.steps)
        say(f"A step takes {seconds:.2f} s on this machine: {config.steps} steps about {total}.")


def push(folder: Path, to: str, dry_run: bool, public: bool) -> None:
    """Push a run's adapter and its model card to the hub."""
    with options.loading():
        from bgkit.training import model_card

    if not to and not dry_run:
        raise BgkitError("Where to? Give --to OWNER/NAME, or --dry-run to see the card first.")
    path = model_card.push(load_run(folder), to, dry_run=dry_run, private=not public)
    say(path if dry_run else f"https://huggingface.co/{to}")


def sweep(
    notebook: Path,
    settings: list[str],
    grid: list[str],
    out: Path | None,
    dask: str,
    dry_run: bool,
    **limits,
) -> int:
    """Run one notebook with many parameters, by papermill.

    Exit status: 0 if all runs are complete, 1 if some failed or broke, 2 after an error or a stop.
    """
    from bgkit.sweeps import drive, grids

    opened = grids.open_notebook(notebook)
    chosen = grids.parse_settings(opened, settings)
    files = [each for file in grid for each in grids.read_grids(opened, file)]
    arguments = notebook, [{**each, **chosen} for each in files or [{}]], out
    if dry_run:
        plan = drive.plan(*arguments, **limits)
        say(plan)
        for name, record in plan.records.items():
            run = grids.describe(record["parameters"], plan.varied)
            say(f"  {name} {record['state']}: {run}")
        return 0
    with _dask(dask) if dask else contextlib.nullcontext() as executor:
        index = drive.sweep(*arguments, executor, **limits)
    return 0 if (index["state"] == "complete").all() else 1


def collect(sweeps: list[Path], out: Path) -> None:
    """Collect the results of sweeps of trainings in small files."""
    with options.loading():
        from bgkit.sweeps import collection

    say(f"{collection.collect(sweeps, out)} runs in {out}")


def _print_table(rows: list[dict], more: Sequence[str] = ()) -> None:
    """Print a result's rows as a table of metrics by design."""
    from bgkit.evaluation.results import SHOWN, table

    say(table(rows, (*SHOWN, *more)).to_string())


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    """An executor on the workers of the dask scheduler at ``address`` (``tcp://host:8786``)."""
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise BgkitError("--dask needs dask.distributed: pip install 'bgkit[cluster]'.") from error
    try:  # connect first without dask's client, which starts threads before it connects
        socket.create_connection(get_address_host_port(address), timeout=10).close()
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a TimeoutError is an OSError
        raise BgkitError(
            f"No dask scheduler answers at {address!r} ({reason_of(error)}); check the address "
            "(such as tcp://host:8786) and that `dask scheduler` runs there."
        ) from error
    with client:
        yield client.get_executor()
