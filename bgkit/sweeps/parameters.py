"""A notebook's parameters cell, read as papermill treats it, without running it.

papermill writes the values that it is given into a cell of their own, right behind the cell tagged
``parameters``. So whatever name that cell gives a value can be set, with or without a type. Values
that are plain, or computed from plain ones, are known here; of others only a run would tell.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bgkit.errors import BgkitError

#: Types whose values papermill can write; of anything else it would write the text.
WRITTEN = (bool, int, float, str, list, dict, type(None))
#: What a statement may hold to be computed here: nothing that reaches beyond the cell's own values.
_COMPUTED = (
    *(ast.Module, ast.Assign, ast.AugAssign, ast.Name, ast.expr_context, ast.Constant),
    *(ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Subscript, ast.Slice, ast.Starred),
    *(ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr, ast.FormattedValue),
    *(ast.Call, ast.keyword),
)
_CALLED = (bool, int, float, str, list, dict, tuple, set, range, len, min, max, sum, round, abs)
_WORD = re.compile(r"[\w./+-]+")
#: Names of types in annotations -> what papermill writes for them.
_TYPES = {t.__name__: (t,) for t in WRITTEN} | {"None": (type(None),)}
_TYPES |= dict.fromkeys(("Any", "object"), WRITTEN)
_TYPES |= dict.fromkeys(("List", "Sequence", "Iterable", "Collection"), (list,))
_TYPES |= dict.fromkeys(("Dict", "Mapping"), (dict,))


@dataclass(frozen=True)
class Parameters:
    """What can be set in a parameters cell.

    ``takes`` maps each name to what it takes: types, and single values (of a ``Literal``); () for
    what can not be set (a tuple, a path). ``defaults`` holds the values that are known and that
    papermill can write. ``readers`` are statements of the cell that use a name's default.
    ``source`` is the cell's code without comments where it is more than the defaults, else "":
    both together tell whether two cells do the same.
    """

    takes: dict[str, tuple] = field(default_factory=dict)
    defaults: dict[str, object] = field(default_factory=dict)
    readers: dict[str, list[str]] = field(default_factory=dict)
    source: str = ""

    def check(self, name: str, value: object, book: str) -> None:
        """Raise BgkitError for a name that can not be set, or a value that it does not take."""
        takes = self.takes.get(name)
        if takes is None:
            names = ", ".join(known for known, kinds in self.takes.items() if kinds) or "none"
            raise BgkitError(f"{book} has no parameter {name!r}; it has {names}.")
        if not takes:
            raise BgkitError(
                f"{name} in {book} can not be set: papermill writes no value of its kind; let its "
                f"default be a number, text, list or dict, or give it such a type ({name}: str = "
                "...)."
            )
        if not (any(_is(value, kind) for kind in takes) and writable(value)):
            raise self.wrong(name, value, book)

    def wrong(self, name: str, value: object, book: str) -> BgkitError:
        """The error of a value that a parameter does not take."""
        words = [k.__name__ if isinstance(k, type) else repr(k) for k in self.takes[name]]
        known = f", such as {self.defaults[name]!r}," if name in self.defaults else ""
        kinds = " or ".join(words).replace("NoneType", "None")
        return BgkitError(f"{book} takes {name} as {kinds}{known or ','} not {value!r}.")

    def early(self, names: Iterable[str], book: str) -> str:
        """A sentence about statements that use the defaults of parameters to be set; else ""."""
        lines = {line: name for name in names for line in self.readers.get(name, ())}
        told = ", ".join(f"`{line}` ({name})" for line, name in lines.items())
        if not told:
            return ""
        return (
            f"The parameters cell of {book} uses a default before papermill sets it: {told}; "
            "move this to a later cell if it shall follow."
        )


def writable(value: object) -> bool:
    """Whether papermill writes a value as what it is.

    >>> [writable(value) for value in (None, [1, {"a": 0.5}], (1, 2), {1: "a"}, b"")]
    [True, True, False, False, False]
    """
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(writable, value.values()))
    return all(map(writable, value)) if type(value) is list else type(value) in WRITTEN


def _is(value: object, kind: object) -> bool:
    """Whether a value is of a type (an int is a float, too), or is the single value meant."""
    if isinstance(kind, type):
        return type(value) is kind or (kind is float and type(value) is int)
    return type(value) is type(kind) and value == kind


def read(source: str, book: str) -> Parameters:
    """Read the code of a parameters cell; raises BgkitError if it is no Python.

    >>> found = read("N = 10 * 2\\nLR: float | None = None\\nOUT = Path('x')", "book.ipynb")
    >>> found.defaults
    {'N': 20, 'LR': None}
    >>> {name: [kind.__name__ for kind in kinds] for name, kinds in found.takes.items()}
    {'N': ['int'], 'LR': ['float', 'NoneType'], 'OUT': []}
    """
    tree, known, told, readers = parse(source, book), {}, {}, {}
    names: dict[str, None] = {}  # a set that keeps its order
    for place, statement in enumerate(tree.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            told[statement.target.id] = _kinds(statement.annotation)
            names[statement.target.id] = None
            if statement.value is None:
                continue
            tree.body[place] = statement = ast.Assign([statement.target], statement.value)
            ast.fix_missing_locations(tree)
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
            stored, loaded = [], []
        else:
            stored, loaded = (_names(statement, way) for way in (ast.Store, ast.Load))
        for name in loaded:
            if name in names and name not in stored:
                readers.setdefault(name, []).append(ast.unparse(statement).partition("\n")[0])
        names |= dict.fromkeys(stored)
        try:
            _compute(statement, known)
        except Exception:  # whatever Python raises: only the notebook's kernel can tell
            changed = {name for name in loaded if isinstance(known.get(name), (list, dict))}
            for name in {*stored, *changed}:
                kinds = _of(known.pop(name)) if name in known else _result(statement)
                told.setdefault(name, kinds)
    defaults = {name: known[name] for name in names if name in known and writable(known[name])}
    takes: dict[str, tuple] = {}
    for name in names:
        kinds = told.get(name) or ()
        if name in defaults and not any(_is(defaults[name], kind) for kind in kinds):
            kinds = (*kinds, type(defaults[name])) if kinds else _of(defaults[name])
        takes[name] = kinds
    code = ast.unparse(tree)
    plain = "\n".join(f"{name} = {value!r}" for name, value in defaults.items())
    defaults = {name: exact(value, takes[name]) for name, value in defaults.items()}
    return Parameters(takes, defaults, readers, "" if code == plain else code)


def exact(value: object, takes: tuple) -> object:
    """A value as its parameter takes it: an int as a float where only that is taken."""
    return float(value) if type(value) is int and float in takes and int not in takes else value


def parse(source: str, book: str) -> ast.Module:
    """A cell's code, its magics as the calls they are; raises BgkitError if it is no Python."""
    if source.lstrip().startswith("%%"):  # %%time and its like: the lines below are the code
        source = source.lstrip().partition("\n")[2]
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        from IPython.core.inputtransformer2 import TransformerManager

        try:
            return ast.parse(TransformerManager().transform_cell(source))
        except (SyntaxError, ValueError) as error:
            raise BgkitError(
                f"The parameters cell of {book} is no Python: {error}; correct it."
            ) from error


