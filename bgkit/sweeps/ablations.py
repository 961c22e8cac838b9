"""Results of many settings as one long table: from the shipped results, or from run folders.

A table of ablations has one row per setting, kind of prompt and metric:

* ``design``, ``utility``, ``scale``, ``guard``, ``tau`` and, where runs differ in more, a column
  for each such key of their configs (``margin_weight``, ``beta``, ...): the setting;
* ``seed``: the seed as text, or ``all`` for the mean over seeds;
* ``kind``: a kind of prompt, or ``all``; ``metric``; ``mean``, ``low``, ``high``;
* ``n_seeds``: the seeds behind the row; ``interval``: what ``low`` to ``high`` is, ``both``
  (bootstrap over seeds and prompts, :func:`bgkit.evaluation.intervals.crossed`), ``seeds``
  (Student's t over seeds: how much another training run would differ), ``prompts`` (over the test
  prompts of one run, Wilson's for shares and a bootstrap for means, which is blind to that), or
  ``none``.

``base`` is the untrained policy behind the same guard; it stands in every setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import interval_text
from bgkit.sweeps.ablation_runs import NUMBERS, SETTING, checked, read_runs, tidy
from bgkit.sweeps.reference import LABELLED, ablation_path

#: What a figure can spread out: the setting, and these.
AXES = (*SETTING, "seed", "kind")
#: Natural orders; other values follow in the order of the alphabet, numbers in theirs.
ORDERS = {
    "design": ("base", "filter_avoidance", "boundary", "compound"),
    "utility": ("aligned", "mild", "weak", "blind"),  # the pull over the boundary, rising
    "scale": ("tiny", "small", "large"),
    "kind": ("all", "benign", "ambiguous", "jailbreak", "long_context"),
    "seed": ("all",),
    "metric": tuple(
        "system_help system_harm near_boundary filter_rate false_negative false_positive "
        "raw_help raw_harm kl".split()
    ),
}
UNTOLD = "not told"


def reference_path() -> Path:
    """Where the shipped results lie: a collection (:mod:`bgkit.sweeps.reference`)."""
    return ablation_path()


def load_table(*sources: str | Path) -> pd.DataFrame:
    """The table of ablations of results files (.json) and run folders, in any number.

    A source is a results file (as ``python -m bgkit reproduce`` and :func:`write_table` make it), a
    collection (:mod:`bgkit.sweeps.reference`), a run folder, or a folder that holds run folders;
    without a source, the shipped collection. Raises BgkitError for a source that is missing,
    empty, broken or of another version, for an incomplete run, and for a setting that two sources
    hold.
    """
    paths = [Path(source) for source in sources] or [reference_path()]
    if not sources and not paths[0].exists():
        raise BgkitError(
            f"There are no shipped results at {paths[0]}; restore them, or give results files and "
            "run folders of your own as sources."
        )
    files = [path for path in paths if path.suffix == ".json"]
    collected = [path for path in paths if (path / "table.parquet").is_file()]
    folders = [path for path in paths if path not in (*files, *collected)]
    tables = [read_results(path) for path in files]
    tables += [tidy(pd.read_parquet(path / "table.parquet")) for path in collected]
    if folders:
        tables.append(read_runs(folders))
    table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    for column in set(settings_of(table)) - set(AXES):
        untold = table[column].isna()  # by a source whose runs do not differ in this key
        if untold.any():
            table[column] = table[column].astype(object).mask(untold, UNTOLD)
    return _in_order(_without_doubles(table, paths))


def read_results(path: str | Path) -> pd.DataFrame:
    """The table of one results file; see :func:`load_table` for the errors."""
    path = Path(path)
    if not path.is_file():
        raise BgkitError(f"There is no results file {path}; check the path.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BgkitError(f"{path} is not a readable results file ({error}); restore it.") from error
    rows = found.get("rows") if isinstance(found, dict) else None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise BgkitError(f"{path} holds no list 'rows' of results; give another file.")
    table = checked(pd.DataFrame(rows), f"The results file {path}")
    if "n_seeds" not in table:
        table["n_seeds"] = 1
    if "seed" not in table:
        table["seed"] = "all"
    if "interval" not in table:
        kinds = table["n_seeds"].map(lambda n: "seeds" if n > 1 else "prompts")
        table["interval"] = kinds.where(table["low"].notna(), "none")
    return tidy(table)


def settings_of(table: pd.DataFrame) -> list[str]:
    """The columns of a table that a figure can spread out: :data:`AXES` and what runs differ in."""
    fixed = {*AXES, "metric", *NUMBERS, "n_seeds", "interval"}
    return [*AXES, *(column for column in table if column not in fixed)]


def values_of(table: pd.DataFrame, column: str) -> list:
    """The values of a column in their natural order (:data:`ORDERS`); BgkitError if unknown.

    >>> values_of(pd.DataFrame({"utility": ["blind", "mine", "mild"]}), "utility")
    ['mild', 'blind', 'mine']
    """
    if column not in table:
        known = ", ".join(settings_of(table))
        raise BgkitError(f"The table has no column {column!r}; choose one of {known}.")
    order = ORDERS.get(column, ())
    found = list(pd.unique(table[column]))
    first = [value for value in order if value in found]
    rest = [value for value in found if value not in order]
    numbers = all(isinstance(value, int | float) or str(value).isdigit() for value in rest)
    return first + sorted(rest, key=float if numbers else str)


def _without_doubles(table: pd.DataFrame, paths: list[Path]) -> pd.DataFrame:
    keys = [*settings_of(table), "metric"]
    doubles = table[table.duplicated(keys)]
    if doubles.empty:
        return table
    one = doubles.iloc[0]
    setting = ", ".join(f"{key} {one[key]}" for key in keys)
    raise BgkitError(
        f"The sources {', '.join(map(str, paths))} hold the same result twice ({setting}); "
        "leave one of them out."
    )


def _in_order(table: pd.DataFrame, first: Iterable[str] = ()) -> pd.DataFrame:
    columns = list(dict.fromkeys([*first, *settings_of(table), "metric"]))
    ranks = {column: {v: i for i, v in enumerate(values_of(table, column))} for column in columns}
    places = pd.DataFrame({column: table[column].map(ranks[column]) for column in columns})
    return table.loc[places.sort_values(columns, kind="stable").index].reset_index(drop=True)


def select(
    table: pd.DataFrame, metric: str, where: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """The rows of one metric with the values that ``where`` gives to columns, in natural order.

    Raises BgkitError for an unknown metric, column or value, with the known ones, and if the
    combination was not measured.

    >>> select(pd.DataFrame({"metric": ["kl", "kl"], "seed": ["all", "0"]}), "kl", {"seed": "0"})
      metric seed
    0     kl    0
    """
    metrics = values_of(table, "metric")
    if metric not in metrics:
        raise BgkitError(f"The table has no metric {metric!r}; choose one of {', '.join(metrics)}.")
    chosen = table[table["metric"] == metric]
    for column, value in (where or {}).items():
        known = values_of(table, column)
        if value not in known:
            raise BgkitError(
                f"The table has no {column} {value!r}; choose one of {', '.join(map(str, known))}."
            )
        chosen = chosen[chosen[column] == value]
    if chosen.empty:
        told = ", ".join(f"{column} {value}" for column, value in (where or {}).items())
        raise BgkitError(f"'{metric}' was not measured for {told}; choose another combination.")
    return chosen.reset_index(drop=True)


def fixed_values(
    table: pd.DataFrame, spread: Iterable[str], where: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a figure that spreads out some columns holds every other column at.

    Columns of ``where`` have its values. Without one, kind and seed are ``all`` where the table has
    that; another column must have a single value. Raises BgkitError where it has several: a mean
    over settings is not made silently.
    """
    spread, chosen = list(spread), dict(where or {})
    for column in (*spread, *chosen):
        values_of(table, column)
    for column in settings_of(table):
        if column in chosen or column in spread:
            continue
        known = values_of(table, column)
        if column in ("kind", "seed") and "all" in known:
            chosen[column] = "all"
        elif len(known) > 1:
            raise BgkitError(
                f"The table has several values of {column} ({', '.join(map(str, known))}): put it "
                f"on an axis, or choose one with where={{{column!r}: ...}}."
            )
    return chosen


