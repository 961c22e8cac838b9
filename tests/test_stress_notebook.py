"""Notebooks 05 and 07 by papermill, on runs of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgkit import notebooks
from bgkit.errors import BgkitError

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.mark.slow
def test_07_tests_any_runs(small_run, weak_run, tmp_path: Path) -> None:
    small = {"TEST_PROMPTS": 8, "SHIFT_PROMPTS": 3, "REQUESTS": 2, "BUDGET": 2, "BEST_OF": 2}
    given = {**small, "RUNS": [str(small_run.folder), str(weak_run.folder)]}
    done = tmp_path / "07.ipynb"
    notebooks.run_notebook(FOLDER / "07_stress_tests.ipynb", done, given)
    text = done.read_text(encoding="utf-8")
    assert "boundary, " in text and "guard weak" in text  # the other run, by what differs
    assert "winner - runner-up" in text


@pytest.mark.slow
def test_05_reads_run_folders_and_says_what_needs_a_collection(small_run, tmp_path: Path) -> None:
    done = tmp_path / "05.ipynb"
    given = {"SOURCES": [str(small_run.folder)]}
    notebooks.run_notebook(FOLDER / "05_ablations.ipynb", done, given)
    text = done.read_text(encoding="utf-8")
    assert "Claims need a collection of runs" in text and "blind to how seeds differ" in text


@pytest.mark.slow
def test_07_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    given = {"RUNS": [str(tmp_path / "none")]}
    with pytest.raises(BgkitError, match=r"BgkitError: There is no run in .*none"):
        notebooks.run_notebook(FOLDER / "07_stress_tests.ipynb", tmp_path / "07.ipynb", given)
