"""The report opens in a browser: all figures draw, nothing runs that a model wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, NAME, study

from bgkit.figures.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_all_figures_draw_and_hostile_texts_are_shown(chromium: Any, tmp_path: Path) -> None:
    faults, loaded = [], []

    def refuse(dialog: Any) -> None:
        faults.append(dialog.message)
        dialog.dismiss()

    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.on("dialog", refuse)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.extend([said.text] if said.type == "error" else []))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(write_report(tmp_path / "report.html", **study()).as_uri())
    boxes = page.locator("[data-figure]")
    assert boxes.count() == 6 and page.locator("img").count() == 0
    for box in boxes.all():
        box.locator(".trace, .point").first.wait_for(state="attached")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("svg .legendtext", has_text=NAME).count() >= 1
    for text in (HOSTILE[0], "red ⟨U+001B⟩[31mtext"):
        assert page.locator("td", has_text=text).count() >= 1
    page.set_viewport_size({"width": 420, "height": 900})  # it never scrolls sideways
    page.wait_for_function("() => document.documentElement.scrollWidth <= 420")
    page.close()
    assert faults == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in loaded)
