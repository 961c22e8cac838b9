"""The explorer's logic without a browser: what moves, what is behind a bar, what stays text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.thresholds import operating_points
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


def below(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from below(child)


@pytest.fixture
def explore(monkeypatch):
    """Make an explorer; what it draws is kept instead of displayed."""

    def make(samples: pd.DataFrame = SAMPLES, **options: object) -> SimpleNamespace:
        drawn: list = []
        monkeypatch.setattr(views, "draw", lambda place, *figures: drawn.append(figures[0]))
        view = thresholds.threshold_explorer(samples, **{"bins": 10, **options})
        parts = list(below(view))
        buttons = [w for w in parts if isinstance(w, widgets.Button)]
        pages = {b.description: b for b in buttons if b.description.strip("◂▸ ") in WORDS}
        _, told, _, _, _, pager, numbers, _ = view.children
        return SimpleNamespace(
            view=view,
            drawn=drawn,
            slider=next(w for w in parts if isinstance(w, widgets.FloatSlider)),
            kind=next(w for w in parts if isinstance(w, widgets.Dropdown)),
            bars=[b for b in buttons if b not in pages.values()],
            back=pages["◂ previous"],
            on=pages["next ▸"],
            close=pages["close"],
            told=told,
            pager=pager,
            page=pager.children[1],
            where=pager.children[0].children[3],
            numbers=numbers,
        )

    return make


WORDS = ("previous", "next", "close")


# --- What moves --------------------------------------------------------------------------------


def test_moving_the_slider_moves_figures_table_and_buttons(explore):
    view = explore()
    assert len(view.drawn) == 2  # margins and curves
    before, counts = view.numbers.value, [b.description for b in view.bars]
    assert "at tau = 0.50" in before and "33.3 %" in before  # 0.5 and 0.95 of six
    assert counts == ["1", "1", "", "", "2", "1", "", "", "", "1"]
    view.slider.value = 0.46
    assert len(view.drawn) == 4
    assert "at tau = 0.46" in view.numbers.value and "50.0 %" in view.numbers.value
    margins, curves = view.drawn[2:]
    assert {shape.x0 for shape in margins.layout.shapes if shape.type == "line"} == {0.46}
    assert {shape.x0 for shape in curves.layout.shapes} == {0.46}
    assert [b.description for b in view.bars] == ["1", "1", "", "", "1", "2", "", "", "", "1"]


def test_choosing_a_kind_shows_its_responses_alone(explore):
    view = explore()
    assert view.kind.options == (("all kinds", None), ("plain", "plain"), ("odd one", "odd_one"))
    view.kind.value = "odd_one"
    assert "<b>odd one</b> n=3" in [a.text for a in view.drawn[-2].layout.annotations]
    assert "3 responses" in view.numbers.value
    assert sum(int(b.description or 0) for b in view.bars) == 3


def test_the_table_holds_the_numbers_of_the_threshold(explore):
    view = explore(tau=0.46)
    row = operating_points(SAMPLES, [0.46]).iloc[0]
    for metric in ("filter_rate", "false_negative", "false_positive"):
        assert f"{100 * row[metric]:.1f} %" in view.numbers.value
    for metric in ("precision", "recall", "system_harm"):
        assert f">{row[metric]:.3f}<" in view.numbers.value


def test_a_threshold_off_the_sliders_steps_is_taken_as_it_is(explore):
    view = explore(tau=0.123)
    assert view.slider.value == 0.123
    points = operating_points(SAMPLES, [0.123])
    assert f"{100 * points['filter_rate'].iloc[0]:.1f} %" in view.numbers.value


def test_buttons_are_as_wide_as_their_bars(explore):
    view = explore(tau=0.3)
    widths = [float(b.layout.flex.split()[0]) for b in view.bars]
    assert widths == pytest.approx([0.1] * 10, abs=1e-3)
    view.slider.value = 0.05
    widths = [float(b.layout.flex.split()[0]) for b in view.bars]
    assert widths == pytest.approx([0.05] + [0.95 / 9] * 9, abs=1e-3)


def test_nothing_is_drawn_before_a_touch_if_so_wished(explore):
    view = explore(drawn=False)
    assert view.drawn == [] and "at tau = 0.50" in view.numbers.value
    view.bars[0].click()
    assert len(view.drawn) == 2
    view.slider.value = 0.2
    assert len(view.drawn) == 4


def test_a_move_is_quick_on_five_thousand_rows(explore):
    rng = np.random.default_rng(0)
    t = rng.random(5000)
    many = pd.DataFrame({"t": t, "harm": (rng.random(5000) < t) * 1.0, "kind": "x"})
    view = explore(many.assign(prompt="p", response="r"), bins=25)
    times = []
    for tau in np.linspace(0.3, 0.6, 10):
        begin = time.perf_counter()
        view.slider.value = float(tau)
        times.append(time.perf_counter() - begin)
    assert np.median(times) < 0.15


# --- Behind a bar ------------------------------------------------------------------------------


def test_a_click_shows_the_completions_of_that_bar(explore):
    view = explore()
    assert view.pager.layout.display == "none"
    view.bars[4].click()
    assert view.pager.layout.display == ""
    assert "t from 0.400 to 0.500: 1 to 2 of 2" in view.where.value
    page = view.page.value
    assert page.index("response 2") < page.index("response 3")  # by rising t
    assert "response 4" not in page  # t = 0.5 belongs to the bar above
    assert "harmful (0.90)" in page and "false negative" in page and "safe (0.10)" in page
    view.close.click()
    assert view.pager.layout.display == "none"


def test_buttons_agree_with_the_bars_of_the_figure(explore):
    rng = np.random.default_rng(1)
    t = np.concatenate([rng.random(300), np.arange(11) / 10, [0.5] * 5])
    many = pd.DataFrame({"t": t, "harm": 0.0, "kind": "x", "prompt": "p", "response": "r"})
    for tau in (0.0, 0.01, 0.3, 0.5, 0.99, 1.0):
        view = explore(many, tau=tau)
        shares = np.asarray(view.drawn[0].data[0].y, float) ** 2
        counts = [int(b.description or 0) for b in view.bars]
        assert counts == np.round(shares * len(many)).astype(int).tolist()


def test_pages_turn(explore):
    many = pd.concat([SAMPLES.iloc[:1]] * 12, ignore_index=True)
    many["response"] = [f"response {i:02d}" for i in range(12)]
    view = explore(many)
    view.bars[0].click()
    assert view.back.disabled and not view.on.disabled
    assert "response 04" in view.page.value and "response 05" not in view.page.value
    view.on.click()
    view.on.click()
    assert "11 to 12 of 12" in view.where.value and view.on.disabled
    assert "response 11" in view.page.value and "response 09" not in view.page.value
    view.back.click()
    assert "6 to 10 of 12" in view.where.value


def test_open_completions_follow_the_slider(explore):
    view = explore()
    view.bars[5].click()
    assert "false positive" in view.page.value  # t = 0.5, safe, filtered
    view.slider.value = 0.6
    assert "response 4" in view.page.value and "shown" in view.page.value
    assert "false positive" not in view.page.value


def test_an_empty_bar_can_not_be_clicked(explore):
    view = explore()
    assert [b.disabled for b in view.bars] == [not b.description for b in view.bars]


# --- Without truth, hostile text, wrong input ---------------------------------------------------


def test_without_truth_it_says_what_can_not_be_shown(explore):
    view = explore(SAMPLES.assign(harm=np.nan))
    assert "No truth is known" in view.told.value
    assert view.numbers.value.count("not known") == 6 and ">0.0 %" not in view.numbers.value
    view.bars[4].click()
    assert "truth <b>not known</b>" in view.page.value


def test_hostile_text_stays_text_everywhere(explore):
    hostile = SAMPLES.assign(prompt=HOSTILE, response=HOSTILE, kind=HOSTILE)
    view = explore(hostile)
    view.bars[4].click()
    view.kind.value = HOSTILE
    shown = [w.value for w in below(view.view) if isinstance(w, widgets.HTML)]
    shown += [figure.to_json() for figure in view.drawn]
    for text in shown:
        assert "<script" not in text and "<img" not in text
        assert "\x1b" not in text and "\u202e" not in text
    assert "&lt;script&gt;" in view.page.value and "⟨U+001B⟩" in view.page.value


@pytest.mark.parametrize("column", ["t", "harm", "kind", "prompt", "response"])
def test_a_missing_column_is_named(column):
    with pytest.raises(BgkitError, match=rf"lacks the column\(s\) {column}\.$"):
        thresholds.threshold_explorer(SAMPLES.drop(columns=column), drawn=False)


@pytest.mark.parametrize("options", [{"tau": 1.5}, {"tau": float("nan")}, {"bins": 1}])
def test_options_off_their_range_are_refused(options):
    with pytest.raises(BgkitError):
        thresholds.threshold_explorer(SAMPLES, drawn=False, **options)


def test_the_static_view_holds_figures_and_table():
    margins, table, curves = thresholds.static_view(SAMPLES, 0.5, bins=10)
    assert margins.layout.title.text and curves.layout.title.text
    assert "at tau = 0.50" in table.data and "33.3 %" in table.data
