"""A sweep in a notebook: a table of its runs that renews itself while they are executed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from IPython.display import HTML, DisplayHandle

from bgkit.progress import SHOWN
from bgkit.sweeps import drive as sweeps
from bgkit.sweeps import index as sweep_index
from bgkit.sweeps.run import progress_of, read_record
from bgkit.widgets.text import NO_MATH, safe

EVERY = 2.0  # seconds between two drawings
MOST = 100  # rows that are drawn
#: state -> its place in the table
ORDER = {"running": 0, "failed": 1, "broken": 2, "waiting": 3, "complete": 4}


def running(sweep: sweeps.Sweep) -> dict[str, dict]:
    """Hash -> record of the runs that are being executed, as their folders tell it."""
    found, idle = {}, 0
    for job in sweep.jobs:
        if sweep.records[job.hash]["state"] == "waiting" and idle <= sweep.workers:
            record = read_record(job.folder)
            if record.get("state") == "running" and record["attempts"] > job.attempts:
                found[job.hash] = record
            else:
                idle += 1  # runs begin in the grid's order: only some need a look
    return found


def table(sweep: sweeps.Sweep, base: Path | None = None) -> HTML:
    """The runs of a sweep: what differs, state, time, metric so far, link to the notebook.

    Running ones first, then failed, broken, waiting and complete ones; of more than a hundred the
    rest is counted. Paths are relative to ``base`` (the current folder). All text is escaped.
    """
    base, going = base or Path.cwd(), running(sweep)
    records = [going.get(job.hash, sweep.records[job.hash]) for job in sweep.jobs]
    states = sweep_index.counts(record["state"] for record in records)
    left = sweep.seconds_left()
    time_ = "time left unknown" if left is None else f"about {sweeps.clock(left)} left"
    metrics = sweep_index.shown_metrics(records)[:4]
    heads = [*sweep.varied, "state", "time", *(metrics or ["so far"]), "notebook"]
    shown = sorted(records, key=lambda record: ORDER.get(record["state"], 5))[:MOST]
    lines = [_row(sweep, record, metrics, base) for record in shown]
    more = f"<p>... and {len(records) - MOST} more</p>" if len(records) > MOST else ""
    head = "".join(f"<th>{safe(name)}</th>" for name in heads)
    body = f'<table class="{NO_MATH}"><tr>{head}</tr>{"".join(lines)}</table>{more}'
    return HTML(f"<p>{safe(states)} · {safe(time_)}</p>{body}")


def _row(sweep: sweeps.Sweep, record: Mapping, metrics: list[str], base: Path) -> str:
    found, state = record.get("metrics", {}), record["state"]
    values = [safe(sweep_index.cell(found.get(name))) for name in metrics] or [""]
    if state == "running":
        values[0] = safe(so_far(sweep.folder / "runs" / record["hash"] / "results"))
    elif record.get("error"):
        values[0] = safe(record["error"][:200])
    cells = [safe(record["parameters"].get(name, "")) for name in sweep.varied]
    cells += [safe(state), safe(_time(record)), *values, _link(sweep, record, base)]
    return f"<tr>{''.join(f'<td>{text}</td>' for text in cells)}</tr>"


def _time(record: Mapping) -> str:
    if "seconds" in record:
        return sweeps.clock(record["seconds"])
    if record["state"] == "running":
        begun = pd.Timestamp(record["started"])
        return f"{sweeps.clock(max(0, (pd.Timestamp.now('UTC') - begun).total_seconds()))} gone"
    return ""


def so_far(results: Path) -> str:
    """The newest checkpoint of a going training, in words; "" before there is one."""
    row = progress_of(results)
    parts = [f"step {row['step']:.0f}"] if "step" in row else []
    parts += [f"{name} {row[key]:.3f}" for key, name in SHOWN.items() if key in row]
    return ", ".join(parts)


def _link(sweep: sweeps.Sweep, record: Mapping, base: Path) -> str:
    if record["state"] == "waiting":
        return ""
    path = quote(Path(sweep_index.link(sweep.folder, record["hash"], base)).as_posix())
    return f'<a href="{path}" target="_blank">{safe(record["hash"])}</a>'


def sweep(notebook: str | Path, grid, folder: str | Path | None = None, **settings):
    """:func:`bgkit.sweep` with a table that renews itself; interrupt the kernel to stop.

    ``settings`` are those of ``bgkit.sweep``; returns the index. The table stays when the notebook
    is saved.
    """
    handle, seen, drawn = DisplayHandle(), [], -EVERY

    def watch(current: sweeps.Sweep) -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= EVERY:
            (handle.update if seen else handle.display)(table(current))
            drawn = time.monotonic()
        seen[:] = [current]

    try:
        return sweeps.sweep(notebook, grid, folder, say=lambda _: None, watch=watch, **settings)
    finally:
        if seen:  # the last state, also after a stop
            handle.update(table(seen[0]))
