"""Execute a notebook for the repository, so it can be read where nothing runs.

``python tools/publish.py notebooks/*.ipynb`` runs each notebook from top to bottom with its
defaults and stores its outputs without widget states, times or versions, so a second run
changes only what a reader sees. It adds a picture to every Plotly figure: GitHub,
nbviewer and nbconvert do not draw Plotly and show the picture; JupyterLab, VS Code and Colab show
the figure. The pictures need Playwright (extra ``test``) and Chromium.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from plotly.offline import get_plotlyjs

from bgkit.errors import BgkitError
from bgkit.runs import write_atomically
from bgkit.sweeps.kernels import KernelManager

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDTH = 840  # pixels, about the width of a notebook's output
TIMEOUT = 900  # seconds for one cell
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
#: Where a notebook installs the kit from if it is missing: a git address, or a wheel's path. No
#: copy is published. To use your own, name it here and publish the notebooks again.
SOURCE = ""
#: The first code cell of every notebook; it cannot use bgkit, which may not be installed yet.
SET_UP = f"""\
# Where bgkit is installed, this does nothing. Elsewhere (on Colab; before any other import) it
# installs SOURCE: a copy of bgkit that you trust, as a git address or a wheel. None is published.
SOURCE = "{SOURCE}"  # such as "git+https://HOST/YOU/bgkit" or "bgkit-0.1.0-py3-none-any.whl"

import importlib.util
import subprocess
import sys

if importlib.util.find_spec("bgkit") is None:
    if not SOURCE:
        sys.exit("bgkit is not installed: set SOURCE above to your copy's git address or wheel.")
    if subprocess.call([sys.executable, "-m", "pip", "install", "-q", SOURCE]):
        sys.exit(f"pip could not install SOURCE ({{SOURCE}}); its reason stands above.")"""
_PAGE = "<!doctype html><meta charset='utf-8'><body style='margin:0'><div id='figure'></div>"
#: Draws a figure and returns its width, its height, and its pixels (RGBA) as base64.
_DRAW = """async ([text, width]) => {
  const figure = JSON.parse(text), place = document.getElementById('figure');
  Plotly.purge(place);
  await Plotly.newPlot(place, figure.data, {...figure.layout, width}, {staticPlot: true});
  const height = place._fullLayout.height, picture = new Image();
  picture.src = await Plotly.toImage(place, {format: 'png', width, height, scale: 1});
  await picture.decode();
  const canvas = Object.assign(document.createElement('canvas'), {width, height});
  const pen = canvas.getContext('2d');
  pen.drawImage(picture, 0, 0);
  let bytes = '';
  for (const byte of pen.getImageData(0, 0, width, height).data) bytes += String.fromCharCode(byte);
  return [width, height, btoa(bytes)];
}"""


def chromium() -> str:
    """Path of Chromium (``BGKIT_CHROMIUM`` overrides it); raises BgkitError where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("BGKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not path:
        raise BgkitError(
            "Pictures of figures need Chromium: install your system's package, or set "
            "BGKIT_CHROMIUM to its path."
        )
    return path


def png(pixels: np.ndarray) -> bytes:
    """A PNG of pixels (height, width, 4: RGBA, uint8) in at most 96 colours.

    A figure has few colours apart from the shades of its edges: the 96 most frequent ones stay,
    others become the nearest of them, which makes the file much smaller.

    >>> png(np.zeros((2, 3, 4), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    height, width, _ = pixels.shape
    flat = np.where(pixels[..., 3:] == 0, 0, pixels).reshape(-1, 4)  # transparent is one colour
    colours, indices, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:96]
    distances = np.abs(colours[:, None].astype(int) - colours[frequent].astype(int)).sum(2)
    places = distances.argmin(1).astype(np.uint8)[indices.reshape(height, width)]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), places], axis=1)  # filter 0: none
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": colours[frequent, :3].tobytes(),
        b"tRNS": colours[frequent, 3].tobytes(),
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )


def stills(figures: Sequence[dict], width: int = WIDTH) -> list[bytes]:
    """A PNG of each figure (as Plotly's dictionary), on a transparent ground.

    ``width`` in pixels; heights are the figures' own. Raises BgkitError without Chromium or
    Playwright.
    """
    if not figures:
        return []
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BgkitError("Pictures of figures need Playwright: install bgkit[test].") from error
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, offline=True)
        page.set_content(_PAGE)
        page.add_script_tag(content=get_plotlyjs())
        pictures = []
        for figure in figures:
            columns, rows, pixels = page.evaluate(_DRAW, [json.dumps(figure), width])
            flat = np.frombuffer(base64.b64decode(pixels), np.uint8)
            pictures.append(png(flat.reshape(rows, columns, 4)))
        browser.close()
    return pictures


def add_stills(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Add a picture to every stored Plotly figure, in place; returns the notebook."""
    outputs = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if PLOTLY in output.get("data", {})
    ]
    pictures = stills([data[PLOTLY] for data in outputs])
    for data, picture in zip(outputs, pictures, strict=True):
        data["image/png"] = base64.b64encode(picture).decode()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove a run's traces other than outputs, in place; returns the notebook.

    Times, versions, papermill's and the widgets' metadata go; tags stay. A widget without its
    state would only show an error, so only its text form stays.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    return notebook


def text_of(notebook: nbformat.NotebookNode) -> str:
    """A notebook as JSON, with each stored figure on one line: a fifth smaller, and short diffs."""
    figures, notebook = {}, copy.deepcopy(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if figure := output.get("data", {}).get(PLOTLY):
                output["data"][PLOTLY] = f"figure {len(figures)}"
                figures[output["data"][PLOTLY]] = json.dumps(
                    figure, ensure_ascii=False, sort_keys=True, separators=(",", ":")
                )
    text = nbformat.writes(notebook) + "\n"
    for name, figure in figures.items():
        text = text.replace(f'"{PLOTLY}": "{name}"', f'"{PLOTLY}": {figure}')
    return text


def publish(path: str | Path) -> Path:
    """Execute a notebook in its folder and store its outputs and pictures; returns its path.

    Its set-up cell, if it has one, becomes :data:`SET_UP`. Raises BgkitError for a file that is no
    notebook or a cell that fails (the file then stays unchanged), and the errors of :func:`stills`.
    """
    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises what its JSON and schema readers raise
        raise BgkitError(f"{path} is not a readable notebook: {error}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code" and 'find_spec("bgkit")' in cell.source:
            cell.source = SET_UP
    where = {"metadata": {"path": str(path.resolve().parent)}}
    # With widget states, or nbclient fails at an Output; tidy() removes them.
    more = {"timeout": TIMEOUT, "kernel_name": "python3", "store_widget_state": True}
    client = NotebookClient(notebook, resources=where, kernel_manager_class=KernelManager, **more)
    try:
        client.execute()
    except CellExecutionError as error:
        raise BgkitError(f"A cell of {path.name} failed: {error.ename}: {error.evalue}") from error
    text = text_of(add_stills(tidy(notebook)))
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return path


def main(paths: Sequence[str]) -> int:
    """Publish notebooks; prints a line for each and returns the exit status."""
    if not paths:
        print("usage: python tools/publish.py NOTEBOOK...", file=sys.stderr)
        return 2
    for path in paths:
        try:
            size = publish(path).stat().st_size
        except BgkitError as error:
            print(f"bgkit: {error}", file=sys.stderr)
            return 2
        print(f"{path}: {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
