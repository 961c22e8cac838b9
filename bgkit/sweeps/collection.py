"""Many runs as tables: collected into small files that can be shipped, or read from run folders.

A collection is a folder of these files (responses are not kept: a config samples them again):

- ``index.parquet``: one row per run, with its config (JSON), seconds, versions and machine;
- ``values.parquet``: one row per run and test prompt: ``kind`` and what a metric reads; ``base``
  likewise, once for each seed and deployment, as runs of their own;
- ``curves.parquet``: the training curve of every run, one row per step;
- ``table.parquet``: the table of ablations.

The table of ablations has one row per setting (``design``, ``utility``, ``scale``, ``guard``,
``tau``, ``strength`` and what else runs differ in), ``seed`` (text; ``all``: the mean over seeds),
``kind`` of prompt (or ``all``) and ``metric``, with ``mean``, ``low``, ``high``, ``n_seeds`` and
``interval``: ``both`` (:func:`bgkit.evaluation.intervals.crossed_bootstrap`: seeds, prompts) or, of
one run, ``prompts``. ``base``, the untrained policy behind the same guard, is in every setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation import settings
from bgkit.evaluation.intervals import crossed_bootstrap
from bgkit.evaluation.metrics import RATES, values_of
from bgkit.evaluation.settings import LABELLED
from bgkit.scoring.scorer import NEAR
from bgkit.testbed.store import data_folder

FILES = ("index.parquet", "values.parquet", "curves.parquet", "table.parquet")
#: column of values.parquet -> decimals kept (``t`` decides what is filtered)
KEPT = {"t": 9, "u": 2, "harm": 3, "help": 3, "system_harm": 3, "system_help": 3, "kl": 2}
JUDGED = ("judge_system_harm", "judge_system_help")
CURVES = ("reward", "margin", "near_boundary", "filter_rate", "kl", "no_spread")
#: Keys of a config that say how a run was watched, not what it did.
WATCHING = ("eval_every", "eval_prompts", "save_every", "judge")


def shipped() -> Path:
    """Where the shipped collection lies."""
    return data_folder() / "reference" / "frontiers"


def find_runs(folder: str | Path) -> list[runs.Run]:
    """The runs of a folder: itself, those in it, or a sweep's; BgkitError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BgkitError(f"There is no folder {folder}; check the path.")
    for pattern in ("config.json", "*/config.json", "runs/*/results/*/config.json"):
        if found := sorted(folder.glob(pattern)):
            return [runs.load_run(path.parent) for path in found]
    raise BgkitError(
        f"The folder {folder} holds no run and no sweep of trainings; train one there, or give "
        "another folder."
    )


