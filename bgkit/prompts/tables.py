"""Read users' files as tables: CSV, JSON Lines, JSON and Parquet.

Text is UTF-8, or UTF-16 if the file starts like it; any file may be compressed with gzip. Rows are
counted from 1, without a CSV's header and blank lines.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError, reason_of
from bgkit.texts import replace_surrogates

#: Words for true, false and unknown in a column of truth values.
TRUTHS: dict[str, float] = {
    **dict.fromkeys(("true", "yes", "1", "1.0", "harmful", "unsafe"), 1.0),
    **dict.fromkeys(("false", "no", "0", "0.0", "harmless", "safe"), 0.0),
    **dict.fromkeys(("", "nan", "na", "n/a", "none", "null", "<na>"), np.nan),
}


def ending(path: Path) -> str:
    """The file ending that indicates the format, without ``.gz``.

    >>> ending(Path("runs/LOG.CSV.gz")), ending(Path("log.jsonl"))
    ('.csv', '.jsonl')
    """
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_table(path: Path, role: str) -> pd.DataFrame:
    """Read a whole file; keys that a JSON object lacks are missing, CSV cells are text.

    ``role`` is the file's name in messages, such as "prompt file". Raises BgkitError for an ending
    that is not in :data:`READERS`, for a file that cannot be read or has no rows, and for repeated
    column names.
    """
    reader = READERS.get(ending(path))
    if reader is None:
        raise BgkitError(
            f"The {role} {path} must end in .csv, .jsonl or .parquet (or .tsv, .json; .gz may "
            "follow)."
        )
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        table = reader(content)
    except Exception as error:  # each reader raises its own errors
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise BgkitError(f"The {role} {path} cannot be read: {reason_of(error)}{hint}.") from error
    names = pd.Index([str(name).strip() or f"Unnamed: {i}" for i, name in enumerate(table)])
    if repeated := names[names.duplicated()].tolist():
        raise BgkitError(
            f"The column {repeated[0]!r} occurs {names.tolist().count(repeated[0])} times in the "
            f"{role} {path}; rename or delete all but one."
        )
    if table.empty:
        raise BgkitError(f"The {role} {path} holds no rows.")
    return table.set_axis(names, axis=1).reset_index(drop=True)  # Parquet may store an index


def require(table: pd.DataFrame, column: str, where: object, remedy: str) -> None:
    """Raise BgkitError for a missing column of the table that was read from ``where``."""
    if column not in table:
        columns = ", ".join(map(str, table))
        raise BgkitError(f"{where} has no column {column!r} (it has {columns}); {remedy}.")


def _text(content: bytes) -> str:
    return content.decode(json.detect_encoding(content[:4]))


def _csv(content: bytes, separator: str = ",") -> pd.DataFrame:
    # All cells as text: a prompt "007", a response "None" and a kind "3" are kept. pandas would
    # rename columns, cut texts at NUL, and fill short rows.
    csv.field_size_limit(2**31 - 1)  # characters per cell; the default, 131,072, is too few
    stream = io.StringIO(_text(content), newline="")
    first_line = re.sub('"[^"]*"?', "", next(filter(str.strip, stream), ""))  # without quoted text
    if separator not in first_line and (other := set(";\t").intersection(first_line)):
        wanted = {",": "commas", "\t": "tabs"}[separator]
        raise ValueError(f"its columns are separated by {other.pop()!r}; save it with {wanted}")
    stream.seek(0)
    lines = csv.reader(stream, delimiter=separator, strict=True)
    header, rows = next(filter(None, lines), []), []
    try:
        for cells in filter(None, lines):
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, but the header has {len(header)}")
            rows.append([cell or None for cell in cells])
    except csv.Error as error:
        raise ValueError(
            f"line {lines.line_num} is no CSV ({error}); put texts with a comma, a quote or a line "
            "break in double quotes, and double the quotes inside"
        ) from error
    return pd.DataFrame(rows, columns=header, dtype=object)


def _jsonl(content: bytes) -> pd.DataFrame:
    rows = []
    # Only "\n" ends a line: a text may contain other Unicode line separators.
    for number, line in enumerate(_text(content).split("\n"), start=1):
        if line.strip():
            rows += _objects(f"[{line}]", f"line {number} is not a JSON object")
    return pd.DataFrame(rows)


def _json(content: bytes) -> pd.DataFrame:
    return pd.DataFrame(_objects(_text(content), "it is not a JSON list of objects"))


def _objects(text: str, fault: str) -> list[dict]:
    """A JSON list of objects; half an emoji (a lone surrogate) becomes "?"."""
    fault += ' such as {"prompt": "..."}'
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fault} ({error})") from error
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError(fault)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        rows = json.loads(replace_surrogates(json.dumps(rows, ensure_ascii=False)))
    return rows


#: file ending -> reader
READERS: dict[str, Callable[[bytes], pd.DataFrame]] = {
    ".csv": _csv,
    ".tsv": lambda content: _csv(content, "\t"),
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": lambda content: pd.read_parquet(io.BytesIO(content)),
}


def truth_values(column: pd.Series, name: str, path: Path) -> np.ndarray:
    """Truth values (n,) of booleans, 0 and 1, or words, as 1.0, 0.0 or NaN (unknown).

    Raises BgkitError, with the row, for other values.

    >>> truth_values(pd.Series([True, "no", None, "unsafe"]), "harmful", Path("log.csv"))
    array([ 1.,  0., nan,  1.])
    """
    words = column.astype(object).where(column.notna(), "").map(lambda v: str(v).strip().lower())
    refuse_rows(~words.isin(TRUTHS), column, name, path, "true or false")
    return words.map(TRUTHS).to_numpy(float)


def labels(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Names, such as kinds, as text or None; BgkitError for lists and bytes."""
    column = column.astype(object)  # also from a pandas category
    is_nested = column.map(lambda cell: isinstance(cell, list | tuple | dict | np.ndarray | bytes))
    refuse_rows(is_nested, column, name, path, "a name")
    return column.map(str, na_action="ignore").astype(object).where(column.notna(), None)


def texts(column: pd.Series, name: str, path: Path) -> pd.Series:
    """A column of texts; raises BgkitError, with the row, for a cell without text."""
    column = column.astype(object)
    blank = column.map(lambda text: not isinstance(text, str) or not text.strip())
    refuse_rows(blank, column, name, path, "a text, or delete the row")
    return column


def refuse_rows(wrong: pd.Series, column: pd.Series, name: str, path: Path, wanted: str) -> None:
    """Raise BgkitError for the first wrong row; ``wanted`` is what to write instead."""
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise BgkitError(
            f"Row {column.index[first] + 1} of {path} has {short_repr(column.iloc[first])} as "
            f"{name!r}; write {wanted}."
        )


def short_repr(value: object, limit: int = 60) -> str:
    """The ``repr`` of a value, cut to ``limit`` characters, for messages.

    >>> short_repr("a" * 100, 9)
    "'aaaaaaa…"
    """
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
