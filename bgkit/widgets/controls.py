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

_STYLE = {"description_width": "14em"}


def _layout() -> widgets.Layout:
    return widgets.Layout(width="30em", max_width="100%")


def slider(text: str, value: float, *, min: float, max: float, step: float) -> widgets.Widget:
    """A slider with whole numbers if ``step`` is an int; raises BgkitError for a start outside."""
    if not min <= value <= max:
        raise BgkitError(f"The start of '{text}' must lie in {min} to {max}, not at {value}.")
    make = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    more = {"min": min, "max": max, "step": step, "style": _STYLE, "layout": _layout()}
    return make(value=value, description=text, **more)


def choice(text: str, options: Sequence[tuple[str, object]], value: object) -> widgets.Dropdown:
    """A menu of (shown, meant) pairs; raises BgkitError for a start that is none of them."""
    if value not in [meant for _, meant in options]:
        known = ", ".join(str(meant) for _, meant in options)
        raise BgkitError(f"The start of '{text}' must be one of {known}, not {value!r}.")
    more = {"style": _STYLE, "layout": _layout()}
    return widgets.Dropdown(options=list(options), value=value, description=text, **more)


def above(
    wanted: Mapping[str, widgets.Widget], view: Callable[..., Sequence[Any]], drawn: bool = True
) -> widgets.VBox:
    """Controls above an Output that shows ``view(**values)``, drawn anew at every change.

    ``wanted`` maps the view's arguments to controls. ``drawn`` False leaves the Output empty until
    the first change, for a view that :func:`bgkit.widgets.views.show` displays above its static
    picture. Where a choice can not be shown, the BgkitError's sentence stands in its place.
    """
    place = widgets.Output()

    def redraw(_: object = None) -> None:
        try:
            shown = view(**{name: control.value for name, control in wanted.items()})
        except BgkitError as error:
            shown = [HTML(f"<p>{safe(error)}</p>")]
        views.draw(place, *shown)

    for control in wanted.values():
        control.observe(redraw, "value")
    if drawn:
        redraw()
    wrapped = widgets.Layout(flex_flow="row wrap")  # two columns where the page has the width
    return widgets.VBox([widgets.Box(list(wanted.values()), layout=wrapped), place])
