"""Read grids of parameters, check them against a notebook's parameters, expand them into runs.

papermill writes new values into a cell after the one tagged ``parameters``, so values computed in
the tagged cell would not change. That cell may therefore hold only plain values,
``NAME = value  # comment``. A parameter takes values of its default's type, or any value if that is
None. Annotations are ignored: ``RATE: float = 1`` takes whole numbers only.

A grid maps names of these parameters, in any case, to one value or a list of values (an axis); its
runs are all combinations. A run is identified by the hash of all its parameters.
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
from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.runs import TrainConfig, make_config

#: Types whose values papermill writes unchanged.
PLAIN = (bool, int, float, str, list, dict, type(None))
MAX_RUNS = 10_000  # of a sweep: more are a mistake
#: Parameters set by the sweep, and parameters that do not affect a run's results.
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
    """Read a notebook's parameters; raises BgkitError unless one cell of plain values is tagged."""
    checks.require_type("a name or a path", notebook=path)
    path = Path(path)
    try:
        code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    except FileNotFoundError as error:
        raise BgkitError(f"There is no notebook {path}; check the path.") from error
    except Exception as error:  # nbformat raises what its JSON and schema readers raise
        raise BgkitError(f"{path} is not a readable notebook: {error}") from error
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:  # papermill sets the first; others would reset it
        number = f"{len(tagged)} cells" if tagged else "no cell"
        raise BgkitError(f"The notebook {path} has {number} tagged 'parameters'; tag one.")
    others = [cell.source for cell in code if cell is not tagged[0]]
    return Notebook(path.resolve(), defaults_of(tagged[0].source, path.name), digest(others))


