"""Grids of parameters: read, checked against a notebook's parameters cell, expanded into runs.

papermill writes the values that it is given into a cell of their own, right behind the cell tagged
``parameters``: what that cell computes from its own values would not follow. So the cell may hold
only plain values, ``NAME = value  # comment``; a parameter takes values of its default's type, and
anything where that is None. Annotations are not read: ``RATE: float = 1`` takes whole numbers only.

A grid maps names of these parameters, in any case, to one value or a list of values (an axis); its
runs are all combinations. A run is known by the hash of all its parameters.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
import yaml

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.runs import TrainConfig, make_config
from bgkit.testbed.store import data_folder

#: Types whose values papermill writes as what they are.
PLAIN = (bool, int, float, str, list, dict, type(None))
MOST = 10_000  # runs of a sweep: more are a slip of the pen
#: Parameters that the sweep sets, and those that do not determine a run.
SET_BY_SWEEP = ("FOLDER", "BASE_FOLDER")
NOT_HASHED = (*SET_BY_SWEEP, "REPORT_TO")
_EXAMPLE = "REWARD=boundary,compound or SEED=0:5"
_RANGE = re.compile(r"(-?\d+):(-?\d+)")

Grid = Mapping[str, object]


# --- A notebook's parameters -----------------------------------------------------------------


class Notebook(NamedTuple):
    """A notebook's parameters with their defaults, and a digest of its other code cells."""

    path: Path
    defaults: dict[str, object]
    code: str


def open_notebook(path: str | Path) -> Notebook:
    """Read a notebook's parameters; raises BgkitError for what has no one cell of plain values."""
    checks.require_type("a name or a path", notebook=path)
    path = Path(path)
    try:
        code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    except FileNotFoundError as error:
        raise BgkitError(f"There is no notebook {path}; check the path.") from error
    except Exception as error:  # nbformat raises what its JSON and schema readers raise
        raise BgkitError(f"{path} is not a readable notebook: {error}") from error
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:  # papermill sets the first; the others would undo it
        number = f"{len(tagged)} cells" if tagged else "no cell"
        raise BgkitError(f"The notebook {path} has {number} tagged 'parameters'; tag one.")
    others = [cell.source for cell in code if cell is not tagged[0]]
    return Notebook(path.resolve(), defaults_of(tagged[0].source, path.name), digest(others))


def digest(value: object) -> str:
    """12 hex digits that identify a value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def defaults_of(source: str, book: str) -> dict[str, object]:
    """Defaults in the code of a parameters cell; BgkitError for more than plain values.

    >>> defaults_of("N = 10  # rows\\nRATE: float = 1", "book.ipynb")
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
        value = ...
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=written)
                | ast.AnnAssign(target=ast.Name(id=name), value=written)
            ):
                with contextlib.suppress(ValueError, TypeError):
                    value = ast.literal_eval(written)
        if type(value) not in PLAIN:
            line = (ast.get_source_segment(source, statement) or "").partition("\n")[0]
            raise BgkitError(
                f"The parameters cell of {book} holds more than plain values: `{line}`. Sweeps set "
                "numbers, texts, lists and dicts behind this cell; move other code to a later one."
            )
        defaults[name] = value
    return defaults


# --- Reading: text of the command line and of files ------------------------------------------


def parse_settings(notebook: Notebook, settings: Iterable[str]) -> dict[str, Sequence]:
    """Axes of texts such as ``REWARD=boundary,compound`` and ``SEED=0:5`` (0, 1, 2, 3, 4).

    A list or dict is written as in Python or JSON. A list is an axis, so one value of a parameter
    that takes lists is a list in a list: ``GUARDS=[["weak"]]``. Raises BgkitError for no setting.
    """
    parts = [setting.partition("=") for setting in settings]
    if wrong := [name for name, equals, _ in parts if not equals]:
        raise BgkitError(f"{wrong[0]!r} is no setting of a sweep; write it as {_EXAMPLE}.")
    return _axes(notebook, [(name, text) for name, _, text in parts])


def read_grids(notebook: Notebook, path: str | Path) -> list[dict[str, object]]:
    """The grids in a YAML file: one mapping of names to values, or a list of such mappings.

    ``path`` may also be the name of a grid of the project (``data/sweeps``). A text is read as on
    the command line, and so is each item of a list. Raises BgkitError for no such file.
    """
    shipped = data_folder() / "sweeps" / f"{path}.yaml"
    file = shipped if shipped.is_file() and not Path(path).is_file() else Path(path)
    try:
        # all as text: YAML's own "1:30" would be ninety, and "no" False
        content = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # a ValueError: no UTF-8
        reason = " ".join(str(error).split())
        raise BgkitError(f"The grid {path} can not be read: {reason}.") from error
    found = content if isinstance(content, list) else [content]
    if not found or not all(isinstance(grid, dict) and grid for grid in found):
        raise BgkitError(
            f"The grid {path} must map names of parameters to values, such as "
            "REWARD: [boundary, compound], or be a list of such mappings."
        )
    return [_axes(notebook, grid.items()) for grid in found]


