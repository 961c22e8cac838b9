"""Users' files of responses, and logs of scored responses as the samples table that figures read.

A file (CSV, JSONL, Parquet) has a response per row: ``prompt`` and ``response``, as texts or chat
messages, or ``messages`` (:mod:`bgkit.prompts.chats`). A log also has ``p_unsafe``, the guard's
probability that the response is unsafe, and optionally ``harmful`` (true or false, 1 or 0, harmful
or safe) and ``kind`` (of prompt). Missing truth is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.models.packaged import ENGLISH
from bgkit.prompts import chats, tables

REQUIRED = ("prompt", "response", "p_unsafe")
COLUMNS = (*REQUIRED, "harmful", "kind")
#: Longer logs are sampled down to this: ±0.004 (95 %) on a share of 0.1, and sliders stay fast.
LIMIT = 20_000
CONVERSATION = "conversation_read"


def read_responses(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    required: Sequence[str] = REQUIRED[:2],
    role: str = "file of responses",
) -> pd.DataFrame:
    """A file's rows and columns, with prompt and response as texts.

    ``columns`` maps the kit's names to the file's own. :data:`CONVERSATION` is added if prompts
    have earlier turns: all turns as one text. Raises BgkitError for a file that cannot be read, has
    no rows, or lacks a ``required`` or mapped column.
    """
    path = Path(path)
    table = tables.read_table(path, role)
    names = {name: name for name in required} | dict(columns or {})
    has_chats = not {*chats.COLUMNS}.isdisjoint(table)
    for name, column in names.items():
        if column not in table and not (has_chats and name == column in REQUIRED[:2]):
            raise BgkitError(
                f"The {role} {path} has no column {column!r}"
                f"{f' (for {name})' * (name != column)} (it has {', '.join(map(str, table))}); "
                'rename one, or map a log\'s, as in {"response": "completion"}.'
            )
    texts = chats.pairs(table, path, names["prompt"], names["response"]).fillna("").astype(str)
    table = table.assign(prompt=texts["prompt"], response=texts["response"])
    if not texts["conversation"].equals(texts["prompt"]):
        table[CONVERSATION] = texts["conversation"]
    return table


def read_log(
    path: str | Path, columns: Mapping[str, str] | None = None, limit: int = LIMIT, seed: int = 0
) -> pd.DataFrame:
    """Read a log of scored responses; if it has more than ``limit`` rows, a random sample.

    ``path`` "english" is the log that comes with the kit: SmolLM2's responses to held-out prompts,
    scored by the guard ``english``, with labels. ``columns`` maps names of :data:`COLUMNS` to the
    file's own, as in {"response": "completion"}; prompt and response may be the same column of
    whole conversations.

    Returns the columns prompt_id (file name and row number), kind ("unknown" if missing), prompt,
    response, t, harm (1.0 harmful, 0.0 safe, NaN unknown) and help (NaN). ``attrs["rows"]`` is the
    number of rows in the file, ``attrs["note"]`` a sentence on the sampling, if any. Raises
    BgkitError for a file, column or row that cannot be used.
    """
    path, columns = Path(path), columns or {}
    if str(path) == ENGLISH and not path.exists():
        path = data_folder() / ENGLISH / "scored.jsonl"
    if limit < 1:
        raise BgkitError(f"The number of log rows to keep must be at least 1, not {limit}.")
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise BgkitError(
            f"A log has no column {unknown[0]!r} to map; map {', '.join(COLUMNS)} to the file's "
            'names, as in {"response": "completion"}.'
        )
    raw = read_responses(path, columns, REQUIRED, "log")
    score, truth, kind = (columns.get(name, name) for name in ("p_unsafe", "harmful", "kind"))
    t = pd.to_numeric(raw[score], errors="coerce").to_numpy(float, na_value=np.nan)
    invalid = raw[score].map(lambda value: isinstance(value, bool)) | ~((t >= 0) & (t <= 1))
    rule = "a probability from 0 to 1 (a logit needs a sigmoid, a percentage a division by 100, "
    tables.refuse_rows(invalid, raw[score], score, path, f"{rule}a decimal comma a point)")
    kinds = tables.labels(raw[kind], kind, path).fillna("unknown") if kind in raw else "unknown"
    harm = tables.truth_values(raw[truth], truth, path) if truth in raw else np.nan
    table = raw[["prompt", "response"]].assign(t=t, harm=harm, help=np.nan)
    table.insert(0, "kind", kinds)
    rows = table.sample(limit, random_state=seed).sort_index() if len(table) > limit else table
    note = (
        f"The log {path.name} has {len(table):,} rows; what follows is about a random sample of "
        f"{len(rows):,} of them (seed {seed})."
    )
    ids = [f"{path.name}/{row + 1:07d}" for row in rows.index]
    rows = rows.assign(prompt_id=ids)[["prompt_id", *table]].reset_index(drop=True)
    rows.attrs = {"rows": len(table), "note": note if len(rows) < len(table) else ""}
    return rows