def digest(value: object) -> str:
    """12 hex digits that identify a value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def defaults_of(source: str, book: str) -> dict[str, object]:
    """Names and values of a parameters cell; BgkitError for anything but plain values.

    >>> defaults_of("N = 10  # rows\\nRATE: float = 1", "book.ipynb")
    {'N': 10, 'RATE': 1}
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        raise BgkitError(
            f"The parameters cell of {book} is not valid Python: {error}; correct it."
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
    """Axes from texts such as ``REWARD=boundary,compound`` and ``SEED=0:5`` (0, 1, 2, 3, 4).

    A list or dict is written as in Python or JSON. A list is an axis, so one value of a parameter
    that takes lists is a list in a list: ``GUARDS=[["weak"]]``. BgkitError without a ``=``.
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
        # as text: YAML reads "1:30" as ninety and "no" as False
        content = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # a ValueError: not UTF-8
        reason = " ".join(str(error).split())
        raise BgkitError(f"The grid {path} cannot be read: {reason}.") from error
    grids = content if isinstance(content, list) else [content]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise BgkitError(
            f"The grid {path} must map names of parameters to values, such as "
            "REWARD: [boundary, compound], or be a list of such mappings."
        )
    return [_axes(notebook, grid.items()) for grid in grids]


def _by_parameter(notebook: Notebook, pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Values by the notebook's parameter names; BgkitError for an unknown or repeated name."""
    names, values = {name.casefold(): name for name in notebook.defaults}, {}
    for key, value in pairs:
        key = str(key).strip()
        if (name := names.get(key.casefold())) is None:
            choices = ", ".join(names.values()) or "none"
            raise BgkitError(f"{notebook.path.name} has no parameter {key!r}; it has {choices}.")
        if name in values:
            raise BgkitError(f"The grid sets {name} twice; give all values at once: {_EXAMPLE}.")
        values[name] = value
    return values


def _axes(notebook: Notebook, pairs: Iterable[tuple[str, object]]) -> dict[str, Sequence]:
    """The values of each parameter, from texts or from YAML."""
    axes = {}
    for name, value in _by_parameter(notebook, pairs).items():
        if isinstance(value, str):
            parsed, parts = _parsed(value), value.strip().removesuffix(",").split(",")
            value = parsed if isinstance(parsed, list | dict) else parts
        items = [value] if isinstance(value, dict) else value
        parts = [_values(notebook.defaults[name], item) for item in items]
        axes[name] = parts[0] if len(parts) == 1 else list(itertools.chain(*parts))
    return axes


def _values(default: object, item: object) -> Sequence:
    """One value, or those of a range of whole numbers, without its end."""
    if not isinstance(item, str):
        return [_parsed(item)]
    item = item.strip()
    if (default is None or type(default) is int) and (ends := _RANGE.fullmatch(item)):
        return range(int(ends[1]), int(ends[2]))
    return [item if isinstance(default, str) else _parsed(item)]


def _parsed(value: object) -> object:
    """Texts, also in lists and dicts, read as JSON or Python literals where they are valid."""
    if isinstance(value, dict):
        return {key: _parsed(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(_parsed, value))
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return json.loads(value, parse_constant=int)  # int rejects NaN, which stays a text
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            return ast.literal_eval(value)
    return value


# --- Expanding and checking ------------------------------------------------------------------


def expand(notebook: Notebook, grids: Grid | Sequence[Grid]) -> dict[str, dict[str, object]]:
    """Hash -> parameters, including defaults, of every run of the grids, in the order of the axes.

    A value that is a list (tuple, range) is an axis. Raises BgkitError for an invalid grid,
    settings or models that training rejects, two runs with the same parameters, and more than
    10,000 runs.
    """
    axes = []
    for grid in list(grids) if isinstance(grids, Sequence) else [grids]:
        if not isinstance(grid, Mapping):
            raise BgkitError(
                "A grid maps names of parameters to values, such as {'SEED': [0, 1]}; "
                f"{grid!r} is none."
            )
        values = _by_parameter(notebook, grid.items())
        if own := [name for name in values if name in SET_BY_SWEEP]:
            raise BgkitError(f"{own[0]} is set by the sweep, for each run; leave it out.")
        axes.append(
            {n: v if isinstance(v, list | tuple | range) else [v] for n, v in values.items()}
        )
    total = sum(math.prod(map(len, each.values())) for each in axes)  # before expanding them
    if not total:
        raise BgkitError("There is nothing to run: give a grid, and each axis a value.")
    if total > MAX_RUNS:
        raise BgkitError(f"The grid has {total:,} runs; a sweep takes at most {MAX_RUNS:,}.")
    runs: dict[str, dict[str, object]] = {}
    for each in axes:
        each = {n: [_checked(notebook, n, value) for value in values] for n, values in each.items()}
        for values in itertools.product(*each.values()):
            chosen = dict(zip(each, values, strict=True))
            parameters = {**notebook.defaults, **chosen}
            if (key := hash_of(notebook, parameters)) in runs:
                raise BgkitError(
                    f"Two runs of the grid have the same parameters ({describe(chosen, chosen)}); "
                    "remove the repeated value, or what two grids have in common."
                )
            runs[key] = parameters
    if {"REWARD", "GUARD", "UTILITY"} <= set(notebook.defaults):  # a notebook that trains
        _check_models([config_of(parameters) for parameters in runs.values()])
    return runs


def _checked(notebook: Notebook, name: str, value: object) -> object:
    """A parameter's value, with whole numbers as floats if its default is a float.

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
    """The config of a notebook that trains; raises BgkitError for invalid settings."""
    keys = TrainConfig.__dataclass_fields__
    return make_config({k.lower(): v for k, v in parameters.items() if k.lower() in keys})


def _check_models(configs: Sequence[TrainConfig]) -> None:
    """Raise BgkitError for an unknown model now, rather than in the middle of the sweep."""
    from bgkit.evaluation import judges  # imports torch, which other notebooks do not need
    from bgkit.models import hub
    from bgkit.scoring import protocols

    for group in ("policy", "guard", "utility"):
        for name in dict.fromkeys(getattr(config, group) for config in configs):
            hub.check(group, name if group == "policy" else protocols.find(group, name)[1])
    for name in dict.fromkeys(config.judge for config in configs):
        judges.check_judge(name)


def hash_of(notebook: Notebook, parameters: Mapping[str, object]) -> str:
    """12 hex digits that identify a run: its notebook's code and its parameters."""
    hashed = {name: value for name, value in parameters.items() if name not in NOT_HASHED}
    return digest([notebook.path.name, notebook.code, hashed])


def varied(runs: Sequence[Mapping[str, object]]) -> list[str]:
    """Names of the parameters that differ between runs (all, for a single run).

    >>> varied([{"A": 1, "B": 2}, {"A": 1, "B": 3}])
    ['B']
    """
    names = [name for name in runs[0] if name not in NOT_HASHED]
    return [n for n in names if len(runs) == 1 or any(run[n] != runs[0][n] for run in runs)]


def describe(parameters: Mapping[str, object], names: Iterable[str]) -> str:
    """The named parameters of a run in one line.

    >>> describe({"REWARD": "boundary", "SEED": 0}, ["SEED", "REWARD"])
    'SEED=0 REWARD=boundary'
    """
    return " ".join(f"{name}={parameters[name]}" for name in names)
