"""Tables of many runs: collected into small files that can be shipped, or read from run folders.

A collection is a folder of these files (without responses, which can be sampled again):

- ``index.parquet``: one row per run, with its config (JSON), seconds, versions and machine;
- ``values.parquet``: one row per run and test prompt: ``kind`` and the inputs of the metrics;
  ``base`` is included as a run for each seed and deployment;
- ``curves.parquet``: the training curve of every run, one row per step;
- ``table.parquet``: the table of ablations.

The table of ablations has one row per setting (``design``, ``utility``, ``scale``, ``guard``,
``tau``, ``strength`` and every other key that differs), ``seed`` (text; ``all``: the mean over
seeds), ``kind`` of prompt (or ``all``) and ``metric``, with ``mean``, ``low``, ``high``,
``n_seeds`` and ``interval``: ``both`` (over seeds and prompts,
:func:`bgkit.evaluation.intervals.crossed_bootstrap`) or, for one run, ``prompts``. Every setting
includes ``base``, the untrained policy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation import settings
from bgkit.evaluation.intervals import crossed_bootstrap
from bgkit.evaluation.metrics import RATES, values_of
from bgkit.evaluation.settings import LABELLED
from bgkit.rewards import NEAR

FILES = ("index.parquet", "values.parquet", "curves.parquet", "table.parquet")
#: column of values.parquet -> its number of decimals (``t`` decides what is filtered)
DECIMALS = {"t": 9, "u": 2, "harm": 3, "help": 3, "system_harm": 3, "system_help": 3, "kl": 2}
JUDGED = ("judge_system_harm", "judge_system_help")
CURVES = ("reward", "margin", "near_boundary", "filter_rate", "kl", "no_spread")
#: Keys of a config that say how a run was monitored, not what it did.
MONITORING = ("eval_every", "eval_prompts", "save_every", "judge")


def shipped() -> Path:
    """Folder of the shipped collection."""
    return data_folder() / "reference" / "frontiers"


def load_walking() -> pd.DataFrame:
    """Test responses of the cautious policy before training, and after two designs' (three seeds).

    One row per response: kind, t, harm, design (``benchmarks/walking.py`` wrote it).
    """
    return pd.read_parquet(shipped() / "walking.parquet")


def find_runs(folder: str | Path) -> list[runs.Run]:
    """Runs of a folder (a run, a folder of runs, or a sweep); BgkitError if there are none."""
    if not (folder := Path(folder)).is_dir():
        raise BgkitError(f"There is no folder {folder}; check the path.")
    for pattern in ("config.json", "*/config.json", "runs/*/results/*/config.json"):
        if paths := sorted(folder.glob(pattern)):
            return [runs.load_run(path.parent) for path in paths]
    raise BgkitError(
        f"The folder {folder} holds no run and no sweep of trainings; give another folder."
    )


def gather(complete: Iterable[runs.Run]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Index, values and curves of complete runs, as in a collection.

    Raises BgkitError for an incomplete run, two runs of one config, and different test prompts.
    """
    rows, values, curves = {}, {}, []
    for run in complete:
        name = runs.config_hash(run.config)
        if name in rows:
            raise BgkitError(f"Two runs have the config of {run.folder}; leave one out.")
        samples, base_samples, curve = run.samples(), run.samples("base"), run.curve()
        if curve.empty:
            raise BgkitError(f"The run {run.folder} has no metrics.parquet; train it again.")
        record = run.read_json("config.json")
        has_manifest = (run.folder / "prompts.json").is_file()  # shipped runs have none
        sha256 = run.read_json("prompts.json")["test"]["sha256"] if has_manifest else None
        rows[name] = {
            "run": name,
            "config": json.dumps(asdict(run.config)),
            "seconds": run.result["seconds"],
            "training_seconds": float(curve["seconds"].sum()),  # of all its sessions
            "versions": json.dumps({**record.get("versions", {}), "git": record.get("git")}),
            "machine": json.dumps(record.get("machine", {})),
            "prompts_sha256": sha256,
        }
        values[name] = _values(name, samples)
        if (base := evaluation.base_name(run.config)) not in values:
            values[base] = _values(base, base_samples)
        curves.append(curve[["step", *(c for c in CURVES if c in curve)]].assign(run=name))
    index = pd.DataFrame(list(rows.values()))
    _check_prompts(index)
    tables = pd.concat(values.values(), ignore_index=True), pd.concat(curves, ignore_index=True)
    return index, *tables


