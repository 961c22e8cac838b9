"""Notebooks 05 and 07 by papermill, on runs of one's own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from executed import run_notebook

from bgkit.errors import BgkitError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.slow
def test_07_tests_any_runs(small_run, weak_run, tmp_path: Path) -> None:
    small = {"TEST_PROMPTS": 8, "SHIFT_PROMPTS": 3, "REQUESTS": 2, "BUDGET": 2, "BEST_OF": 2}
    given = {**small, "RUNS": [str(small_run.folder), str(weak_run.folder)]}
    done = tmp_path / "07.ipynb"
    run_notebook(FOLDER / "07_stress_tests.ipynb", done, given)
    text = done.read_text(encoding="utf-8")
    assert "boundary, " in text and "guard weak" in text  # the other run, by what differs
    assert "compound - boundary" in text


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["", "default"])
@pytest.mark.thorough
def test_07_on_other_prompts_does_what_can_be_done_and_says_what_not(
    judge: str, small_run, tmp_path: Path
) -> None:
    small = {"TEST_PROMPTS": 6, "SHIFT_PROMPTS": 3, "REQUESTS": 2, "BUDGET": 2, "BEST_OF": 2}
    given = {**small, "RUNS": [str(small_run.folder)], "PROMPTS": "everyday-short", "JUDGE": judge}
    given |= {"GUARDS": ["default", "weak"], "SHIFTS": ["everyday-short"] if judge else []}
    done = tmp_path / "07.ipynb"
    run_notebook(FOLDER / "07_stress_tests.ipynb", done, given)
    why = ["The truth about everyday-short is not known", "The attack is left out", "name SHIFTS"]
    told = [sentence in _printed(done) for sentence in why]
    assert told == [not judge] * 3


def _printed(path: Path) -> str:
    """What the cells of a notebook printed."""
    cells = nbformat.read(path, 4).cells
    found = [out.get("text", "") for cell in cells for out in cell.get("outputs", [])]
    return "".join(found)


@pytest.mark.slow
@pytest.mark.thorough
def test_05_reads_run_folders_and_says_what_needs_a_collection(small_run, tmp_path: Path) -> None:
    done = tmp_path / "05.ipynb"
    given = {"SOURCES": [str(small_run.folder)]}
    run_notebook(FOLDER / "05_ablations.ipynb", done, given)
    text = done.read_text(encoding="utf-8")
    assert "Claims need a collection of runs" in text and "without variation between seeds" in text


@pytest.mark.slow
@pytest.mark.thorough
def test_07_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    given = {"RUNS": [str(tmp_path / "none")]}
    with pytest.raises(BgkitError, match=r"BgkitError: There is no run in .*none"):
        run_notebook(FOLDER / "07_stress_tests.ipynb", tmp_path / "07.ipynb", given)
