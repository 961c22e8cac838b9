"""A notebook's parameters cell: plain values under names, which papermill can set.

papermill writes the values that it is given into a cell of their own, right behind the cell tagged
``parameters``: what that cell computes from its own values would not follow. So the cell may hold
only plain values, ``NAME = value  # comment``; a parameter takes values of its default's type, and
anything where that is None. Annotations are not read: ``RATE: float = 1`` takes whole numbers only,
``RATE = 1.0`` any.
"""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import nbformat

from bgkit import checks
from bgkit.errors import BgkitError

#: Types whose values papermill writes as what they are.
PLAIN = (bool, int, float, str, list, dict, type(None))


@dataclass(frozen=True)
class Notebook:
    """A notebook's parameters with their defaults, and a digest of its other code cells."""

    path: Path
    defaults: dict[str, object]
    code: str

    def name_of(self, name: str) -> str:
        """The parameter that is meant, whatever its case; raises BgkitError if there is none."""
        for known in self.defaults:
            if known.casefold() == name.casefold():
                return known
        names = ", ".join(self.defaults) or "none"
        raise BgkitError(f"{self.path.name} has no parameter {name!r}; it has {names}.")

    def check(self, name: str, value: object) -> object:
        """A parameter's value, whole numbers as floats where its default is one.

        Raises BgkitError for a value of another type.
        """
        default = self.defaults[name]
        if type(default) is float and type(value) is int:
            return float(value)
        if default is not None and type(value) is not type(default):
            raise BgkitError(
                f"{self.path.name} takes {name} as {type(default).__name__}, such as {default!r}, "
                f"not {value!r}."
            )
        return value


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """A notebook's cells of code; raises BgkitError if there is none, or it is not readable."""
    try:
        return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    except FileNotFoundError as error:
        raise BgkitError(f"There is no notebook {path}; check the path.") from error
    except Exception as error:  # nbformat raises what its JSON and schema readers raise
        raise BgkitError(f"{path} is not a readable notebook: {error}") from error


def open_notebook(path: str | Path) -> Notebook:
    """Read a notebook's parameters.

    Raises BgkitError if there is no notebook, if none or several of its cells are tagged
    ``parameters``, and if that cell holds more than plain values.
    """
    checks.kind("a name or a path", notebook=path)
    path = Path(path)
    code = code_cells(path)
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:  # papermill sets the first; the others would undo it
        number = f"{len(tagged)} cells" if tagged else "no cell"
        raise BgkitError(f"The notebook {path} has {number} tagged 'parameters'; tag one.")
    others = [cell.source for cell in code if cell is not tagged[0]]
    return Notebook(path.resolve(), read(tagged[0].source, path.name), digest(others))


def digest(value: object) -> str:
    """12 hex digits that identify a value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read(source: str, book: str) -> dict[str, object]:
    """Defaults in the code of a parameters cell; BgkitError for more than plain values.

    >>> read("N = 10  # rows\\nRATE: float = 1", "book.ipynb")
    {'N': 10, 'RATE': 1}
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        raise BgkitError(
            f"The parameters cell of {book} is no Python: {error}; correct it."
        ) from error
    defaults = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                pass
            case _:
                name, value = "", statement
        try:
            defaults[name] = ast.literal_eval(value)
        except (ValueError, TypeError):
            defaults[name] = ...
        if type(defaults[name]) not in PLAIN:
            line = (ast.get_source_segment(source, statement) or "").partition("\n")[0]
            raise BgkitError(
                f"The parameters cell of {book} holds more than plain values: `{line}`. Sweeps set "
                "numbers, texts, lists and dicts behind this cell; move other code to a later one."
            )
    return defaults
