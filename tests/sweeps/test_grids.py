"""Grids: parameters cells, texts and files into axes, axes into checked runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import nbformat
import noop
import pytest
from conftest import ROOT

from bgkit.errors import BgkitError
from bgkit.sweeps import grids
from bgkit.sweeps.grids import Notebook, open_notebook
from bgkit.testbed import store

SHIPPED = [path.stem for path in (ROOT / "data" / "sweeps").glob("*.yaml")]


@pytest.fixture
def opened(tmp_path: Path):
    """A notebook of one parameters cell, as a sweep sees it."""
    return lambda cell, code="pass": open_notebook(noop.write(tmp_path / "mine.ipynb", cell, code))


@pytest.fixture
def book(tmp_path: Path) -> Notebook:
    return open_notebook(noop.notebook(tmp_path))


@pytest.fixture(scope="module")
def training() -> Notebook:
    return open_notebook(ROOT / "notebooks" / "03_train_policy.ipynb")


# --- Parameters cells --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "N: int",
        "N = len('abc')",
        "A, B = 1, 2",
        "import os",
        "SIZES = (1, 2)",
        "NAME = f'run-{SEED}'",
        "if SEED:\n    N = 1",
    ],
)
def test_more_than_plain_values_is_refused_by_its_line(opened, line) -> None:
    first = line.partition("\n")[0]
    with pytest.raises(BgkitError, match=r"mine\.ipynb holds more than plain.*later one") as told:
        opened(f"SEED = 0\n{line}")
    assert first in str(told.value)


def test_another_default_or_code_is_another_run_and_a_comment_is_none(opened) -> None:
    def hash_of(cell: str, code: str = "pass") -> str:
        (name,) = grids.expand(opened(f"{cell}\nN = 0", code), {"N": 1})
        return name

    one = hash_of("RATE: float = 0.1")
    assert one == hash_of("RATE = 0.1  # a word")
    assert len({one, hash_of("RATE = 0.9"), hash_of("RATE = 0.1", "print(1)")}) == 3


@pytest.mark.parametrize(
    ("cell", "text", "values"),
    [
        ("X = 0", "7,1:3", [7, 1, 2]),
        ("X = None", "0:2,5", [0, 1, 5]),
        ("X = 0", "0,1,", [0, 1]),
        ("X = 1.0", "2, 3.5,1e-3", [2.0, 3.5, 0.001]),
        ("X = True", "true,False", [True, False]),
        ("X = 'a'", "a, 1,None", ["a", "1", "None"]),
        ("X = None", "0.5,True,None,word", [0.5, True, None, "word"]),
        ("X = []", '[["a", "b"], []]', [["a", "b"], []]),
        ("X = {}", '{"a": [1, 2]}', [{"a": [1, 2]}]),
        ("X = {}", '{"a": true}', [{"a": True}]),
        ("X = {}", "{'a': True}", [{"a": True}]),
    ],
)
def test_texts_become_values_of_a_parameters_type(opened, cell, text, values) -> None:
    book = opened(cell)
    found = grids.expand(book, grids.parse_settings(book, [f"x={text}"])).values()
    assert [run["X"] for run in found] == values
    assert [type(run["X"]) for run in found] == list(map(type, values))


@pytest.mark.parametrize(
    ("cell", "name", "text", "words"),
    [
        ("N = 1.0", "N", "fast", r"mine\.ipynb takes N as float, such as 1\.0, not 'fast'"),
        ("N = 3", "N", "0.5", r"takes N as int, such as 3, not 0\.5"),
        ("N = 3", "N", "1:2:3", "takes N as int"),
        ("N = True", "N", "1", "takes N as bool"),
        ("N = []", "N", "a", "takes N as list"),
        ("N = {}", "N", "{[1]: 2}", "takes N as dict"),
        ("N = 1.0", "N", "NaN", "takes N as float"),
        ("N = 1", "M", "1", "no parameter 'M'; it has N"),
        ("N = = 1", "N", "1", r"parameters cell of mine\.ipynb is not valid Python"),
    ],
)
def test_what_can_not_be_set_is_one_sentence(opened, cell, name, text, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(opened(cell), grids.parse_settings(opened(cell), [f"{name}={text}"]))


def test_cells_of_parameters_are_counted(tmp_path: Path) -> None:
    path = noop.write(tmp_path / "mine.ipynb", "A = 1", "A = 2")
    book = nbformat.read(path, as_version=4)
    for tags, words in ((["parameters"], "has 2 cells tagged"), ([], "has no cell tagged")):
        for cell in book.cells:
            cell.metadata["tags"] = tags
        nbformat.write(book, path)
        with pytest.raises(BgkitError, match=rf"mine\.ipynb {words} 'parameters'"):
            open_notebook(path)


# --- Grids -------------------------------------------------------------------------------------


def test_every_combination_is_a_run_with_all_parameters(book) -> None:
    found = grids.expand(book, {"way": ["a", "b"], "SEED": range(2), "T": 1}).values()
    assert [(r["WAY"], r["SEED"]) for r in found] == list(itertools.product("ab", range(2)))
    assert all(r["T"] == 1.0 and isinstance(r["T"], float) and r["BAD"] == -1 for r in found)


def test_grids_are_joined_and_what_both_hold_is_refused(book) -> None:
    assert len(grids.expand(book, [{"WAY": ["a", "b"]}, {"WAY": "c", "SEED": [0, 1]}])) == 4
    with pytest.raises(BgkitError, match=r"same parameters \(SEED=0\)"):
        grids.expand(book, [{"WAY": ["a", "b"]}, {"SEED": 0}])  # WAY is "a" there, too


def test_where_a_run_is_kept_and_how_it_is_watched_make_no_other_run(book) -> None:
    own = book.defaults
    one = grids.hash_of(book, own)
    assert grids.hash_of(book, {**own, "FOLDER": "x", "REPORT_TO": "trackio"}) == one
    assert grids.hash_of(book, dict(reversed(own.items()))) == one
    assert grids.hash_of(book, {**own, "SEED": 1}) != one


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"WEY": "a"}, r"no parameter 'WEY'; it has WAY, SEED"),
        ({"WAY": []}, "nothing to run"),
        ([], "nothing to run"),
        ("abc", "maps names of parameters to values.* 'a' is none"),
        ([1], "maps names of parameters to values.* 1 is none"),
        (None, "maps names of parameters to values.* None is none"),
        ({1: 2}, "no parameter '1'"),
        ({"SEED": "1"}, "takes SEED as int"),
        ({"SEED": True}, "takes SEED as int"),
        ({"SEED": [1, 1]}, r"same parameters \(SEED=1\)"),
        ({"seed": 1, "SEED": 2}, "sets SEED twice"),
        ({"FOLDER": "x"}, "FOLDER is set by the sweep"),
        ({"SEED": range(10**9), "BAD": range(10**9)}, "1,000,000,000,000,000,000 runs"),
    ],
)
def test_a_wrong_grid_is_one_sentence(book, grid, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(book, grid)


def test_a_file_is_read_as_the_command_line_is(book, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("- way: [a, b]\n  SEED: 1:3\n- WAY: no\n  SEED: [5, 7:9]\n  T: 1e-1\n")
    assert grids.read_grids(book, path) == [
        {"WAY": ["a", "b"], "SEED": range(1, 3)},
        {"WAY": ["no"], "SEED": [5, 7, 8], "T": [0.1]},
    ]
    lists = open_notebook(noop.write(tmp_path / "n.ipynb", "X = []\nY = {}"))
    path.write_text("X: [[a, 2], [c]]\nY: {a: 1}")
    assert grids.read_grids(lists, path) == [{"X": [["a", 2], ["c"]], "Y": [{"a": 1}]}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("WAY: [a", "grid.yaml cannot be read"),
        ("", "must map names"),
        ("- a\n- b", "must map names"),
        ("WAY: {a: b}", r"takes WAY as str, such as 'a', not \{"),
        ("WAY: a\nway: b", "sets WAY twice"),
        ("WHY: a", "no parameter 'WHY'"),
    ],
)
def test_a_wrong_file_is_one_sentence(book, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(BgkitError, match=words):
        grids.expand(book, grids.read_grids(book, tmp_path / "grid.yaml"))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"REWARD": "bondary"}, "no reward 'bondary'"),
        ({"BATCH_SIZE": 10}, "not divisible"),
        ({"POLICY": "huge"}, "no embedded policy 'huge'"),
        ({"JUDGE": "best"}, "no embedded judge 'best'"),
        ({"UTILITY": ["mild", "./none"]}, r"no folder \./none with a utility"),
    ],
)
def test_settings_of_a_training_are_checked_before_it_starts(training, grid, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(training, grid)


def test_models_of_ones_own_are_left_to_the_training(training) -> None:
    own = str(store.model_path("guard", "weak"))
    given = {"GUARD": own, "POLICY": "owner/name", "JUDGE": "owner/judge", "PROMPTS": "owner/set"}
    (found,) = grids.expand(training, given).values()
    assert found["GUARD"] == own
    named = {"GUARD": [f"unsafe:unsafe={own}", "llama-guard-3=owner/copy"]}
    assert len(grids.expand(training, named)) == 2  # docs/guards.md
    assert len(grids.expand(training, {"JUDGE": ["none", "oracle", "default"]})) == 3


def test_the_grids_of_the_project_fit_together(training) -> None:
    found = {name: grids.read_grids(training, name) for name in SHIPPED}
    sizes = {name: len(grids.expand(training, each)) for name, each in found.items()}
    assert sizes == {"frontiers": 139, "utilities": 27, "scales": 18, "trial": 4}
    together = [grid for each in found.values() for grid in each]
    assert len(grids.expand(training, together)) == sum(sizes.values())  # no run twice