def _names(node: ast.AST, way: type[ast.expr_context]) -> list[str]:
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, way)]


def _compute(statement: ast.stmt, known: dict[str, object]) -> None:
    """Do an assignment of plain values in ``known``; raises an error where that can not be done."""
    module = ast.Module([statement], [])
    if not all(isinstance(node, _COMPUTED) for node in ast.walk(module)):
        raise ValueError("more than plain values")
    called = {function.__name__: function for function in _CALLED}
    exec(compile(module, "parameters", "exec"), {"__builtins__": called}, known)


def _of(value: object) -> tuple:
    """What a parameter without a type takes: its default's type; after None, anything."""
    return WRITTEN if value is None else (type(value),) if writable(value) else ()


def _result(statement: ast.stmt) -> tuple:
    """What a parameter takes whose default is not known: anything, unless the code tells its type.

    >>> [_result(ast.parse(code).body[0]) for code in ("N = int(word())", "PLACE = Path('x')")]
    [(<class 'int'>,), ()]
    """
    match statement:
        case ast.Assign(value=ast.JoinedStr()):
            return (str,)
        case ast.Assign(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return _TYPES.get(name, () if name[:1].isupper() else WRITTEN)
    return WRITTEN


def _kinds(node: ast.expr | None) -> tuple | None:
    """What an annotation says: types and single values; None if papermill writes no such thing."""
    match node:
        case ast.Constant(value=str(text)):
            try:
                return _kinds(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return None
        case ast.Constant(value=None):
            return (type(None),)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _TYPES.get(name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _joined([left, right])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            match name:
                case "Optional":
                    return _joined([*parts, ast.Constant(None)])
                case "Union":
                    return _joined(parts)
                case "Annotated" | "Final":
                    return _kinds(parts[0])
                case "Literal" if all(isinstance(part, ast.Constant) for part in parts):
                    return tuple(part.value for part in parts)
            return _TYPES.get(name)
    return None


def _joined(nodes: list[ast.expr]) -> tuple | None:
    found = [_kinds(node) for node in nodes]
    return None if None in found else tuple(kind for kinds in found for kind in kinds)


def choices_in(source: str, parameters: Mapping[str, object]) -> dict[str, list[str]]:
    """Closed lists of choices in the comments of a parameters cell.

    A comment ``# what: one, two`` is such a list; one that ends in "..." or "or ..." is open.

    >>> cell = 'A = "x"  # way: x, y' + chr(10) + 'B = "u"  # model: u, v, or a folder'
    >>> choices_in(cell, {"A": "x", "B": "u"})
    {'A': ['x', 'y']}
    """
    found, name = {}, ""
    with contextlib.suppress(SyntaxError, tokenize.TokenError):  # of magics: the rest is read
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME and token.start[1] == 0:
                name = token.string
            elif token.type == tokenize.COMMENT and ":" in token.string and name in parameters:
                words = [part.strip() for part in token.string.partition(":")[2].split(",")]
                closed = all(map(_WORD.fullmatch, words)) and "..." not in words
                if closed and parameters[name] in words:
                    found[name] = words
    return found
