"""Notebooks made for reading: outputs stored, nothing that changes by itself, a picture each."""

from __future__ import annotations

import base64
import shutil
import struct
import zlib
from pathlib import Path

import nbformat
import numpy as np
import publish
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bgkit.errors import BgkitError


def pixels_of(data: bytes) -> np.ndarray:
    """The pixels (height, width, 4) of a PNG with a palette and without line filters."""
    parts, at = {}, 8
    while at < len(data):
        size, name = struct.unpack(">I", data[at : at + 4])[0], data[at + 4 : at + 8]
        parts[name] = data[at + 8 : at + 8 + size]
        assert data[at + 8 + size :][:4] == struct.pack(">I", zlib.crc32(name + parts[name]))
        at += 12 + size
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    colours = np.frombuffer(parts[b"PLTE"], np.uint8).reshape(-1, 3)
    alpha = np.frombuffer(parts[b"tRNS"], np.uint8)[:, None]
    return np.concatenate([colours, alpha], axis=1)[lines[:, 1:]]


def notebook(folder: Path, *sources: str) -> Path:
    book = nbformat.v4.new_notebook(metadata={"papermill": {"duration": 1.0}})
    book.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book.cells[0].metadata = {"tags": ["parameters"], "papermill": {"status": "completed"}}
    path = folder / "book.ipynb"
    nbformat.write(book, path)
    return path


@settings(max_examples=30)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 5), st.just(4))))
def test_a_png_of_few_colours_keeps_every_visible_pixel(pixels: np.ndarray) -> None:
    found = pixels_of(publish.png(pixels))
    seen = pixels[..., 3] > 0
    assert (found[..., 3] == pixels[..., 3]).all() and (found[seen] == pixels[seen]).all()


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")),
    reason="pictures of figures need Chromium",
)
@pytest.mark.browser
@pytest.mark.thorough
def test_a_figure_gets_its_picture_and_the_notebook_nothing_else(tmp_path) -> None:
    path = notebook(
        tmp_path,
        "COUNT = 3  # marks",
        "import plotly.graph_objects as go\n"
        "layout = {'height': 300, 'paper_bgcolor': 'rgba(0,0,0,0)', 'plot_bgcolor': '#ff0000'}\n"
        "go.Figure(go.Scatter(y=list(range(COUNT))), layout).show()",
        "import ipywidgets\nipywidgets.IntSlider()",
        "place = ipywidgets.Output()\ndisplay(place)\n"
        "with place:\n    place.clear_output(wait=True)\n    print('inside')",
    )
    first = publish.publish(path).read_bytes()
    book = nbformat.read(path, 4)
    data = book.cells[1].outputs[0].data
    found = pixels_of(base64.b64decode(data["image/png"]))
    assert found.shape == (300, publish.WIDTH, 4) and found[0, 0, 3] == 0
    assert (found[150, 400] == (255, 0, 0, 255)).all()
    assert publish.PLOTLY in data and not {"widgets", "papermill"} & set(book.metadata)
    assert book.cells[0].metadata == {"tags": ["parameters"]} and book.cells[1].metadata == {}
    assert list(book.cells[2].outputs[0].data) == ["text/plain"]  # a widget without its state
    assert publish.publish(path).read_bytes() == first


def test_a_notebook_that_fails_stays_as_it_was_and_what_is_none_is_refused(
    tmp_path, capsys
) -> None:
    path = notebook(tmp_path, "1 / 0")
    before = path.read_bytes()
    with pytest.raises(BgkitError, match=r"A cell of book\.ipynb failed: ZeroDivisionError"):
        publish.publish(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    path.write_text("{")
    assert publish.main([str(path)]) == 2
    assert "bgkit:" in (said := capsys.readouterr().err) and "not a readable notebook" in said


def test_without_chromium_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.delenv("BGKIT_CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BgkitError, match="need Chromium: install"):
        publish.chromium()
    monkeypatch.setenv("BGKIT_CHROMIUM", "/opt/chromium")
    assert publish.chromium() == "/opt/chromium"


def test_a_notebook_written_on_fewer_lines_is_the_same_notebook() -> None:
    for path in sorted(Path("notebooks").glob("0*.ipynb")):
        read = nbformat.read(path, as_version=4)
        text = publish.text_of(read)
        assert nbformat.reads(text, as_version=4) == read
        assert text == path.read_text("utf-8"), f"{path} is not as tools/publish.py writes it"
