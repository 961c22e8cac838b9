"""Run a notebook with its defaults and store what it shows, for readers who do not run it.

Usage: python benchmarks/store_outputs.py notebooks/02_margin_distributions.ipynb [...]
Needs Playwright for Python and a chromium on the PATH. Stored are texts, tables and figures, each
figure also as a picture, which shows where no script runs (GitHub, nbviewer, HTML exports). Not
stored are widgets, whose state would be stale, and what papermill notes about the run.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import Page, sync_playwright
from plotly.offline import get_plotlyjs

from bgkit import notebooks

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDTH = 860  # pixels of a picture, about a notebook's column
DRAW = """async ([data, layout, width]) => {
    const place = document.createElement("div");
    document.body.replaceChildren(place);
    const fig = await Plotly.newPlot(place, data, {...layout, width});
    return Plotly.toImage(fig, {format: "png", width, height: layout.height});
}"""


def picture(page: Page, figure: dict) -> str:
    """A figure's PNG, in base64."""
    address = page.evaluate(DRAW, [figure["data"], figure["layout"], WIDTH])
    return address.removeprefix("data:image/png;base64,")


def tidy(notebook: nbformat.NotebookNode, page: Page) -> None:
    """Leave in a notebook only what a reader needs, in place."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", [True]):
            cell.metadata.pop("tags")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if PLOTLY in data:
                data["image/png"] = picture(page, json.loads(json.dumps(data[PLOTLY])))
                title = data[PLOTLY]["layout"]["title"]["text"]
                data["text/plain"] = f"Figure: {title.replace('<b>', '').replace('</b>', '')}"


def main(paths: list[str]) -> None:
    """Store the outputs of the notebooks at ``paths``."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
        page.add_script_tag(content=get_plotlyjs())
        for path in map(Path, paths):
            run = notebooks.run_notebook(path, Path(folder) / path.name)
            notebook = nbformat.read(run, as_version=4)
            tidy(notebook, page)
            nbformat.write(notebook, path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
