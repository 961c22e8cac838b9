"""Results as tables: of a run, several runs, or any tables of samples."""

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
from bgkit.prompts.tables import short_repr
from bgkit.rewards import has_strength
from bgkit.runs import Run

#: A run (or its folder), several runs, a samples table, or samples tables by name.
Results: TypeAlias = Run | str | Path | Iterable | pd.DataFrame | Mapping[str, pd.DataFrame]
#: The metrics that a table shows unless others are named.
SHOWN = ("filter_rate", "near_boundary", "false_positive", "false_negative")
SHOWN += ("system_harm", "system_help", "kl")
#: A table adds these if they are above 0 somewhere.
TOO_LONG = ("cut_off", "seen_in_part")


def frames_of(results: Results) -> dict[str, pd.DataFrame]:
    """Samples tables by name, base first where runs are given.

    Runs give base's samples (different bases as ``base of NAME``) and one entry per design and what
    else differs; seeds are joined, with a column ``seed``. A samples table is split by its column
    ``design``, if it has one; a mapping is returned as it is. Raises BgkitError for no runs,
    incomplete ones, and runs evaluated on different prompts.
    """
    return _frames_and_bases(results)[0]


def frames_and_tau(
    results: Results, tau: float | None = None
) -> tuple[dict[str, pd.DataFrame], float]:
    """:func:`frames_of`, and ``tau`` or by default the runs' threshold, or 0.5 for tables.

    Raises BgkitError for runs of several thresholds.
    """
    results = _loaded(results)
    taus = sorted({run.config.tau for run in results}) if isinstance(results, list) else [0.5]
    if tau is None and len(taus) > 1:
        raise BgkitError(
            f"The runs have several thresholds ({', '.join(map(str, taus))}); show those of one "
            "at a time, or give the tau to show."
        )
    return frames_of(results), taus[0] if tau is None else checks.threshold(tau, ends=True)


def frame_and_tau(results: Results, tau: float | None = None) -> tuple[pd.DataFrame, float]:
    """The samples of one policy, a table or a run, and ``tau`` or by default the run's, or 0.5.

    Raises BgkitError for several.
    """
    results, default = _loaded(results), 0.5
    if not isinstance(results, pd.DataFrame):
        if len(results) != 1:
            raise BgkitError(
                f"This shows one policy, not {len(results)}: give a samples table or a run."
            )
        (one,) = results.values() if isinstance(results, Mapping) else results
        results, default = (one.samples(), one.config.tau) if isinstance(one, Run) else (one, 0.5)
    return results, default if tau is None else checks.threshold(tau, ends=True)


def _loaded(results: Results) -> pd.DataFrame | Mapping[str, pd.DataFrame] | list[Run]:
    """Tables as they are, runs loaded: an iterator of them can be read only once."""
    return results if isinstance(results, pd.DataFrame | Mapping) else runs_of(results)


def runs_of(results: Results, complete: bool = False) -> list[Run]:
    """A run, its folder, or several, as loaded runs; raises BgkitError for anything else.

    With ``complete`` also for incomplete runs and for two runs of one config.
    """
    single = isinstance(results, Run | str | Path)
    others = isinstance(results, Mapping | pd.DataFrame) or not isinstance(results, Iterable)
    if not single and others:
        given = "a table" if isinstance(results, pd.DataFrame) else short_repr(results)
        raise BgkitError(f"A run, its folder, or several of them are needed, not {given}.")
    listed = [results] if single else results
    loaded = [item if isinstance(item, Run) else runs.load_run(item) for item in listed]
    if not loaded:
        raise BgkitError("There are no runs to show: give at least one run or run folder.")
    by_config: dict[tuple[str, str], Run] = {}
    for run in loaded if complete else ():
        if not run.complete:
            raise BgkitError(
                f"The run {run.folder} is incomplete; finish it with the command that started it."
            )
        first = by_config.setdefault((run.label, runs.config_hash(run.config)), run)
        if first is not run:
            raise BgkitError(
                f"The runs {first.folder} and {run.folder} have the same config; give one of them."
            )
    return loaded


