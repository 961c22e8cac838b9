"""Grids of parameters: read, checked against a notebook's parameters cell, expanded into runs.

A grid maps names of a notebook's parameters to one value or a list of values (an axis); its runs
are all combinations. Several grids are joined; a run that two of them hold is refused. A run is
known by the hash of all its parameters, those left at their defaults included.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from bgkit.errors import BgkitError
from bgkit.runs import TrainConfig, make_config
from bgkit.sweeps import training
from bgkit.sweeps.parameters import WRITTEN, Notebook, digest
from bgkit.sweeps.parameters import open_notebook as open_notebook
from bgkit.testbed.store import data_folder

#: More runs than this are only started when the user says so.
MANY = 10_000
LONGEST = 1_000_000  # values of a range in a text
#: Parameters that do not determine a run: the sweep sets them.
SET_BY_SWEEP = ("FOLDER", "BASE_FOLDER", "REPORT_TO")
_EXAMPLE = "REWARD=boundary,compound or SEED=0:5"

Grid = Mapping[str, object]


# --- Reading: text of the command line and of files ------------------------------------------


def parse_settings(notebook: Notebook, settings: Iterable[str]) -> dict[str, Sequence]:
    """Axes of texts such as ``REWARD=boundary,compound`` and ``SEED=0:5`` (0, 1, 2, 3, 4).

    Raises BgkitError for a text without ``=``, a name that is unknown or given twice, and a value
    that is not of the parameter's type.
    """
    parts = [setting.partition("=") for setting in settings]
    if wrong := [name for name, equals, _ in parts if not equals]:
        raise BgkitError(f"{wrong[0]!r} is no setting of a sweep; write it as {_EXAMPLE}.")
    named = _named(notebook, ((name, text) for name, _, text in parts))
    return {name: _values(notebook, name, text) for name, text in named.items()}


def _named(notebook: Notebook, pairs: Iterable[tuple[object, object]]) -> dict[str, object]:
    """Values under the notebook's own names, each once."""
    found = {}
    for given, value in pairs:
        name = notebook.name_of(str(given).strip())
        if name in found:
            raise BgkitError(f"The grid sets {name} twice; give all values at once: {_EXAMPLE}.")
        found[name] = value
    return found


def read_grids(notebook: Notebook, path: str | Path) -> list[dict[str, object]]:
    """The grids in a YAML file: one mapping of names to values, or a list of such mappings.

    ``path`` may also be the name of a grid of the project (``data/sweeps``). A text is read as on
    the command line (commas separate values), an item of a list is one value (or a range ``0:5``).
    Raises BgkitError for a file that is missing or broken, and as :func:`parse_settings`.
    """
    shipped = data_folder() / "sweeps" / f"{path}.yaml"
    file = shipped if shipped.is_file() and not Path(path).is_file() else Path(path)
    try:
        content = file.read_text(encoding="utf-8")
        # as text, too: a "1:30" would be ninety, and a "no" False
        both = [yaml.load(content, kind) for kind in (yaml.BaseLoader, yaml.SafeLoader)]
    except (OSError, ValueError, yaml.YAMLError) as error:  # a ValueError: no UTF-8, no such date
        reason = " ".join(str(error).split())
        raise BgkitError(f"The grid {path} can not be read: {reason}.") from error
    found = []
    both = [part if isinstance(part, list) else [part] for part in both]
    for grid, typed in zip(*both, strict=True):
        if not isinstance(grid, dict) or not grid:
            raise BgkitError(
                f"The grid {path} must map names of parameters to values, such as "
                "REWARD: [boundary, compound], or be a list of such mappings."
            )
        pairs = zip(grid, zip(grid.values(), typed.values(), strict=True), strict=True)
        named = _named(notebook, pairs).items()
        found.append({name: _of_file(notebook, name, *values) for name, values in named})
    return found


def _of_file(notebook: Notebook, name: str, given: object, typed: object) -> object:
    """A parameter's axis, from the text in a file and from what YAML makes of it."""
    if isinstance(given, str):
        return _values(notebook, name, given)
    flat = isinstance(given, list) and all(isinstance(item, str) for item in given)
    if flat and _is_axis(notebook, name, given):
        return [v for item in given for v in _values(notebook, name, item, split=False)]
    return typed


def _values(notebook: Notebook, name: str, text: str, split: bool = True) -> Sequence:
    """Values of one parameter in a text; ``split`` separates them at commas."""
    if {list, dict} & set(notebook.takes[name]):
        with contextlib.suppress(ValueError):
            if isinstance(value := json.loads(text), (list, dict)):
                return [value]
    parts = [part.strip() for part in (text.split(",") if split else [text])]
    found = [_part(notebook, name, part) for part in parts if part]
    return found[0] if len(found) == 1 else [value for part in found for value in part]


