"""Files that users bring, as tables: CSV, JSON Lines, JSON and Parquet.

Text is UTF-8, or UTF-16 where the file shows it; any file may be compressed by gzip. Half an emoji
(a lone surrogate) is read as "?". Whatever is wrong with a file is told in one
:class:`~bgkit.errors.BgkitError` sentence that names the file and, where there is one, the line.
Rows are counted from 1, without a CSV's header and without blank lines.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError
from bgkit.texts import encodable

#: Words that stand for true, false and "not known" in a column of truth values.
TRUE = frozenset({"true", "yes", "1", "1.0", "harmful", "unsafe"})
FALSE = frozenset({"false", "no", "0", "0.0", "harmless", "safe"})
UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>"})


class Role(NamedTuple):
    """What a file is to the kit: how messages call it, and an example of one JSON line."""

    name: str
    example: str


def ending(path: Path) -> str:
    """The ending that tells a file's format, without that of its compression.

    >>> ending(Path("runs/LOG.CSV.gz")), ending(Path("log.jsonl"))
    ('.csv', '.jsonl')
    """
    path = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return path.suffix.lower()


def read_table(path: Path, role: Role) -> pd.DataFrame:
    """Read a whole file; what a JSON object lacks is missing, the cells of a CSV file are text.

    Raises BgkitError for another ending than those of :data:`READERS`, for a file that can not be
    read, and for columns of the same name. A file without rows gives a table without rows.
    """
    reader = READERS.get(ending(path))
    if reader is None:
        raise BgkitError(
            f"The {role.name} {path} must end in .csv, .jsonl or .parquet (or .tsv, .json; .gz may "
            "stand behind it)."
        )
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        table = reader(content, path, role)
    except BgkitError:
        raise
    except Exception as error:  # each reader has errors of its own; all mean an unreadable file
        if isinstance(error, UnicodeDecodeError) and error.encoding.startswith("utf-8"):
            line = content.count(b"\n", 0, error.start) + 1
            raise BgkitError(
                f"The {role.name} {path} is not UTF-8 text (byte 0x{content[error.start]:02x} in "
                f"line {line}); it may be Windows-1252 or Latin-1: save it as UTF-8, or convert it "
                "by `iconv -f CP1252 -t UTF-8`."
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise BgkitError(f"The {role.name} {path} can not be read: {reason}.") from error
    return table.set_axis(_names(list(map(str, table)), f"{role.name} {path}"), axis=1)


def _names(names: list[str], file: str) -> list[str]:
    """A file's column names without space around them, each of which may stand once."""
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(names)]
    for name, count in Counter(names).items():
        if count > 1:
            raise BgkitError(
                f"The column {name!r} stands {count} times in the {file}; rename or delete all but "
                "one."
            )
    return names


def _text(content: bytes) -> str:
    return content.decode(json.detect_encoding(content[:4]))


def _csv(content: bytes, path: Path, role: Role) -> pd.DataFrame:
    # All cells as text: a prompt "007", a response "None" and a kind "3" stay what they are. Not by
    # pandas, which renames columns, cuts texts at NUL, and fills short rows.
    csv.field_size_limit(2**31 - 1)  # characters of a cell: long contexts have more than 131,072
    tab, file = ending(path) == ".tsv", f"{role.name} {path}"
    stream = io.StringIO(_text(content), newline="")
    lines = csv.reader(stream, delimiter="\t" if tab else ",", strict=True)
    rows: list[list[str | None]] = []
    try:
        header = next(filter(None, lines), None)
        if header is None:
            return pd.DataFrame()
        if len(header) == 1 and (mark := re.search(r"[;\t|,]", header[0])):
            raise BgkitError(
                f"The columns of the {file} are separated by {mark[0]!r} ({shortened(header[0])}); "
                f"save it with {'tabs' if tab else 'commas'} between them, and with decimal "
                "points (0.5, not 0,5)."
            )
        for cells in filter(None, lines):
            if len(cells) != len(header):
                raise BgkitError(
                    f"The {file} can not be read: line {lines.line_num} has "
                    f"{'more' if len(cells) > len(header) else 'fewer'} cells than its header "
                    f"({len(cells)}, not {len(header)}); put texts that hold a comma or a line "
                    "break in double quotes."
                )
            rows.append([cell or None for cell in cells])
    except csv.Error as error:
        raise BgkitError(
            f"The {file} can not be read: line {lines.line_num} is no CSV ({error}); put texts "
            "with a comma, a quote or a line break in double quotes, and double the quotes inside."
        ) from error
    _names(header, file)
    return pd.DataFrame(rows, columns=header, dtype=object)


def _parquet(content: bytes, path: Path, role: Role) -> pd.DataFrame:
    table = pd.read_parquet(io.BytesIO(content))
    plain = table.select_dtypes("category").columns
    return table.astype(dict.fromkeys(plain, object))


def _jsonl(content: bytes, path: Path, role: Role) -> pd.DataFrame:
    rows = []
    # Only "\n" ends a line: other separators of Unicode may stand inside a text.
    for number, line in enumerate(_text(content).split("\n"), start=1):
        if not line.strip():
            continue
        row = _loads(line, f"Line {number} of {path}", f"each line must hold one {role.example}")
        if not isinstance(row, dict):
            raise BgkitError(
                f"Line {number} of {path} is not a JSON object such as {role.example}; write one "
                "object per line (a list of them is a .json file)."
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _json(content: bytes, path: Path, role: Role) -> pd.DataFrame:
    remedy = "if it holds one object per line, let its name end in .jsonl"
    found = _loads(_text(content), f"The {role.name} {path}", remedy)
    if not (isinstance(found, list) and all(isinstance(row, dict) for row in found)):
        raise BgkitError(
            f"The {role.name} {path} must hold a JSON list of objects such as {role.example}; save "
            "just that list."
        )
    return pd.DataFrame(found)


def _loads(text: str, where: str, remedy: str) -> object:
    """JSON whose objects have each key once; half an emoji becomes "?"."""

    def distinct(pairs: list[tuple[str, object]]) -> dict:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise BgkitError(
                    f"{where}: the key {key!r} stands twice in an object; delete all but one."
                )
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise BgkitError(f"{where} is not valid JSON ({error}); {remedy}.") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        value = json.loads(encodable(json.dumps(value, ensure_ascii=False)))
    return value


#: What reads a file with an ending.
READERS: dict[str, Callable[[bytes, Path, Role], pd.DataFrame]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}


def truth_values(column: pd.Series, name: str, path: Path) -> np.ndarray:
    """Truth values (n,) as 1.0, 0.0 or NaN (not known) of booleans, 0 and 1, or words.

    Raises BgkitError, with its row, for a value that is none of these.

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
            f"Row {row + 1} of {path} has {shortened(column.iloc[row])} as {name!r}; write "
            "true or false."
        )
    return truths


def labels(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Names such as kinds as text, None where there is none; BgkitError for lists and bytes."""
    cells = column.astype(object).where(column.notna(), None).tolist()
    for place, cell in enumerate(cells):
        if isinstance(cell, list | tuple | dict | np.ndarray | bytes):
            raise BgkitError(
                f"Row {place + 1} of {path} has {shortened(cell)} as {name!r}; write a name."
            )
    return pd.Series([None if c is None else str(c) for c in cells], column.index, dtype=object)


def shortened(value: object, limit: int = 60) -> str:
    """The ``repr`` of a value, cut to ``limit`` characters, for messages.

    >>> shortened("a" * 100, 9)
    "'aaaaaaa…"
    """
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
