"""Results of whole sweeps in a few small files: what is shipped as ``data/reference/ablation``.

A collection holds, of every run of one or more sweeps of ``03_train_policy``:

- ``index.parquet``: one row per run: its ``config`` (JSON), time, versions, machine, sweep and
  hash there, and ``_mean``, ``_low`` and ``_high`` of every metric, over prompts (``ece`` is
  debiased, :func:`bgkit.evaluation.calibration.calibration_interval`);
- ``values.parquet``: one row per run and test prompt: ``t``, ``u``, ``harm``, ``help``,
  ``system_harm``, ``system_help``, ``kl``, ``length``, and ``kind``; ``base`` likewise, once for
  each seed and deployment, as runs of their own;
- ``curves.parquet``: the training curve of every run, one row per step;
- ``table.parquet``: the table of :mod:`bgkit.sweeps.ablations`: means of every setting by seed and
  over all seeds, with intervals over seeds and prompts
  (:func:`bgkit.evaluation.intervals.crossed`);
- ``about.json``: the commands, versions and machines behind them.

Responses are not kept: they can be sampled again from their config.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.intervals import crossed
from bgkit.evaluation.metrics import RATES, values_of
from bgkit.evaluation.settings import LABELLED
from bgkit.scoring.scorer import NEAR
from bgkit.sweeps import index as sweep_index
from bgkit.sweeps import run as sweep_runs
from bgkit.testbed.store import data_folder

FILES = ("index.parquet", "values.parquet", "curves.parquet")
#: column of values.parquet -> decimals kept; ``t`` is exact, as the filter depends on it
KEPT = {"t": 9, "u": 2, "harm": 3, "help": 3, "system_harm": 3, "system_help": 3, "kl": 2}
CURVES = ("reward", "margin", "near_boundary", "filter_rate", "kl", "no_spread")
#: Keys of a config that say how a run was watched, not what it did.
WATCHING = ("eval_every", "eval_prompts", "save_every", "judge")
METRICS = (
    "filter_rate near_boundary false_positive false_negative raw_harm raw_help system_harm "
    "system_help kl utility length"
).split()


def ablation_path() -> Path:
    """Where the shipped collection lies."""
    return data_folder() / "reference" / "ablation"


# --- Collecting ------------------------------------------------------------------------------


def collect(sweeps: Iterable[str | Path], out: str | Path, command: str = "") -> dict:
    """Add the complete runs of sweeps' folders to a collection; returns its ``about``.

    Runs that are there already (by config) stay as they are, so that a long sweep can be collected
    part by part. ``command`` says how the sweeps were made. Raises BgkitError for a folder without
    complete runs, for runs whose evaluation was of other prompts than the collection's, and if a
    file can not be written.
    """
    out = Path(out)
    parts = {name: [_read(out, name)] for name in FILES}
    known = set(parts["values.parquet"][0].get("run", ()))  # runs, and base's values
    for sweep in map(Path, sweeps):
        records = sweep_index.read_records(sweep)
        complete = {h: r for h, r in records.items() if r["state"] == "complete"}
        if not complete:
            raise BgkitError(
                f"The folder {sweep} holds no sweep with complete runs; check the path."
            )
        for hash_, record in complete.items():
            run = _run_of(sweep / "runs" / hash_ / "results")
            if (name := runs.config_hash(run.config)) not in known:
                known.add(name)
                for file, part in _parts(name, run, record, known).items():
                    parts[file].append(part)
    found = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    _check_prompts(found["index.parquet"], found["values.parquet"])
    found["table.parquet"] = table_of(found["index.parquet"], found["values.parquet"])
    for name, table in found.items():
        _write(out / name, table)
    about = _about(out, found["index.parquet"], command)
    runs.write_json(out / "about.json", about)
    return about


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame()


def _write(path: Path, table: pd.DataFrame) -> None:
    """As small as it gets: these files are shipped."""
    small = {"index": False, "compression": "zstd", "compression_level": 19}
    runs.write_atomically(path, lambda file: table.to_parquet(file, **small))


def _run_of(results: Path) -> runs.Run:
    """The training run in the results of a sweep's run."""
    files = sweep_runs.result_files(results)
    if not files:
        raise BgkitError(f"There is no result.json in {results}; collect sweeps of trainings.")
    return runs.load_run(files[0].parent)