def _values(name: str, samples: pd.DataFrame) -> pd.DataFrame:
    checks.samples(samples, columns=("kind", *DECIMALS, "length"))
    columns = samples[["kind", *DECIMALS, *(c for c in JUDGED if c in samples), "length"]]
    return columns.assign(run=name, prompt=np.arange(len(samples), dtype="int16"))


def _check_prompts(index: pd.DataFrame) -> None:
    """Raise BgkitError if two runs are known to have been evaluated on different prompts."""
    names = index.set_index("run")["prompts_sha256"].dropna().drop_duplicates().index
    if len(names) > 1:
        raise BgkitError(
            f"The runs {names[0]} and {names[1]} were evaluated on different prompts; take runs "
            "with the same prompt set and TEST_PROMPTS."
        )


def collect(sources: Iterable[str | Path], out: str | Path) -> int:
    """Add the complete runs of folders (as :func:`find_runs`) to a collection; returns its size.

    Runs already in it (by config) stay unchanged, so a long sweep can be collected in parts.
    Raises BgkitError as :func:`gather`, and for a folder without complete runs.
    """
    out = Path(out)
    old = [pd.read_parquet(out / n) if (out / n).is_file() else pd.DataFrame() for n in FILES[:3]]
    by_hash: dict[str, runs.Run] = {}
    for source in sources:
        complete = [run for run in find_runs(source) if run.complete]
        if not complete:
            raise BgkitError(f"The folder {source} holds no complete run yet; collect it later.")
        by_hash |= {runs.config_hash(run.config): run for run in complete}
    collected = set(old[1].get("run", ()))  # including the runs of base
    fresh = [run for name, run in by_hash.items() if name not in collected]
    new = _compact_tables(collected, *gather(fresh)) if fresh else (None,) * 3
    index, values, curves = (pd.concat(t, ignore_index=True) for t in zip(old, new, strict=True))
    _check_prompts(index)
    for name, table in zip(FILES, (index, values, curves, table_of(index, values)), strict=True):
        write_small(out / name, table)
    return len(index)


def write_small(path: Path, table: pd.DataFrame) -> None:
    """Write a table as a small parquet file, which can be shipped."""
    zstd = {"index": False, "compression": "zstd", "compression_level": 19}
    runs.write_atomically(path, lambda file: table.to_parquet(file, **zstd))


