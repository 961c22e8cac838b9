"""Compare reward designs: train them from the same base, with one seed or several."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
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
LOST = (
    "A training process ended early: it was killed, ran out of memory, or belongs to a script that "
    "trains in parallel outside of `if __name__ == '__main__':` (each process imports the script). "
    "The same call resumes."
)


@dataclass(frozen=True)
class Comparison:
    """Complete runs of several designs (and seeds) in one folder."""

    folder: Path
    runs: list[Run]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def frontier(self, x: str = "system_harm", y: str = "system_help") -> go.Figure:
        """Help against harm of what the user sees; with several strengths, any two metrics."""
        if len({run.config.strength for run in self.runs}) == 1:
            return frontier(self.runs)
        return trade_off(collection.table_of(*collection.gather(self.runs)[:2]), x=x, y=y)

    def claims(self) -> pd.DataFrame:
        """Differences at equal help and at equal KL (:mod:`bgkit.sweeps.claims`)."""
        index, values, _ = collection.load(*(run.folder for run in self.runs))
        frontiers = claims.frontiers_of(index, values, claims.COMPARED)
        return claims.as_table(claims.check(frontiers))


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

    ``seeds`` are the seeds, or how many to use from the config's on; ``strengths`` those of the
    penalty (designs without one are trained once). ``settings`` are fields of
    :class:`~bgkit.runs.config.TrainConfig` and override ``config``; ``guard`` and ``utility`` are
    as in :func:`bgkit.training.trainer.train`, whose errors are raised. Runs are written to
    ``folder`` (by default ``<below>/compare-<hash of the settings>``) as ``<design>``, with several
    strengths and seeds as ``<design>-<strength>-<seed>``; complete runs are not trained again.

    ``workers`` runs are trained in parallel, each in a process of one CPU thread; results are
    bitwise the same. 0 means one more than the CPU threads (1 on a GPU or with a single thread). In
    a script such a call belongs below ``if __name__ == "__main__":``, as the processes import it.
    With a guard or utility passed as an object, runs are trained one after the other.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise BgkitError(LOST)  # this is a worker that imports the script, before it has any job
    strengths = checks.as_list("strengths", strengths, Real)
    if strengths and "strength" in settings:
        raise BgkitError("Give either strengths or one strength, not both.")
    config, guard, utility = identity.split_objects(config, settings, guard, utility)
    checks.require_type("a whole number", workers=workers)
    checks.require_type("a name or a path", folder=folder or below)
    if isinstance(seeds, Integral):
        seeds = range(config.seed, config.seed + seeds)
    seeds, designs = checks.as_list("seeds", seeds, str), checks.as_list("designs", designs, str)
    if len(set(strengths)) == 1:  # the folder's name has the hash of the settings
        config = replace(config, strength=strengths[0])
    folder = Path(folder or Path(below, f"compare-{config_hash(config)}"))
    jobs = _jobs(config, designs, seeds, strengths or [config.strength], folder)
    pins, place = devices.pin_threads(threads), devices.pick_device(device)
    if workers == 0:
        workers = pins + 1 if place.type == "cpu" and pins > 1 else 1
    if guard is not None or utility is not None:  # objects stay in this process
        workers = 1
    options = {"device": device, "guard": guard, "utility": utility}
    return Comparison(folder, _train_all(jobs, options, threads, workers))


def _jobs(
    config: TrainConfig,
    designs: Iterable[str],
    seeds: Iterable[int],
    strengths: Iterable[float],
    folder: Path,
) -> list[tuple[TrainConfig, Path]]:
    """Config and folder of each run, all checked before the first training."""
    jobs = []
    seeds, designs, strengths = (list(dict.fromkeys(v)) for v in (seeds, designs, strengths))
    for seed, design in itertools.product(seeds, designs):
        several = len(strengths) > 1 and has_strength(design)
        for strength in strengths if several else [config.strength]:
            job = replace(config, seed=seed, reward=design, strength=strength)
            parts = [f"{strength:g}"] * several + [str(seed)] * (len(seeds) > 1)
            jobs.append((job, folder / "-".join([runs.file_name(design), *parts])))
    if not jobs:
        raise BgkitError("There is nothing to compare: give at least one design and one seed.")
    return jobs


def _train_all(
    jobs: list[tuple[TrainConfig, Path]], options: dict, threads: int, workers: int
) -> list[Run]:
    """Sample base once for each seed, then train and evaluate every run."""
    base: dict[int, pd.DataFrame] = {}
    for config, _ in jobs:
        if config.seed not in base:
            say(f"base + guard on {config.test_prompts} test prompts (seed {config.seed})")
            base[config.seed] = samples_of(config, **options)
    arguments = [{**options, "base_samples": base[config.seed]} for config, _ in jobs]
    if workers > 1 and len(jobs) > 1:
        try:
            _train_in_parallel(jobs, arguments, min(workers, len(jobs)))
        except BrokenProcessPool as error:
            raise BgkitError(LOST) from error
    trained = []
    for n, ((config, path), more) in enumerate(zip(jobs, arguments, strict=True), start=1):
        if workers == 1:
            say(f"[{n}/{len(jobs)}] {path.name}: {config.steps} steps of GRPO, then evaluation")
        trained.append(trainer.train(config, path, threads=threads, **more))
    return trained


def _train_in_parallel(jobs: list[tuple[TrainConfig, Path]], arguments: list[dict], n: int) -> None:
    """Train runs in ``n`` processes of one thread each; one progress line covers all of them."""
    steps = sum(config.steps for config, _ in jobs)
    say(f"{len(jobs)} runs of {jobs[0][0].steps} steps of GRPO, {n} in parallel")
    with phase("training", steps) as progress, devices.worker_pool(n) as pool:
        waiting = {
            pool.submit(trainer.train, *job, threads=1, **more): job[1].name
            for job, more in zip(jobs, arguments, strict=True)
        }
        try:
            while waiting:
                for future in wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    future.result()
                    say(f"{waiting.pop(future)}: done")
                progress.done = sum(Run(path, config).steps_done for config, path in jobs)
        finally:
            for future in waiting:
                future.cancel()


def write_result(comparison: Comparison, title: str) -> dict:
    """Write ``result.json`` and ``report.html`` of a one-seed comparison to its folder."""
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
