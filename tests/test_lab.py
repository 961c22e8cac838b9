"""The notebooks in a real browser: JupyterLab in headless Chromium, touched as a reader does.

With ``BGKIT_SCREENSHOTS`` set to a folder, the pictures that the README shows are written there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import Lab, chromium_path, copy_notebook, jupyterlab, set_theme, write_notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_path() is None, reason="needs Chromium"),
    pytest.mark.skipif(
        importlib.util.find_spec("jupyterlab") is None, reason="needs the extra `notebooks`"
    ),
]
HOSTILE = (
    "<script>window.hit=1</script><img src=x onerror=window.hit=1> **bold** `code` $x^2$ "
    "[link](javascript:window.hit=1) \x1b[31mred"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    set_theme(folder, os.environ.get("BGKIT_THEME", "JupyterLab Light"))
    return folder


@pytest.fixture(scope="module")
def browser(home: Path) -> Iterator[tuple]:
    from playwright.sync_api import sync_playwright

    with jupyterlab(home, home / "notebooks") as (address, token), sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium, address, token
        chromium.close()


@pytest.fixture
def lab(browser: tuple) -> Iterator[Lab]:
    chromium, address, token = browser
    page = chromium.new_page(viewport={"width": 1100, "height": 1700})
    yield Lab(page, address, token)
    page.close()


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "notebooks"


def write_log(path: Path, text: str, n: int = 40) -> Path:
    rng = np.random.default_rng(0)
    t = rng.beta(0.4, 2.0, n)
    table = pd.DataFrame({"prompt": [f"{text} {i}" for i in range(n)], "response": f"so {text}"})
    table = table.assign(p_unsafe=t, harmful=rng.random(n) < t, kind=rng.choice(["a", "b"], n))
    table.to_json(path, orient="records", lines=True)
    return path


def picture(place, name: str) -> None:
    """Keep a screenshot of a part of the page, where screenshots are asked for."""
    if wanted := os.environ.get("BGKIT_SCREENSHOTS"):
        Path(wanted).mkdir(parents=True, exist_ok=True)
        place.screenshot(path=Path(wanted) / f"{name}.png")


def test_the_threshold_moves_and_a_bar_opens_its_completions(lab: Lab, folder: Path) -> None:
    lab.open(copy_notebook("02", folder, {}))
    lab.run_all()
    assert lab.errors() == []
    cell = lab.cell("explorer.explore(")
    cell.scroll_into_view_if_needed()
    numbers = cell.locator("table", has_text="at tau =").first
    bars = cell.locator(".js-plotly-plot").first
    numbers.get_by_text("at tau = 0.50").wait_for(timeout=10_000)

    handle = cell.locator(".noUi-handle").first
    handle.focus()
    for _ in range(10):
        lab.page.keyboard.press("ArrowRight")
    numbers.get_by_text("at tau = 0.60").wait_for(timeout=10_000)
    by_key, drawn = numbers.inner_text(), bars.inner_html()

    box = cell.locator(".noUi-base").first.bounding_box()
    at = handle.bounding_box()
    lab.page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    lab.page.mouse.down()
    lab.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2, steps=8)
    lab.page.mouse.up()
    numbers.get_by_text("at tau = 0.3").or_(numbers.get_by_text("at tau = 0.29")).first.wait_for(
        timeout=10_000
    )
    assert numbers.inner_text() != by_key
    assert "all kinds n=240" in bars.inner_text()
    lab.page.wait_for_function(
        "([element, before]) => element.innerHTML !== before",
        arg=[cell.locator(".js-plotly-plot").first.element_handle(), drawn],
    )

    cell.locator("button:not([disabled])", has_text="▴").first.click()
    opened = cell.get_by_text("t from 0.000 to")
    opened.wait_for(timeout=10_000)
    assert cell.locator("pre").count() >= 2 and cell.locator("pre").nth(1).inner_text().strip()
    cell.evaluate("element => element.scrollIntoView({block: 'start'})")
    picture(cell, "02_margin_distributions")
    assert lab.faults == []


def test_stop_leaves_a_run_that_goes_on(lab: Lab, folder: Path) -> None:
    short = {"STEPS": 14, "BATCH_SIZE": 16, "NUM_GENERATIONS": 4, "EVAL_EVERY": 0}
    lab.open(copy_notebook("03", folder, {**short, "TEST_PROMPTS": 24, "FOLDER": "runs"}))
    lab.begin("notebook:run-all-cells")
    cell = lab.cell("dashboard.train_live(")
    cell.get_by_text("step 1 of 14").wait_for(timeout=120_000)
    cell.get_by_role("button", name="Stop").click()
    lab.finish()
    (error,) = lab.errors()
    assert error.startswith("StoppedError: Stopped after step ") and "nothing is lost" in error
    assert "Traceback" not in error

    lab.run_all()
    assert lab.errors() == []
    cell.get_by_text("step 14 of 14").wait_for(timeout=10_000)
    (run,) = (folder / "runs").iterdir()
    assert len(pd.read_parquet(run / "metrics.parquet")) == 14
    cell.evaluate("element => element.scrollIntoView({block: 'start'})")
    picture(cell.locator(".jp-Cell-outputWrapper"), "03_train_policy")
    assert lab.faults == []


def test_hostile_text_stays_text(lab: Lab, folder: Path) -> None:
    log = write_log(folder / "hostile.jsonl", HOSTILE)
    sources = (
        "from bgkit import logs\nfrom bgkit.widgets import browser, thresholds\n"
        f"samples = logs.read_log({str(log)!r})\nview = thresholds.explore(samples, 0.5)",
        "samples = samples.assign(filtered=samples.t >= 0.5, help=0.0, length=1)\n"
        "browser.browse({'<img src=x onerror=window.hit=1>': samples})",
    )
    lab.open(write_notebook([], folder / "hostile.ipynb", *sources))
    lab.run_all()
    assert lab.errors() == []
    explorer, table = lab.cell("thresholds.explore("), lab.cell("browser.browse(")
    explorer.locator("button:not([disabled])", has_text="▴").first.click()
    for cell in (explorer, table):
        shown = cell.get_by_text("<script>window.hit=1</script>").first
        shown.wait_for(timeout=10_000)
        text = shown.inner_text()
        assert "**bold**" in text and "$x^2$" in text and "⟨U+001B⟩[31mred" in text
        outputs = cell.locator(".jp-Cell-outputWrapper")
        assert outputs.locator("img[src=x], script, strong, a[href^=javascript]").count() == 0
    assert lab.page.evaluate("window.hit") is None
    assert lab.faults == []
