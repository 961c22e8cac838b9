"""Grids: texts and files into typed axes, axes into checked runs, runs into hashes."""

from __future__ import annotations

import itertools
from pathlib import Path

import noop
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.sweeps import grids, parameters
from bgkit.testbed import store

POLICY = ROOT / "notebooks" / "03_train_policy.ipynb"
SHIPPED = {path.stem: path for path in (ROOT / "data" / "sweeps").glob("*.yaml")}


@pytest.fixture
def book(tmp_path: Path) -> grids.Notebook:
    return grids.open_notebook(noop.notebook(tmp_path))


@pytest.fixture(scope="module")
def training() -> grids.Notebook:
    return grids.open_notebook(POLICY)


@given(st.lists(st.integers(), min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=30)
def test_whole_numbers_and_ranges_come_back(numbers, start, length) -> None:
    book = parameters.Notebook(Path("n.ipynb"), {"N": 0}, {"N": (int,)}, {}, "")
    text = ",".join(map(str, [*numbers, f"{start}:{start + length}"]))
    wanted = [*numbers, *range(start, start + length)]
    assert grids.parse_settings(book, [f"n={text}"]) == {"N": wanted}


def test_every_combination_is_a_run_with_all_parameters(book) -> None:
    found = grids.expand(book, {"way": ["a", "b"], "SEED": range(2), "T": 1})
    assert [(r["WAY"], r["SEED"]) for r in found] == list(itertools.product("ab", range(2)))
    assert all(r["T"] == 1.0 and isinstance(r["T"], float) and r["BAD"] == -1 for r in found)


def test_grids_are_joined_and_what_both_hold_is_refused(book) -> None:
    assert len(grids.expand(book, [{"WAY": ["a", "b"]}, {"WAY": "c", "SEED": [0, 1]}])) == 4
    with pytest.raises(BgkitError, match=r"same parameters \(SEED=0\)"):
        grids.expand(book, [{"WAY": ["a", "b"]}, {"SEED": 0}])  # WAY is "a" there, too


def test_the_hash_is_of_what_determines_a_run(book) -> None:
    own = book.defaults
    one = grids.hash_of(book, own)
    assert grids.hash_of(book, {**own, "FOLDER": "x", "REPORT_TO": "trackio"}) == one
    assert grids.hash_of(book, dict(reversed(own.items()))) == one
    assert grids.hash_of(book, {**own, "SEED": 1}) != one


def test_the_code_counts_and_text_and_defaults_do_not(tmp_path: Path) -> None:
    one = grids.open_notebook(noop.write(tmp_path / "n.ipynb", "A = 1", "print(A)"))
    same = grids.open_notebook(noop.write(tmp_path / "n.ipynb", "A = 2  # new", "print(A)"))
    other = grids.open_notebook(noop.write(tmp_path / "n.ipynb", "A = 1", "print(2 * A)"))
    assert one.code == same.code != other.code


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"WEY": "a"}, r"no parameter 'WEY'; it has WAY, SEED"),
        ({"WAY": []}, "nothing to run"),
        ({"WAY": "z"}, "WAY must be one of a, b, c, not 'z'"),
        ({"SEED": "1"}, "takes SEED as int"),
        ({"SEED": True}, "takes SEED as int"),
        ({"SEED": [1, 1]}, r"same parameters \(SEED=1\)"),
        ({"seed": 1, "SEED": 2}, "sets SEED twice"),
        ({"FOLDER": "x"}, "FOLDER is set by the sweep"),
        ({"SEED": range(10_001)}, r"10,001 runs; say --yes"),
        ({"SEED": range(10**9), "BAD": range(10**9)}, "1,000,000,000,000,000,000 runs"),
        ([], "nothing to run"),
    ],
)
def test_a_wrong_grid_is_one_sentence(book, grid, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(book, grid)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["WAY"], "no setting of a sweep"),
        (["=a"], "no parameter ''"),
        (["WAY=a", "way=b"], "sets WAY twice"),
        (["SEED=x"], "takes SEED as int, such as 0, not 'x'"),
        (["SEED=1:x"], "takes SEED as int"),
        (["SEED=1:2:3"], "takes SEED as int"),
        (["SEED=5,0:99999999999999999999"], "more than 1,000,000 values"),
        (["T=fast"], "takes T as float"),
    ],
)
def test_a_wrong_setting_is_one_sentence(book, texts, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.parse_settings(book, texts)


def test_a_file_is_read_as_text_of_the_parameters_types(book, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("- way: [a, b]\n  SEED: 1:3\n- WAY: c\n  SEED: [5, 7:9]\n  T: 1e-1\n")
    assert grids.read_grids(book, path) == [
        {"WAY": ["a", "b"], "SEED": range(1, 3)},
        {"WAY": ["c"], "SEED": [5, 7, 8], "T": [0.1]},
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("WAY: [a", "can not be read"),
        ("", "must map names"),
        ("- a\n- b", "must map names"),
        ("WAY: {a: b}", r"takes WAY as str, such as 'a', not \{"),
        ("WAY: [[a]]", r"takes WAY as str, such as 'a', not \['a'\]"),
        ("WAY: a\nway: b", "sets WAY twice"),
        ("WHY: a", "no parameter 'WHY'"),
        ("SEED: 2026-13-45", "can not be read"),
    ],
)
def test_a_wrong_file_is_one_sentence(book, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(BgkitError, match=words):
        grids.expand(book, grids.read_grids(book, tmp_path / "grid.yaml"))
    with pytest.raises(BgkitError, match="can not be read"):
        grids.read_grids(book, tmp_path / "none.yaml")


def test_parameters_that_are_lists_are_one_value(tmp_path: Path) -> None:
    book = grids.open_notebook(noop.write(tmp_path / "n.ipynb", 'RUNS = ["a"]  # folders'))
    assert grids.parse_settings(book, ['RUNS=["x", "y"]']) == {"RUNS": [["x", "y"]]}
    assert [r["RUNS"] for r in grids.expand(book, {"RUNS": ["x", "y"]})] == [["x", "y"]]
    assert [r["RUNS"] for r in grids.expand(book, {"RUNS": [["x"], ["y"]]})] == [["x"], ["y"]]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"REWARD": "bondary"}, "no reward 'bondary'"),
        ({"TAU": [0.5, 1.0]}, "'tau' must be above 0 and below 1"),
        ({"BATCH_SIZE": 10}, "not divisible"),
        ({"GUARD": "best"}, "no embedded guard 'best'"),
        ({"POLICY": "huge"}, "no embedded policy 'huge'"),
        ({"JUDGE": "best"}, "no embedded judge 'best'"),
        ({"JUDGE": "./none"}, r"no folder \./none with a judge"),
        ({"UTILITY": ["mild", "./none"]}, r"no folder \./none with a utility"),
        ({"PROMPTS": "none.csv"}, "no prompt set 'none.csv'"),
    ],
)
def test_settings_of_a_training_are_checked_before_it_starts(training, grid, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(training, grid)


def test_models_of_ones_own_are_left_to_the_training(training) -> None:
    own = str(store.model_path("guard", "weak"))
    given = {"GUARD": own, "POLICY": "owner/name", "JUDGE": "owner/judge", "PROMPTS": "owner/set"}
    (found,) = grids.expand(training, given)
    assert found["GUARD"] == own
    assert len(grids.expand(training, {"JUDGE": ["none", "oracle", "default"]})) == 3


def test_the_grids_of_the_project_fit_together(training) -> None:
    sizes = {
        name: len(grids.expand(training, grids.read_grids(training, name))) for name in SHIPPED
    }
    wanted = {"frontiers": 109, "utilities": 27, "scales": 18, "trial": 4}
    assert sizes == wanted
    together = [g for name in SHIPPED for g in grids.read_grids(training, SHIPPED[name])]
    assert len(grids.expand(training, together)) == sum(wanted.values())  # no run twice
