"""The report opens in a browser: all figures draw, nothing runs that a model wrote."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bgkit.figures.report import write_report

pytestmark = pytest.mark.browser

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "end </script><script>alert(3)</script>",
    "red \x1b[31mtext\x1b[0m",
)
EVIL_NAME = "<img src=x onerror=alert(5)>"


def responses(pull: float) -> pd.DataFrame:
    """Forty responses spread over t, drawn away from 0.5 by ``pull``, with hostile text."""
    t = np.linspace(0, 1, 40)
    t = np.clip(0.5 + (t - 0.5) * (1 + pull), 0, 1)
    i = np.arange(40)
    harm = np.where(i % 5 == 0, 0.2, t)
    frame = pd.DataFrame({"t": t, "u": 0.4, "filtered": t >= 0.5, "harm": harm, "help": 0.6})
    frame = frame.assign(near=abs(t - 0.5) < 0.3, kl=0.1, length=3)
    frame[[f"{who}system_{what}" for who in ("", "judge_") for what in ("harm", "help")]] = 0.5
    frame["prompt_id"] = [f"p{n:02d}" for n in i]
    frame["kind"] = [("benign", "ambiguous", "jailbreak", "long_context")[n % 4] for n in i]
    frame["prompt"] = [HOSTILE[n % 4] + " word" * (n % 4) * 40 for n in i]
    frame["response"] = [HOSTILE[(n + 1) % 4] for n in i]
    return frame


def rows_of(design: str, shift: float) -> list[dict[str, Any]]:
    setting = {"design": design, "utility": "rm", "scale": 1.0, "guard": "g", "tau": 0.5}
    return [
        {**setting, "kind": kind, "metric": metric, "mean": x, "low": x - 0.03, "high": x + 0.04}
        for kind in ("all", "benign", "ambiguous", "jailbreak", "long_context")
        for place, metric in enumerate(("system_harm", "system_help", "filter_rate", "kl"))
        for x in [0.2 + 0.1 * place + shift]
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    steps = pd.Series(range(1, 31))
    held_out = steps.where(steps % 10 == 0) / 100
    log = pd.DataFrame({"step": steps, "reward": steps / 30, "kl": steps / 60})
    log = log.assign(near_boundary=0.3, filter_rate=0.2)
    log = log.assign(eval_system_harm=held_out, eval_system_help=1 - held_out)
    result = {
        "command": "bgkit study",
        "created": "2025-10-14",
        "machine": {"cpu": "2 cores"},
        "versions": {"python": "3.11"},
        "rows": rows_of("base", 0) + rows_of("boundary", 0.1) + rows_of(EVIL_NAME, 0.05),
    }
    samples = {"base": responses(0), "boundary": responses(0.6), EVIL_NAME: responses(0.3)}
    path = tmp_path_factory.mktemp("report") / "report.html"
    metrics = {"boundary": log, EVIL_NAME: log}
    return write_report(
        path, title="A study", result=result, samples=samples, metrics=metrics, tau=0.5
    )


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

    page = chromium.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: faults.append(message.text) if message.type == "error" else None,
    )
    page.on("dialog", refuse)
    page.on(
        "request",
        lambda request: (
            faults.append(request.url)
            if not request.url.startswith(("file:", "data:", "blob:"))
            else None
        ),
    )
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
    legend = page.locator("svg .legendtext", has_text=EVIL_NAME)
    assert legend.count() >= 1
    assert page.locator("td", has_text=HOSTILE[0]).count() >= 1
    assert page.locator("td", has_text="red ⟨U+001B⟩[31mtext").count() >= 1
    box = page.locator("[data-figure] .bars .point").first
    box.hover(force=True)
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
