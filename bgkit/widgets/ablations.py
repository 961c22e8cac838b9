"""A table of ablations under menus: one metric against another, for any kind of prompt."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd

from bgkit.evaluation import settings
from bgkit.figures import trade_off
from bgkit.widgets import views


def ablation(
    table: pd.DataFrame,
    x: str = "system_harm",
    y: str = "system_help",
    along: str = "strength",
    kind: str = "all",
) -> widgets.VBox:
    """Show menus of both metrics and the kind of prompt above :func:`bgkit.figures.trade_off`.

    ``x``, ``y`` and ``kind`` are shown first. Raises BgkitError as the figure does.
    """

    def view(x: str, y: str, kind: str) -> list:
        return [trade_off(table, along, {"kind": kind}, x=x, y=y)]

    view(x, y, kind)  # says what is wrong with a choice, which a menu does not
    metrics, kinds = (settings.values_of(table, column) for column in ("metric", "kind"))
    menus = {
        "x": views.choice("from left to right", metrics, x),
        "y": views.choice("upwards", metrics, y),
        "kind": views.choice("prompts", kinds, kind),
    }
    return views.shown(menus, view)
