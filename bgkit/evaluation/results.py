"""Results as tables: a run, several runs, or any tables of samples, read by one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import means
from bgkit.evaluation.intervals import as_text
from bgkit.evaluation.metrics import METRICS, paired_differences, summarise
from bgkit.evaluation.samples import base_name
from bgkit.runs import Run

#: What is shown of results: a run (or its folder), several, samples, or samples by name.
Results: TypeAlias = Run | str | Path | Iterable | pd.DataFrame | Mapping[str, pd.DataFrame]
#: The metrics that a table shows unless others are named.
SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl")
#: Of these a table shows those that are above 0 somewhere.
TOO_LONG = ("cut_off", "seen_in_part")


def frames_of(results: Results) -> dict[str, pd.DataFrame]:
    """Samples tables by name, base first where runs are given.

    Runs give base's samples (different ones as ``base of NAME``) and one entry per design and what
    else differs; those that differ in the seed only are joined, with a column ``seed``. A samples
    table is split by its column ``design``, if it has one; a mapping is taken as it is. Raises
    BgkitError for no or incomplete runs, and for runs evaluated on different prompts.
    """
    return _read(results)[0]


def runs_of(results: Results, complete: bool = False) -> list[Run]:
    """The runs that are given, as runs or by their folders.

    Raises BgkitError for anything else, and with ``complete`` for one that is not, or is there
    twice.
    """
    one = isinstance(results, Run | str | Path)
    if not one and (not isinstance(results, Iterable) or isinstance(results, Mapping)):
        raise BgkitError(f"A run, its folder, or several of them are needed, not {results!r}.")
    given = [results] if one else results
    loaded = [each if isinstance(each, Run) else runs.load_run(each) for each in given]
    if not loaded:
        raise BgkitError("There are no runs to show: give at least one run or run folder.")
    known: dict[tuple[str, str], Run] = {}
    for run in loaded if complete else ():
        if not run.complete:
            raise BgkitError(
                f"The run {run.folder} is incomplete; finish it with the command that started it."
            )
        same = known.setdefault((run.label, runs.config_hash(run.config)), run)
        if same is not run:
            raise BgkitError(
                f"The runs {same.folder} and {run.folder} have the same config; give one of them."
            )
    return loaded


def _read(results: Results) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Samples by name, and the name of the base that each other one is compared with."""
    if isinstance(results, Mapping | pd.DataFrame):
        frames = dict(results) if isinstance(results, Mapping) else {"responses": results}
        if isinstance(results, pd.DataFrame) and "design" in results:
            frames = {str(name): part for name, part in results.groupby("design", sort=False)}
        checks.kind("a table", **{str(name): frame for name, frame in frames.items()})
        return frames, {name: "base" for name in frames if "base" in frames and name != "base"}
    loaded = runs_of(results, complete=True)
    names = {run: design_of(run, loaded[0]) for run in loaded}
    sources = {run: base_name(replace(run.config, seed=0)) for run in loaded}
    called: dict[str, str] = {}  # bases by source
    parts: dict[str, dict[int, pd.DataFrame]] = {}  # samples by name and seed, bases first
    for run, name in names.items():
        label = "base" if len(set(sources.values())) == 1 else f"base of {name}"
        base = called.setdefault(sources[run], label)
        parts.setdefault(base, {}).setdefault(run.config.seed, run.samples("base"))
    base_of = {name: called[sources[run]] for run, name in names.items()}
    asked = loaded[0].samples("base")["prompt"].tolist()
    for run, name in names.items():
        mine, seed = parts.setdefault(name, {}), run.config.seed
        mine[seed] = run.samples()
        if any(t["prompt"].tolist() != asked for t in (mine[seed], parts[base_of[name]][seed])):
            raise BgkitError(
                f"The run {run.folder} was evaluated on other prompts than {loaded[0].folder}; "
                "evaluate both with the same prompts and number of them (`bgkit evaluate`)."
            )
    frames = {
        name: pd.concat([part.assign(seed=seed) for seed, part in seeds.items()], ignore_index=True)
        for name, seeds in parts.items()
    }
    return frames, base_of


def design_of(run: Run, first: Run, but: Sequence[str] = ("reward", "seed")) -> str:
    """A run's design, and what else it has that the first one has not, ``but`` some keys."""
    differs = runs.differences(run.config, first.config, but=but)
    return ", ".join([run.label, *(f"{key} {value}" for key, value in differs.items())])