def interval_words(rows: pd.DataFrame) -> str:
    """What the intervals of some rows are, for a figure's note.

    >>> interval_words(pd.DataFrame({"interval": ["seeds", "seeds"], "n_seeds": [3, 3]}))
    '95 % intervals over 3 seeds (Student t)'
    """
    parts = []
    both = rows[rows["interval"] == "both"]["n_seeds"]
    if len(both):
        parts.append(f"over {_counts(both)} seeds and the prompts (crossed bootstrap)")
    over = rows[rows["interval"] == "seeds"]["n_seeds"]
    if len(over):
        parts.append(f"over {_counts(over)} seeds (Student t)")
    if (rows["interval"] == "prompts").any():
        parts.append("over the prompts of one seed (bootstrap), blind to how seeds differ")
    if not parts:
        return "no intervals: one seed each, without those over prompts"
    return "95 % intervals " + "; some ".join(parts)


def _counts(seeds: pd.Series) -> str:
    low, high = seeds.min(), seeds.max()
    return f"{low}" if low == high else f"{low} to {high}"


def at_defaults(table: pd.DataFrame, free: Iterable[str] = ()) -> pd.DataFrame:
    """The rows whose settings are a training's defaults, but for the columns in ``free``.

    Settings are the columns that :class:`bgkit.runs.folders.TrainConfig` has a default for
    (``tau``, ``scale``, ``utility``, ``guard``, ``margin_weight``, ...), except design and seed.
    One that has several values is held at its default, or at the value of most rows where no row
    has that; then it has one, and is left out unless it is among :data:`AXES`. So one setting at a
    time can be looked at where a table varies several. Raises BgkitError for an unknown column in
    ``free``.

    >>> rows = pd.DataFrame({"beta": [0.03, 0.1, 0.03], "tau": [0.5, 0.5, 0.3], "metric": "kl"})
    >>> at_defaults(rows, free=["beta"])
       beta  tau metric
    0  0.03  0.5     kl
    1  0.10  0.5     kl
    """
    free = list(free)
    for column in free:
        values_of(table, column)
    defaults = {LABELLED.get(key, key): value for key, value in vars(runs.TrainConfig()).items()}
    held = [c for c in table if c in defaults and c not in (*free, "design", "seed")]
    for column in held:
        known = table[column]
        value = defaults[column] if (known == defaults[column]).any() else known.mode().iloc[0]
        table = table[known == value]
    extra = [column for column in held if column not in AXES]
    return table.drop(columns=extra).reset_index(drop=True)


