"""Compare reward designs: trained from the same base, with one seed or several, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import results
from bgkit.evaluation.evaluate import samples_of
from bgkit.evaluation.metrics import summarise
from bgkit.evaluation.samples import labels_of
from bgkit.figures import frontier, report, trade_off
from bgkit.models import devices
from bgkit.progress import phase, say
from bgkit.rewards import has_strength
from bgkit.runs import Run, TrainConfig, config_hash
from bgkit.scoring import identity
from bgkit.scoring.scorer import Scorer
from bgkit.sweeps import claims, collection
from bgkit.training import trainer

DESIGNS = ("filter_avoidance", "boundary", "compound")


@dataclass(frozen=True)
class Comparison:
    """Complete runs of several designs (and seeds) below one folder."""

    folder: Path
    runs: list[Run]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def frontier(self, x: str = "system_harm", y: str = "system_help") -> go.Figure:
        """Help against harm of what the user sees; of several strengths any two metrics."""
        if len({run.config.strength for run in self.runs}) == 1:
            return frontier(self.runs)
        return trade_off(collection.table_of(*collection.gather(self.runs)[:2]), x=x, y=y)

    def claims(self) -> pd.DataFrame:
        """What differs at equal help and at equal KL (:mod:`bgkit.sweeps.claims`)."""
        index, values, _ = collection.gather(self.runs)
        index = pd.concat([index, collection.settings_of(index)], axis=1)
        samples = collection.as_samples(index, values)
        found = claims.frontiers_of(index, samples, claims.METRICS)
        return claims.readable(claims.check(found))


def compare(
    designs: str | Iterable[str] = DESIGNS,
    seeds: int | Iterable[int] = 1,
    folder: str | Path | None = None,
    *,
    strengths: float | Iterable[float] = (),
    below: str | Path = "runs",
    config: TrainConfig | None = None,
    device: str = "auto",
    threads: int = 0,
    workers: int = 1,
    guard: str | Scorer | Callable | None = None,
    utility: str | Scorer | None = None,
    **settings: object,
) -> Comparison:
    """Train each design from the same base, at each strength with each seed, and evaluate all.

    ``seeds`` is a number (that many, from the config's own on) or the seeds, ``strengths`` those of
    the penalty (designs without one are trained once). ``settings`` are fields of
    :class:`~bgkit.runs.config.TrainConfig`, over ``config``; ``guard`` and ``utility`` are as in
    :func:`bgkit.training.trainer.train`, whose errors are raised. Runs lie in ``folder`` (by
    default ``<below>/compare-<hash of the settings>``) under ``<design>``, with several strengths
    and seeds ``<design>-<strength>-<seed>``; complete ones are not trained again.

    ``workers`` runs are trained side by side, each in a process of one CPU thread, with the same
    bits. 0: all where there are several cores and no GPU, at most one more than cores; guards and
    utilities that are objects stay in this process.
    """
    config, guard, utility = identity.split_objects(config, settings, guard, utility)
    checks.kind("a whole number", workers=workers)
    checks.kind("a name or a path", folder=folder or below)
    if isinstance(seeds, Integral):
        seeds = range(config.seed, config.seed + seeds)
    seeds, designs = checks.listed("seeds", seeds, str), checks.listed("designs", designs, str)
    strengths = checks.listed("strengths", strengths, Real)
    if len(set(strengths)) == 1:  # is part of the settings that name the folder
        config = replace(config, strength=strengths[0])
    folder = Path(folder or Path(below, f"compare-{config_hash(config)}"))
    jobs = _jobs(config, designs, seeds, strengths or [config.strength], folder)
    pins, place = devices.pin_threads(threads), devices.pick_device(device)
    if workers == 0:
        workers = pins + 1 if place.type == "cpu" and pins > 1 else 1
    if guard is not None or utility is not None:  # objects, which stay in this process
        workers = 1
    options = {"device": device, "guard": guard, "utility": utility}
    return Comparison(folder, _trained(jobs, options, threads, workers))


def _jobs(
    config: TrainConfig,
    designs: Iterable[str],
    seeds: Iterable[int],
    strengths: Iterable[float],
    folder: Path,
) -> list[tuple[TrainConfig, Path]]:
    """Config and folder of each run, so that nothing is trained if one is refused."""
    jobs = []
    seeds, designs, strengths = (list(dict.fromkeys(v)) for v in (seeds, designs, strengths))
    for seed, design in itertools.product(seeds, designs):
        several = len(strengths) > 1 and has_strength(design)
        for strength in strengths if several else [config.strength]:
            one = replace(config, seed=seed, reward=design, strength=strength)
            told = [f"{strength:g}"] * several + [str(seed)] * (len(seeds) > 1)
            jobs.append((one, folder / "-".join([runs.file_name(design), *told])))
    if not jobs:
        raise BgkitError("There is nothing to compare: give at least one design and one seed.")
    return jobs


def _trained(
    jobs: list[tuple[TrainConfig, Path]], options: dict, threads: int, workers: int
) -> list[Run]:
    """Sample base once for each seed, then train and evaluate every run."""
    base: dict[int, pd.DataFrame] = {}
    for one, _ in jobs:
        if one.seed not in base:
            say(f"base + guard on {one.test_prompts} test prompts (seed {one.seed})")
            base[one.seed] = samples_of(one, **options)
    given = [{**options, "base_samples": base[one.seed]} for one, _ in jobs]
    if workers > 1 and len(jobs) > 1:
        _side_by_side(jobs, given, min(workers, len(jobs)))
    done = []
    for number, ((one, place), more) in enumerate(zip(jobs, given, strict=True), start=1):
        if workers == 1:
            say(f"[{number}/{len(jobs)}] {place.name}: {one.steps} steps of GRPO, then evaluation")
        done.append(trainer.train(one, place, threads=threads, **more))
    return done


def _side_by_side(jobs: list[tuple[TrainConfig, Path]], given: list[dict], workers: int) -> None:
    """Train runs in processes of one thread each; one line tells how far all of them are."""
    steps = sum(one.steps for one, _ in jobs)
    say(f"{len(jobs)} runs of {jobs[0][0].steps} steps of GRPO, {workers} side by side")
    with phase("training", steps) as shown, devices.workers(workers) as pool:
        waiting = {
            pool.submit(trainer.train, *job, threads=1, **more): job[1].name
            for job, more in zip(jobs, given, strict=True)
        }
        try:
            while waiting:
                for future in wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    future.result()
                    say(f"{waiting.pop(future)}: done")
                shown.done = sum(_steps_done(place, one.steps) for one, place in jobs)
        finally:
            for future in waiting:
                future.cancel()


def _steps_done(place: Path, steps: int) -> int:
    """How many steps a run has recorded."""
    if (place / "result.json").is_file():
        return steps
    newest = max((path.name for path in (place / "records").glob("*.parquet")), default="")
    return int(newest.split("-")[0]) + 1 if newest else 0


def write_result(comparison: Comparison, title: str) -> dict:
    """Write ``result.json`` and ``report.html`` of a comparison of one seed into its folder."""
    config = comparison.runs[0].config
    rows = summarise(comparison.runs[0].samples("base"), labels_of(config, "base"))
    for run in comparison:
        rows += [row for row in run.result["rows"] if row["design"] == run.config.reward]
    result = {
        **devices.provenance(),
        "interval": "95% over prompts: Wilson's for shares, bootstrap for means",
        "training_seconds": {run.config.reward: run.result["seconds"] for run in comparison},
        "rows": rows,
        "paired": [row for run in comparison for row in run.result["paired"]],
    }
    runs.write_json(comparison.folder / "result.json", result)
    with phase("writing the report"):
        report.write_report(
            comparison.folder / "report.html",
            title=title,
            result=result,
            samples=results.frames_of(comparison.runs),
            metrics={run.config.reward: run.curve() for run in comparison},
            tau=config.tau,
        )
    return result