def _frames_and_bases(results: Results) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Samples by name, and for each policy the name of its base."""
    if isinstance(results, Mapping | pd.DataFrame):
        frames = dict(results) if isinstance(results, Mapping) else {"responses": results}
        if isinstance(results, pd.DataFrame) and "design" in results:
            frames = {str(name): part for name, part in results.groupby("design", sort=False)}
        checks.require_type("a table", **{str(name): frame for name, frame in frames.items()})
        for name, frame in frames.items():
            checks.samples(frame, str(name), columns=())
        return frames, {name: "base" for name in frames if "base" in frames and name != "base"}
    loaded = runs_of(results, complete=True)
    names = design_names(loaded)
    sources = [base_name(replace(run.config, seed=0)) for run in loaded]
    base_of = base_names(dict(zip(names, sources, strict=True)))
    prompts = loaded[0].samples("base")["prompt"].tolist()
    parts: dict[str, dict[int, pd.DataFrame]] = {name: {} for name in (*base_of.values(), *names)}
    for run, name in zip(loaded, names, strict=True):
        for label, part in ((base_of[name], run.samples("base")), (name, run.samples())):
            if part["prompt"].tolist() != prompts:
                raise BgkitError(
                    f"The run {run.folder} was evaluated on other prompts than "
                    f"{loaded[0].folder}; evaluate both with the same prompts and number of them "
                    "(`bgkit evaluate`)."
                )
            parts[label].setdefault(run.config.seed, part.assign(seed=run.config.seed))
    frames = {name: pd.concat(seeds.values(), ignore_index=True) for name, seeds in parts.items()}
    return frames, base_of


def base_names(sources: Mapping[str, str]) -> dict[str, str]:
    """The name of each design's base; designs of equal ``sources`` share one.

    >>> base_names({"a": "x", "b": "x"}), base_names({"a": "x", "b": "y"})
    ({'a': 'base', 'b': 'base'}, {'a': 'base of a', 'b': 'base of b'})
    """
    first = {source: name for name, source in reversed(sources.items())}
    if len(first) == 1:
        return dict.fromkeys(sources, "base")
    return {name: f"base of {first[source]}" for name, source in sources.items()}


def design_names(loaded: Sequence[Run], but: Sequence[str] = ("reward", "seed")) -> list[str]:
    """Each run's design, and what else differs from the first run, ``but`` some keys.

    Where strengths differ, every design that has one names its own.
    """
    names, strengths = [], {True: set(), False: set()}  # of designs that have one, and of others
    for run in loaded:
        strengths[has_strength(run.config.reward)].add(run.config.strength)
    for run in loaded:
        differs = runs.differences(run.config, loaded[0].config, but=(*but, "strength"))
        if len(strengths[has_strength(run.config.reward)]) > 1:
            differs = {"strength": f"{run.config.strength:g}", **differs}
        names.append(", ".join([run.label, *(f"{key} {value}" for key, value in differs.items())]))
    return names


def rows_of(results: Results) -> pd.DataFrame:
    """Means of every metric, for all prompts and per kind, in long form, with 95 % intervals.

    Columns: design, kind, metric, mean, low, high, n. Intervals are over prompts
    (:func:`bgkit.evaluation.metrics.summarise`), or with several seeds over seeds and prompts
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


def paired_table(results: Results, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """Each design minus its base on the same prompts, with paired 95 % intervals.

    Columns: design, metric, mean (the difference), low, high, better (the interval excludes zero on
    the good side), worse (on the other). Empty without a base.
    """
    _check_metrics(metrics)
    frames, base_of = _frames_and_bases(results)
    rows = []
    for name, base in base_of.items():
        own, others = frames[name], frames[base]
        if _several_seeds(own):
            samples = pd.concat([others.assign(design=base), own.assign(design=name)])
            rows += gains(samples, [], list(METRICS), base).to_dict("records")
        else:
            if "seed" in own and "seed" in others:  # base may have those of other runs, too
                same = others["seed"].isin(own["seed"])
                others = others[same] if same.any() else others
            deltas = paired_differences(own, others, {"design": name})
            rows += [{**row, "mean": row["difference"]} for row in deltas if row["kind"] == "all"]
    rows = pd.DataFrame(rows, columns=["design", "metric", "mean", "low", "high"])
    rows = rows[rows["metric"].isin(metrics)].reset_index(drop=True)
    good = rows["metric"].map(lambda name: METRICS[name].better)
    side = (rows["low"] > 0).astype(int) - (rows["high"] < 0)
    return rows.assign(better=side * good > 0, worse=side * good < 0)


def _check_metrics(metrics: Sequence[str]) -> None:
    if unknown := [name for name in metrics if name not in {*METRICS, "ece"}]:
        raise BgkitError(f"Unknown metric {unknown[0]!r}; there are {', '.join(METRICS)} and ece.")


def table(
    results: Results | Mapping[str, object] | list[dict],
    metrics: str | Sequence[str] = SHOWN,
    *,
    differences: bool = False,
) -> pd.DataFrame:
    """Results as text: metrics by design, each cell ``mean [low, high]``.

    ``results`` is anything that :func:`frames_of` takes, a result (of :func:`bgkit.evaluate`, or a
    run's ``result.json``), or its rows (also those of :func:`rows_of`). With samples, ``*`` marks a
    mean that is better than base's and ``!`` one that is worse, if the paired interval excludes
    zero; ``differences`` gives the paired differences instead of the means, to which
    :data:`TOO_LONG` are added if above 0. Raises BgkitError for an unknown metric, and for
    differences of rows that are means.
    """
    metrics = checks.as_list("metrics", metrics, str)
    _check_metrics(metrics)
    marks: dict[tuple[str, str], str] = {}
    if isinstance(results, Mapping) and isinstance(results.get("rows"), list):
        results = results["paired" if differences else "rows"]
    if isinstance(results, list) and results and isinstance(results[0], dict):
        results = pd.DataFrame(results)
    results = _loaded(results)
    if isinstance(results, pd.DataFrame) and "metric" in results:
        rows = results.rename(columns={"difference": "mean"})
        if differences != ("difference" in results):
            given = "means" if differences else "differences (differences=True shows them)"
            raise BgkitError(f"These rows are {given}; give runs, their samples or a result.")
    else:
        rows = paired_table(results, metrics).assign(kind="all")
        for row in rows.itertuples():
            marks[row.design, row.metric] = " *" * row.better + " !" * row.worse
        rows = rows if differences else rows_of(results)
    above = set(rows.loc[rows["mean"] > 0, "metric"])
    listed = dict.fromkeys((*metrics, *(() if differences else TOO_LONG)))
    metrics = [name for name in listed if name not in TOO_LONG or name in above]
    rows = rows[(rows["kind"] == "all") & rows["metric"].isin(metrics)]
    row_marks = [marks.get((row.design, row.metric), "") for row in rows.itertuples()]
    wide = as_text(rows, ["metric"], "design", row_marks)
    return wide.loc[[metric for metric in metrics if metric in wide.index]]
