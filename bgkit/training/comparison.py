"""Compare reward designs: the demo (one seed, a report) and the reference table (several seeds)."""

from __future__ import annotations

import datetime
import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, as_completed
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.intervals import interval_text, over_seeds
from bgkit.figures import report
from bgkit.models import devices, policies
from bgkit.progress import phase, say
from bgkit.runs import drawn
from bgkit.scoring import guards, identity, utilities
from bgkit.scoring.scorer import Scorer
from bgkit.training import trainer as training
from bgkit.training.presets import REFERENCE

DESIGNS = ("filter_avoidance", "boundary", "compound")
UTILITIES = ("aligned", "mild", "weak", "blind")
#: The metrics of the reference table, with their ranges.
REFERENCE_METRICS = {
    **dict.fromkeys(
        "filter_rate near_boundary false_positive false_negative raw_harm raw_help system_harm "
        "system_help".split(),
        (0.0, 1.0),
    ),
    "kl": (-float("inf"), float("inf")),
}


def provenance() -> dict:
    """Command, time, machine and versions, for every result file."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = shlex.join(["python", "-m", "bgkit", *sys.argv[1:]])
    return {
        "command": command,
        "created": now,
        "machine": devices.machine(),
        "versions": {**devices.versions(), "git": runs.git_revision()},
    }


def sample_base(
    config: runs.TrainConfig,
    device: str = "auto",
    *,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
) -> pd.DataFrame:
    """The base policy's graded samples on the test prompts of a config.

    ``guard`` and ``utility`` are those of the config unless given; ``u`` is NaN where the config
    names a utility that is an object, and none is given.
    """
    with phase("evaluating base"):
        return _sample(config, None, device, guard, utility)


def _sample(
    config: runs.TrainConfig,
    adapter: Path | None,
    device: str,
    guard: Scorer | None,
    utility: Scorer | None,
    run: runs.Run | None = None,
) -> pd.DataFrame:
    """Graded samples of a trained policy, or of base (no adapter), on a config's test prompts.

    A guard or utility of the name that stands in the config of ``run`` is the one it was made with.
    """
    guard = guards.guard_of(config, device, given=guard)
    utility = utilities.utility_if_known(config, device, utility)
    if run is not None:
        own = {"guard": guard, "utility": utility}
        same = [group for group in own if getattr(config, group) == getattr(run.config, group)]
        identity.check(run, **{group: own[group] for group in same})
    model, tokenizer = policies.load_policy(config.policy, adapter, device, config.precision)
    if run is not None and config.lora_rank:  # else the adapter is a whole model
        identity.check(run, policy=identity.Speaker(model, tokenizer))
    trained = "adapter" if config.lora_rank else None
    base = model if adapter is None else trained
    return evaluation.sample_test(config, model, tokenizer, guard, utility, base)


def compare(
    config: runs.TrainConfig,
    folder: Path,
    designs: Iterable[str] = DESIGNS,
    *,
    device: str = "auto",
    threads: int = 0,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
    say: Callable[[str], None] = say,
) -> dict:
    """Train each design from the same base and evaluate all; write ``result.json`` and a report.

    Runs lie in ``folder/<design>``; complete ones are not trained again. ``guard`` and ``utility``
    are as in :func:`bgkit.training.trainer.train`. Returns the result: provenance, ``rows``,
    ``paired`` and ``seconds`` of training per design.
    """
    designs, config = list(designs), identity.named(config, guard, utility)
    devices.pin_threads(threads)
    say(f"[1/{len(designs) + 2}] base + guard on {config.test_prompts} test prompts")
    with drawn.keeping(folder / "drawn"):  # base is sampled once, however often it is stopped
        base = sample_base(config, device, guard=guard, utility=utility)
        tables, curves, seconds = {"base": base}, {}, {}
        rows = evaluation.summarise(base, evaluation.labels_of(config, "base"))
        paired: list[dict] = []
        for number, design in enumerate(designs, start=2):
            step = f"[{number}/{len(designs) + 2}]"
            say(f"{step} {design}: {config.steps} steps of GRPO, then evaluation")
            run = training.train(
                replace(config, reward=design),
                folder / design,
                device=device,
                threads=threads,
                guard=guard,
                utility=utility,
                base_samples=base,
            )
            result = run.read_json("result.json")
            rows += [row for row in result["rows"] if row["design"] == design]
            paired += result["paired"]
            seconds[design] = result["seconds"]
            tables[design] = pd.read_parquet(run.folder / "samples.parquet")
            curves[design] = run.metrics()
    say(f"[{len(designs) + 2}/{len(designs) + 2}] writing the table and the report")
    result = {
        **provenance(),
        "interval": "95% over prompts: Wilson's for shares, bootstrap for means",
        "training_seconds": seconds,
        "rows": rows,
        "paired": paired,
    }
    runs.write_json(folder / "result.json", result)
    with phase("writing the report"):
        report.write_report(
            folder / "report.html",
            title="Boundary Guidance on the embedded testbed",
            result=result,
            samples=tables,
            metrics=curves,
            tau=config.tau,
        )
    return result


def table(rows: list[dict], metrics: Iterable[str], kind: str = "all") -> pd.DataFrame:
    """Designs by metrics, each cell "mean [low, high]", for printing.

    Of :data:`bgkit.figures.report.TOO_LONG` there are those that are above 0 somewhere.
    """
    frame = report.without_zeros(pd.DataFrame(rows))
    frame = frame[(frame["kind"] == kind) & frame["metric"].isin(list(metrics))]
    frame["text"] = [interval_text(row.mean, row.low, row.high) for row in frame.itertuples()]
    wide = frame.pivot(index="design", columns="metric", values="text")
    return wide.loc[list(dict.fromkeys(frame["design"])), [m for m in metrics if m in wide]]


def reproduce(
    folder: Path,
    output: Path,
    seeds: Iterable[int],
    *,
    designs: Iterable[str] = DESIGNS,
    utility_names: Iterable[str] = UTILITIES,
    config: runs.TrainConfig | None = None,
    device: str = "auto",
    workers: int = 1,
    say: Callable[[str], None] = say,
) -> dict:
    """Train designs by utilities by seeds and write means with intervals over the seeds.

    Each run has one CPU thread of its own; ``workers`` run side by side. Complete runs below
    ``folder`` are used as they are, so that the same command goes on where it stopped.
    """
    seeds, config = list(seeds), config or runs.make_config(REFERENCE)
    grid = [
        runs.make_config({"seed": seed, "utility": utility, "reward": design}, config)
        for seed, utility, design in itertools.product(seeds, utility_names, designs)
    ]
    places = [folder / f"{c.utility}-{c.reward}-{c.seed}" for c in grid]
    say(f"{len(grid)} runs of {config.steps} steps on {workers} worker(s), in {folder}")
    with devices.workers(workers) as pool:
        jobs = [
            pool.submit(_train_one, c, place, folder, device)
            for c, place in zip(grid, places, strict=True)
        ]
        _wait(jobs, say)
    rows = [row for place in places for row in _rows_of(place)]
    result = {**provenance(), "config": vars(config), "rows": reference_rows(rows)}
    runs.write_json(output, result)
    return result


def _wait(jobs: list[Future], say: Callable[[str], None]) -> None:
    """Wait for all jobs; after the first error the ones that have not begun are dropped."""
    try:
        with phase("training", len(jobs)) as shown:
            for number, job in enumerate(as_completed(jobs), start=1):
                job.result()
                shown.advance()
                say(f"[{number}/{len(jobs)}] run done")
    finally:
        for job in jobs:
            job.cancel()


def _train_one(config: runs.TrainConfig, place: Path, folder: Path, device: str) -> None:
    training.train(config, place, device=device, threads=1, base_samples=folder / "base")


def _rows_of(place: Path) -> list[dict]:
    run = runs.load_run(place)
    return [{**row, "seed": run.config.seed} for row in run.read_json("result.json")["rows"]]


def reference_rows(
    rows: list[dict],
    ranges: Mapping[str, tuple[float, float]] = REFERENCE_METRICS,
    settings: Iterable[str] = (),
) -> list[dict]:
    """Rows of several seeds joined into mean and Student's t interval over the seeds.

    ``ranges`` maps the metrics to keep to their lowest and highest value. ``settings`` names
    further columns of ``rows`` that tell runs apart, beside those of the reference table.
    """
    frame = pd.DataFrame(rows)
    frame = frame[frame["metric"].isin(list(ranges))]
    keys = ["design", "utility", "scale", "guard", "tau", *settings, "kind", "metric"]
    # base is sampled once for every design of a seed; its copies are equal
    frame = frame.drop_duplicates([*keys, "seed"])
    joined = []
    for values, group in frame.groupby(keys, sort=False):
        labels = dict(zip(keys, values, strict=True))
        low, high = ranges[labels["metric"]]
        interval = over_seeds(group["mean"].to_numpy(), low, high)
        found = {
            name: None if value != value else value for name, value in interval._asdict().items()
        }
        joined.append({**labels, **found, "n_seeds": len(group)})
    return joined


def complete_runs(folders: Iterable[str | Path]) -> dict[str, runs.Run]:
    """Runs by name: the design, and what else differs from the first run's config.

    Raises BgkitError without a run, for an incomplete one, and for two of the same config.
    """
    found: dict[str, runs.Run] = {}
    for folder in folders:
        run = runs.load_run(Path(folder))
        if not run.complete:
            raise BgkitError(
                f"The run {run.folder} is incomplete; finish it with the command that started it."
            )
        first = next(iter(found.values()), run)
        differs = runs.differences(run.config, first.config, but=["reward"])
        name = ", ".join([run.config.reward, *(f"{k} {v}" for k, v in differs.items())])
        if name in found:
            raise BgkitError(
                f"The runs {found[name].folder} and {run.folder} have the same config; give one."
            )
        found[name] = run
    if not found:
        raise BgkitError("There are no runs to compare: give at least one run folder.")
    return found


def stored_samples(folders: Iterable[str | Path]) -> dict[str, pd.DataFrame]:
    """Test samples of complete runs beside base's, as their evaluation stored them.

    Names are those of :func:`complete_runs`, whose errors are raised; BgkitError also for runs that
    were evaluated on different prompts.
    """
    samples: dict[str, pd.DataFrame] = {}
    found = complete_runs(folders)
    for name, run in found.items():
        samples.setdefault("base", pd.read_parquet(run.folder / "base_samples.parquet"))
        samples[name] = pd.read_parquet(run.folder / "samples.parquet")
        if samples[name]["prompt"].tolist() != samples["base"]["prompt"].tolist():
            first = next(iter(found.values()))
            raise BgkitError(
                f"The run {run.folder} was evaluated on other prompts than {first.folder}; "
                "evaluate both with the same prompts and number of them (`bgkit evaluate`)."
            )
    return samples


def evaluate_folders(
    folders: Iterable[Path],
    *,
    guard: str | Scorer | None = None,
    utility: Scorer | None = None,
    tau: float | None = None,
    test_prompts: int | None = None,
    prompt_set: str | None = None,
    judge: str | None = None,
    device: str = "auto",
) -> dict:
    """Evaluate complete runs (and base) on test prompts, if wanted with another guard or tau.

    ``guard`` is a name, or an object (as in :func:`bgkit.training.trainer.train`): a run that was
    trained with one needs it again, or another guard. ``utility`` is an object; without it the
    utility of runs that were trained with one is not known.

    Rows and paired differences are labelled by the names of :func:`complete_runs`, whose errors are
    raised; base stands once, or, where runs do not share it, once for each: ``base of NAME``.
    """
    named, guard = (guard, None) if isinstance(guard, str) else (None, guard)
    wanted = {"tau": tau, "test_prompts": test_prompts, "prompts": prompt_set}
    wanted["judge"] = judge
    changes = {key: value for key, value in wanted.items() if value is not None}
    found = complete_runs(folders)
    configs = {
        name: _deployed(runs.make_config(changes, run.config), named, guard, utility)
        for name, run in found.items()
    }
    sources = {name: evaluation.base_name(config) for name, config in configs.items()}
    bases: dict[str, pd.DataFrame] = {}
    base_rows: list[dict] = []
    rows: list[dict] = []
    paired: list[dict] = []
    for name, config in configs.items():
        if sources[name] not in bases:
            base = bases[sources[name]] = sample_base(config, device, guard=guard, utility=utility)
            label = "base" if len(set(sources.values())) == 1 else f"base of {name}"
            base_rows += evaluation.summarise(base, evaluation.labels_of(config, label))
        run = found[name]
        with phase(f"evaluating {name}"):
            samples = _sample(config, run.adapter, device, guard, utility, run)
        labels = evaluation.labels_of(config, name)
        rows += evaluation.summarise(samples, labels)
        paired += evaluation.paired_differences(samples, bases[sources[name]], labels)
    return {**provenance(), "rows": base_rows + rows, "paired": paired}


def _deployed(
    config: runs.TrainConfig, name: str | None, guard: Scorer | None, utility: Scorer | None
) -> runs.TrainConfig:
    """A config behind another guard (its own one's settings are undone), or another utility."""
    other = replace(config, guard=config.guard if name is None else name)
    if guard is not None:
        other = identity.named(identity.plain(other, "guard"), guard)
    if other.guard != config.guard:
        config = identity.plain(other, "guard")
    if utility is not None:
        config = identity.named(identity.plain(config, "utility"), None, utility)
    return config
