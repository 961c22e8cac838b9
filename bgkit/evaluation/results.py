"""Results as tables: a run, several runs, or any tables of samples, read by one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import as_text
from bgkit.evaluation.metrics import METRICS, gains, paired_differences, summarise, summary
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
    else differs; seeds are joined, with a column ``seed``. A samples table is split by its column
    ``design``, if it has one; a mapping is taken as it is. Raises BgkitError for no or incomplete
    runs, and for runs evaluated on different prompts.
    """
    return _read(results)[0]


def runs_of(results: Results, complete: bool = False) -> list[Run]:
    """The runs that are given, as runs or by their folders; else BgkitError.

    With ``complete`` it is raised for one that is not, too, and for one that is there twice.
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
        checks.require_type("a table", **{str(name): frame for name, frame in frames.items()})
        return frames, {name: "base" for name in frames if "base" in frames and name != "base"}
    loaded = runs_of(results, complete=True)
    names = [design_of(run, loaded[0]) for run in loaded]
    whose = [base_name(replace(run.config, seed=0)) for run in loaded]
    base_of = bases_called(dict(zip(names, whose, strict=True)))
    asked = loaded[0].samples("base")["prompt"].tolist()
    parts: dict[str, dict[int, pd.DataFrame]] = {name: {} for name in (*base_of.values(), *names)}
    for run, name in zip(loaded, names, strict=True):
        for which, part in ((base_of[name], run.samples("base")), (name, run.samples())):
            if part["prompt"].tolist() != asked:
                raise BgkitError(
                    f"The run {run.folder} was evaluated on other prompts than "
                    f"{loaded[0].folder}; evaluate both with the same prompts and number of them "
                    "(`bgkit evaluate`)."
                )
            parts[which].setdefault(run.config.seed, part.assign(seed=run.config.seed))
    frames = {name: pd.concat(by.values(), ignore_index=True) for name, by in parts.items()}
    return frames, base_of


def bases_called(sources: Mapping[str, str]) -> dict[str, str]:
    """The name of each design's base, ``sources`` telling which ones are the same.

    >>> bases_called({"a": "x", "b": "x"}), bases_called({"a": "x", "b": "y"})
    ({'a': 'base', 'b': 'base'}, {'a': 'base of a', 'b': 'base of b'})
    """
    first = {source: name for name, source in reversed(sources.items())}
    if len(first) == 1:
        return dict.fromkeys(sources, "base")
    return {name: f"base of {first[source]}" for name, source in sources.items()}


def design_of(run: Run, first: Run, but: Sequence[str] = ("reward", "seed")) -> str:
    """A run's design, and what else it has that the first one has not, ``but`` some keys."""
    differs = runs.differences(run.config, first.config, but=but)
    return ", ".join([run.label, *(f"{key} {value}" for key, value in differs.items())])


def rows_of(results: Results) -> pd.DataFrame:
    """Means of every metric, for all prompts and per kind, in long form, with 95 % intervals.

    Columns: design, kind, metric, mean, low, high, n. Intervals are over prompts
    (:func:`bgkit.evaluation.metrics.summarise`), with several seeds over seeds and prompts
    (:func:`bgkit.evaluation.metrics.summary`). A table with a column ``metric`` is returned as is.
    """
    if isinstance(results, pd.DataFrame) and "metric" in results:
        return results
    tables = []
    for name, frame in frames_of(results).items():
        if _several_seeds(frame):
            kinds = pd.concat([frame.assign(kind="all"), frame], ignore_index=True)
            rows = summary(kinds.assign(design=name), ["design", "kind"], list(METRICS))
            tables.append(rows.dropna(subset="mean"))
        else:
            tables.append(pd.DataFrame(summarise(frame, {"design": name})))
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
            rows += gains(both, [], list(METRICS), base).to_dict("records")
        else:
            found = paired_differences(frames[name], frames[base], {"design": name})
            rows += [{**row, "mean": row["difference"]} for row in found if row["kind"] == "all"]
    found = pd.DataFrame(rows, columns=["design", "metric", "mean", "low", "high"])
    found = found[found["metric"].isin(metrics)].reset_index(drop=True)
    good = found["metric"].map(lambda name: METRICS[name].better)
    side = (found["low"] > 0).astype(int) - (found["high"] < 0)
    return found.assign(better=side * good > 0, worse=side * good < 0)


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
    the paired interval excludes zero; ``differences`` gives the paired differences instead of the
    means. Of :data:`TOO_LONG` those that are above 0 are added. Raises BgkitError for an unknown
    metric.
    """
    _check_metrics(metrics)
    marks: dict[tuple[str, str], str] = {}
    if isinstance(results, list) and results and isinstance(results[0], dict):
        rows = pd.DataFrame(results)
    else:
        rows = paired(results, metrics).assign(kind="all")
        for row in rows.itertuples():
            marks[row.design, row.metric] = " *" * row.better + " !" * row.worse
        rows = rows if differences else rows_of(results)
    above = set(rows.loc[rows["mean"] > 0, "metric"])
    metrics = [m for m in dict.fromkeys((*metrics, *TOO_LONG)) if m not in TOO_LONG or m in above]
    rows = rows[(rows["kind"] == "all") & rows["metric"].isin(metrics)]
    behind = [marks.get((row.design, row.metric), "") for row in rows.itertuples()]
    wide = as_text(rows, ["metric"], "design", behind)
    return wide.loc[[metric for metric in metrics if metric in wide.index]]
