"""Files that users bring, as tables: CSV, JSONL and Parquet, whole or piece by piece.

Whatever is wrong with a file is told in one :class:`~bgkit.errors.BgkitError` sentence that names
the file and, where there is one, the line. Rows are counted from 1, without a CSV's header and
without blank lines.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError

#: Words that stand for true, false and "not known" in a column of truth values.
TRUE = frozenset({"true", "yes", "1", "1.0", "harmful", "unsafe"})
FALSE = frozenset({"false", "no", "0", "0.0", "harmless", "safe"})
UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>"})


class Role(NamedTuple):
    """What a file is to the kit: how messages call it, and an example of one JSON line."""

    name: str
    example: str


def read_table(path: Path, role: Role) -> pd.DataFrame:
    """Read a whole file; cells that a row lacks are missing, those of a CSV file are text.

    Raises BgkitError for another ending than .csv (.tsv), .jsonl (.ndjson) or .parquet and for a
    file that can not be read. A file without rows gives a table without rows.
    """
    pieces = list(read_pieces(path, role))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame()


def read_pieces(
    path: Path, role: Role, columns: Collection[str] | None = None, rows: int | None = None
) -> Iterator[pd.DataFrame]:
    """Yield a file as tables of at most ``rows`` rows each, so that a huge one never is in memory.

    ``columns`` keeps only those of the names that the file has (None: all). Errors are those of
    :func:`read_table`; a later piece can still raise one.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    readers |= {".jsonl": _jsonl, ".ndjson": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BgkitError(f"The {role.name} {path} must end in .csv, .jsonl or .parquet.")
    try:
        yield from reader(path, role, columns, rows)
    except BgkitError:
        raise
    except pd.errors.EmptyDataError:
        return
    except Exception as error:  # each reader has errors of its own; all mean an unreadable file
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise BgkitError(f"The {role.name} {path} can not be read: {reason}.") from error


def _csv(
    path: Path, role: Role, columns: Collection[str] | None, rows: int | None
) -> Iterator[pd.DataFrame]:
    # All cells as text: a prompt "007", a response "None" and a kind "3" stay what they are.
    options = {"dtype": str, "keep_default_na": False, "na_values": [""]}
    options["sep"] = "\t" if path.suffix.lower() == ".tsv" else ","
    # All columns, too: told to read some of them, pandas overlooks rows with too many cells.
    read = pd.read_csv(path, chunksize=rows, **options)
    for piece in [read] if isinstance(read, pd.DataFrame) else read:
        if not isinstance(piece.index, pd.RangeIndex):  # pandas took the first cells for names
            raise BgkitError(
                f"The rows of the {role.name} {path} have more cells than its header; put texts "
                "that hold a comma in double quotes."
            )
        yield piece if columns is None else piece[[n for n in piece if n in columns]]


def _parquet(
    path: Path, role: Role, columns: Collection[str] | None, rows: int | None
) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [n for n in file.schema_arrow.names if columns is None or n in columns]
        for batch in file.iter_batches(rows or max(1, file.metadata.num_rows), columns=names):
            yield batch.to_pandas(ignore_metadata=True)


def _jsonl(
    path: Path, role: Role, columns: Collection[str] | None, rows: int | None
) -> Iterator[pd.DataFrame]:
    held: list[dict] = []
    # Only "\n" ends a line: other separators of Unicode may stand inside a text.
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = _object(line, number, path, role)
            held.append(row if columns is None else {k: row[k] for k in columns if k in row})
            if rows and len(held) == rows:
                yield pd.DataFrame(held)
                held = []
    if held:
        yield pd.DataFrame(held)


def _object(line: str, number: int, path: Path, role: Role) -> dict:
    """Return the JSON object of one line."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BgkitError(
            f"Line {number} of {path} is not valid JSON ({error}); each line must hold one "
            f"object such as {role.example}."
        ) from error
    if not isinstance(row, dict):
        raise BgkitError(
            f"Line {number} of {path} is not a JSON object such as {role.example}; write one "
            "object per line."
        )
    return row


def column_names(path: Path, role: Role) -> list[str]:
    """Names of a file's columns; of a JSONL file the keys of its first row.

    Raises BgkitError as :func:`read_table` does.
    """
    piece = next(read_pieces(path, role, rows=1), pd.DataFrame())
    return [str(name) for name in piece.columns]


def truth_values(column: pd.Series, name: str, path: Path, first: int = 1) -> np.ndarray:
    """Truth values (n,) as 1.0, 0.0 or NaN (not known) of booleans, 0 and 1, or words.

    ``first`` is the row number of the first value, for the message. Raises BgkitError for a value
    that is none of these.

    >>> truth_values(pd.Series([True, "no", None, "unsafe"]), "harmful", Path("log.csv"))
    array([ 1.,  0., nan,  1.])
    """
    codes, values = pd.factorize(column.astype(object).where(column.notna(), "").map(str))
    found = np.full(len(values), -1.0)
    for place, value in enumerate(values):
        word = value.strip().lower()
        if word in TRUE or word in FALSE:
            found[place] = float(word in TRUE)
        elif word in UNKNOWN:
            found[place] = np.nan
    truths = found[codes] if len(values) else np.zeros(0)
    if (truths == -1).any():
        row = int(np.argmax(truths == -1))
        raise BgkitError(
            f"Row {first + row} of {path} has {shortened(column.iloc[row])} as {name!r}; write "
            "true or false."
        )
    return truths


def shortened(value: object, limit: int = 60) -> str:
    """The ``repr`` of a value, cut to ``limit`` characters, for messages.

    >>> shortened("a" * 100, 9)
    "'aaaaaaa…"
    """
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
