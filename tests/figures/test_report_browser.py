"""The report opens in a browser: all figures draw, nothing runs that a model wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_report import HOSTILE, NAME, study

from bgkit.figures.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The open report, in which nothing goes wrong and nothing is loaded."""
    report = write_report(tmp_path_factory.mktemp("report") / "report.html", **study())
    faults, loaded = [], []

    def refuse(dialog: Any) -> None:
        faults.append(dialog.message)
        dialog.dismiss()

    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.on("dialog", refuse)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.extend([said.text] if said.type == "error" else []))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('[data-figure] .main-svg').length"
        " >= document.querySelectorAll('[data-figure]').length"
    )
    yield page
    page.close()
    assert faults == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in loaded)


def test_all_figures_draw_and_hostile_texts_are_shown_as_they_are(page: Any) -> None:
    boxes = page.locator("[data-figure]")
    assert boxes.count() == 6 and page.locator("img").count() == 0
    for box in boxes.all():
        assert box.locator(".trace, .point").count() > 0
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("svg .legendtext", has_text=NAME).count() >= 1
    for text in (HOSTILE[0], "red ⟨U+001B⟩[31mtext"):
        assert page.locator("td", has_text=text).count() >= 1


def test_the_page_never_scrolls_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_function("() => document.documentElement.scrollWidth <= 420")