def _part(notebook: Notebook, name: str, text: str) -> Sequence:
    """One value, or those of a range of whole numbers (the end not included)."""
    kinds = notebook.takes[name]
    if bool in kinds and text.lower() in ("true", "false"):
        return [text.lower() == "true"]
    if type(None) in kinds and text in ("None", "null"):
        return [None]
    if int in kinds and ":" in text:
        with contextlib.suppress(ValueError):
            whole = range(*map(int, text.split(":", 1)))
            if whole[LONGEST:]:
                raise BgkitError(
                    f"The axis {name} has more than {LONGEST:,} values; give it fewer."
                )
            return whole
    for kind in (int, float, str):
        if kind in kinds:
            with contextlib.suppress(ValueError):
                return [kind(text)]
    raise notebook.wrong(name, text)


# --- Expanding and checking ------------------------------------------------------------------


def expand(
    notebook: Notebook, grids: Grid | Sequence[Grid], many: int | None = MANY
) -> list[dict[str, object]]:
    """Parameters of every run of the grids, defaults included, in the order of the axes.

    A value that is a list (tuple, range) is an axis. Raises BgkitError for an unknown name, a value
    of another type or none of a parameter's choices, an empty axis, a parameter that the sweep sets
    itself, settings that no training accepts, two runs with the same parameters, and for more than
    ``many`` runs (None: any number).
    """
    grids = [grids] if isinstance(grids, Mapping) else list(grids)
    axes = [_axes(notebook, grid) for grid in grids]
    total = sum(math.prod(map(len, each.values())) for each in axes)  # before any is written out
    if not total:
        raise BgkitError("There is nothing to run: give a grid, and each axis a value.")
    if many is not None and total > many:
        raise BgkitError(
            f"The grid has {total:,} runs; say --yes (in Python: yes=True) to start more than "
            f"{many:,}."
        )
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
    configs = [config_of(notebook, parameters) for parameters in found.values()]
    if None not in configs:
        training.check(configs)
    return list(found.values())


def _axes(notebook: Notebook, grid: Grid) -> dict[str, Sequence]:
    """Values of each parameter of a grid, under the notebook's names, not checked yet."""
    axes = _named(notebook, grid.items())
    if own := [name for name in axes if name in SET_BY_SWEEP]:
        raise BgkitError(f"{own[0]} is set by the sweep, for each run; leave it out of the grid.")
    return {n: values if _is_axis(notebook, n, values) else [values] for n, values in axes.items()}


def _is_axis(notebook: Notebook, name: str, values: object) -> bool:
    """Whether values are several: of a parameter that is a list itself, a list of lists."""
    if not isinstance(values, (list, tuple, range)):
        return False
    of_lists = list in notebook.takes[name] and notebook.takes[name] != WRITTEN
    return not of_lists or all(isinstance(v, (list, tuple)) for v in values)


def config_of(notebook: Notebook, parameters: Mapping[str, object]) -> TrainConfig | None:
    """The training config that parameters stand for; BgkitError for one that no training accepts.

    None if the notebook does not train: then it lacks one of REWARD, GUARD and UTILITY.
    """
    if not {"REWARD", "GUARD", "UTILITY"} <= set(notebook.takes):
        return None
    keys = TrainConfig.__dataclass_fields__
    return make_config({k.lower(): v for k, v in parameters.items() if k.lower() in keys})


def hash_of(notebook: Notebook, parameters: Mapping[str, object]) -> str:
    """12 hex digits that identify a run: its notebook's code and its parameters."""
    kept = {name: value for name, value in parameters.items() if name not in SET_BY_SWEEP}
    return digest([notebook.path.name, notebook.code, kept])


def varied(runs: Sequence[Mapping[str, object]]) -> list[str]:
    """Names of the parameters that differ between runs (of a single run, all).

    >>> varied([{"A": 1, "B": 2}, {"A": 1, "B": 3}])
    ['B']
    """
    names = dict.fromkeys(n for run in runs for n in run if n not in SET_BY_SWEEP)
    return [n for n in names if len(runs) == 1 or any(run.get(n) != runs[0].get(n) for run in runs)]


def describe(parameters: Mapping[str, object], names: Iterable[str]) -> str:
    """Some of a run's parameters in one line.

    >>> describe({"REWARD": "boundary", "SEED": 0}, ["SEED", "REWARD"])
    'SEED=0 REWARD=boundary'
    """
    return " ".join(f"{name}={parameters[name]}" for name in names if name in parameters)