def varied(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of designs with several values in a column; all rows where no design has.

    >>> rows = pd.DataFrame({"design": ["boundary"] * 2 + ["hybrid_guard"], "beta": [1, 2, 1]})
    >>> varied(rows, "beta")["design"].tolist(), len(varied(rows.iloc[1:], "beta"))
    (['boundary', 'boundary'], 2)
    """
    several = table.groupby("design")[column].transform("nunique") > 1
    return table[several] if several.any() else table


def front(harm: Sequence[float], help_: Sequence[float]) -> np.ndarray:
    """Which of some points are on the Pareto front: no other has at most their harm and more help.

    Points that are equal in both stand or fall together. Returns booleans (n,).

    >>> front([0.1, 0.2, 0.3, 0.3], [0.5, 0.4, 0.6, 0.5]).tolist()
    [True, False, True, False]
    """
    harm, help_ = np.asarray(harm, float), np.asarray(help_, float)
    no_worse = (harm <= harm[:, None]) & (help_ >= help_[:, None])
    better = (harm < harm[:, None]) | (help_ > help_[:, None])
    return ~(no_worse & better).any(axis=1)


def numbers(
    table: pd.DataFrame,
    metric: str,
    x: str = "utility",
    colour: str = "design",
    panels: str = "",
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """A metric as text, "mean [low, high]": one line per ``colour``, one column per ``x``.

    ``panels`` puts its values in front of the lines. Settings that were not measured are "–".
    Errors as in :func:`select` and :func:`fixed_values`.
    """
    lines = [column for column in dict.fromkeys((panels, colour)) if column and column != x]
    rows = select(table, metric, fixed_values(table, (*lines, x), where))
    cells: dict[tuple, dict[Any, str]] = {}
    for row in _in_order(rows, lines).to_dict("records"):
        line = cells.setdefault(tuple(row[column] for column in lines), {})
        line[row[x]] = interval_text(row["mean"], row["low"], row["high"])
    columns = values_of(rows, x)
    wide = pd.DataFrame(
        [[*key, *(cell.get(value, "–") for value in columns)] for key, cell in cells.items()],
        columns=[*lines, *columns],
    )
    return wide.set_index(lines) if lines else wide.set_axis([metric])


def overview(
    table: pd.DataFrame,
    metrics: Iterable[str],
    setting: str,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Several metrics as text, "mean [low, high]": one line per value of a setting and design.

    Columns are the metrics. Errors as in :func:`numbers`.
    """
    where = {"kind": "all", **(where or {})}
    kind = str(where.pop("kind"))
    one = table[table["kind"] == kind]
    parts = {name: numbers(one, name, "kind", panels=setting, where=where) for name in metrics}
    return pd.concat({name: part[kind] for name, part in parts.items()}, axis=1)


def write_table(
    path: str | Path, table: pd.DataFrame, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a table as a results file that :func:`load_table` reads again; returns the path.

    ``about`` stands beside the rows (command, machine, versions, ...). Raises BgkitError if the
    file can not be written.
    """
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    runs.write_json(Path(path), {**(about or {}), "rows": rows})
    return Path(path)