def gather(found: Iterable[runs.Run]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Index, values and curves of complete runs, as a collection has them.

    Raises BgkitError for an incomplete run, two of the same config, and other test prompts.
    """
    rows, values, curves = {}, {}, []
    for run in found:
        name = runs.config_hash(run.config)
        if name in rows:
            raise BgkitError(f"The run {run.folder} is there twice, with one config; leave one.")
        samples, base_samples, curve = run.samples(), run.samples("base"), run.curve()
        if curve.empty:
            raise BgkitError(f"The run {run.folder} has no metrics.parquet; train it again.")
        told = run.read_json("config.json")
        # a run that ships with the kit is without its prompts' manifest
        known = (run.folder / "prompts.json").is_file()
        rows[name] = {
            "run": name,
            "config": json.dumps(asdict(run.config)),
            "seconds": run.result["seconds"],
            "training_seconds": float(curve["seconds"].sum()),  # of all its sessions
            "versions": json.dumps({**told.get("versions", {}), "git": told.get("git")}),
            "machine": json.dumps(told.get("machine", {})),
            "prompts_sha256": run.read_json("prompts.json")["test"]["sha256"] if known else None,
        }
        values[name] = _values(name, samples)
        if (base := evaluation.base_name(run.config)) not in values:
            values[base] = _values(base, base_samples)
        curves.append(curve[["step", *(c for c in CURVES if c in curve)]].assign(run=name))
    index = pd.DataFrame(list(rows.values()))
    _check_prompts(index)
    whole = pd.concat(values.values(), ignore_index=True)
    return index, whole, pd.concat(curves, ignore_index=True)


def _values(name: str, samples: pd.DataFrame) -> pd.DataFrame:
    checks.samples(samples, columns=("kind", *KEPT, "length"))
    kept = samples[["kind", *KEPT, *(c for c in JUDGED if c in samples), "length"]]
    return kept.assign(run=name, prompt=np.arange(len(samples), dtype="int16"))


def _check_prompts(index: pd.DataFrame) -> None:
    """Raise BgkitError unless all runs of which it is known were evaluated on the same prompts."""
    told = index.set_index("run")["prompts_sha256"].dropna().drop_duplicates().index
    if len(told) > 1:
        raise BgkitError(
            f"The run {told[1]} was evaluated on other prompts than {told[0]}; take runs with the "
            "same prompt set and TEST_PROMPTS."
        )


def collect(sources: Iterable[str | Path], out: str | Path) -> int:
    """Add the complete runs of folders (as :func:`find_runs`) to a collection; returns its size.

    Runs that are there already (by config) stay as they are, so that a long sweep can be collected
    part by part. Raises BgkitError as :func:`gather`, and for a folder without complete runs.
    """
    out = Path(out)
    old = [pd.read_parquet(out / n) if (out / n).is_file() else pd.DataFrame() for n in FILES[:3]]
    new: dict[str, runs.Run] = {}
    for source in sources:
        complete = [run for run in find_runs(source) if run.complete]
        if not complete:
            raise BgkitError(f"The folder {source} holds no complete run yet; collect it later.")
        new |= {runs.config_hash(run.config): run for run in complete}
    known = set(old[1].get("run", ()))  # runs, and base's values
    fresh = [run for name, run in new.items() if name not in known]
    parts = zip(old, _small(known, *gather(fresh)), strict=True) if fresh else ((o,) for o in old)
    index, values, curves = (pd.concat(tables, ignore_index=True) for tables in parts)
    _check_prompts(index)
    small = {"index": False, "compression": "zstd", "compression_level": 19}  # they are shipped
    for name, table in zip(FILES, (index, values, curves, table_of(index, values)), strict=True):
        runs.write_atomically(out / name, lambda file, table=table: table.to_parquet(file, **small))
    return len(index)


def _small(
    known: set[str], index: pd.DataFrame, values: pd.DataFrame, curves: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of :func:`gather` as they are kept: fewer digits, no values that are known."""
    values = values[~values["run"].isin(known)].drop(columns=list(JUDGED), errors="ignore")
    values = values.assign(**{k: values[k].astype("float32").round(d) for k, d in KEPT.items()})
    curves = curves.round(dict.fromkeys(CURVES, 5)).astype({"step": "int16"})
    return index, values.astype({"length": "int16"}), curves


def is_collection(folder: str | Path) -> bool:
    """Whether a folder holds a collection."""
    return all((Path(folder) / name).is_file() for name in FILES)


def load(folder: str | Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Index, values and curves of a collection (by default the shipped one).

    Index and curves get the columns of :func:`settings_of`; values are samples that
    :func:`bgkit.evaluation.metrics.values_of` reads. Raises BgkitError if there is none.
    """
    folder = Path(folder or shipped())
    for name in FILES[:3]:
        if not (folder / name).is_file():
            raise BgkitError(
                f"{folder} holds no collected results (no {name}); `bgkit collect` makes them from "
                "a sweep's folder."
            )
    index, values, curves = (pd.read_parquet(folder / name) for name in FILES[:3])
    labels = settings_of(index)
    curves = curves.merge(labels.assign(run=index["run"]), on="run", how="left")
    return pd.concat([index, labels], axis=1), as_samples(index, values), curves


def load_table(*sources: str | Path) -> pd.DataFrame:
    """The table of ablations of collections and run folders, in any number; else the shipped one.

    Raises BgkitError as :func:`find_runs` and :func:`gather`, and for a setting that two sources
    hold.
    """
    paths = [Path(source) for source in sources] or [shipped()]
    tables = [pd.read_parquet(path / FILES[3]) for path in paths if is_collection(path)]
    if found := [run for path in paths if not is_collection(path) for run in find_runs(path)]:
        tables.append(table_of(*gather(found)[:2]))
    table = pd.concat(tables, ignore_index=True)
    for column in set(settings.settings_of(table)) - set(settings.AXES):
        if table[column].isna().any():  # in a source whose runs do not differ in this key
            table[column] = table[column].astype(object).fillna("not told")
    keys = [*settings.settings_of(table), "metric"]
    if (double := table.duplicated(keys)).any():
        one = table[double].iloc[0]
        setting = ", ".join(f"{key} {one[key]}" for key in keys)
        raise BgkitError(
            f"The sources {', '.join(map(str, paths))} hold the same result twice ({setting}); "
            "leave one of them out."
        )
    return settings.sort_rows(table.astype({"seed": str, "n_seeds": int}))


def configs_of(index: pd.DataFrame) -> list[runs.TrainConfig]:
    """The config of each run of an index."""
    return [runs.make_config(json.loads(text)) for text in index["config"]]


def settings_of(index: pd.DataFrame) -> pd.DataFrame:
    """Columns of the strength and each key in which configs differ (``design``, ``scale``, ...)."""
    table = pd.DataFrame([asdict(config) for config in configs_of(index)], index.index)
    more = [key for key in table if key not in (*LABELLED, *WATCHING)]
    more = [key for key in more if key == "strength" or table[key].nunique(dropna=False) > 1]
    return table[[*LABELLED, *more]].rename(columns=LABELLED)


def as_samples(index: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Values with what follows from their run's threshold, and NaN for what no judge said."""
    tau = {}
    for name, config in zip(index["run"], configs_of(index), strict=True):
        tau |= {name: config.tau, evaluation.base_name(config): config.tau}
    at = values["run"].map(tau).to_numpy(float)
    t = values["t"].to_numpy(float)
    judged = {name: values.get(name, np.nan) for name in JUDGED}
    return values.assign(filtered=t >= at, near=np.abs(t - at) < NEAR, **judged)


def table_of(index: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """The table of ablations: every setting, seed (and all), kind of prompt and known metric."""
    numbers = values_of(as_samples(index, values)).dropna(axis=1, how="all")
    labels = settings_of(index)
    keys = [name for name in labels if name != "seed"]
    # in the order of seeds, so that the same values have the same interval in every setting
    base = [evaluation.base_name(config) for config in configs_of(index)]
    index = pd.concat([index["run"], labels], axis=1).assign(base=base)
    index = index.sort_values("seed", kind="stable")
    places = {
        (kind, run): rows
        for kind, part in [("all", values), *values.groupby("kind", sort=False)]
        for run, rows in part.groupby("run", sort=False).groups.items()
    }
    others = [key for key in keys if key != "design"]
    base = index.drop_duplicates([*others, "seed"]).assign(design="base", run=lambda t: t["base"])
    rows = []
    for key, part in pd.concat([index, base]).groupby(keys, sort=False):
        for kind in dict.fromkeys(kind for kind, _ in places):
            stack = np.stack([numbers.loc[places[kind, run]].to_numpy() for run in part["run"]])
            setting = {**dict(zip(keys, key, strict=True)), "kind": kind}
            rows += _rows(setting, list(numbers), stack, part["seed"].tolist())
    return pd.DataFrame(rows)


def _rows(labels: dict, names: list[str], stack: np.ndarray, seeds: list[int]) -> list[dict]:
    """Rows of the mean over all seeds, and of each one."""
    rates = [name in RATES for name in names]
    parts = [(str(seed), stack[[place]]) for place, seed in enumerate(seeds)]
    rows = []
    for seed, part in [("all", stack), *parts]:
        interval = "both" if len(part) > 1 else "prompts"
        found = {"seed": seed, "n_seeds": len(part), "interval": interval}
        rows += [
            {**labels, "metric": metric, **values._asdict(), **found}
            for metric, values in zip(names, crossed_bootstrap(part, rates=rates), strict=True)
            if not np.isnan(values.mean)
        ]
    return rows


def mean_curves(
    curves: pd.DataFrame, by: str = "design", window: int = 1
) -> dict[str, pd.DataFrame]:
    """Training curves, averaged over the runs of each value of ``by`` and over windows of steps.

    One row per window, at its last ``step``; ``<curve>_low`` and ``<curve>_high`` are the lowest
    and the highest of the runs' means.
    """
    columns = [name for name in CURVES if name in curves]
    steps = curves["step"].astype(int)
    windows = curves.assign(step=(steps - 1) // window * window + window)
    each = windows.groupby([by, "run", "step"], as_index=False, sort=False)[columns].mean()
    found = {}
    for value, part in each.groupby(by, sort=False):
        by_step = part.groupby("step")[columns]
        ends = [by_step.min().add_suffix("_low"), by_step.max().add_suffix("_high")]
        found[str(value)] = pd.concat([by_step.mean(), *ends], axis=1).round(5).reset_index()
    return found
