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
from bgkit.errors import BgkitError
from bgkit.sweeps.grids import open_notebook

SERIES = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MARK = "NBVAL_CHECK_OUTPUT"


def code_cells(path: Path) -> list:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
class TestForm:
    """What every notebook of the series has in common."""

    def test_it_opens_with_its_title_question_and_set_up(self, path: Path) -> None:
        cells = nbformat.read(path, as_version=4).cells
        assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
        assert "?" in cells[0].source, "the question is missing"
        assert cells[1].source == SET_UP and "bgkit.start()" in cells[2].source

    def test_parameters_are_typed_literals_with_a_comment(self, path: Path) -> None:
        tagged = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
        (source,) = [cell.source for cell in tagged]
        assert open_notebook(path).defaults, "no parameters"
        for statement in ast.parse(source).body:
            assert isinstance(statement, ast.Assign), ast.unparse(statement)
            ast.literal_eval(statement.value)
            lines = source.splitlines()[statement.lineno - 1 : statement.end_lineno]
            assert any("#" in line for line in lines), f"no comment: {lines[0]}"

    def test_marked_cells_hold_output(self, path: Path) -> None:
        marked = [cell for cell in code_cells(path) if MARK in cell.source]
        assert marked, f"no cell is marked {MARK}"
        assert all(cell.outputs for cell in marked)

    def test_no_function_class_or_public_name_is_defined_again(self, path: Path) -> None:
        for cell in code_cells(path):
            for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
                assert not isinstance(node, (ast.FunctionDef, ast.ClassDef)), ast.unparse(node)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    assert node.id not in set(bgkit.__all__) - {"table"}  # a plain word, too

    def test_it_is_small_and_stores_outputs_but_no_errors_or_widgets(self, path: Path) -> None:
        book = nbformat.read(path, as_version=4)
        assert path.stat().st_size < 500_000
        assert "widgets" not in book.metadata and "papermill" not in book.metadata
        outputs = [output for cell in code_cells(path) for output in cell.outputs]
        assert outputs and all(output.output_type != "error" for output in outputs)
        assert all(cell.source.count("\n") < 27 for cell in code_cells(path))

    def test_a_reader_without_a_kernel_sees_a_figure_and_a_table(self, path: Path) -> None:
        data = [set(o.get("data", {})) for cell in code_cells(path) for o in cell.outputs]
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


def test_a_missing_or_broken_notebook_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match="There is no notebook"):
        open_notebook(tmp_path / "none.ipynb")
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(BgkitError, match="not a readable notebook"):
        open_notebook(tmp_path / "broken.ipynb")
