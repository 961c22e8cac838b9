"""What all interactive views share: a figure that is redrawn, and a static view that stays.

A saved notebook keeps no widgets. :func:`show` therefore also displays the first state of a view
as ordinary output; it disappears at the first touch of a control, when the live one takes over.
"""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, DisplayHandle, display

STATIC = "Run this notebook to use the controls; below is the view's first state."


def draw(place: widgets.Output, *things: object) -> None:
    """Replace what an Output shows by figures, tables or HTML."""
    with place:
        # waits for the new content, so that the page does not jump
        place.clear_output(wait=True)
        for thing in things:
            display(thing)


def controls_of(widget: widgets.Widget) -> list[widgets.Widget]:
    """All widgets below (and including) ``widget`` that hold a value a reader can change."""
    below = [found for child in getattr(widget, "children", ()) for found in controls_of(child)]
    is_control = widget.has_trait("value") and not isinstance(widget, widgets.HTML)
    return [widget, *below] if is_control or isinstance(widget, widgets.Button) else below


def hear_while_busy(widget: widgets.Widget) -> None:
    """Let a displayed widget's events reach the kernel while a cell runs, where that is possible.

    JupyterLab sends them to a subshell, a thread beside the cell. ipykernel 7.4 sends them on to
    the shell that last wrote to the widget: the one that the cell keeps busy. It is made to forget
    that shell; to other versions this means nothing.
    """
    getattr(widget.comm, "__dict__", {}).pop("_reply_subshell_id", None)


def show(widget: widgets.Widget, *static: go.Figure | HTML | object) -> None:
    """Display a view, and its first state as figures, tables or HTML that need no kernel."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": STATIC}, raw=True)
    handles = [_with_handle(thing) for thing in static]
    for control in controls_of(widget):
        _once_touched(control, handles)


def _with_handle(thing: object) -> DisplayHandle:
    """Display something so that it can be replaced later."""
    # a figure displays itself and drops the handle; its bundle does not
    if isinstance(thing, go.Figure) and (bundle := thing._repr_mimebundle_()):
        return display(bundle, raw=True, display_id=True)
    return display(thing, display_id=True)


def _once_touched(control: widgets.Widget, handles: Sequence) -> None:
    def clear(*_: object) -> None:
        while handles:
            handles.pop().update(HTML(""))

    if isinstance(control, widgets.Button):
        control.on_click(clear)
    else:
        control.observe(clear, "value")