def _parts(name: str, run: runs.Run, record: Mapping, known: set[str]) -> dict[str, pd.DataFrame]:
    """What each file gets of a run, and of its base if that is not there yet."""
    keys = ("seconds", "started", "hash")
    row = {"run": name, "config": json.dumps(asdict(run.config)), **{k: record[k] for k in keys}}
    row["training_seconds"] = float(run.curve()["seconds"].sum())  # of all its sessions
    row["versions"] = json.dumps(record["versions"])
    row["machine"] = json.dumps(run.read_json("config.json").get("machine", {}))
    row["prompts_sha256"] = run.read_json("prompts.json")["test"]["sha256"]
    for metric, (mean, low, high) in record["metrics"].items():
        row |= {f"{metric}_mean": mean, f"{metric}_low": low, f"{metric}_high": high}
    values = [_values(name, pd.read_parquet(run.folder / "samples.parquet"))]
    if (base := evaluation.base_name(run.config)) not in known:
        known.add(base)
        values.append(_values(base, pd.read_parquet(run.folder / "base_samples.parquet")))
    curve = run.curve()[["step", *CURVES]].astype("float32").round(5)
    return {
        "index.parquet": pd.DataFrame([row]),
        "values.parquet": pd.concat(values, ignore_index=True),
        "curves.parquet": curve.assign(run=name, step=curve["step"].astype("int16")),
    }


def _values(name: str, samples: pd.DataFrame) -> pd.DataFrame:
    numbers = {key: samples[key].astype("float32").round(digits) for key, digits in KEPT.items()}
    labels = {
        "run": name,
        "prompt": np.arange(len(samples), dtype="int16"),
        "kind": samples["kind"],
    }
    return pd.DataFrame({**labels, **numbers, "length": samples["length"].astype("int16")})


def _check_prompts(index: pd.DataFrame, values: pd.DataFrame) -> None:
    """Raise BgkitError unless all runs were evaluated on the same prompts, in one order.

    Of runs that were collected before their prompts' hash was kept only the kinds are known.
    """
    known = index.dropna(subset=["prompts_sha256"]) if "prompts_sha256" in index else index[:0]
    kinds = values.groupby("run", sort=False)["kind"].agg(tuple)
    for told in (known.set_index("run").get("prompts_sha256", kinds), kinds):
        if told.nunique() > 1:
            odd = told[told != told.iloc[0]].index[0]
            raise BgkitError(
                f"The run {odd} was evaluated on other prompts than {told.index[0]}; collect runs "
                "with the same prompt set and TEST_PROMPTS."
            )


def _about(out: Path, index: pd.DataFrame, command: str) -> dict:
    path = out / "about.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    versions = [json.loads(text) for text in index["versions"]]
    commands = [*old.get("commands", []), command] if command else old.get("commands", [])
    told = index["machine"].dropna() if "machine" in index else []
    machines = [*old.get("machines", []), *map(json.loads, told)]
    return {
        "runs": len(index),
        "seconds": round(float(index["seconds"].sum())),
        "commands": list(dict.fromkeys(commands)),
        "machines": [json.loads(m) for m in dict.fromkeys(map(json.dumps, machines)) if m != "{}"],
        "versions": {k: sorted({v[k] for v in versions if k in v}) for k in versions[0]},
        "interval": "95 % over seeds and prompts, crossed bootstrap",
    }


# --- Reading ---------------------------------------------------------------------------------


def is_collection(folder: str | Path) -> bool:
    """Whether a folder holds a collection."""
    return all((Path(folder) / name).is_file() for name in (*FILES, "table.parquet"))