def rows_of(results: Results) -> pd.DataFrame:
    """Means of every metric, for all prompts and per kind, in long form, with 95 % intervals.

    Columns: design, kind, metric, mean, low, high, n. Intervals are over prompts
    (:func:`bgkit.evaluation.metrics.summarise`), with several seeds over seeds and prompts
    (:func:`bgkit.evaluation.means.summary`). A table with the column ``metric`` is returned as is.
    """
    if isinstance(results, pd.DataFrame) and "metric" in results:
        return results
    tables = []
    for name, frame in frames_of(results).items():
        if not _several_seeds(frame):
            tables.append(pd.DataFrame(summarise(frame, {"design": name})))
            continue
        frame = frame.assign(design=name)
        kinds = pd.concat([frame.assign(kind="all"), frame], ignore_index=True)
        rows = means.summary(kinds, ["design", "kind"], list(METRICS))
        tables.append(rows.dropna(subset="mean"))
    return pd.concat(tables, ignore_index=True)


def _several_seeds(frame: pd.DataFrame) -> bool:
    return "seed" in frame and frame["seed"].nunique() > 1


def paired(results: Results, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """Each design minus its base on the same prompts, with paired 95 % intervals.

    Columns: design, metric, mean (the difference), low, high, better (the interval excludes zero on
    the good side), worse (on the other). Empty where there is no base.
    """
    _check_metrics(metrics)
    frames, base_of = _read(results)
    rows = []
    for name, base in base_of.items():
        if _several_seeds(frames[name]):
            both = pd.concat([frames[each].assign(design=each) for each in (base, name)])
            rows += means.gains(both, [], list(METRICS), base).to_dict("records")
        else:
            found = paired_differences(frames[name], frames[base], {"design": name})
            rows += [{**row, "mean": row["difference"]} for row in found if row["kind"] == "all"]
    found = pd.DataFrame(rows, columns=["design", "metric", "mean", "low", "high"])
    found = found[found["metric"].isin(metrics)].reset_index(drop=True)
    sign = found["metric"].map(lambda name: METRICS[name].better)
    up, down = found["low"] > 0, found["high"] < 0
    better, worse = ((up & (sign == way)) | (down & (sign == -way)) for way in (1, -1))
    return found.assign(better=better, worse=worse)


def _check_metrics(metrics: Sequence[str]) -> None:
    if unknown := [name for name in metrics if name not in {*METRICS, "ece"}]:
        raise BgkitError(f"Unknown metric {unknown[0]!r}; there are {', '.join(METRICS)} and ece.")


def table(
    results: Results | list[dict],
    metrics: Sequence[str] = SHOWN,
    *,
    differences: bool = False,
) -> pd.DataFrame:
    """What the user sees, for reading: metrics by design, each cell ``mean [low, high]``.

    ``results`` is anything that :func:`frames_of` takes, or rows as in a run's ``result.json``.
    With samples, ``*`` marks a mean that is better than base's and ``!`` one that is worse, where
    the paired interval excludes zero; ``differences`` gives the paired differences to base instead
    of the means. Of :data:`TOO_LONG` those that are above 0 are added. Raises BgkitError for an
    unknown metric.
    """
    if isinstance(results, list) and results and isinstance(results[0], dict):
        _check_metrics(metrics)
        rows, marks = pd.DataFrame(results), {}
    else:
        to_base = paired(results, metrics)
        marks = {
            (row.design, row.metric): " *" * row.better + " !" * row.worse
            for row in to_base.itertuples()
        }
        rows = to_base.assign(kind="all") if differences else rows_of(results)
    counted = set(rows[rows["metric"].isin(TOO_LONG) & (rows["mean"] > 0)]["metric"])
    metrics = [m for m in (*metrics, *TOO_LONG) if m not in TOO_LONG or m in counted]
    rows = rows[(rows["kind"] == "all") & rows["metric"].isin(metrics)]
    behind = [marks.get((row.design, row.metric), "") for row in rows.itertuples()]
    wide = as_text(rows, ["metric"], "design", behind)
    return wide.loc[[metric for metric in dict.fromkeys(metrics) if metric in wide.index]]
