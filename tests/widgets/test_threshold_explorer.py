"""The explorer's logic without a browser: what moves, what is behind a bar, what stays text."""

from __future__ import annotations

from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest

from bgkit.widgets import thresholds, views

SAMPLES = pd.DataFrame(
    {
        "t": [0.05, 0.12, 0.45, 0.47, 0.5, 0.95],
        "harm": [0.0, 0.9, 0.9, 0.1, 0.2, 0.8],
        "kind": ["plain", "plain", "plain", "odd_one", "odd_one", "odd_one"],
        "prompt": [f"prompt {i}" for i in range(6)],
        "response": [f"response {i}" for i in range(6)],
    }
)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> $x^2$ **bold** \x1b[31m \u202e"


def html_below(widget: widgets.Widget) -> list[widgets.HTML]:
    """All HTML of a view."""
    below = [html for child in getattr(widget, "children", ()) for html in html_below(child)]
    return [widget, *below] if isinstance(widget, widgets.HTML) else below


@pytest.fixture
def explore(drawn, monkeypatch):
    """Make an explorer of ten bars; what it shows first and draws is kept instead of displayed."""
    monkeypatch.setattr(thresholds, "BINS", 10)

    def make(samples: pd.DataFrame = SAMPLES, **options: object) -> SimpleNamespace:
        box = thresholds.explore(samples, **options)
        slider, kind, *bars, page, close = views.controls_of(box)
        told, _, where, text, numbers = html_below(box)
        view = SimpleNamespace(slider=slider, kind=kind, bars=bars, page=page, close=close)
        view.told, view.where, view.text, view.numbers = told, where, text, numbers
        view.is_open = lambda: box.children[5].layout.display == ""
        view.used = lambda: [n for n, button in enumerate(bars) if not button.disabled]
        return view

    return make


def lines(figure) -> set[float]:
    """Places of the vertical lines."""
    return {shape.x0 for shape in figure.layout.shapes if shape.type == "line"}


def test_moving_the_slider_moves_figures_table_and_buttons(explore, drawn, first):
    view = explore()
    figure, table = first[-1]
    assert lines(figure) == {0.5}
    assert "at tau = 0.50" in table.data and "33.3 %" in table.data  # 0.5 and 0.95 of six
    assert drawn == [] and view.numbers.value == ""  # nothing before a touch
    assert view.used() == [0, 1, 4, 5, 9]
    view.slider.value = 0.46
    ((margins,),) = drawn
    assert "at tau = 0.46" in view.numbers.value and "50.0 %" in view.numbers.value
    assert lines(margins) == {0.46}
    assert "Shaded: |t − 0.46|" in margins.layout.title.subtitle.text


def test_choosing_a_kind_shows_its_responses_alone(explore, drawn):
    view = explore()
    kinds = (("all kinds", thresholds.ALL), ("plain", "plain"), ("odd one", "odd_one"))
    assert view.kind.options == kinds and view.kind.label == "all kinds"
    view.kind.value = "odd_one"
    assert "<b>odd one</b> n=3" in [a.text for a in drawn[-1][0].layout.annotations]
    assert "3 responses" in view.numbers.value and view.used() == [4, 5, 9]
    view.kind.index = 0
    assert f"{len(SAMPLES)} responses" in view.numbers.value


def test_thresholds_off_the_sliders_steps_and_its_rounding_errors_move_no_verdict(explore, first):
    view = explore(tau=0.123)
    assert view.slider.value == 0.123 and lines(first[-1][0]) == {0.123}
    assert "66.7 %" in first[-1][1].data  # all but 0.05 and 0.12
    view = explore(SAMPLES.assign(t=[0.1, 0.2, 0.3, 0.3, 0.3, 0.3]))
    view.slider.value = 0.1 + 0.2  # a little above 0.3
    assert "66.7 %" in view.numbers.value
    view.bars[3].click()
    assert view.text.value.count("filtered") == 4


def test_a_click_shows_the_completions_of_that_bar_which_follow_the_slider(explore):
    view = explore()
    assert not view.is_open()
    view.bars[4].click()
    assert view.is_open()
    assert "t from 0.400 to 0.500: 1 to 2 of 2" in view.where.value
    page = view.text.value
    assert page.index("response 2") < page.index("response 3")  # by rising t
    assert "response 4" not in page  # t = 0.5 belongs to the bar above
    assert "harmful (0.90)" in page and "false negative" in page and "safe (0.10)" in page
    view.bars[5].click()
    assert "false positive" in view.text.value  # t = 0.5, safe, filtered
    view.slider.value = 0.6
    assert "response 4" in view.text.value and "shown" in view.text.value
    assert "false positive" not in view.text.value
    view.close.click()
    assert not view.is_open()


def test_buttons_have_the_completions_of_their_bars(explore, drawn):
    t = np.concatenate([np.random.default_rng(1).random(300), np.arange(11) / 10, [0.5] * 5])
    many = pd.DataFrame({"t": t, "harm": 0.0, "kind": "x", "prompt": "p", "response": "r"})
    view = explore(many)
    for tau in (0.3, 0.98, 0.0, 1.0):
        view.slider.value = tau
        (figure,) = drawn[-1]
        counts = np.round(np.square(figure.data[0].y) * len(many)).astype(int).tolist()
        assert view.used() == np.flatnonzero(counts).tolist()
    for button, count in zip(view.bars, counts, strict=True):
        button.click()
        assert view.where.value.endswith(f" of {count}" if count else ": none")


def test_pages_turn(explore):
    many = pd.concat([SAMPLES.iloc[:1]] * 12, ignore_index=True)
    view = explore(many.assign(response=[f"response {i:02d}" for i in range(12)]))
    view.bars[0].click()
    assert view.page.max == 3
    assert "response 04" in view.text.value and "response 05" not in view.text.value
    view.page.value = 3
    assert "11 to 12 of 12" in view.where.value
    assert "response 11" in view.text.value and "response 09" not in view.text.value
    view.bars[0].click()
    assert view.page.value == 1 and "1 to 5 of 12" in view.where.value


def test_without_truth_it_says_what_can_not_be_shown(explore):
    view = explore(SAMPLES.assign(harm=np.nan))
    assert "No truth is known" in view.told.value
    view.slider.value = 0.51
    assert view.numbers.value.count("not known") == 6 and ">0.0 %" not in view.numbers.value


def test_hostile_text_stays_text_everywhere(explore, drawn):
    view = explore(SAMPLES.assign(prompt=HOSTILE, response=HOSTILE, kind=HOSTILE))
    view.bars[4].click()
    view.kind.value = HOSTILE
    html = [view.told.value, view.numbers.value, view.where.value, view.text.value]
    for text in (*html, *(figure.to_json() for (figure,) in drawn)):
        assert not {part for part in ("<script", "<img", "\x1b", "\u202e") if part in text}
    assert "&lt;script&gt;" in view.text.value and "⟨U+001B⟩" in view.text.value
