"""Grids of parameters: read, checked against a notebook's parameters cell, expanded into runs.

A grid maps names of a notebook's parameters to one value or a list of values (an axis); its runs
are all combinations. Several grids are joined; a run that two of them hold is refused. A run is
known by the hash of all its parameters, those left at their defaults included.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from bgkit.errors import BgkitError
from bgkit.runs import TrainConfig, make_config
from bgkit.sweeps.parameters import Notebook, digest
from bgkit.testbed.store import data_folder

MOST = 10_000  # runs of a sweep: more are a slip of the pen
#: Parameters that the sweep sets, and those that do not determine a run.
SET_BY_SWEEP = ("FOLDER", "BASE_FOLDER")
NOT_HASHED = (*SET_BY_SWEEP, "REPORT_TO")
_EXAMPLE = "REWARD=boundary,compound or SEED=0:5"
_RANGE = re.compile(r"(-?\d+):(-?\d+)")

Grid = Mapping[str, object]


# --- Reading: text of the command line and of files ------------------------------------------


def parse_settings(notebook: Notebook, settings: Iterable[str]) -> dict[str, Sequence]:
    """Axes of texts such as ``REWARD=boundary,compound`` and ``SEED=0:5`` (0, 1, 2, 3, 4).

    A list or dict is written as in Python or JSON. A list is an axis, so one value of a parameter
    that takes lists is a list in a list: ``GUARDS=[["weak"]]``. Raises BgkitError for a text
    without ``=`` and for a name that is unknown or given twice.
    """
    parts = [setting.partition("=") for setting in settings]
    if wrong := [name for name, equals, _ in parts if not equals]:
        raise BgkitError(f"{wrong[0]!r} is no setting of a sweep; write it as {_EXAMPLE}.")
    named = _named(notebook, [(name, text) for name, _, text in parts])
    return {name: _axis(notebook.defaults[name], text) for name, text in named.items()}


def read_grids(notebook: Notebook, path: str | Path) -> list[dict[str, object]]:
    """The grids in a YAML file: one mapping of names to values, or a list of such mappings.

    ``path`` may also be the name of a grid of the project (``data/sweeps``). A text is read as on
    the command line, and so is each item of a list. Raises BgkitError for a file that is missing or
    broken, and as :func:`parse_settings`.
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
    named = [_named(notebook, grid.items()) for grid in found]
    return [{name: _axis(notebook.defaults[name], v) for name, v in g.items()} for g in named]


def _named(notebook: Notebook, pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Values under the notebook's own names, each once."""
    found = {}
    for given, value in pairs:
        name = notebook.name_of(str(given).strip())
        if name in found:
            raise BgkitError(f"The grid sets {name} twice; give all values at once: {_EXAMPLE}.")
        found[name] = value
    return found


def _axis(default: object, given: str | list | dict) -> Sequence:
    """The values of a parameter in a text, or in what YAML makes of one."""
    if isinstance(given, str):
        whole = _literal(given)
        given = (
            whole if isinstance(whole, list | dict) else given.strip().removesuffix(",").split(",")
        )
    if isinstance(given, dict):
        return [_leaves(given)]
    parts = [_values(default, item) for item in given]
    return parts[0] if len(parts) == 1 else [value for part in parts for value in part]


def _values(default: object, item: object) -> Sequence:
    """One value, or those of a range of whole numbers (the end not included)."""
    if not isinstance(item, str):
        return [_leaves(item)]
    item = item.strip()
    if (default is None or type(default) is int) and (ends := _RANGE.fullmatch(item)):
        return range(int(ends[1]), int(ends[2]))
    return [item if isinstance(default, str) else _literal(item)]


def _leaves(value: object) -> object:
    """What stands in lists and mappings of a file."""
    if isinstance(value, dict):
        return {key: _leaves(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(_leaves, value))
    return _literal(value) if isinstance(value, str) else value


def _literal(text: str) -> object:
    """A value as JSON or Python writes it, else the text itself."""
    with contextlib.suppress(ValueError):
        return json.loads(text, parse_constant=int)  # which refuses NaN: it stays a text
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        return ast.literal_eval(text)
    return text


# --- Expanding and checking ------------------------------------------------------------------


def expand(notebook: Notebook, grids: Grid | Sequence[Grid]) -> dict[str, dict[str, object]]:
    """Hash -> parameters, defaults included, of every run of the grids, in the order of the axes.

    A value that is a list (tuple, range) is an axis. Raises BgkitError for what is no mapping, an
    unknown name, a value of another type, an empty axis, a parameter that the sweep sets itself,
    settings or models that no training accepts, two runs with the same parameters, and for more
    than 10,000 runs.
    """
    grids = list(grids) if isinstance(grids, Sequence) else [grids]
    if wrong := [grid for grid in grids if not isinstance(grid, Mapping)]:
        raise BgkitError(
            f"A grid maps names of parameters to values, such as {{'SEED': [0, 1]}}; {wrong[0]!r} "
            "is none."
        )
    axes = [_axes(notebook, grid) for grid in grids]
    total = sum(math.prod(map(len, each.values())) for each in axes)  # before any is written out
    if not total:
        raise BgkitError("There is nothing to run: give a grid, and each axis a value.")
    if total > MOST:
        raise BgkitError(f"The grid has {total:,} runs; a sweep takes at most {MOST:,}.")
    found: dict[str, dict[str, object]] = {}
    for each in axes:
        each = {n: [notebook.check(n, value) for value in values] for n, values in each.items()}
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


def _axes(notebook: Notebook, grid: Grid) -> dict[str, Sequence]:
    """Values of each parameter of a grid, under the notebook's names, not checked yet."""
    axes = _named(notebook, grid.items())
    if own := [name for name in axes if name in SET_BY_SWEEP]:
        raise BgkitError(f"{own[0]} is set by the sweep, for each run; leave it out of the grid.")
    return {n: v if isinstance(v, list | tuple | range) else [v] for n, v in axes.items()}


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
