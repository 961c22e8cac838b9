"""A long table of settings, read and sliced: what varies, what is held, a metric as numbers.

One row per setting, seed, kind of prompt and metric, with ``mean``, ``low`` and ``high``, as
:func:`bgkit.sweeps.collection.load_table` gives it. Unknown columns, metrics and values raise
BgkitError with the known ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import as_text

#: key of a config -> column of a table
LABELLED = {"reward": "design", "policy": "scale", "utility": "utility", "guard": "guard"}
LABELLED |= {"tau": "tau", "seed": "seed"}
#: column -> the default of a training
DEFAULTS = {LABELLED.get(key, key): value for key, value in vars(runs.TrainConfig()).items()}
#: What a figure can spread out, beside what else runs differ in.
AXES = ("design", "utility", "scale", "guard", "tau", "seed", "kind")
#: Natural orders; other values follow in the order of the alphabet, numbers in theirs.
ORDERS = {
    "design": ("base", "filter_avoidance", "boundary", "compound"),
    "utility": ("aligned", "mild", "weak", "blind"),  # the pull over the boundary, rising
    "scale": ("tiny", "small", "large"),
    "kind": ("all", "benign", "ambiguous", "jailbreak", "long_context"),
    "seed": ("all",),
    "metric": tuple(
        "system_help system_harm near_boundary near_below filter_rate false_negative "
        "false_positive raw_help raw_harm kl".split()
    ),
}


def settings_of(table: pd.DataFrame) -> list[str]:
    """The columns of a table that a figure can spread out: :data:`AXES` and what runs differ in."""
    fixed = {*AXES, "metric", "mean", "low", "high", "n_seeds", "interval"}
    return [*AXES, *(column for column in table if column not in fixed)]


def values_of(table: pd.DataFrame, column: str) -> list:
    """The values of a column in their natural order (:data:`ORDERS`).

    >>> values_of(pd.DataFrame({"utility": ["blind", "mine", "mild"]}), "utility")
    ['mild', 'blind', 'mine']
    """
    if column not in table:
        known = ", ".join(settings_of(table))
        raise BgkitError(f"The table has no column {column!r}; choose one of {known}.")
    order, found = ORDERS.get(column, ()), list(pd.unique(table[column]))
    rest = [value for value in found if value not in order]
    numbers = all(isinstance(value, int | float) or str(value).isdigit() for value in rest)
    first = [value for value in order if value in found]
    return first + sorted(rest, key=float if numbers else str)


def in_order(table: pd.DataFrame, first: Sequence[str] = ()) -> pd.DataFrame:
    """Rows sorted by their columns' natural orders; the columns of ``first`` count most."""
    columns = list(dict.fromkeys([*first, *settings_of(table), "metric"]))
    places = pd.DataFrame({c: pd.Index(values_of(table, c)).get_indexer(table[c]) for c in columns})
    return table.iloc[places.sort_values(columns, kind="stable").index].reset_index(drop=True)


def select(
    table: pd.DataFrame,
    metric: str,
    spread: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The rows of one metric, in which all columns but those that are spread out are held.

    Columns of ``where`` are held at its values. Without one, kind and seed are held at ``all``
    where the table has that; another column must have a single value: a mean over settings is not
    made silently. Raises BgkitError for what is unknown, and for what was not measured.
    """
    wanted = {"metric": metric, **(where or {})}
    there = (column for column in settings_of(table) if column in table)
    known = {column: values_of(table, column) for column in (*there, *spread, *wanted)}
    held = [column for column in known if column not in spread]
    chosen = {c: "all" for c in held if c in ("kind", "seed") and "all" in known[c]} | wanted
    for column, value in chosen.items():
        if value not in known[column]:
            told = ", ".join(map(str, known[column]))
            raise BgkitError(f"The table has no {column} {value!r}; choose one of {told}.")
    for column in held:
        if column not in chosen and len(known[column]) > 1:
            told = ", ".join(map(str, known[column]))
            raise BgkitError(
                f"The table has several values of {column} ({told}): put it on an axis, or choose "
                f"one with where={{{column!r}: ...}}."
            )
    rows = table[(table[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    if rows.empty:
        told = ", ".join(f"{column} {value}" for column, value in (where or {}).items())
        raise BgkitError(f"'{metric}' was not measured for {told}; choose another combination.")
    return rows.reset_index(drop=True)


def at_defaults(table: pd.DataFrame, free: Sequence[str] = ()) -> pd.DataFrame:
    """The rows whose settings are a training's defaults, but for the columns in ``free``.

    Settings are what :class:`bgkit.runs.config.TrainConfig` has a default for, but design and seed.
    One is held at its default, or at the value of most rows where no row has that, and left out
    unless it is among :data:`AXES`.

    >>> rows = pd.DataFrame({"beta": [0.03, 0.1, 0.03], "tau": [0.5, 0.5, 0.3], "metric": "kl"})
    >>> at_defaults(rows, free=["beta"])["beta"].tolist()
    [0.03, 0.1]
    """
    for column in free:
        values_of(table, column)
    held = [c for c in table if c in DEFAULTS and c not in (*free, "design", "seed")]
    for column in held:
        known = table[column]
        value = DEFAULTS[column] if (known == DEFAULTS[column]).any() else known.mode().iloc[0]
        table = table[known == value]
    extra = [column for column in held if column not in AXES]
    return table.drop(columns=extra).reset_index(drop=True)


def numbers(
    table: pd.DataFrame, metric: str, x: str = "utility", where: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """A metric as text, "mean [low, high]": one line per design, one column per value of ``x``.

    Settings that were not measured are "–".
    """
    lines = ["metric" if x == "design" else "design"]
    rows = in_order(select(table, metric, ("design", x), where), lines)
    return as_text(rows, lines, x)[values_of(rows, x)]


def overview(
    table: pd.DataFrame,
    metrics: Sequence[str],
    setting: str,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Several metrics as text, in columns: one line per value of a setting and design."""
    lines = list(dict.fromkeys([setting, "design"]))
    rows = pd.concat([select(table, name, lines, where) for name in metrics])
    return as_text(in_order(rows, lines), lines, "metric")[list(metrics)]
