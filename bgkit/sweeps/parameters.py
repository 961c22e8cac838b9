"""A notebook's parameters cell: plain values under names, which papermill can set.

papermill writes the values that it is given into a cell of their own, right behind the cell tagged
``parameters``: what that cell computes from its own values would not follow. So the cell may hold
only plain values, ``NAME = value  # comment``, if wanted with a type.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from bgkit import checks
from bgkit.errors import BgkitError

#: Types whose values papermill can write.
WRITTEN = (bool, int, float, str, list, dict, type(None))
_TYPES = {kind.__name__: kind for kind in WRITTEN} | {"None": type(None)}
#: A line whose comment is a closed list: ``NAME = "one"  # what: one, two``.
_CHOICES = re.compile(
    r"^(\w+)\b[^#\n]*#[^:\n]*: *([\w./+-]+(?:, *[\w./+-]+)*)[^\S\n]*$", re.MULTILINE
)


@dataclass(frozen=True)
class Notebook:
    """What a sweep needs to know of a notebook.

    Of its parameters: defaults, the types that each takes, and choices where its comment lists them
    all; ``code`` is a digest of the other code cells (without outputs).
    """

    path: Path
    defaults: dict[str, object]
    takes: dict[str, tuple[type, ...]]
    choices: dict[str, list[str]]
    code: str

    def name_of(self, name: str) -> str:
        """The parameter that is meant, whatever its case; raises BgkitError if there is none."""
        for known in self.takes:
            if known.casefold() == name.casefold():
                return known
        names = ", ".join(self.takes) or "none"
        raise BgkitError(f"{self.path.name} has no parameter {name!r}; it has {names}.")

    def check(self, name: str, value: object) -> object:
        """A parameter's value, as a float where only that is taken; BgkitError for a wrong one."""
        takes, choices = self.takes[name], self.choices.get(name)
        value = _exact(value, takes)
        if type(value) not in takes or not _writable(value):
            raise self.wrong(name, value)
        if choices and value not in choices:
            raise BgkitError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        return value

    def wrong(self, name: str, value: object) -> BgkitError:
        """The error of a value that a parameter does not take."""
        kinds = " or ".join(kind.__name__ for kind in self.takes[name])
        return BgkitError(
            f"{self.path.name} takes {name} as {kinds.replace('NoneType', 'None')}, such as "
            f"{self.defaults[name]!r}, not {value!r}."
        )


def _writable(value: object) -> bool:
    """Whether papermill writes a value as what it is (tuples and keys of dicts it changes)."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_writable, value.values()))
    return all(map(_writable, value)) if type(value) is list else type(value) in WRITTEN


def _exact(value: object, takes: tuple[type, ...]) -> object:
    return float(value) if type(value) is int and float in takes and int not in takes else value


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
    source = tagged[0].source
    defaults, takes = read(source, path.name)
    choices = {name: words.replace(",", " ").split() for name, words in _CHOICES.findall(source)}
    closed = {n: w for n, w in choices.items() if defaults.get(n) in w and "..." not in w}
    others = [cell.source for cell in code if cell is not tagged[0]]
    return Notebook(path.resolve(), defaults, takes, closed, digest(others))


def digest(value: object) -> str:
    """12 hex digits that identify a value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read(source: str, book: str) -> tuple[dict[str, object], dict[str, tuple[type, ...]]]:
    """Defaults and types in the code of a parameters cell; BgkitError for more than plain values.

    A parameter takes values of its default's type and of those that its annotation names; one that
    is None and has no annotation takes anything.

    >>> read("N = 10\\nRATE: float = 2", "book.ipynb")
    ({'N': 10, 'RATE': 2.0}, {'N': (<class 'int'>,), 'RATE': (<class 'float'>,)})
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        raise BgkitError(
            f"The parameters cell of {book} is no Python: {error}; correct it."
        ) from error
    defaults, takes = {}, {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = ""
            case ast.AnnAssign(target=ast.Name(id=name), annotation=noted, value=value):
                annotation = ast.unparse(noted)
            case _:
                value = statement
        try:
            default = ast.literal_eval(value)
        except (ValueError, TypeError):
            default = ...
        if not _writable(default):
            line = (ast.get_source_segment(source, statement) or "").partition("\n")[0]
            raise BgkitError(
                f"The parameters cell of {book} holds more than plain values: `{line}`. Sweeps set "
                "numbers, texts, lists and dicts behind this cell; move other code to a later one."
            )
        named = [_TYPES[word] for word in re.findall(r"\w+", annotation) if word in _TYPES]
        defaults[name] = default = _exact(default, tuple(named))
        takes[name] = tuple(dict.fromkeys([*named, type(default)]))
        if default is None and not named:
            takes[name] = WRITTEN
    return defaults, takes