def _compact_tables(
    collected: set[str], index: pd.DataFrame, values: pd.DataFrame, curves: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of :func:`gather` for the files: rounded, without values that are already there."""
    values = values[~values["run"].isin(collected)].drop(columns=list(JUDGED), errors="ignore")
    values = values.assign(**{k: values[k].astype("float32").round(d) for k, d in DECIMALS.items()})
    curves = curves.round(dict.fromkeys(CURVES, 5)).astype({"step": "int16"})
    return index, values.astype({"length": "int16"}), curves


def load(*sources: str | Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Index, values and curves of collections and folders of runs; by default the shipped ones.

    Index and curves get the columns of :func:`settings_of`; values are samples that
    :func:`bgkit.evaluation.metrics.values_of` reads. Raises BgkitError as :func:`find_runs` and
    :func:`gather`, and for a run in two sources.
    """
    paths, parts, loose = _read(sources, FILES[:3])
    if loose:
        parts.append(gather(loose))
    index, values, curves = (pd.concat(t, ignore_index=True) for t in zip(*parts, strict=True))
    _check_prompts(index)
    _check_once(index, ["run"], paths)
    values = values.drop_duplicates(["run", "prompt"], ignore_index=True)  # base, in each source
    labels = settings_of(index)
    curves = curves.merge(labels.assign(run=index["run"]), on="run", how="left")
    return pd.concat([index, labels], axis=1), as_samples(index, values), curves


def load_table(*sources: str | Path) -> pd.DataFrame:
    """The table of ablations of collections and run folders; by default the shipped one.

    Raises BgkitError as :func:`find_runs` and :func:`gather`, and for a setting in two sources.
    """
    paths, parts, loose = _read(sources, FILES[3:])
    if loose:
        parts.append([table_of(*gather(loose)[:2])])
    table = pd.concat([table for (table,) in parts], ignore_index=True)
    for column in set(settings.settings_of(table)) - set(settings.AXES):
        if table[column].isna().any():  # in a source whose runs do not differ in this key
            table[column] = table[column].astype(object).fillna("not told")
    _check_once(table, [*settings.settings_of(table), "metric"], paths)
    return settings.sort_rows(table.astype({"seed": str, "n_seeds": int}))


def _read(
    sources: Iterable[str | Path], files: Sequence[str]
) -> tuple[list[Path], list[list[pd.DataFrame]], list[runs.Run]]:
    """Paths of the sources, ``files`` of the collections among them, and runs of the others."""
    paths, tables, loose = [Path(s) for s in sources if s] or [shipped()], [], []
    for path in paths:
        if all((path / name).is_file() for name in FILES):
            tables.append([pd.read_parquet(path / name) for name in files])
        else:
            loose += find_runs(path)
    return paths, tables, loose


def _check_once(table: pd.DataFrame, keys: Sequence[str], paths: Sequence[Path]) -> None:
    """Raise BgkitError if two rows of a table that was read from ``paths`` have the same keys."""
    if (repeated := table.duplicated(keys)).any():
        row = table[repeated].iloc[0]
        result = ", ".join(f"{key} {row[key]}" for key in keys)
        raise BgkitError(
            f"The sources {', '.join(map(str, paths))} hold the same result twice ({result}); "
            "leave one of them out."
        )


def configs_of(index: pd.DataFrame) -> list[runs.TrainConfig]:
    """The config of each run of an index."""
    return [runs.make_config(json.loads(text)) for text in index["config"]]


def settings_of(index: pd.DataFrame) -> pd.DataFrame:
    """Strength and all keys in which configs differ, as columns (``design``, ``scale``, ...)."""
    table = pd.DataFrame([asdict(config) for config in configs_of(index)], index.index)
    more = [key for key in table if key not in (*LABELLED, *MONITORING)]
    more = [key for key in more if key == "strength" or table[key].nunique(dropna=False) > 1]
    return table[[*LABELLED, *more]].rename(columns=LABELLED)


def as_samples(index: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Values with ``filtered`` and ``near`` at their run's tau; missing judge grades are NaN."""
    taus = {}
    for name, config in zip(index["run"], configs_of(index), strict=True):
        taus |= {name: config.tau, evaluation.base_name(config): config.tau}
    tau = values["run"].map(taus).to_numpy(float)
    t = values["t"].to_numpy(float)
    judged = {name: values.get(name, np.nan) for name in JUDGED}
    return values.assign(filtered=t >= tau, near=np.abs(t - tau) < NEAR, **judged)


def table_of(index: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """The table of ablations: every setting, seed (and all), kind of prompt and metric."""
    numbers = values_of(as_samples(index, values)).dropna(axis=1, how="all")
    labels = settings_of(index)
    keys = [name for name in labels if name != "seed"]
    # sorted by seed, so the same values get the same interval in every setting
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
        more = {"seed": seed, "n_seeds": len(part), "interval": interval}
        rows += [
            {**labels, "metric": metric, **values._asdict(), **more}
            for metric, values in zip(names, crossed_bootstrap(part, rates=rates), strict=True)
            if not np.isnan(values.mean)
        ]
    return rows


def mean_curves(curves: pd.DataFrame, window: int) -> dict[str, pd.DataFrame]:
    """Training curves by design, averaged over its runs and over windows of steps.

    One row per window, at its last ``step``; ``<curve>_low`` and ``<curve>_high`` are the lowest
    and the highest of the runs' means.
    """
    columns = [name for name in CURVES if name in curves]
    steps = curves["step"].astype(int)
    windows = curves.assign(step=(steps - 1) // window * window + window)
    each = windows.groupby(["design", "run", "step"], as_index=False, sort=False)[columns].mean()
    means = {}
    for design, part in each.groupby("design", sort=False):
        by_step = part.groupby("step")[columns]
        ends = [by_step.min().add_suffix("_low"), by_step.max().add_suffix("_high")]
        means[str(design)] = pd.concat([by_step.mean(), *ends], axis=1).round(5).reset_index()
    return means
