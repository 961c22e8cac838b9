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
#: States that end a run, unless somebody asks for another try.
SETTLED = ("complete", "failed")


def read_records(folder: Path) -> dict[str, dict]:
    """Hash -> record of every run that was begun in a sweep's folder, in the order of hashes."""
    found = {}
    for path in sorted((folder / "runs").glob("*/run.json")):
        if record := sweep_runs.read_record(path.parent):
            found[path.parent.name] = record
    return found


def waiting(hash_: str, parameters: Mapping[str, object]) -> dict:
    """The record of a run that was not begun."""
    return {"hash": hash_, "parameters": dict(parameters), "state": "waiting"}


def other_versions(records: Iterable[Mapping], ours: Mapping[str, str]) -> str:
    """A line about runs that were begun with other versions than ``ours``; "" if there are none.

    Versions that a record does not hold (those of earlier kits have fewer) are not compared.
    """
    groups: dict[str, list[str]] = {}
    for record in records:
        theirs = {k: v for k, v in record.get("versions", {}).items() if k in ours}
        known = {k: v for k, v in ours.items() if k in theirs}
        if found := sweep_runs.different(theirs, known, ("then", "now")):
            groups.setdefault(found, []).append(record["hash"])
    if not groups:
        return ""
    parts = (f"{_some(hashes)} ({what})" for what, hashes in groups.items())
    return f"Begun with other versions than today's: {'; '.join(parts)}."


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
    for name, value in record["parameters"].items():
        if name not in grids.SET_BY_SWEEP:
            row[name] = json.dumps(value) if isinstance(value, (list, dict)) else value
    for name, (mean, low, high) in record.get("metrics", {}).items():
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return {
        **row,
        "seconds": record.get("seconds"),
        "started": record.get("started"),
        "finished": record.get("finished"),
        "attempts": record.get("attempts", 0),
        "error": record.get("error"),
        "host": record.get("host"),
        "versions": json.dumps(record["versions"]) if "versions" in record else None,
        "notebook": f"{place}/executed.ipynb" if begun else None,
        "results": f"{place}/results" if begun else None,
    }


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


def merged(ours: Mapping[str, Mapping], on_disk: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """A sweep's records and those of its folder, by hash.

    What is settled on disk is so, whoever did it; of its own runs that are not, a sweep knows more
    (a lost worker leaves a record of a run that is going on).

    >>> one, two = {"state": "waiting"}, {"state": "complete"}
    >>> merged({"a": one, "b": one}, {"a": two, "b": {"state": "running"}, "c": two})
    {'a': {'state': 'complete'}, 'b': {'state': 'waiting'}, 'c': {'state': 'complete'}}
    """
    settled = {h: r for h, r in on_disk.items() if h not in ours or r["state"] in SETTLED}
    return {**ours, **settled}


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
    kept = [_kept(record) for record in records]
    names, metrics = grids.varied(kept), shown_metrics(records)
    heads = [*names, "state", "seconds", *metrics, "notebook", "error"]
    lines = [heads, ["---"] * len(heads)]
    for record, parameters in zip(records, kept, strict=True):
        begun = record["state"] != "waiting"
        lines.append(
            [
                *(_escaped(parameters.get(name, "")) for name in names),
                record["state"],
                f"{record['seconds']:.1f}" if "seconds" in record else "",
                *(cell(record.get("metrics", {}).get(name)) for name in metrics),
                f"[{record['hash']}](runs/{record['hash']}/executed.ipynb)" if begun else "",
                _escaped(record.get("error", "")),
            ]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{counts(record['state'] for record in records)}\n\n{table}\n"


def _kept(record: Mapping) -> dict:
    return {k: v for k, v in record["parameters"].items() if k not in grids.SET_BY_SWEEP}


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


def read_rows(folder: str | Path) -> pd.DataFrame:
    """All rows of the ``result.json`` of a sweep's complete runs, each with its run's hash.

    Unlike the index they hold base's rows and those of every kind of prompt, too; join the runs'
    parameters by the column ``run``.
    """
    folder = Path(folder)
    return pd.DataFrame(
        [
            {"run": hash_, **row}
            for hash_, record in read_records(folder).items()
            if record["state"] == "complete"
            for row in sweep_runs.result_rows(folder / "runs" / hash_ / "results")
        ]
    )


def link(folder: Path, hash_: str, base: Path) -> str:
    """Path of a run's executed notebook from another folder."""
    return os.path.relpath(folder / "runs" / hash_ / "executed.ipynb", base)
