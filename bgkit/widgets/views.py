"""Shared parts of interactive views: controls, a redrawn figure, a static view.

A saved notebook keeps no widgets. So :func:`show` also displays the first state of a view as a
normal output, which disappears when a control is first used.
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
WRAPPED = {"flex_flow": "row wrap"}  # as many columns as fit


def _style(text: str) -> dict[str, Any]:
    layout = {"width": "30em", "max_width": "100%"}
    return {"description": text, "style": {"description_width": "14em"}, "layout": layout}


def slider(text: str, value: float, *, min: float, max: float, step: float) -> widgets.Widget:
    """A slider, of whole numbers if ``step`` is an int; BgkitError for a start out of range."""
    if not min <= value <= max:
        raise BgkitError(f"The start of '{text}' must lie in {min} to {max}, not at {value}.")
    make = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return make(value=value, min=min, max=max, step=step, **_style(text))


def choice(
    text: str, names: Iterable[object], value: object, first: Mapping[str, object] | None = None
) -> widgets.Dropdown:
    """A menu of names (text, not HTML), after ``first`` ones with other values."""
    options = [*(first or {}).items(), *((plain_name(name), name) for name in names)]
    return widgets.Dropdown(options=options, value=value, **_style(text))


def show_with_controls(
    controls: Mapping[str, widgets.Widget], view: Callable[..., Sequence[Any]]
) -> widgets.VBox:
    """Display controls and the results of ``view(**values)``, redrawn at every change.

    ``controls`` are those of the view's arguments. A BgkitError of a redraw is shown as text.
    """
    place = widgets.Output()

    def current() -> Sequence[Any]:
        return view(**{name: control.value for name, control in controls.items()})

    def redraw(_: object) -> None:
        try:
            pictures = current()
        except BgkitError as error:
            pictures = [HTML(f"<p>{html_text(error)}</p>")]
        draw(place, *pictures)

    for control in controls.values():
        control.observe(redraw, "value")
    box = widgets.VBox([widgets.Box(list(controls.values()), layout=WRAPPED), place])
    show(box, *current())
    return box


def draw(place: widgets.Output, *contents: object) -> None:
    """Replace the contents of an Output with figures, tables or HTML."""
    with place:
        # waits for the new content: otherwise the page jumps
        place.clear_output(wait=True)
        for content in contents:
            display(content)


def controls_of(widget: widgets.Widget) -> list[widgets.Widget]:
    """All widgets in ``widget``, including itself, with a value that the reader can change."""
    below = [control for child in getattr(widget, "children", ()) for control in controls_of(child)]
    is_control = widget.has_trait("value") and not isinstance(widget, widgets.HTML)
    return [widget, *below] if is_control or isinstance(widget, widgets.Button) else below


def receive_while_busy(widget: widgets.Widget) -> None:
    """Let a displayed widget's events reach the kernel while a cell runs, where supported.

    JupyterLab sends them to a subshell, a separate thread. ipykernel 7.4 forwards them to the shell
    that last wrote to the widget, which the cell keeps busy; this makes it forget that shell. It
    has no effect on other versions.
    """
    getattr(widget.comm, "__dict__", {}).pop("_reply_subshell_id", None)


def show(widget: widgets.Widget, *static: object, words: str = STATIC) -> None:
    """Display a view, and its first state as figures, tables or HTML that need no kernel.

    ``words`` replace the widget where there is no kernel.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": words}, raw=True)
    handles = []
    for content in static:
        # display() returns no handle for a figure, which displays itself, but one for its bundle
        bundle = content._repr_mimebundle_() if isinstance(content, go.Figure) else None
        handles.append(display(bundle or content, raw=bool(bundle), display_id=True))

    def clear(*_: object) -> None:
        while handles:
            handles.pop().update(HTML(""))

    for control in controls_of(widget):
        if isinstance(control, widgets.Button):
            control.on_click(clear)
        else:
            control.observe(clear, "value")
