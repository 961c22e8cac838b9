"""A notebook's parameters cell: plain values under names, which papermill can set.

papermill writes the values that it is given into a cell of their own, right behind the cell tagged
``parameters``: what that cell computes from its own values would not follow. So the cell may hold
only plain values, ``NAME = value  # comment``, if wanted with a type.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field

from bgkit.errors import BgkitError

#: Types whose values papermill can write.
WRITTEN = (bool, int, float, str, list, dict, type(None))
_WORD = re.compile(r"[\w./+-]+")
_TYPES = {kind.__name__: kind for kind in WRITTEN} | {"None": type(None)}


@dataclass(frozen=True)
class Parameters:
    """What a parameters cell sets: each name's default, and the types that it takes."""

    defaults: dict[str, object] = field(default_factory=dict)
    takes: dict[str, tuple[type, ...]] = field(default_factory=dict)

    def check(self, name: str, value: object, book: str) -> None:
        """Raise BgkitError for a name that is not there, or a value that it does not take."""
        if name not in self.takes:
            names = ", ".join(self.takes) or "none"
            raise BgkitError(f"{book} has no parameter {name!r}; it has {names}.")
        value = exact(value, self.takes[name])
        if type(value) not in self.takes[name] or not writable(value):
            raise self.wrong(name, value, book)

    def wrong(self, name: str, value: object, book: str) -> BgkitError:
        """The error of a value that a parameter does not take."""
        kinds = " or ".join(kind.__name__ for kind in self.takes[name])
        return BgkitError(
            f"{book} takes {name} as {kinds.replace('NoneType', 'None')}, such as "
            f"{self.defaults[name]!r}, not {value!r}."
        )


def writable(value: object) -> bool:
    """Whether papermill writes a value as what it is.

    >>> [writable(value) for value in (None, [1, {"a": 0.5}], (1, 2), {1: "a"}, b"")]
    [True, True, False, False, False]
    """
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(writable, value.values()))
    return all(map(writable, value)) if type(value) is list else type(value) in WRITTEN


def exact(value: object, takes: tuple[type, ...]) -> object:
    """A value as its parameter takes it: an int as a float where only that is taken."""
    return float(value) if type(value) is int and float in takes and int not in takes else value


def read(source: str, book: str) -> Parameters:
    """Read the code of a parameters cell; raises BgkitError if it holds more than plain values.

    A parameter takes values of its default's type and of those that its annotation names; one that
    is None and has no annotation takes anything.

    >>> found = read("N = 10\\nRATE: float | None = 2", "book.ipynb")
    >>> found.defaults
    {'N': 10, 'RATE': 2.0}
    >>> [[kind.__name__ for kind in kinds] for kinds in found.takes.values()]
    [['int'], ['float', 'NoneType']]
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        raise BgkitError(
            f"The parameters cell of {book} is no Python: {error}; correct it."
        ) from error
    found = Parameters()
    for statement in statements:
        try:
            name, default, annotation = _parts(statement)
        except ValueError as error:
            line = (ast.get_source_segment(source, statement) or "").partition("\n")[0]
            raise BgkitError(
                f"The parameters cell of {book} holds more than plain values: `{line}`. Sweeps set "
                "numbers, texts, lists and dicts behind this cell; move other code to a later one."
            ) from error
        named = [_TYPES[word] for word in re.findall(r"\w+", annotation) if word in _TYPES]
        default = exact(default, tuple(named))
        kinds = dict.fromkeys([*named, type(default)])
        found.defaults[name] = default
        found.takes[name] = WRITTEN if default is None and not named else tuple(kinds)
    return found


def _parts(statement: ast.stmt) -> tuple[str, object, str]:
    """Name, value and annotation; raises ValueError for what sets no plain value."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            annotation = ""
        case ast.AnnAssign(target=ast.Name(id=name), annotation=noted, value=ast.expr() as value):
            annotation = ast.unparse(noted)
        case _:
            raise ValueError("no assignment of a value to a name")
    default = ast.literal_eval(value)
    if not writable(default):
        raise ValueError("papermill writes no such value")
    return name, default, annotation


def choices_in(source: str, parameters: Mapping[str, object]) -> dict[str, list[str]]:
    """Closed lists of choices in the comments of a parameters cell.

    A comment ``# what: one, two`` is such a list; one that ends in "..." or "or ..." is open.

    >>> cell = 'A = "x"  # way: x, y' + chr(10) + 'B = "u"  # model: u, v, or a folder'
    >>> choices_in(cell, {"A": "x", "B": "u"})
    {'A': ['x', 'y']}
    """
    found, name = {}, ""
    with contextlib.suppress(SyntaxError, tokenize.TokenError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME and token.start[1] == 0:
                name = token.string
            elif token.type == tokenize.COMMENT and ":" in token.string and name in parameters:
                words = [part.strip() for part in token.string.partition(":")[2].split(",")]
                closed = all(map(_WORD.fullmatch, words)) and "..." not in words
                if closed and parameters[name] in words:
                    found[name] = words
    return found
