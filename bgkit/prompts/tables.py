"""Files that users bring, as tables: CSV, JSON Lines, JSON and Parquet, whole or piece by piece.

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
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

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


class File(NamedTuple):
    """A file that is being read."""

    path: Path
    role: Role
    stream: BinaryIO

    def __str__(self) -> str:
        return f"{self.role.name} {self.path}"

    def text(self, newline: str) -> io.TextIOWrapper:
        """The stream as text of the encoding that its first bytes show."""
        encoding = json.detect_encoding(self.stream.peek(4)[:4])
        return io.TextIOWrapper(self.stream, encoding, newline=newline)


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
    pieces = list(read_pieces(path, role))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame()


def read_pieces(
    path: Path, role: Role, columns: Collection[str] | None = None, rows: int | None = None
) -> Iterator[pd.DataFrame]:
    """Yield a file as tables of at most ``rows`` rows each, so that a huge one never is in memory.

    ``columns`` keeps only those of the names that the file has (None: all). Errors are those of
    :func:`read_table`; a later piece can still raise one.
    """
    reader = READERS.get(ending(path))
    if reader is None:
        raise BgkitError(
            f"The {role.name} {path} must end in .csv, .jsonl or .parquet (or .tsv, .json; .gz may "
            "stand behind it)."
        )
    try:
        with _opened(path) as stream:
            file = File(path, role, stream)
            for piece in reader(file, columns, rows):
                piece.columns = _names(file, list(map(str, piece.columns)))
                yield piece if columns is None else piece[[n for n in piece if n in columns]]
    except BgkitError:
        raise
    except Exception as error:  # each reader has errors of its own; all mean an unreadable file
        if isinstance(error, UnicodeDecodeError) and error.encoding == "utf-8":
            raise BgkitError(
                f"The {role.name} {path} is not UTF-8 text{_undecodable(path)}; it may be "
                "Windows-1252 or Latin-1: save it as UTF-8, or convert it by `iconv -f CP1252 -t "
                "UTF-8`."
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise BgkitError(f"The {role.name} {path} can not be read: {reason}.") from error


def _opened(path: Path) -> BinaryIO:
    """A file's bytes, decompressed."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def _undecodable(path: Path) -> str:
    """Where the first bytes stand that are no UTF-8, in words."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f" (byte 0x{line[error.start]:02x} in line {number})"
    return ""


def _names(file: File, names: list[str]) -> list[str]:
    """A file's column names without space around them, each of which may stand once."""
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(names)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BgkitError(
            f"The column {twice[0]!r} stands {names.count(twice[0])} times in the {file}; rename "
            "or delete all but one."
        )
    return names


def _csv(file: File, _: object, rows: int | None) -> Iterator[pd.DataFrame]:
    # All cells as text: a prompt "007", a response "None" and a kind "3" stay what they are. Not by
    # pandas, which renames columns, cuts texts at NUL, and fills short rows.
    csv.field_size_limit(2**31 - 1)  # characters of a cell: long contexts have more than 131,072
    tab = ending(file.path) == ".tsv"
    lines = csv.reader(file.text(""), delimiter="\t" if tab else ",", strict=True)
    try:
        header = next(filter(None, lines), None)
        if header is None:
            return
        if len(header) == 1 and (mark := re.search(r"[;\t|,]", header[0])):
            raise BgkitError(
                f"The columns of the {file} are separated by {mark[0]!r} ({shortened(header[0])}); "
                f"save it with {'tabs' if tab else 'commas'} between them, and with decimal "
                "points (0.5, not 0,5)."
            )
        cells = (_row(file, cells, len(header), lines.line_num) for cells in lines if cells)
        yield from _pieces(cells, rows, header)
    except csv.Error as error:
        raise BgkitError(
            f"The {file} can not be read: line {lines.line_num} is no CSV ({error}); put texts "
            "with a comma, a quote or a line break in double quotes, and double the quotes inside."
        ) from error


def _row(file: File, cells: list[str], width: int, line: int) -> list[str | None]:
    if len(cells) != width:
        raise BgkitError(
            f"The {file} can not be read: line {line} has "
            f"{'more' if len(cells) > width else 'fewer'} cells than its header ({len(cells)}, not "
            f"{width}); put texts that hold a comma or a line break in double quotes."
        )
    return [cell or None for cell in cells]


