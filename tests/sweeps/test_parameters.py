"""Parameters cells: plain values, what each may be set to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nbformat
import noop
import pytest

from bgkit.errors import BgkitError
from bgkit.sweeps import grids


@pytest.fixture
def opened(tmp_path: Path):
    """A notebook of one parameters cell, as a sweep sees it."""
    return lambda cell: grids.open_notebook(noop.write(tmp_path / "mine.ipynb", cell, "pass"))


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


def test_another_default_or_code_is_another_run_and_a_comment_is_none(tmp_path: Path) -> None:
    def hash_of(cell: str, code: str = "pass") -> str:
        book = grids.open_notebook(noop.write(tmp_path / "n.ipynb", f"{cell}\nN = 0", code))
        (name,) = grids.expand(book, {"N": 1})
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
        ("N = = 1", "N", "1", r"parameters cell of mine\.ipynb is no Python"),
    ],
)
def test_what_can_not_be_set_is_one_sentence(opened, cell, name, text, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(opened(cell), grids.parse_settings(opened(cell), [f"{name}={text}"]))


def test_cells_of_parameters_are_counted(tmp_path: Path) -> None:
    path = noop.write(tmp_path / "mine.ipynb", "A = 1", "A = 2")
    book = nbformat.read(path, as_version=4)
    book.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    with pytest.raises(BgkitError, match=r"mine\.ipynb has 2 cells tagged 'parameters'"):
        grids.open_notebook(path)
    for cell in book.cells:
        del cell.metadata["tags"]
    nbformat.write(book, path)
    with pytest.raises(BgkitError, match="no cell tagged 'parameters'"):
        grids.open_notebook(path)
