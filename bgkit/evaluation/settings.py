"""Slices of a long table of settings: which columns vary, which are fixed, a metric as text.

One row per setting, seed, kind of prompt and metric, with ``mean``, ``low`` and ``high``, as
:func:`bgkit.sweeps.collection.load_table` returns it. Unknown columns, metrics and values raise
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
#: Columns that every table can vary; other keys in which runs differ come on top.
AXES = ("design", "utility", "scale", "guard", "tau", "seed", "kind")
#: Natural orders; other values follow in alphabetical or numerical order.
ORDERS = {
    "design": ("base", "filter_avoidance", "boundary", "compound"),
    "utility": ("aligned", "mild", "weak", "blind"),  # by the pull over the boundary
    "scale": ("tiny", "small", "large"),
    "kind": ("all", "benign", "ambiguous", "jailbreak", "long_context"),
    "seed": ("all",),
    "metric": tuple(
        "system_help system_harm near_boundary near_below filter_rate false_negative "
        "false_positive raw_help raw_harm kl".split()
    ),
}


def settings_of(table: pd.DataFrame) -> list[str]:
    """The columns of a table that hold settings: :data:`AXES` and others in which runs differ."""
    others = {*AXES, "metric", "mean", "low", "high", "n_seeds", "interval"}
    return [*AXES, *(column for column in table if column not in others)]


def values_of(table: pd.DataFrame, column: str) -> list:
    """The values of a column in their natural order (:data:`ORDERS`).

    >>> values_of(pd.DataFrame({"utility": ["blind", "mine", "mild"]}), "utility")
    ['mild', 'blind', 'mine']
    """
    if column not in table:
        choices = ", ".join(settings_of(table))
        raise BgkitError(f"The table has no column {column!r}; choose one of {choices}.")
    order, values = ORDERS.get(column, ()), list(pd.unique(table[column]))
    others = [value for value in values if value not in order]
    numeric = all(isinstance(value, int | float) or str(value).isdigit() for value in others)
    ordered = [value for value in order if value in values]
    return ordered + sorted(others, key=float if numeric else str)


def contents(table: pd.DataFrame) -> pd.DataFrame:
    """What a table covers, as text: the values of its settings, metrics and kinds of interval."""
    columns = [*settings_of(table), "metric", "n_seeds", "interval"]
    texts = {column: ", ".join(map(str, values_of(table, column))) for column in columns}
    return pd.Series(texts, name="values").to_frame()


def sort_rows(table: pd.DataFrame, first: Sequence[str] = ()) -> pd.DataFrame:
    """Rows sorted by the natural orders of their columns, those of ``first`` first."""
    columns = list(dict.fromkeys([*first, *settings_of(table), "metric"]))
    ranks = pd.DataFrame({c: pd.Index(values_of(table, c)).get_indexer(table[c]) for c in columns})
    return table.iloc[ranks.sort_values(columns, kind="stable").index].reset_index(drop=True)


def select(
    table: pd.DataFrame,
    metric: str,
    spread: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The rows of one metric, with every column fixed that is not in ``spread``.

    ``where`` gives the fixed columns' values. Kind and seed default to ``all`` if the table has
    that; any other column must have a single value, since means over settings are never taken
    silently. Raises BgkitError for unknown names, and for a combination that was not measured.
    """
    requested = {"metric": metric, **(where or {})}
    present = (column for column in settings_of(table) if column in table)
    values = {column: values_of(table, column) for column in (*present, *spread, *requested)}
    fixed = [column for column in values if column not in spread]
    chosen = {c: "all" for c in fixed if c in ("kind", "seed") and "all" in values[c]} | requested
    for column in (*chosen, *fixed):
        choices = ", ".join(map(str, values[column]))
        if column in chosen and chosen[column] not in values[column]:
            raise BgkitError(
                f"The table has no {column} {chosen[column]!r}; choose one of {choices}."
            )
        if column not in chosen and len(values[column]) > 1:
            raise BgkitError(
                f"The table has several values of {column} ({choices}): put it on an axis, or "
                f"choose one with where={{{column!r}: ...}}."
            )
    rows = table[(table[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    if rows.empty:
        setting = ", ".join(f"{column} {value}" for column, value in (where or {}).items())
        raise BgkitError(f"'{metric}' was not measured for {setting}; choose another combination.")
    return rows.reset_index(drop=True)


def default_rows(table: pd.DataFrame, free: Sequence[str] = ()) -> pd.DataFrame:
    """The rows at a training's default settings, except for the columns in ``free``.

    Settings are the keys of :class:`bgkit.runs.config.TrainConfig` except design and seed. Each is
    fixed at its default, or at its most frequent value if no row has the default, and its column is
    dropped unless it is in :data:`AXES`.

    >>> rows = pd.DataFrame({"beta": [0.03, 0.1, 0.03], "tau": [0.5, 0.5, 0.3], "metric": "kl"})
    >>> default_rows(rows, free=["beta"])["beta"].tolist()
    [0.03, 0.1]
    """
    for column in free:
        values_of(table, column)
    fixed = [c for c in table if c in DEFAULTS and c not in (*free, "design", "seed")]
    for column in fixed:
        values, default = table[column], DEFAULTS[column]
        table = table[values == (default if (values == default).any() else values.mode().iloc[0])]
    return table.drop(columns=[c for c in fixed if c not in AXES]).reset_index(drop=True)


def metric_table(
    table: pd.DataFrame, metric: str, x: str = "utility", where: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """A metric as text, "mean [low, high]": one row per design, one column per value of ``x``.

    Settings that were not measured are "–".
    """
    index = ["metric" if x == "design" else "design"]
    rows = sort_rows(select(table, metric, ("design", x), where), index)
    return as_text(rows, index, x)[values_of(rows, x)]


def overview(
    table: pd.DataFrame,
    metrics: Sequence[str],
    setting: str,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Several metrics as text, in columns: one row per value of a setting and design."""
    index = list(dict.fromkeys([setting, "design"]))
    rows = pd.concat([select(table, name, index, where) for name in metrics])
    return as_text(sort_rows(rows, index), index, "metric")[list(metrics)]
