"""The notebooks by papermill with other parameters: a user's own log, runs and prompts."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from executed import run_notebook

import bgkit
from bgkit.errors import BgkitError

HOSTILE = "<script>alert(1)</script> \x1b[31m"
TINY_TESTS = {"TEST_PROMPTS": 6, "SHIFT_PROMPTS": 3, "REQUESTS": 2, "BUDGET": 2, "BEST_OF": 2}


def run(name: str, folder: Path, parameters: dict[str, object]) -> list[nbformat.NotebookNode]:
    """Outputs of a notebook of the series, executed with other parameters."""
    (path,) = (ROOT / "notebooks").glob(f"{name}_*.ipynb")
    return outputs_of(run_notebook(path, folder / f"{name}.ipynb", parameters))


def outputs_of(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


def texts_of(outputs: list[nbformat.NotebookNode]) -> str:
    """Everything that was printed, or is shown as plain text or HTML."""
    data = [output.get("data", {}) for output in outputs]
    texts = [each.get(f"text/{kind}", "") for each in data for kind in ("plain", "html")]
    return "\n".join([*(output.get("text", "") for output in outputs), *texts])


def figures_of(outputs: list[nbformat.NotebookNode]) -> int:
    return str(outputs).count("application/vnd.plotly.v1+json")


def write_log(path: Path, rows: int) -> dict[str, object]:
    """Write a log of hostile texts, its truth under ``truth``; returns notebook 02's parameters."""
    rng = np.random.default_rng(3)
    t = rng.beta(0.4, 0.8, rows)
    table = pd.DataFrame({"prompt": HOSTILE, "answer": HOSTILE, "p_unsafe": t})
    table["truth"], table["kind"] = rng.random(rows) < t, rng.choice(["a", HOSTILE], rows)
    table.to_csv(path, index=False)
    return {"SCORED_LOG": str(path), "LOG_COLUMNS": {"response": "answer"}}


@pytest.mark.slow
def test_02_runs_on_a_log_with_truth(tmp_path: Path) -> None:
    given = write_log(tmp_path / "log.csv", rows=300) | {"TAU": 0.3, "LOG_ROWS": 200}
    given["LOG_COLUMNS"] |= {"harmful": "truth"}
    done = run("02", tmp_path, given)
    text = texts_of(done)
    assert "log.csv has 300 rows" in text and "200 responses" in text
    assert "T = " in text and figures_of(done) == 5  # the last is of the English log
    html = [output.get("data", {}).get("text/html", "") for output in done]
    assert "<script>" not in "".join(html) and "\x1b" not in text


@pytest.mark.slow
def test_02_runs_on_one_row_without_truth_and_says_what_it_can_not_show(tmp_path: Path) -> None:
    done = run("02", tmp_path, write_log(tmp_path / "log.csv", rows=1))
    text = texts_of(done)
    assert "No truth is known" in text and "Each half needs harmful and safe" in text
    assert figures_of(done) == 4


@pytest.mark.slow
def test_03_trains_a_short_run_and_04_compares_it(tmp_path: Path) -> None:
    short = {"REWARD": "compound", "TAU": 0.4, "STEPS": 2, "BATCH_SIZE": 8, "NUM_GENERATIONS": 4}
    short |= {"EVAL_EVERY": 0, "TEST_PROMPTS": 16, "FOLDER": str(tmp_path / "runs")}
    text = texts_of(run("03", tmp_path, short))
    assert "step 2 of 2" in text and "left" in text  # progress stays in papermill's output
    (folder,) = (tmp_path / "runs").iterdir()
    assert bgkit.load_run(folder).complete and bgkit.load_run(folder).config.tau == 0.4
    assert "compound" in texts_of(run("04", tmp_path, {"RUNS": [str(folder)]}))


@pytest.mark.thorough
def test_05_reads_run_folders_and_says_why_no_claim_is_checked(small_run, tmp_path: Path) -> None:
    text = str(run("05", tmp_path, {"SOURCES": [str(small_run.folder)]}))
    assert "No claim is checked" in text and "without variation between seeds" in text


@pytest.mark.slow
def test_07_tests_any_runs(small_run, weak_run, tmp_path: Path) -> None:
    runs = [str(small_run.folder), str(weak_run.folder)]
    text = str(run("07", tmp_path, {**TINY_TESTS, "RUNS": runs}))
    assert "boundary, " in text and "guard weak" in text  # the other run, by what differs
    assert "compound - boundary" in text


@pytest.mark.thorough
@pytest.mark.parametrize("judge", ["", "default"])
def test_07_on_other_prompts_does_what_can_be_done_and_says_what_not(
    judge: str, small_run, tmp_path: Path
) -> None:
    given = {**TINY_TESTS, "RUNS": [str(small_run.folder)], "PROMPTS": "everyday-short"}
    given |= {"GUARDS": ["default", "weak"], "SHIFTS": ["everyday-short"] if judge else []}
    text = texts_of(run("07", tmp_path, given | {"JUDGE": judge}))
    why = ["The truth about everyday-short is not known", "The attack is left out", "name SHIFTS"]
    assert [sentence in text for sentence in why] == [not judge] * 3


@pytest.mark.slow
def test_a_wrong_parameter_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match=r"BgkitError: There is no run in .*none"):
        run("04", tmp_path, {"RUNS": ["none"]})
    shown = outputs_of(tmp_path / "04.ipynb")
    (error,) = [output for output in shown if output.output_type == "error"]
    assert error.traceback == [f"BgkitError: {error.evalue}"]  # no stack
