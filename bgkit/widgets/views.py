"""What all interactive views share: controls, a figure that is redrawn, a static view that stays.

A saved notebook keeps no widgets. :func:`show` therefore also displays the first state of a view as
ordinary output, which disappears at the first touch of a control, when the live one takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, display

from bgkit.errors import BgkitError
from bgkit.texts import html_text, plain_name

STATIC = "Run this notebook to use the controls; below is the view's first state."
WRAPPED = {"flex_flow": "row wrap"}  # columns where the page has the width


def _look(text: str) -> dict[str, Any]:
    layout = {"width": "30em", "max_width": "100%"}
    return {"description": text, "style": {"description_width": "14em"}, "layout": layout}


def slider(text: str, value: float, *, min: float, max: float, step: float) -> widgets.Widget:
    """A slider with whole numbers if ``step`` is an int; raises BgkitError for a start outside."""
    if not min <= value <= max:
        raise BgkitError(f"The start of '{text}' must lie in {min} to {max}, not at {value}.")
    make = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return make(value=value, min=min, max=max, step=step, **_look(text))


def choice(text: str, names: Iterable[object], value: object) -> widgets.Dropdown:
    """A menu of names."""
    return widgets.Dropdown(options=options(names), value=value, **_look(text))


def options(names: Iterable[object]) -> list[tuple[str, object]]:
    """Pairs of what a menu, which takes no HTML, shows and what it means."""
    return [(plain_name(name), name) for name in names]


def shown(wanted: Mapping[str, widgets.Widget], view: Callable[..., Sequence[Any]]) -> widgets.VBox:
    """Show controls above what ``view(**values)`` returns, drawn anew at every change.

    ``wanted`` maps the view's arguments to controls. Where a choice can not be shown, the
    BgkitError's sentence stands in its place. Returns the controls and their Output.
    """
    place = widgets.Output()

    def current() -> Sequence[Any]:
        return view(**{name: control.value for name, control in wanted.items()})

    def redraw(_: object) -> None:
        try:
            pictures = current()
        except BgkitError as error:
            pictures = [HTML(f"<p>{html_text(error)}</p>")]
        draw(place, *pictures)

    for control in wanted.values():
        control.observe(redraw, "value")
    box = widgets.VBox([widgets.Box(list(wanted.values()), layout=WRAPPED), place])
    show(box, *current())
    return box


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


def show(widget: widgets.Widget, *static: object, words: str = STATIC) -> None:
    """Display a view, and its first state as figures, tables or HTML that need no kernel.

    ``words`` stand in the widget's place where there is no kernel.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": words}, raw=True)
    handles = []
    for thing in static:
        # a figure displays itself and drops the handle; its bundle does not
        bundle = thing._repr_mimebundle_() if isinstance(thing, go.Figure) else None
        handles.append(display(bundle or thing, raw=bool(bundle), display_id=True))

    def clear(*_: object) -> None:
        while handles:
            handles.pop().update(HTML(""))

    for control in controls_of(widget):
        if isinstance(control, widgets.Button):
            control.on_click(clear)
        else:
            control.observe(clear, "value")
