"""Controls that look alike in all views, and the box that binds them to what they change.

Every control is an ordinary ipywidget: the tab key reaches it, arrow keys move it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
from IPython.display import HTML

from bgkit.errors import BgkitError
from bgkit.widgets import views
from bgkit.widgets.text import safe


def _look(text: str) -> dict[str, Any]:
    layout = widgets.Layout(width="30em", max_width="100%")
    return {"description": text, "style": {"description_width": "14em"}, "layout": layout}


def slider(text: str, value: float, *, min: float, max: float, step: float) -> widgets.Widget:
    """A slider with whole numbers if ``step`` is an int; raises BgkitError for a start outside."""
    if not min <= value <= max:
        raise BgkitError(f"The start of '{text}' must lie in {min} to {max}, not at {value}.")
    make = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return make(value=value, min=min, max=max, step=step, **_look(text))


def choice(text: str, options: Sequence[tuple[str, object]], value: object) -> widgets.Dropdown:
    """A menu of (shown, meant) pairs."""
    return widgets.Dropdown(options=list(options), value=value, **_look(text))


def shown(wanted: Mapping[str, widgets.Widget], view: Callable[..., Sequence[Any]]) -> widgets.VBox:
    """Show controls above what ``view(**values)`` returns, drawn anew at every change.

    ``wanted`` maps the view's arguments to controls. The first state stands below them as ordinary
    output (:func:`bgkit.widgets.views.show`) until a control is touched. Where a choice can not be
    shown, the BgkitError's sentence stands in its place. Returns the controls and their Output.
    """
    place = widgets.Output()

    def redraw(_: object = None) -> None:
        try:
            pictures = view(**{name: control.value for name, control in wanted.items()})
        except BgkitError as error:
            pictures = [HTML(f"<p>{safe(error)}</p>")]
        views.draw(place, *pictures)

    for control in wanted.values():
        control.observe(redraw, "value")
    wrapped = widgets.Layout(flex_flow="row wrap")  # two columns where the page has the width
    box = widgets.VBox([widgets.Box(list(wanted.values()), layout=wrapped), place])
    views.show(box, *view(**{name: control.value for name, control in wanted.items()}))
    return box
