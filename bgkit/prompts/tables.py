"""Files that users bring, as tables: CSV, JSON Lines, JSON and Parquet.

Text is UTF-8, or UTF-16 where the file shows it; any file may be compressed by gzip. Rows are
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

from bgkit.errors import BgkitError
from bgkit.texts import encodable

#: Words that stand for true, false and "not known" in a column of truth values.
TRUTHS: dict[str, float] = {
    **dict.fromkeys(("true", "yes", "1", "1.0", "harmful", "unsafe"), 1.0),
    **dict.fromkeys(("false", "no", "0", "0.0", "harmless", "safe"), 0.0),
    **dict.fromkeys(("", "nan", "na", "n/a", "none", "null", "<na>"), np.nan),
}


def ending(path: Path) -> str:
    """The ending that tells a file's format, without that of its compression.

    >>> ending(Path("runs/LOG.CSV.gz")), ending(Path("log.jsonl"))
    ('.csv', '.jsonl')
    """
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_table(path: Path, role: str) -> pd.DataFrame:
    """Read a whole file; what a JSON object lacks is missing, the cells of a CSV file are text.

    ``role`` is what messages call it, such as "prompt file".
    Raises BgkitError for another ending than those of :data:`READERS`, for a file that can not be
    read, and for columns of the same name. A file without rows gives a table without rows.
    """
    reader = READERS.get(ending(path))
    if reader is None:
        raise BgkitError(
            f"The {role} {path} must end in .csv, .jsonl or .parquet (or .tsv, .json; .gz may "
            "stand behind it)."
        )
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        table = reader(content)
    except Exception as error:  # each reader has errors of its own; all mean an unreadable file
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        more = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise BgkitError(f"The {role} {path} can not be read: {reason}{more}.") from error
    names = pd.Index([str(name).strip() or f"Unnamed: {i}" for i, name in enumerate(table)])
    if doubled := names[names.duplicated()].tolist():
        raise BgkitError(
            f"The column {doubled[0]!r} stands {names.tolist().count(doubled[0])} times in the "
            f"{role} {path}; rename or delete all but one."
        )
    return table.set_axis(names, axis=1)


def _text(content: bytes) -> str:
    return content.decode(json.detect_encoding(content[:4]))


def _csv(content: bytes, separator: str = ",") -> pd.DataFrame:
    # All cells as text: a prompt "007", a response "None" and a kind "3" stay what they are. Not by
    # pandas, which renames columns, cuts texts at NUL, and fills short rows.
    csv.field_size_limit(2**31 - 1)  # characters of a cell: long contexts have more than 131,072
    stream = io.StringIO(_text(content), newline="")
    named = next(filter(str.strip, stream), "")  # the line of the header
    named = re.sub('"[^"]*"?', "", named)  # what stands outside quotes
    if separator not in named and (other := set(";\t").intersection(named)):
        wanted = {",": "commas", "\t": "tabs"}[separator]
        raise ValueError(f"its columns are divided by {other.pop()!r}; save it with {wanted}")
    stream.seek(0)
    lines = csv.reader(stream, delimiter=separator, strict=True)
    header, rows = next(filter(None, lines), []), []
    try:
        for cells in filter(None, lines):
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, where the header has {len(header)}")
            rows.append([cell or None for cell in cells])
    except csv.Error as error:
        raise ValueError(
            f"line {lines.line_num} is no CSV ({error}); put texts with a comma, a quote or a line "
            "break in double quotes, and double the quotes inside"
        ) from error
    return pd.DataFrame(rows, columns=header, dtype=object)


def _jsonl(content: bytes) -> pd.DataFrame:
    rows = []
    # Only "\n" ends a line: other separators of Unicode may stand inside a text.
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
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fault} ({error})") from error
    if not (isinstance(found, list) and all(isinstance(row, dict) for row in found)):
        raise ValueError(fault)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        found = json.loads(encodable(json.dumps(found, ensure_ascii=False)))
    return found


#: What reads a file with an ending.
READERS: dict[str, Callable[[bytes], pd.DataFrame]] = {
    ".csv": _csv,
    ".tsv": lambda content: _csv(content, "\t"),
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": lambda content: pd.read_parquet(io.BytesIO(content)),
}


def truth_values(column: pd.Series, name: str, path: Path) -> np.ndarray:
    """Truth values (n,) as 1.0, 0.0 or NaN (not known) of booleans, 0 and 1, or words.

    Raises BgkitError, with its row, for a value that is none of these.

    >>> truth_values(pd.Series([True, "no", None, "unsafe"]), "harmful", Path("log.csv"))
    array([ 1.,  0., nan,  1.])
    """
    words = column.astype(object).where(column.notna(), "").map(lambda v: str(v).strip().lower())
    refuse(~words.isin(TRUTHS), column, name, path, "true or false")
    return words.map(TRUTHS).to_numpy(float)


def labels(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Names such as kinds as text, None where there is none; BgkitError for lists and bytes."""
    column = column.astype(object)  # a pandas category has no truth values
    odd = column.map(lambda cell: isinstance(cell, list | tuple | dict | np.ndarray | bytes))
    refuse(odd, column, name, path, "a name")
    named = column.map(str, na_action="ignore").astype(object)
    return named.where(column.notna(), None)


def texts(column: pd.Series, name: str, path: Path) -> pd.Series:
    """A column of texts; raises BgkitError, with its row, for a cell without one."""
    column = column.astype(object)
    blank = column.map(lambda text: not isinstance(text, str) or not text.strip())
    refuse(blank, column, name, path, "a text, or delete the row")
    return column


def refuse(wrong: pd.Series, column: pd.Series, name: str, path: Path, wanted: str) -> None:
    """Raise BgkitError for the first row that is wrong; ``wanted`` is what to write instead."""
    if wrong.any():
        place = int(wrong.to_numpy().argmax())
        raise BgkitError(
            f"Row {column.index[place] + 1} of {path} has {shortened(column.iloc[place])} as "
            f"{name!r}; write {wanted}."
        )


def shortened(value: object, limit: int = 60) -> str:
    """The ``repr`` of a value, cut to ``limit`` characters, for messages.

    >>> shortened("a" * 100, 9)
    "'aaaaaaa…"
    """
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
