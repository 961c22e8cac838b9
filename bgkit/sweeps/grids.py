"""Grids of parameters: read, checked against a notebook's parameters cell, expanded into runs.

A grid maps names of a notebook's parameters to one value or a list of values (an axis); its runs
are all combinations. Several grids are joined; a run that two of them hold is refused. A run is
known by the hash of all its parameters, those left at their defaults included.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bgkit.errors import BgkitError
from bgkit.sweeps import notebooks
from bgkit.sweeps import training as sweep_training
from bgkit.sweeps.parameters import WRITTEN, Parameters, choices_in, exact, read

#: More runs than this are only started when the user says so.
MANY = 10_000
LONGEST = 1_000_000  # values of one axis in a text
#: Parameters that do not determine a run: the sweep sets them.
SET_BY_SWEEP = ("FOLDER", "BASE_FOLDER", "REPORT_TO")
_EXAMPLE = "REWARD=boundary,compound or SEED=0:5"

Grid = Mapping[str, object]


@dataclass(frozen=True)
class Notebook:
    """What a sweep needs to know of a notebook: parameters, their choices, a digest of its code."""

    path: Path
    parameters: Parameters
    choices: dict[str, list[str]]
    code: str

    def name_of(self, name: str) -> str:
        """The parameter that is meant, whatever its case; raises BgkitError if there is none."""
        for known in self.parameters.takes:
            if known.casefold() == name.casefold():
                return known
        self.parameters.check(name, None, self.path.name)
        raise AssertionError("unreachable")

    def run(self, given: Mapping[str, object]) -> dict[str, object]:
        """The parameters of a run: what is given, and defaults."""
        own = {name: "" for name in SET_BY_SWEEP if name in self.parameters.takes}
        return {**own, **self.parameters.defaults, **given}


def open_notebook(path: str | Path) -> Notebook:
    """Read a notebook for a sweep; raises BgkitError if it is missing or has no parameters.

    The digest is of the code cells, without the parameters cell (which is in the hash of a run) and
    without outputs.
    """
    path = Path(path)
    book = notebooks.read_notebook(path)
    cell = notebooks.parameters_cell(book, str(path))
    found = read(cell.source, path.name)
    code = [c.source for c in book.cells if c.cell_type == "code" and c is not cell]
    return Notebook(path.resolve(), found, choices_in(cell.source, found.defaults), _digest(code))


# --- Reading: text of the command line and of files ------------------------------------------


def parse_settings(notebook: Notebook, settings: Iterable[str]) -> dict[str, list]:
    """Axes of texts such as ``REWARD=boundary,compound`` and ``SEED=0:5`` (0, 1, 2, 3, 4).

    Raises BgkitError for a text without ``=``, a name given twice, an empty axis, an unknown name
    and a value that is not of the parameter's type.
    """
    axes: dict[str, list] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise BgkitError(f"{setting!r} is no setting of a sweep; write it as {_EXAMPLE}.")
        name = notebook.name_of(name.strip())
        if name in axes:
            raise BgkitError(f"{name} is set twice; give all its values at once, as in {_EXAMPLE}.")
        axes[name] = _values(notebook, name, text)
    return axes


def read_grids(notebook: Notebook, path: str | Path) -> list[dict[str, list]]:
    """The grids in a YAML file: one mapping of names to values, or a list of such mappings.

    ``path`` may also be the name of a grid of the project (``data/sweeps``). A text is read as on
    the command line (commas separate values), an item of a list is one value (or a range ``0:5``).
    Raises BgkitError for a file that is missing or broken, and as :func:`parse_settings`.
    """
    import yaml

    file = _grid_file(path)
    try:
        # every scalar as text: a "1:30" would be ninety, and a "no" False
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise BgkitError(f"The grid {path} can not be read: {error}.") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise BgkitError(f"The grid {path} is not valid YAML: {reason}.") from error
    grids = content if isinstance(content, list) else [content]
    for grid in grids:
        if not isinstance(grid, dict) or not grid:
            raise BgkitError(
                f"The grid {path} must map names of parameters to values, such as "
                "REWARD: [boundary, compound], or be a list of such mappings."
            )
    return [_typed_grid(notebook, grid, path) for grid in grids]


def _grid_file(path: str | Path) -> Path:
    from bgkit.testbed.store import data_folder

    shipped = data_folder() / "sweeps" / f"{path}.yaml"
    if Path(path).is_file() or not shipped.is_file():
        return Path(path)
    return shipped


def _typed_grid(notebook: Notebook, grid: dict, path: str | Path) -> dict[str, list]:
    axes: dict[str, list] = {}
    for key, given in grid.items():
        name = notebook.name_of(str(key))
        if name in axes:
            raise BgkitError(f"The grid {path} sets {name} twice; give all its values at once.")
        if isinstance(given, dict):
            raise BgkitError(f"The grid {path} has a mapping as {name}; give a value or a list.")
        if _is_axis(given, _holds_lists(notebook, name)):
            axes[name] = [v for item in given for v in _values(notebook, name, item, split=False)]
        else:
            axes[name] = _values(notebook, name, given)
    return axes


def _values(notebook: Notebook, name: str, text: object, split: bool = True) -> list:
    """Values of one parameter in a text; ``split`` separates them at commas."""
    kinds = set(notebook.parameters.takes[name])
    if {list, dict} & kinds:
        with contextlib.suppress(ValueError):
            value = json.loads(text) if isinstance(text, str) else _typed(notebook, name, text)
            if isinstance(value, (list, dict)):
                return [value]
    if not isinstance(text, str):
        raise notebook.parameters.wrong(name, text, notebook.path.name)
    parts = text.split(",") if split else [text]
    found = [_part(notebook, name, kinds, part.strip()) for part in parts if part.strip()]
    if sum(map(len, found)) > LONGEST:
        raise BgkitError(f"The axis {name} has more than {LONGEST:,} values; give it fewer.")
    return [value for part in found for value in part]


def _typed(notebook: Notebook, name: str, value: object) -> object:
    """A list or mapping of texts, as YAML is read, with numbers where no texts are wanted."""
    default = notebook.parameters.defaults.get(name)
    if isinstance(default, list) and any(isinstance(item, str) for item in default):
        return value
    if isinstance(value, dict):
        return {key: _typed(notebook, name, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(notebook, name, item) for item in value]
    with contextlib.suppress(ValueError):
        return json.loads(value)
    return value


def _part(notebook: Notebook, name: str, kinds: set[type], text: str) -> Sequence:
    """One value, or those of a range of whole numbers (the end not included)."""
    if bool in kinds and text.lower() in ("true", "false"):
        return [text.lower() == "true"]
    if type(None) in kinds and text in ("None", "null"):
        return [None]
    if int in kinds and ":" in text:
        with contextlib.suppress(ValueError):
            return range(*map(int, text.split(":", 1)))
    for kind in (int, float, str):
        if kind in kinds:
            with contextlib.suppress(ValueError):
                return [kind(text)]
    raise notebook.parameters.wrong(name, text, notebook.path.name)


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
    if not grids:
        raise BgkitError("There is nothing to run: give at least one grid.")
    axes = [_axes(notebook, grid) for grid in grids]
    total = sum(math.prod(map(len, each.values())) for each in axes)  # before any is written out
    if many is not None and total > many:
        raise BgkitError(
            f"The grid has {total:,} runs; say --yes (in Python: yes=True) to start more than "
            f"{many:,}."
        )
    found: dict[str, dict[str, object]] = {}
    for each in axes:
        each = {name: _checked(notebook, name, values) for name, values in each.items()}
        for values in itertools.product(*each.values()):
            given = dict(zip(each, values, strict=True))
            parameters = notebook.run(given)
            if (key := hash_of(notebook, parameters)) in found:
                raise BgkitError(
                    f"Two runs of the grid have the same parameters ({describe(given, given)}); "
                    "remove the repeated value, or what two grids have in common."
                )
            found[key] = parameters
    runs = list(found.values())
    if trains(notebook):
        sweep_training.check([config_of(notebook, parameters) for parameters in runs])
    return runs


def _axes(notebook: Notebook, grid: Grid) -> dict[str, Sequence]:
    """Values of each parameter of a grid, under the notebook's names, not checked yet."""
    axes: dict[str, Sequence] = {}
    for given, values in grid.items():
        name = notebook.name_of(given)
        if name in SET_BY_SWEEP:
            raise BgkitError(f"{name} is set by the sweep, for each run; leave it out of the grid.")
        if name in axes:
            raise BgkitError(f"The grid sets {name} twice; give all its values at once.")
        axes[name] = values if _is_axis(values, _holds_lists(notebook, name)) else [values]
        if not axes[name]:
            raise BgkitError(f"The axis {name} of the grid is empty; give it at least one value.")
    return axes


