"""The notebooks keep their promises: form, parameters, stored outputs; nbval runs them itself."""

from __future__ import annotations

import ast
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager
from publish import SET_UP

import bgkit
from bgkit.sweeps.grids import open_notebook

SERIES = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MARK = "NBVAL_CHECK_OUTPUT"


def code_cells(path: Path) -> list:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
class TestForm:
    """What every notebook of the series has in common."""

    def test_it_opens_with_its_title_question_set_up_and_typed_parameters(self, path: Path) -> None:
        cells = nbformat.read(path, as_version=4).cells
        assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
        assert "?" in cells[0].source, "the question is missing"
        assert cells[1].source == SET_UP and "bgkit.start()" in cells[2].source
        assert open_notebook(path).defaults, "no parameters"
        (source,) = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
        for statement in ast.parse(source).body:
            lines = source.splitlines()[statement.lineno - 1 : statement.end_lineno]
            assert any("#" in line for line in lines), f"no comment: {lines[0]}"

    def test_no_function_class_or_public_name_is_defined_again(self, path: Path) -> None:
        for cell in code_cells(path):
            assert cell.source.count("\n") < 27, "a long cell"
            for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
                assert not isinstance(node, (ast.FunctionDef, ast.ClassDef)), ast.unparse(node)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    assert node.id not in set(bgkit.__all__) - {"table"}  # a plain word, too

    def test_it_is_small_and_a_reader_without_a_kernel_sees_figures_and_tables(
        self, path: Path
    ) -> None:
        book, cells = nbformat.read(path, as_version=4), code_cells(path)
        assert path.stat().st_size < 500_000
        assert "widgets" not in book.metadata and "papermill" not in book.metadata
        marked = [cell for cell in cells if MARK in cell.source]
        assert marked and all(cell.outputs for cell in marked)
        outputs = [output for cell in cells for output in cell.outputs]
        assert all(output.output_type != "error" for output in outputs)
        data = [set(output.get("data", {})) for output in outputs]
        figures = [kinds for kinds in data if "application/vnd.plotly.v1+json" in kinds]
        assert figures and all("image/png" in kinds for kinds in figures)
        assert any("text/html" in kinds and len(kinds) == 2 for kinds in data)


@pytest.mark.parametrize(
    ("here", "source", "status", "told"),
    [
        (True, "", 0, None),
        (False, "", 0, "set SOURCE above"),
        (False, "wheels/mine.whl", 0, None),
        (False, "wheels/mine.whl", 1, r"could not install SOURCE \(wheels/mine\.whl\)"),
    ],
)
def test_the_set_up_installs_what_is_named_and_nothing_else(
    monkeypatch, here, source, status, told
) -> None:
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if here else None)
    monkeypatch.setattr("subprocess.call", lambda line: asked.append(line) or status)
    cell = SET_UP.replace('SOURCE = ""', f"SOURCE = {source!r}")
    with pytest.raises(SystemExit, match=told) if told else nullcontext():
        exec(cell, {})
    pip = [sys.executable, "-m", "pip", "install", "-q", source]
    assert asked == ([pip] if source and not here else [])