def _parquet(
    file: File, columns: Collection[str] | None, rows: int | None
) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.stream) as parquet:
        found = parquet.schema_arrow.names
        _names(file, found)
        names = [n for n in found if columns is None or n.strip() in columns]
        size = rows or max(1, parquet.metadata.num_rows)
        for batch in parquet.iter_batches(size, columns=names):
            piece = pd.DataFrame(dict(enumerate(map(_plain, batch.columns))))
            yield piece.set_axis(batch.schema.names, axis=1)


def _plain(column) -> pd.Series:
    """A column of Parquet: lists and structs as Python's, bytes as text where they are UTF-8."""
    import pyarrow as pa

    kind, is_ = column.type, pa.types
    if is_.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if is_.is_nested(kind):
        return pd.Series(column.to_pylist(maps_as_pydicts="strict"), dtype=object)
    if "string" in str(kind) or "binary" in str(kind):
        column = column.cast(pa.large_binary())
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid:
            return pd.Series(map(_text_of, column.to_pylist()), dtype=object)
    return column.to_pandas()


def _text_of(cell: bytes | None) -> str | bytes | None:
    try:
        return cell if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell


def _jsonl(file: File, _: object, rows: int | None) -> Iterator[pd.DataFrame]:
    # Only "\n" ends a line: other separators of Unicode may stand inside a text.
    lines = enumerate(file.text("\n"), start=1)
    yield from _pieces((_object(file, *line) for line in lines if line[1].strip()), rows)


def _pieces(
    items: Iterator[dict | list], rows: int | None, names: list[str] | None = None
) -> Iterator[pd.DataFrame]:
    while held := list(islice(items, rows)):
        yield pd.DataFrame(held, columns=names)


def _object(file: File, number: int, line: str) -> dict:
    """The JSON object of one line."""
    try:
        row = _loads(line)
    except BgkitError as error:
        raise BgkitError(f"Line {number} of {file.path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BgkitError(
            f"Line {number} of {file.path} is not valid JSON ({error}); each line must hold one "
            f"object such as {file.role.example}."
        ) from error
    if not isinstance(row, dict):
        raise BgkitError(
            f"Line {number} of {file.path} is not a JSON object such as {file.role.example}; write "
            "one object per line (a list of them is a .json file)."
        )
    return row


def _json(file: File, _: object, rows: int | None) -> Iterator[pd.DataFrame]:
    text = file.text("\n").read()
    try:
        found = _loads(text)
    except BgkitError as error:
        raise BgkitError(f"The {file} can not be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BgkitError(
            f"The {file} can not be read: it is not valid JSON ({error}); if it holds one object "
            "per line, let its name end in .jsonl."
        ) from error
    if not (isinstance(found, list) and all(isinstance(row, dict) for row in found)):
        keys = f", not an object with {', '.join(map(repr, found))}" * isinstance(found, dict)
        raise BgkitError(
            f"The {file} must hold a JSON list of objects such as {file.role.example}{keys}; save "
            "just that list."
        )
    yield from _pieces(iter(found), rows)


def _loads(text: str) -> object:
    """JSON whose objects have each key once; half an emoji becomes "?"."""
    value = json.loads(text, object_pairs_hook=_distinct)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        value = json.loads(encodable(json.dumps(value, ensure_ascii=False)))
    return value


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise BgkitError(f"the key {twice!r} stands twice in an object; delete all but one.")
    return found


#: What reads a file with an ending, in pieces of at most so many rows.
READERS: dict[str, Callable[..., Iterator[pd.DataFrame]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}


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


def labels(column: pd.Series, name: str, path: Path, first: int = 1) -> pd.Series:
    """Names such as kinds as text, None where there is none; BgkitError for lists and bytes."""
    cells = column.astype(object).where(column.notna(), None).tolist()
    for place, cell in enumerate(cells):
        if isinstance(cell, list | tuple | dict | np.ndarray | bytes):
            raise BgkitError(
                f"Row {first + place} of {path} has {shortened(cell)} as {name!r}; write a name."
            )
    return pd.Series([None if c is None else str(c) for c in cells], column.index, dtype=object)


def shortened(value: object, limit: int = 60) -> str:
    """The ``repr`` of a value, cut to ``limit`` characters, for messages.

    >>> shortened("a" * 100, 9)
    "'aaaaaaa…"
    """
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