def load(folder: str | Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Index, values and curves of a collection (by default the shipped one).

    Index and curves get the columns ``design``, ``seed`` and every key in which configs differ;
    values get ``filtered`` and ``near`` (by their run's threshold) and a NaN for what only a judge
    could say, so that :func:`bgkit.evaluation.metrics.values_of` reads them. Raises BgkitError if
    there is none or a file of it is missing.
    """
    folder = Path(folder or ablation_path())
    for name in FILES:
        if not (folder / name).is_file():
            raise BgkitError(
                f"{folder} holds no collected results (no {name}); `python -m bgkit collect` makes "
                "them from a sweep's folder."
            )
    index, values, curves = (_read(folder, name) for name in FILES)
    index = pd.concat([index, settings_of(index)], axis=1)
    return index, _as_samples(index, values), curves.merge(_labels(index), on="run", how="left")


def configs_of(index: pd.DataFrame) -> list[runs.TrainConfig]:
    """The config of each run of an index."""
    return [runs.make_config(json.loads(text)) for text in index["config"]]


def differing(configs: Sequence[runs.TrainConfig]) -> list[str]:
    """Keys in which configs differ, beyond those that are columns anyway (:data:`LABELLED`).

    >>> differing([runs.TrainConfig(beta=0.1, seed=1), runs.TrainConfig(eval_every=0)])
    ['beta']
    """
    names = [name for name in asdict(configs[0]) if name not in (*LABELLED, *WATCHING)]
    return [name for name in names if len({getattr(each, name) for each in configs}) > 1]


def settings_of(index: pd.DataFrame) -> pd.DataFrame:
    """One column for each key in which the configs differ, ``design`` and ``scale`` named so."""
    configs = configs_of(index)
    names = [*LABELLED, *differing(configs)]
    table = pd.DataFrame([asdict(config) for config in configs], index.index)
    return table[names].rename(columns=LABELLED)


def _labels(index: pd.DataFrame) -> pd.DataFrame:
    return index[["run", *settings_of(index).columns]]


def _as_samples(index: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Values with what follows from their run's threshold."""
    tau = {}
    for name, config in zip(index["run"], configs_of(index), strict=True):
        tau |= {name: config.tau, evaluation.base_name(config): config.tau}
    at = values["run"].map(tau).to_numpy(float)
    t = values["t"].to_numpy(float)
    judged = {f"judge_{name}": np.nan for name in ("system_harm", "system_help")}
    return values.assign(filtered=t >= at, near=np.abs(t - at) < NEAR, **judged)


# --- Means and intervals ---------------------------------------------------------------------


def cube(values: pd.DataFrame, names: Sequence[str], kind: str = "all") -> np.ndarray:
    """Metrics of some runs as an array (runs, prompts, metrics), prompts in one order.

    ``values`` are those of :func:`load`; the metrics are :data:`METRICS`.
    """
    chosen = values if kind == "all" else values[values["kind"] == kind]
    groups = dict(list(chosen.groupby("run", sort=False)))
    return np.stack([values_of(groups[name])[METRICS].to_numpy() for name in names])


def table_of(index: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """The table of ablations of a collection's files: every setting, seed (and all) and kind."""
    numbers = values_of(_as_samples(index, values))[METRICS]
    # in the order of seeds, so that the same values have the same interval in every setting
    index = pd.concat([index, settings_of(index)], axis=1).sort_values("seed", kind="stable")
    index = index.assign(base=[evaluation.base_name(config) for config in configs_of(index)])
    keys = [name for name in settings_of(index) if name != "seed"]
    places = {
        (kind, run): rows
        for kind, part in [("all", values), *values.groupby("kind", sort=False)]
        for run, rows in part.groupby("run", sort=False).groups.items()
    }
    wanted = [
        (dict(zip(keys, key, strict=True)), part, "run")
        for key, part in index.groupby(keys, sort=False)
    ]
    others = [key for key in keys if key != "design"]
    for key, part in index.groupby(others, sort=False):
        first = part.drop_duplicates("seed")
        wanted.append(({"design": "base", **dict(zip(others, key, strict=True))}, first, "base"))
    rows = []
    for setting, part, column in wanted:
        for kind in dict.fromkeys(kind for kind, _ in places):
            stack = np.stack([numbers.loc[places[kind, run]].to_numpy() for run in part[column]])
            rows += _rows({**setting, "kind": kind}, stack, part["seed"].tolist())
    return pd.DataFrame(rows)


def _rows(labels: dict, stack: np.ndarray, seeds: list[int]) -> list[dict]:
    """Rows of the mean over all seeds, and of each one."""
    rates = [name in RATES for name in METRICS]
    parts = [(str(seed), stack[[place]]) for place, seed in enumerate(seeds)]
    rows = []
    for seed, part in [("all", stack), *parts]:
        found = {"seed": seed, "n_seeds": len(part)}
        found["interval"] = "both" if len(part) > 1 else "prompts"
        for metric, interval in zip(METRICS, crossed(part, rates=rates), strict=True):
            if not np.isnan(interval.mean):
                rows.append({**labels, "metric": metric, **interval._asdict(), **found})
    return rows


def mean_curves(
    curves: pd.DataFrame, by: str = "design", window: int = 1
) -> dict[str, pd.DataFrame]:
    """Training curves, averaged over the runs of each value of ``by`` and over windows of steps.

    Returns name -> one row per window, with its last step as ``step``; each curve has beside its
    mean the lowest and the highest of the runs' means, as ``<curve>_low`` and ``<curve>_high``.
    """
    columns = [name for name in CURVES if name in curves]
    steps = curves["step"].astype(int)
    windows = curves.assign(step=(steps - 1) // window * window + window)
    each = windows.groupby([by, "run", "step"], as_index=False, sort=False)[columns].mean()
    found = {}
    for value, part in each.groupby(by, sort=False):
        runs_of = part.groupby("step")[columns]
        ends = [runs_of.min().add_suffix("_low"), runs_of.max().add_suffix("_high")]
        whole = pd.concat([runs_of.mean(), *ends], axis=1)
        found[str(value)] = whole.round(5).reset_index()  # stored notebooks hold these numbers
    return found
