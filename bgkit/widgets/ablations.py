"""A table of ablations under menus: which metric, over what, in which colours and panels."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from bgkit.evaluation import settings
from bgkit.figures import ablations as plots_ablations
from bgkit.figures import style
from bgkit.widgets import controls

#: Where a table has several values of a column that no axis shows, these are taken first.
USUAL = settings.DEFAULTS | {"seed": "all", "kind": "all"}
AXES = ("x", "colour", "panels")


def first_choices(table: pd.DataFrame, **wanted: Any) -> dict[str, Any]:
    """What the menus show first: ``metric``, ``x``, ``colour``, ``panels``, and every slice.

    A slice is a column with several values; it has the usual one (all prompts, the mean over
    seeds, ...) or the first, and is used while no axis shows the column. ``wanted`` overrides any.
    Raises BgkitError for a column or value that the table does not have.
    """
    several = [c for c in settings.settings_of(table) if len(settings.values_of(table, c)) > 1]
    spread = [c for c in several if c not in ("design", "seed", "kind")] or ["design"]
    x = "utility" if "utility" in spread else spread[0]
    metric = settings.values_of(table, "metric")[0]
    chosen = {"metric": metric, "x": x, "colour": "design", "panels": ""}
    for column in several:
        known = settings.values_of(table, column)
        chosen[column] = USUAL[column] if USUAL.get(column) in known else known[0]
    chosen |= wanted
    for name in AXES:
        if chosen[name]:
            settings.values_of(table, chosen[name])
    for column in set(chosen) - {"metric", *AXES}:
        every = settings.settings_of(table)
        settings.select(table, chosen["metric"], every, {column: chosen[column]})
    return chosen


def ablation_view(table: pd.DataFrame, **wanted: Any) -> tuple[go.Figure, pd.DataFrame]:
    """One metric over one setting (:func:`bgkit.figures.ablations.ablation`), and its numbers.

    ``wanted`` are choices as in :func:`first_choices`.
    """
    chosen = first_choices(table, **wanted)
    how = [chosen.pop(name) for name in ("metric", *AXES)]
    where = {name: value for name, value in chosen.items() if name not in how[1:]}
    return plots_ablations.ablation(table, *how, where), settings.numbers(table, *how, where)


def ablation(table: pd.DataFrame, **wanted: Any) -> widgets.VBox:
    """Show menus for metric, axes and slices above :func:`ablation_view`.

    Columns with a single value are not offered; a slice is greyed out while its column is on an
    axis. ``wanted`` are the first choices, errors as in :func:`first_choices`.
    """
    chosen = first_choices(table, **wanted)
    slices = [name for name in chosen if name not in ("metric", *AXES)]
    axes = dict.fromkeys(["design", *slices, chosen["x"], chosen["colour"]])
    axes = [(style.label(name), name) for name in axes]
    metrics = [(style.named(name), name) for name in settings.values_of(table, "metric")]
    menus = {
        "metric": ("metric", metrics),
        "x": ("from left to right", axes),
        "colour": ("colours", axes),
        "panels": ("panels", [("one panel", ""), *axes]),
    }
    for name in slices:
        known = settings.values_of(table, name)
        menus[name] = (f"only {style.label(name)}", [(str(v).replace("_", " "), v) for v in known])
    found = {name: controls.choice(*menus[name], chosen[name]) for name in menus}

    def grey_out(_: object = None) -> None:
        used = [found[name].value for name in AXES]
        for name in slices:
            found[name].disabled = name in used

    for name in AXES:
        found[name].observe(grey_out, "value")
    grey_out()
    return controls.shown(found, lambda **values: ablation_view(table, **values))
