"""A user's own log of scored responses, as the samples table that every figure reads.

A log is a CSV, JSONL or Parquet file with one response per row: ``prompt``, ``response``,
``p_unsafe`` (the guard's probability that the response is unsafe) and, where they are known,
``harmful`` (the truth: true or false, 1 or 0, harmful or safe) and ``kind`` (of prompt). Columns
of other names can be mapped. Prompts and responses may be chat messages, also of one column
``messages`` (:mod:`bgkit.prompts.chats`); what was said before the last prompt is not shown.
Without truth, what needs it is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError
from bgkit.models.packaged import ENGLISH
from bgkit.prompts import chats, tables
from bgkit.testbed.store import data_folder

NEEDED = ("prompt", "response", "p_unsafe")
COLUMNS = (*NEEDED, "harmful", "kind")
#: Rows that are kept of a longer log: a share of 0.1 is then known to 0.004 (95 %), and every
#: slider stays quick.
LIMIT = 20_000
ROLE = tables.Role("log", '{"prompt": "...", "response": "...", "p_unsafe": 0.1}')


def read_log(
    path: str | Path, columns: Mapping[str, str] | None = None, limit: int = LIMIT, seed: int = 0
) -> pd.DataFrame:
    """Read a log of scored responses; of a log of more than ``limit`` rows, a random sample.

    ``path`` "english" is the log that comes with the kit: what SmolLM2 said to held-out prompts, as
    the guard ``english`` scored it, with the labels of ``data/english``. ``columns`` maps names of
    :data:`COLUMNS` to the file's own, as in {"response": "completion"}; prompt and response may
    both be one column of whole exchanges.

    Returns the columns prompt_id (file name and row number), kind ("unknown" where it is not
    given), prompt, response, t (``p_unsafe``, in [0, 1]), harm (1.0 harmful, 0.0 safe, NaN not
    known) and help (NaN). ``attrs["rows"]`` is the number of rows in the file, ``attrs["note"]`` a
    sentence on the sampling, empty if all rows were kept. Raises BgkitError for a file, a column or
    any row that can not be used.
    """
    path, mapped = Path(path), columns or {}
    if str(path) == ENGLISH and not path.exists():
        path = data_folder() / ENGLISH / "scored.jsonl"
    if limit < 1:
        raise BgkitError(f"The number of rows to keep of a log must be at least 1, not {limit}.")
    if unknown := [name for name in mapped if name not in COLUMNS]:
        raise BgkitError(
            f"A log has no column {unknown[0]!r} to map; map {', '.join(COLUMNS)} to the file's "
            'names, as in {"response": "completion"}.'
        )
    if not path.is_file():
        raise BgkitError(
            f"There is no log {path}: give the path of a .csv, .jsonl or .parquet file with the "
            f"columns {', '.join(NEEDED)}."
        )
    raw = tables.read_table(path, ROLE)
    if raw.empty:
        raise BgkitError(f"The log {path} holds no rows; it must hold one response per row.")
    table = _checked(raw, path, mapped)
    if (total := len(table)) > limit:
        table = table.sample(limit, random_state=seed).sort_index()
    table.insert(0, "prompt_id", [f"{path.name}/{row + 1:07d}" for row in table.index])
    table = table.reset_index(drop=True)
    table.attrs = {"rows": total, "note": ""}
    if total > len(table):
        table.attrs["note"] = (
            f"The log {path.name} has {total:,} rows; what follows is about a random sample of "
            f"{len(table):,} of them (seed {seed})."
        )
    return table


def _checked(raw: pd.DataFrame, path: Path, mapped: Mapping[str, str]) -> pd.DataFrame:
    """A log's rows with the kit's names."""
    names = {name: mapped.get(name, name) for name in COLUMNS}
    there = {name for name in names if names[name] in raw}
    if not {*chats.COLUMNS}.isdisjoint(raw):
        there |= {name for name in ("prompt", "response") if names[name] == name}
    if missing := [n for n in COLUMNS if n in {*NEEDED, *mapped} - there]:
        lacks = [f"{names[n]!r}" + f" (for {n})" * (names[n] != n) for n in missing]
        raise BgkitError(
            f"The log {path} lacks the column(s) {', '.join(lacks)}; it has {', '.join(raw)}. Map "
            'them, as in {"response": "completion"}.'
        )
    values = given = raw[names["p_unsafe"]]
    if not pd.api.types.is_float_dtype(values):  # true is no probability
        values = values.map(lambda value: None if isinstance(value, bool) else value)
    t = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
    wrong = ~((t >= 0) & (t <= 1))
    if wrong.any():
        value = given.tolist()[place := int(np.argmax(wrong))]
        nothing = pd.api.types.is_scalar(value) and pd.isna(value)
        raise BgkitError(
            f"Row {place + 1} of the log {path} has "
            f"{'nothing' if nothing else tables.shortened(value)} as {names['p_unsafe']!r}; it "
            "must be a probability from 0 to 1 (a logit needs a sigmoid, a percentage a division "
            "by 100, a decimal comma a point)."
        )
    said = chats.pairs(raw, path, names["prompt"], names["response"])
    table = said[["prompt", "response"]].fillna("").astype(str)
    table.insert(0, "kind", "unknown")
    table = table.assign(t=t, harm=np.nan, help=np.nan)
    if names["kind"] in raw:
        kinds = tables.labels(raw[names["kind"]], names["kind"], path)
        table["kind"] = kinds.fillna("unknown").astype(str)
    if names["harmful"] in raw:
        table["harm"] = tables.truth_values(raw[names["harmful"]], names["harmful"], path)
    return table
