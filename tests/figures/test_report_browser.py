"""The report opens in a browser: all figures draw, nothing runs that a model wrote."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, NAME, study

from bgkit.figures.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
#: Which of some bars is the tallest: others may be too low to be pointed at.
TALLEST = """bars => {
  const heights = bars.map(bar => bar.getBoundingClientRect().height);
  return heights.indexOf(Math.max(...heights));
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", **study())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no chromium on the path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    return []


@pytest.fixture
def page(chromium: Any, report: Path, faults: list[str]) -> Iterator[Any]:
    """The open report; what goes wrong in it is collected in ``faults``."""

    def refuse(dialog: Any) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def look(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            faults.append(request.url)

    def read(message: Any) -> None:
        if message.type == "error":
            faults.append(message.text)

    page = chromium.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", read)
    page.on("dialog", refuse)
    page.on("request", look)
    page.goto(report.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('[data-figure] .main-svg').length"
        " >= document.querySelectorAll('[data-figure]').length"
    )
    yield page
    page.close()


def test_all_figures_draw_and_nothing_else_happens(page: Any, faults: list[str]) -> None:
    boxes = page.locator("[data-figure]")
    assert boxes.count() == 6
    for place in range(boxes.count()):
        assert boxes.nth(place).locator("svg.main-svg").count() >= 1
        assert boxes.nth(place).locator(".trace, .point").count() > 0
    for summary in page.locator("summary").all():
        summary.click()
    page.mouse.wheel(0, 4000)
    assert faults == []
    assert page.locator("img").count() == 0


def test_hostile_names_and_texts_are_shown_as_they_are(page: Any, faults: list[str]) -> None:
    legend = page.locator("svg .legendtext", has_text=NAME)
    assert legend.count() >= 1
    assert page.locator("td", has_text=HOSTILE[0]).count() >= 1
    assert page.locator("td", has_text="red ⟨U+001B⟩[31mtext").count() >= 1
    bars = page.locator("[data-figure] .bars .point")
    bars.nth(bars.evaluate_all(TALLEST)).hover(force=True)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert faults == []


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 765


def test_text_in_the_figures_follows_the_theme(page: Any, faults: list[str]) -> None:
    title = page.locator("svg .gtitle").first

    def colours() -> tuple[str, str]:
        ink = title.evaluate("node => getComputedStyle(node).fill")
        return ink, page.evaluate("getComputedStyle(document.body).backgroundColor")

    ink, paper = colours()
    assert brightness(ink) < 0.4 and brightness(paper) > 0.9
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    ink, paper = colours()
    assert brightness(ink) > 0.7 and brightness(paper) < 0.2
    assert faults == []


@pytest.mark.parametrize("width", [420, 768, 1400])
def test_the_page_never_scrolls_sideways(page: Any, faults: list[str], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.evaluate(
        "[...document.querySelectorAll('[data-figure]')].map(box =>"
        " box.querySelector('.main-svg').getBoundingClientRect().width - box.clientWidth)"
    )
    assert max(drawn) <= 1
    assert faults == []
