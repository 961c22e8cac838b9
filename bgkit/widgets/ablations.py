"""One metric against another of a table of ablations, chosen by menus."""

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
    """Display :func:`bgkit.figures.trade_off` with menus for both metrics and the kind of prompt.

    ``x``, ``y`` and ``kind`` are the first choices. Raises BgkitError as the figure does.
    """

    def view(x: str, y: str, kind: str) -> list:
        return [trade_off(table, along, {"kind": kind}, x=x, y=y)]

    view(x, y, kind)  # raises for a bad choice, with a better message than a menu's
    metrics, kinds = (settings.values_of(table, column) for column in ("metric", "kind"))
    menus = {
        "x": views.choice("from left to right", metrics, x),
        "y": views.choice("upwards", metrics, y),
        "kind": views.choice("prompts", kinds, kind),
    }
    return views.show_with_controls(menus, view)
