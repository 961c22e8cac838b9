"""Measure how long a move of the threshold explorer's slider takes in JupyterLab and Chromium.

Usage: python benchmarks/slider_lab.py [rows]
The time is from the key press to the frame that shows the new threshold in the figure: kernel,
messages and drawing. benchmarks/slider.py measures the kernel's part.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from publish import chromium

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import lab  # noqa: E402

VIEW = """import sys
sys.path.insert(0, {folder!r})
import slider
from bgkit.widgets import thresholds
thresholds.explore(slider.made_up_samples({rows}));"""
#: Measures the time from the next key press until a figure shows the text.
WATCH = """text => {
  window.took = 0;
  addEventListener('keydown', () => {
    const begin = performance.now();
    const look = () => {
      const drawn = [...document.querySelectorAll('.js-plotly-plot svg')];
      const done = drawn.some(svg => svg.textContent.includes(text));
      if (done) window.took = performance.now() - begin; else requestAnimationFrame(look);
    };
    look();
  }, {once: true, capture: true});
}"""


def times(book: lab.Lab, moves: int) -> list[float]:
    """Milliseconds of each of ``moves`` presses of the right arrow key."""
    handle, milliseconds = book.page.get_by_role("slider").first, []
    handle.focus()
    for move in range(1, moves + 1):
        book.page.evaluate(WATCH, f"|t − {0.5 + move / 100:g}| <")
        handle.press("ArrowRight")
        milliseconds.append(book.page.wait_for_function("window.took").json_value())
        book.page.wait_for_timeout(200)  # a pause, so moves are measured separately
    return milliseconds


def main(rows: int = 5000, moves: int = 30) -> None:
    """Print the median and the slowest of the moves after the first, in milliseconds."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        source = VIEW.format(folder=str(ROOT / "benchmarks"), rows=rows)
        name = lab.write_notebook([], Path(home) / "view.ipynb", source)
        browser = playwright.chromium.launch(executable_path=chromium(), args=lab.FLAGS)
        with lab.jupyterlab(Path(home), Path(home)) as (address, token):
            book = lab.Lab(
                browser.new_page(viewport={"width": 1200, "height": 1000}), address, token
            )
            book.open(name)
            book.run("notebook:run-all-cells")
            first, *rest = times(book, moves + 1)
            book.close()
        browser.close()
    print(
        f"{rows} rows: the first move takes {first:.0f} ms, a later one {np.median(rest):.0f} ms "
        f"(median), {max(rest):.0f} ms (slowest of {moves})"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
