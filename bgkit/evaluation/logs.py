"""A user's own log of scored responses, as the samples table that every figure reads.

A log is a CSV, JSONL or Parquet file with one response per row: ``prompt``, ``response``,
``p_unsafe`` (the guard's probability that the response is unsafe) and, where they are known,
``harmful`` (the truth: true or false, 1 or 0, harmful or safe) and ``kind`` (of prompt). Columns
of other names can be mapped. Prompts and responses may be chat messages, also of one column
``messages`` (:mod:`bgkit.prompts.chats`); what was said before the last prompt is not shown.
Without truth, what needs it is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
_PIECE = 50_000  # rows in memory at once, beside the sample


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
    known) and help (NaN: a log does not tell it). ``attrs["rows"]`` is the number of rows in the
    file, ``attrs["note"]`` a sentence on the sampling, empty if all rows were kept. All rows are
    checked, also those that the sample leaves out.

    Raises BgkitError for a file that is missing, unreadable, empty or broken (with its line), a
    missing column, a prompt or response that is neither text nor messages, a probability that is
    missing or not in [0, 1], a truth that is neither true nor false (with their row), a mapping of
    unknown names, and a ``limit`` below 1.
    """
    path, names = Path(path), _names(columns or {})
    if str(path) == ENGLISH and not path.exists():
        path = data_folder() / ENGLISH / "scored.jsonl"
    if limit < 1:
        raise BgkitError(f"The number of rows to keep of a log must be at least 1, not {limit}.")
    if not path.is_file():
        raise BgkitError(
            f"There is no log {path}: give the path of a .csv, .jsonl or .parquet file with the "
            f"columns {', '.join(NEEDED)}."
        )
    asked = {name for name in (columns or {}) if name not in NEEDED}
    table, total = _sample(_parts(path, names, asked), limit, seed)
    if not total:
        raise BgkitError(f"The log {path} holds no rows; it must hold one response per row.")
    for optional, default in (("kind", None), ("harm", np.nan)):
        if optional not in table:
            table[optional] = default
    ids = [f"{path.name}/{row:07d}" for row in table["row"]]
    table = table.assign(
        prompt_id=ids, kind=table["kind"].fillna("unknown").astype(str), help=np.nan
    )
    table = table[["prompt_id", "kind", "prompt", "response", "t", "harm", "help"]]
    table.attrs = {"rows": total, "note": ""}
    if total > len(table):
        table.attrs["note"] = (
            f"The log {path.name} has {total:,} rows; what follows is about a random sample of "
            f"{len(table):,} of them (seed {seed})."
        )
    return table


def _names(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the file's name of each column, after a check of the mapping."""
    for name in columns:
        if name not in COLUMNS:
            raise BgkitError(
                f"A log has no column {name!r} to map; map {', '.join(COLUMNS)} to the file's "
                'names, as in {"response": "completion"}.'
            )
    return {name: columns.get(name, name) for name in COLUMNS}


def _parts(path: Path, names: dict[str, str], asked: set[str]) -> Iterator[pd.DataFrame]:
    """Yield the checked rows of a log, piece by piece.

    ``asked`` are the optional columns that the user mapped, which must therefore be there.
    """
    first = 1
    for piece in tables.read_pieces(path, ROLE, {*names.values(), *chats.COLUMNS}, _PIECE):
        if first == 1:
            there = {name for name in names if names[name] in piece}
            if not {*chats.COLUMNS}.isdisjoint(piece):
                there |= {name for name in ("prompt", "response") if names[name] == name}
            _check_columns(path, names, {*NEEDED, *asked} - there)
        yield _checked(piece.reset_index(drop=True), path, names, first)
        first += len(piece)


def _check_columns(path: Path, names: dict[str, str], missing: set[str]) -> None:
    if missing:
        lacks = ", ".join(
            repr(name) if names[name] == name else f"{names[name]!r} (for {name})"
            for name in COLUMNS
            if name in missing
        )
        has = ", ".join(tables.column_names(path, ROLE))
        raise BgkitError(
            f"The log {path} lacks the column(s) {lacks}; it has {has}. Map them, as in "
            '{"response": "completion"}.'
        )


def _checked(piece: pd.DataFrame, path: Path, names: dict[str, str], first: int) -> pd.DataFrame:
    """Return one piece's rows with the kit's names; ``first`` is the number of its first row."""
    empty = pd.Series(None, piece.index, dtype=object)
    column = {name: piece.get(source, empty) for name, source in names.items()}
    values = column["p_unsafe"]
    if not pd.api.types.is_float_dtype(values):  # true is no probability
        values = values.map(lambda value: None if isinstance(value, bool) else value)
    t = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
    wrong = ~((t >= 0) & (t <= 1))
    if wrong.any():
        place = int(np.argmax(wrong))
        value = column["p_unsafe"].tolist()[place]
        what = "nothing" if pd.api.types.is_scalar(value) and pd.isna(value) else None
        raise BgkitError(
            f"Row {first + place} of the log {path} has {what or tables.shortened(value)} as "
            f"{names['p_unsafe']!r}; it must be a probability from 0 to 1 (a logit needs a "
            "sigmoid, a percentage a division by 100, a decimal comma a point)."
        )
    table = pd.DataFrame({"row": np.arange(first, first + len(piece)), "t": t})
    said = chats.pairs(piece, path, names["prompt"], names["response"], first=first)
    table[["prompt", "response"]] = said[["prompt", "response"]].fillna("").astype(str)
    if names["kind"] in piece:
        table["kind"] = tables.labels(column["kind"], names["kind"], path, first)
    if names["harmful"] in piece:
        table["harm"] = tables.truth_values(column["harmful"], names["harmful"], path, first)
    return table


def _sample(parts: Iterable[pd.DataFrame], limit: int, seed: int) -> tuple[pd.DataFrame, int]:
    """Return a uniform sample of at most ``limit`` rows in their order, and how many there were.

    Each row draws a random number, and the rows with the smallest ones stay: one pass, and never
    more than a piece and a sample in memory.
    """
    # Not default_rng(seed) itself: made-up scores of a user may come from just that stream.
    rng, kept, total = np.random.default_rng([len(COLUMNS), seed]), pd.DataFrame(), 0
    for part in parts:
        part["draw"] = rng.random(len(part))
        kept = pd.concat([kept, part], ignore_index=True) if total else part
        total += len(part)
        if len(kept) > limit:
            kept = kept.nsmallest(limit, "draw")
    if total:
        kept = kept.sort_values("row").drop(columns="draw").reset_index(drop=True)
    return kept, total