def _named(notebook: Notebook, pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Values under the notebook's own names, each once; BgkitError for a name that it lacks."""
    known, found = {name.casefold(): name for name in notebook.defaults}, {}
    for given, value in pairs:
        asked = str(given).strip()
        if (name := known.get(asked.casefold())) is None:
            told = ", ".join(known.values()) or "none"
            raise BgkitError(f"{notebook.path.name} has no parameter {asked!r}; it has {told}.")
        if name in found:
            raise BgkitError(f"The grid sets {name} twice; give all values at once: {_EXAMPLE}.")
        found[name] = value
    return found


def _axes(notebook: Notebook, pairs: Iterable[tuple[str, object]]) -> dict[str, Sequence]:
    """The values of each parameter, of texts or of what YAML makes of them."""
    axes = {}
    for name, given in _named(notebook, pairs).items():
        if isinstance(given, str):
            whole, parts = _plain(given), given.strip().removesuffix(",").split(",")
            given = whole if isinstance(whole, list | dict) else parts
        items = [given] if isinstance(given, dict) else given
        parts = [_values(notebook.defaults[name], item) for item in items]
        axes[name] = parts[0] if len(parts) == 1 else list(itertools.chain(*parts))
    return axes


def _values(default: object, item: object) -> Sequence:
    """One value, or those of a range of whole numbers (the end not included)."""
    if not isinstance(item, str):
        return [_plain(item)]
    item = item.strip()
    if (default is None or type(default) is int) and (ends := _RANGE.fullmatch(item)):
        return range(int(ends[1]), int(ends[2]))
    return [item if isinstance(default, str) else _plain(item)]


def _plain(value: object) -> object:
    """A text as what JSON or Python writes so, else as it is; in lists and mappings, too."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(_plain, value))
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return json.loads(value, parse_constant=int)  # which refuses NaN: it stays a text
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            return ast.literal_eval(value)
    return value


# --- Expanding and checking ------------------------------------------------------------------


def expand(notebook: Notebook, grids: Grid | Sequence[Grid]) -> dict[str, dict[str, object]]:
    """Hash -> parameters, defaults included, of every run of the grids, in the order of the axes.

    A value that is a list (tuple, range) is an axis. Raises BgkitError for what is no grid of the
    notebook, settings or models that no training accepts, two runs with the same parameters, and
    for more than 10,000 runs.
    """
    axes = []
    for grid in list(grids) if isinstance(grids, Sequence) else [grids]:
        if not isinstance(grid, Mapping):
            raise BgkitError(
                "A grid maps names of parameters to values, such as {'SEED': [0, 1]}; "
                f"{grid!r} is none."
            )
        named = _named(notebook, grid.items())
        if own := [name for name in named if name in SET_BY_SWEEP]:
            raise BgkitError(f"{own[0]} is set by the sweep, for each run; leave it out.")
        axes.append(
            {n: v if isinstance(v, list | tuple | range) else [v] for n, v in named.items()}
        )
    total = sum(math.prod(map(len, each.values())) for each in axes)  # before any is written out
    if not total:
        raise BgkitError("There is nothing to run: give a grid, and each axis a value.")
    if total > MOST:
        raise BgkitError(f"The grid has {total:,} runs; a sweep takes at most {MOST:,}.")
    found: dict[str, dict[str, object]] = {}
    for each in axes:
        each = {n: [_checked(notebook, n, value) for value in values] for n, values in each.items()}
        for values in itertools.product(*each.values()):
            given = dict(zip(each, values, strict=True))
            parameters = {**notebook.defaults, **given}
            if (key := hash_of(notebook, parameters)) in found:
                raise BgkitError(
                    f"Two runs of the grid have the same parameters ({describe(given, given)}); "
                    "remove the repeated value, or what two grids have in common."
                )
            found[key] = parameters
    if {"REWARD", "GUARD", "UTILITY"} <= set(notebook.defaults):  # a notebook that trains
        _check_models([config_of(parameters) for parameters in found.values()])
    return found


def _checked(notebook: Notebook, name: str, value: object) -> object:
    """A parameter's value, whole numbers as floats where its default is one.

    Raises BgkitError for a value of another type.
    """
    default = notebook.defaults[name]
    if type(default) is float and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        raise BgkitError(
            f"{notebook.path.name} takes {name} as {type(default).__name__}, such as {default!r}, "
            f"not {value!r}."
        )
    return value


def config_of(parameters: Mapping[str, object]) -> TrainConfig:
    """The config of a notebook that trains; raises BgkitError for what no training accepts."""
    keys = TrainConfig.__dataclass_fields__
    return make_config({k.lower(): v for k, v in parameters.items() if k.lower() in keys})


def _check_models(configs: Sequence[TrainConfig]) -> None:
    """Raise BgkitError for a name that no training finds: half of a night's runs would fail."""
    from bgkit.evaluation import judges  # brings torch, which other notebooks do not need
    from bgkit.models import hub
    from bgkit.scoring import protocols

    for group in ("policy", "guard", "utility"):
        for name in dict.fromkeys(getattr(config, group) for config in configs):
            hub.check(group, name if group == "policy" else protocols.find(group, name)[1])
    for name in dict.fromkeys(config.judge for config in configs):
        judges.check_judge(name)


def hash_of(notebook: Notebook, parameters: Mapping[str, object]) -> str:
    """12 hex digits that identify a run: its notebook's code and its parameters."""
    kept = {name: value for name, value in parameters.items() if name not in NOT_HASHED}
    return digest([notebook.path.name, notebook.code, kept])


def varied(runs: Sequence[Mapping[str, object]]) -> list[str]:
    """Names of the parameters that differ between runs (of a single run, all).

    >>> varied([{"A": 1, "B": 2}, {"A": 1, "B": 3}])
    ['B']
    """
    names = [name for name in runs[0] if name not in NOT_HASHED]
    return [n for n in names if len(runs) == 1 or any(run[n] != runs[0][n] for run in runs)]


def describe(parameters: Mapping[str, object], names: Iterable[str]) -> str:
    """Some of a run's parameters in one line.

    >>> describe({"REWARD": "boundary", "SEED": 0}, ["SEED", "REWARD"])
    'SEED=0 REWARD=boundary'
    """
    return " ".join(f"{name}={parameters[name]}" for name in names)
