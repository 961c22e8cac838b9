"""Make the README's picture from a report: its first two figures, as a PNG.

Usage: python benchmarks/picture.py runs/demo/report.html data/reference/report.png
Needs Playwright for Python and a chromium on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def take(report: Path, target: Path, figures: int = 2, width: int = 1180) -> None:
    """Screenshot the first figures of a report, from the first one's top to the end of the last."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 1000}, device_scale_factor=1.5)
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("[data-figure] svg.main-svg")
        page.wait_for_timeout(1500)  # figures are drawn when they come into view
        boxes = [page.locator("[data-figure]").nth(i).bounding_box() for i in range(figures)]
        top, end = boxes[0]["y"] - 12, max(box["y"] + box["height"] for box in boxes) + 12
        clip = {"x": 0, "y": top, "width": width, "height": end - top}
        page.screenshot(path=target, clip=clip, full_page=True)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    take(arguments.report, arguments.target)
