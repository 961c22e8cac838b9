"""Grids: parameters cells, texts and files into axes, axes into checked runs."""

from __future__ import annotations

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
    "line", ["N: int", "N = len('abc')", "import os", "SIZES = (1, 2)", "if SEED:\n    N = 1"]
)
def test_more_than_plain_values_is_refused_by_its_line(opened, line) -> None:
    with pytest.raises(BgkitError, match=r"mine\.ipynb holds more than plain.*later one") as told:
        opened(f"SEED = 0\n{line}")
    assert f"`{line.splitlines()[0]}`" in str(told.value)


def test_what_is_no_notebook_or_no_python_or_has_two_cells_of_parameters_is_refused(
    opened, tmp_path: Path
) -> None:
    with pytest.raises(BgkitError, match=r"parameters cell of mine\.ipynb is not valid Python"):
        opened("N = = 1")
    path = tmp_path / "mine.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    with pytest.raises(BgkitError, match=r"mine\.ipynb has 2 cells tagged 'parameters'"):
        open_notebook(path)
    path.write_text("{")
    with pytest.raises(BgkitError, match="not a readable notebook"):
        open_notebook(path)
    with pytest.raises(BgkitError, match="There is no notebook"):
        open_notebook(tmp_path / "none.ipynb")


def test_another_default_or_code_is_another_run_and_where_it_is_kept_is_none(opened) -> None:
    def hash_of(cell: str, code: str = "pass") -> str:
        (name,) = grids.expand(opened(cell, code), {"N": 1})
        return name

    one = hash_of("RATE: float = 0.1\nN = 0")
    assert one == hash_of("REPORT_TO = 'x'\nN = 2\nFOLDER = 'y'\nRATE = 0.1  # a word")
    others = hash_of("RATE = 0.9\nN = 0"), hash_of("RATE = 0.1\nN = 0", "print(1)")
    assert len({one, *others}) == 3


@pytest.mark.parametrize(
    ("default", "text", "values"),
    [
        ("0", "7,1:3,", [7, 1, 2]),
        ("None", "0:2,0.5,True,None,word", [0, 1, 0.5, True, None, "word"]),
        ("1.0", "2, 3.5,1e-3", [2.0, 3.5, 0.001]),
        ("True", "true,False", [True, False]),
        ("'a'", "a, 1,None", ["a", "1", "None"]),
        ("[]", '[["a", "b"], []]', [["a", "b"], []]),
        ("{}", '{"a": [true, 2]}', [{"a": [True, 2]}]),
        ("{}", "{'a': True}", [{"a": True}]),
    ],
)
def test_texts_become_values_of_a_parameters_type(opened, default, text, values) -> None:
    book = opened(f"X = {default}")
    found = grids.expand(book, grids.parse_settings(book, [f"x={text}"])).values()
    assert [run["X"] for run in found] == values
    assert [type(run["X"]) for run in found] == list(map(type, values))


def test_a_text_of_another_type_is_refused(opened) -> None:
    for default, text, words in [
        ("1.0", "fast", r"mine\.ipynb takes X as float, such as 1\.0, not 'fast'"),
        ("3", "1:2:3", "takes X as int"),
        ("{}", "{[1]: 2}", "takes X as dict"),
        ("1.0", "NaN", "takes X as float"),
    ]:
        book = opened(f"X = {default}")
        with pytest.raises(BgkitError, match=words):
            grids.expand(book, grids.parse_settings(book, [f"X={text}"]))


# --- Grids -------------------------------------------------------------------------------------


def test_every_combination_is_a_run_with_all_parameters_and_grids_are_joined(book) -> None:
    found = grids.expand(book, [{"way": ["a", "b"], "SEED": range(2)}, {"WAY": "c", "T": 1}])
    asked = [(r["WAY"], r["SEED"], r["T"], r["BAD"]) for r in found.values()]
    assert asked == [(w, s, 0.0, -1) for w in "ab" for s in range(2)] + [("c", 0, 1.0, -1)]
    assert all(isinstance(run["T"], float) for run in found.values())


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"WEY": "a"}, r"no parameter 'WEY'; it has WAY, SEED"),
        ({"WAY": []}, "nothing to run"),
        ("abc", "maps names of parameters to values.* 'a' is none"),
        (None, "maps names of parameters to values.* None is none"),
        ({1: 2}, "no parameter '1'"),
        ({"SEED": True}, "takes SEED as int"),
        ({"SEED": [1, 1]}, r"same parameters \(SEED=1\)"),
        ([{"WAY": ["a", "b"]}, {"SEED": 0}], r"same parameters \(SEED=0\)"),  # WAY is "a", too
        ({"seed": 1, "SEED": 2}, "sets SEED twice"),
        ({"FOLDER": "x"}, "FOLDER is set by the sweep"),
        ({"SEED": range(10_001)}, "10,001 runs; a sweep takes at most 10,000"),
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


def test_a_wrong_file_is_one_sentence(book, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    with pytest.raises(BgkitError, match=r"grid\.yaml cannot be read: .*No such file"):
        grids.read_grids(book, path)
    for text, words in [
        ("WAY: [a", "cannot be read"),
        ("", "must map names"),
        ("- a\n- b", "must map names"),
        ("WAY: {a: b}", r"takes WAY as str, such as 'a', not \{"),
    ]:
        path.write_text(text)
        with pytest.raises(BgkitError, match=words):
            grids.expand(book, grids.read_grids(book, path))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
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
    assert sizes == {"frontiers": 159, "utilities": 27, "scales": 18, "trial": 4}
    together = [grid for each in found.values() for grid in each]
    assert len(grids.expand(training, together)) == sum(sizes.values())  # no run twice