def _holds_lists(notebook: Notebook, name: str) -> bool:
    """Whether a parameter is made for lists, not only one that takes anything."""
    return list in notebook.parameters.takes[name] and notebook.parameters.takes[name] != WRITTEN


def _is_axis(values: object, of_lists: bool) -> bool:
    """Whether values are several: of a parameter that is a list itself, a list of lists."""
    if not isinstance(values, (list, tuple, range)):
        return False
    return not of_lists or all(isinstance(v, (list, tuple)) for v in values)


def _checked(notebook: Notebook, name: str, values: Sequence) -> list:
    choices = notebook.choices.get(name)
    for value in values:
        notebook.parameters.check(name, value, notebook.path.name)
        if choices and value not in choices:
            raise BgkitError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return [exact(value, notebook.parameters.takes[name]) for value in values]


def check_tracker(notebook: Notebook, report_to: str) -> None:
    """Raise BgkitError for a tracker that the notebook can not be told, or does not know."""
    if report_to == "none":
        return
    if "REPORT_TO" not in notebook.parameters.takes:
        raise BgkitError(f"{notebook.path.name} has no parameter REPORT_TO, so nothing is tracked.")
    if (choices := notebook.choices.get("REPORT_TO")) and report_to not in choices:
        raise BgkitError(
            f"{notebook.path.name} reports to {', '.join(choices)}, not to {report_to!r}."
        )


def trains(notebook: Notebook) -> bool:
    """Whether a notebook trains: it then has the parameters REWARD, GUARD and UTILITY."""
    return {"REWARD", "GUARD", "UTILITY"} <= set(notebook.parameters.takes)


def config_of(notebook: Notebook, parameters: Mapping[str, object]):
    """The training config that parameters stand for; None if the notebook does not train.

    It has those of the notebook's parameters that are keys of
    :class:`bgkit.runs.folders.TrainConfig`. Raises BgkitError for settings that no training
    accepts.
    """
    from bgkit.runs import TrainConfig, make_config

    if not trains(notebook):
        return None
    keys = TrainConfig.__dataclass_fields__
    return make_config({k.lower(): v for k, v in parameters.items() if k.lower() in keys})


def hash_of(notebook: Notebook, parameters: Mapping[str, object]) -> str:
    """12 hex digits that identify a run: its notebook's code and its parameters."""
    kept = {name: value for name, value in parameters.items() if name not in SET_BY_SWEEP}
    return _digest([notebook.path.name, notebook.code, kept])


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
