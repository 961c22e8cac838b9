"""Results as tables: a run, several runs, or any tables of samples, read by one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import means
from bgkit.evaluation.intervals import interval_text
from bgkit.evaluation.metrics import METRICS, paired_differences, summarise
from bgkit.runs import Run

#: What is shown of results: a run (or its folder), several, samples, or samples by name.
Results: TypeAlias = Run | str | Path | Iterable | pd.DataFrame | Mapping[str, pd.DataFrame]
#: The metrics that a table shows unless others are named.
SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl")
#: Of these a table shows those that are above 0 somewhere.
TOO_LONG = ("cut_off", "seen_in_part")


def frames_of(results: Results) -> dict[str, pd.DataFrame]:
    """Samples tables by name, ``base`` first where runs are given.

    A run gives base's and its own samples, several runs one entry per design (and what else
    differs); runs that differ in the seed only are joined, with a column ``seed``. A samples table
    is split by its column ``design``, if it has one; a mapping is taken as it is. Raises BgkitError
    for no or incomplete runs, and for runs that were evaluated on different prompts.
    """
    if isinstance(results, Mapping):
        return dict(results)
    if isinstance(results, pd.DataFrame):
        if "design" not in results:
            return {"responses": results}
        return {str(name): part for name, part in results.groupby("design", sort=False)}
    given = [results] if isinstance(results, Run | str | Path) else list(results)
    loaded = [each if isinstance(each, Run) else runs.load_run(Path(each)) for each in given]
    if not loaded:
        raise BgkitError("There are no runs to show: give at least one run or run folder.")
    frames: dict[str, dict[int, pd.DataFrame]] = {"base": {}}
    for run in loaded:
        differs = runs.differences(run.config, loaded[0].config, but=["reward", "seed"])
        name = ", ".join([run.label, *(f"{key} {value}" for key, value in differs.items())])
        seed = run.config.seed
        if seed in frames.setdefault(name, {}):
            raise BgkitError(f"Two of the runs of {name} have the same config; give one of them.")
        frames[name][seed] = run.samples()
        base = frames["base"].setdefault(seed, run.samples("base"))
        first = next(iter(frames["base"].values()))
        for table in (base, frames[name][seed]):
            if table["prompt"].tolist() != first["prompt"].tolist():
                raise BgkitError(
                    f"The run {run.folder} was evaluated on other prompts than {loaded[0].folder}; "
                    "evaluate both with the same prompts and number of them (`bgkit evaluate`)."
                )
    return {
        name: pd.concat([part.assign(seed=seed) for seed, part in parts.items()], ignore_index=True)
        for name, parts in frames.items()
    }


def tau_of(results: Results, tau: float | None = None) -> float:
    """The threshold that is given, or that of the (first) run; 0.5 for tables."""
    if tau is not None or isinstance(results, Mapping | pd.DataFrame):
        return 0.5 if tau is None else tau
    first = results if isinstance(results, Run | str | Path) else next(iter(results))
    return (first if isinstance(first, Run) else runs.load_run(Path(first))).config.tau


def curves_of(results: Results) -> dict[str, pd.DataFrame]:
    """Training curves by name: of runs (a seed stands behind the name where there are several)."""
    if isinstance(results, Mapping):
        return dict(results)
    given = [results] if isinstance(results, Run | str | Path) else list(results)
    loaded = [each if isinstance(each, Run) else runs.load_run(Path(each)) for each in given]
    several = len({run.config.seed for run in loaded}) > 1
    return {
        f"{run.label}, seed {run.config.seed}" if several else run.label: run.curve()
        for run in loaded
    }


def rows_of(results: Results) -> pd.DataFrame:
    """Means of every metric, for all prompts and per kind, in long form, with 95 % intervals.

    A table that has the column ``metric`` is one of such rows, and returned as it is.

    Columns: design, kind, metric, mean, low, high, n. Intervals are over prompts
    (:func:`bgkit.evaluation.metrics.summarise`), with several seeds over seeds and prompts
    (:func:`bgkit.evaluation.means.summary`).
    """
    if isinstance(results, pd.DataFrame) and "metric" in results:
        return results
    tables = []
    for name, frame in frames_of(results).items():
        if _seeds(frame) == 1:
            tables.append(pd.DataFrame(summarise(frame, {"design": name})))
            continue
        frame = frame.assign(design=name)
        kinds = pd.concat([frame.assign(kind="all"), frame], ignore_index=True)
        rows = means.summary(kinds, ["design", "kind"], list(METRICS))
        tables.append(rows.dropna(subset="mean"))
    return pd.concat(tables, ignore_index=True)


def _seeds(frame: pd.DataFrame) -> int:
    return frame["seed"].nunique() if "seed" in frame else 1


def paired(results: Results, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """Each design minus ``base`` on the same prompts, with paired 95 % intervals.

    Columns: design, metric, mean (the difference), low, high, better (the interval excludes zero on
    the good side), worse (on the other). Empty where there is no base.
    """
    frames = frames_of(results)
    if "base" not in frames:
        return pd.DataFrame(columns=["design", "metric", "mean", "low", "high", "better", "worse"])
    labelled = {name: frame.assign(design=name) for name, frame in frames.items()}
    if any(_seeds(frame) > 1 for frame in frames.values()):
        rows = means.gains(pd.concat(labelled.values(), ignore_index=True), [], list(metrics))
    else:
        found = [
            row
            for name, frame in frames.items()
            if name != "base"
            for row in paired_differences(frame, frames["base"], {"design": name})
            if row["kind"] == "all" and row["metric"] in metrics
        ]
        rows = pd.DataFrame(found).rename(columns={"difference": "mean"}).drop(columns="kind")
    sign = rows["metric"].map(lambda name: METRICS[name].better)
    up, down = rows["low"] > 0, rows["high"] < 0
    better, worse = ((up & (sign == way)) | (down & (sign == -way)) for way in (1, -1))
    return rows.assign(better=better, worse=worse).reset_index(drop=True)


def table(
    results: Results | list[dict],
    metrics: Sequence[str] = SHOWN,
    kind: str = "all",
    *,
    differences: bool = False,
) -> pd.DataFrame:
    """What the user sees, for reading: metrics by design, each cell ``mean [low, high]``.

    ``results`` is anything that :func:`frames_of` takes, or rows as in a run's ``result.json``.
    With samples, ``*`` marks a mean that is better than base's and ``!`` one that is worse, where
    the paired interval excludes zero; ``differences`` gives the paired differences to base instead
    of the means. Of :data:`TOO_LONG` those that are above 0 are added.
    """
    if isinstance(results, list) and results and isinstance(results[0], dict):
        rows, marks = pd.DataFrame(results), {}
    else:
        to_base = paired(results, metrics)
        marks = {
            (row.design, row.metric): " *" * row.better + " !" * row.worse
            for row in to_base.itertuples()
        }
        rows = to_base.assign(kind=kind) if differences else rows_of(results)
    counted = rows[rows["metric"].isin(TOO_LONG) & (rows["mean"] > 0)]["metric"]
    metrics = [m for m in metrics if m not in TOO_LONG or m in set(counted)]
    metrics += [m for m in TOO_LONG if m in set(counted) and m not in metrics]
    rows = rows[(rows["kind"] == kind) & rows["metric"].isin(metrics)]
    texts = [
        interval_text(row.mean, row.low, row.high) + marks.get((row.design, row.metric), "")
        for row in rows.itertuples()
    ]
    wide = rows.assign(text=texts).pivot(index="metric", columns="design", values="text")
    wide = wide.loc[[m for m in metrics if m in wide.index], list(dict.fromkeys(rows["design"]))]
    return wide.fillna("–").rename_axis(columns=None)
