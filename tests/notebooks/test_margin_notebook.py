"""Notebook 02 on a user's log, with truth and without."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from executed import run_notebook

from bgkit.errors import BgkitError

PATH = Path(__file__).resolve().parents[2] / "notebooks" / "02_margin_distributions.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts_of(notebook: nbformat.NotebookNode, kinds: tuple[str, ...] = ("plain", "html")) -> str:
    """Everything that an executed notebook printed, or shows as text of some kinds."""
    parts = []
    for output in (output for cell in code_of(notebook) for output in cell.outputs):
        parts.append(output.get("text", "") if "plain" in kinds else "")
        parts += [output.get("data", {}).get(f"text/{kind}", "") for kind in kinds]
    return "\n".join(parts)


def figures_of(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return sum(PLOTLY in output.get("data", {}) for output in outputs)


HOSTILE = "<script>alert(1)</script> \x1b[31m"


def write_log(path: Path, rows: int = 300, **more: object) -> Path:
    rng = np.random.default_rng(3)
    t = rng.beta(0.4, 0.8, rows)
    table = pd.DataFrame({"prompt": HOSTILE, "answer": HOSTILE, "p_unsafe": t})
    table.assign(truth=rng.random(rows) < t, kind=rng.choice(["a", HOSTILE], rows)).assign(
        **more
    ).to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_it_runs_on_a_log_with_truth(tmp_path):
    log = write_log(tmp_path / "log.csv")
    parameters = {"SCORED_LOG": str(log), "TAU": 0.3, "LOG_ROWS": 200}
    parameters["LOG_COLUMNS"] = {"response": "answer", "harmful": "truth"}
    done = run_notebook(PATH, tmp_path / "done.ipynb", parameters)
    notebook = nbformat.read(done, as_version=4)
    text = texts_of(notebook)
    assert "log.csv has 300 rows" in text and "200 responses" in text
    assert "log, T = " in text and figures_of(notebook) == 5  # the last is of the English log
    assert HOSTILE.split()[0] not in texts_of(notebook, ("html",)) and HOSTILE not in text


@pytest.mark.slow
def test_it_runs_on_one_row_without_truth_and_says_what_it_can_not_show(tmp_path):
    log = write_log(tmp_path / "log.csv", rows=1)
    parameters = {"SCORED_LOG": str(log), "LOG_COLUMNS": {"response": "answer"}}
    done = run_notebook(PATH, tmp_path / "done.ipynb", parameters)
    notebook = nbformat.read(done, as_version=4)
    text = texts_of(notebook)
    assert "No truth is known" in text and "Each half needs harmful and safe" in text
    assert figures_of(notebook) == 4


@pytest.mark.thorough
def test_a_wrong_log_stops_it_with_one_sentence(tmp_path):
    log = write_log(tmp_path / "log.csv", p_unsafe=1.5)
    parameters = {"SCORED_LOG": str(log), "LOG_COLUMNS": {"response": "answer"}}
    with pytest.raises(BgkitError, match=r"Row 1 of .*log\.csv has '1\.5' as 'p_unsafe'"):
        run_notebook(PATH, tmp_path / "done.ipynb", parameters)
    shown = (tmp_path / "done.ipynb").read_text(encoding="utf-8")
    assert "_checked" not in shown  # no stack of the library's internals
