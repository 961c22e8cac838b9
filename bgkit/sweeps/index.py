"""The index of a sweep: one row for each run, as a parquet file and as a table to read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from bgkit.evaluation.intervals import interval_text
from bgkit.runs import locks, write_atomically, write_parquet
from bgkit.sweeps import grids
from bgkit.sweeps import run as sweep_runs
from bgkit.texts import visible

#: Metrics of the readable table, if a sweep has them; else its first eight.
SHOWN = "filter_rate near_boundary false_positive false_negative system_harm system_help kl".split()


def read_records(folder: Path) -> dict[str, dict]:
    """Hash -> record of every run that was begun in a sweep's folder, in the order of hashes."""
    places = sorted(path.parent for path in (folder / "runs").glob("*/run.json"))
    return {place.name: found for place in places if (found := sweep_runs.read_record(place))}


def waiting(hash_: str, parameters: Mapping[str, object]) -> dict:
    """The record of a run that was not begun."""
    return {"hash": hash_, "parameters": dict(parameters), "state": "waiting"}


def make_index(records: Iterable[Mapping]) -> pd.DataFrame:
    """One row a run: hash, state, parameters, metrics with intervals, time, versions, paths.

    A metric ``m`` is three columns, ``m``, ``m_low`` and ``m_high``. Paths are relative to the
    sweep's folder; ``versions`` is JSON text, and so are parameters that are lists.
    """
    return pd.DataFrame([_row(record) for record in records])


def _row(record: Mapping) -> dict:
    place = f"runs/{record['hash']}"
    begun = record["state"] != "waiting"
    row = {"run": record["hash"], "state": record["state"]}
    for name, value in _kept(record).items():
        row[name] = json.dumps(value) if isinstance(value, (list, dict)) else value
    for name, (mean, low, high) in record.get("metrics", {}).items():
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    row |= {k: record.get(k) for k in ("seconds", "started", "finished", "attempts", "error")}
    return {
        **row,
        "attempts": record.get("attempts", 0),
        "host": record.get("host"),
        "versions": json.dumps(record["versions"]) if "versions" in record else None,
        "notebook": f"{place}/executed.ipynb" if begun else None,
        "results": f"{place}/results" if begun else None,
    }


def _kept(record: Mapping) -> dict:
    return {k: v for k, v in record["parameters"].items() if k not in grids.SET_BY_SWEEP}


def merged(ours: Mapping[str, Mapping], on_disk: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """A sweep's records and those of its folder, by hash.

    What ended on disk did so, whoever did it; of its own runs that did not, a sweep knows more (a
    lost worker leaves a record of a run that is going on).

    >>> one, two = {"state": "waiting"}, {"state": "complete"}
    >>> merged({"a": one, "b": one}, {"a": two, "b": {"state": "running"}, "c": two})
    {'a': {'state': 'complete'}, 'b': {'state': 'waiting'}, 'c': {'state': 'complete'}}
    """
    ended = {h: r for h, r in on_disk.items() if h not in ours or r["state"] != "running"}
    return {**ours, **ended}


def write_index(folder: Path, records: Mapping[str, Mapping]) -> pd.DataFrame:
    """Write ``index.parquet`` and ``index.md`` in a sweep's folder, each atomically.

    ``records`` (by hash) are what a sweep knows; what others have done in its folder meanwhile is
    in the index, too. Sweeps in one folder write one after the other.
    """
    with locks.held(folder / "index.lock"):
        whole = list(merged(records, read_records(folder)).values())
        index, text = make_index(whole), readable(whole)
        write_parquet(folder / "index.parquet", index)
        write_atomically(folder / "index.md", lambda file: file.write_text(text, encoding="utf-8"))
    return index


def shown_metrics(records: Iterable[Mapping]) -> list[str]:
    """Names of the metrics that a short table shows."""
    known = dict.fromkeys(name for record in records for name in record.get("metrics", {}))
    return [name for name in SHOWN if name in known] or list(known)[:8]


def cell(values: Sequence[float | None] | None) -> str:
    """A metric and its interval.

    >>> cell([0.25, 0.2, 0.3]), cell([0.25, None, None]), cell(None)
    ('0.250 [0.200, 0.300]', '0.250', '')
    """
    if not values or values[0] is None:
        return ""
    return interval_text(*(math.nan if value is None else value for value in values))


def readable(records: Sequence[Mapping]) -> str:
    """The index as a Markdown table: what differs between the runs, state, time, metrics."""
    names, metrics = grids.varied(list(map(_kept, records))), shown_metrics(records)
    heads = [*names, "state", "seconds", *metrics, "notebook", "error"]
    lines = [heads, ["---"] * len(heads)]
    for record in records:
        begun, hash_ = record["state"] != "waiting", record["hash"]
        line = [_escaped(record["parameters"].get(name, "")) for name in names]
        line += [record["state"], f"{record['seconds']:.1f}" if "seconds" in record else ""]
        line += [cell(record.get("metrics", {}).get(name)) for name in metrics]
        line += [f"[{hash_}](runs/{hash_}/executed.ipynb)" if begun else ""]
        lines.append([*line, _escaped(record.get("error", ""))])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{counts(record['state'] for record in records)}\n\n{table}\n"


def _escaped(text: object) -> str:
    """Text that stays in one cell of a Markdown table and is no markup there.

    >>> print(_escaped("a|b <i> [c](d)"))
    a\\|b &lt;i> \\[c](d)
    """
    line = " ".join(visible(text).split()).replace("<", "&lt;")
    return line.translate({ord(sign): f"\\{sign}" for sign in "|[*_`$"})


def counts(states: Iterable[str]) -> str:
    """How many runs are in which state.

    >>> counts(["complete", "failed", "complete"])
    '3 runs: 2 complete, 1 failed'
    """
    found = list(states)
    parts = [f"{found.count(state)} {state}" for state in dict.fromkeys(found)]
    return f"{len(found)} run{'s' if len(found) != 1 else ''}: {', '.join(parts)}"


def link(folder: Path, hash_: str, base: Path) -> str:
    """Path of a run's executed notebook from another folder."""
    return os.path.relpath(folder / "runs" / hash_ / "executed.ipynb", base)
