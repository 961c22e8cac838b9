"""Parameters cells: plain values, what each may be set to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nbformat
import noop
import pytest

from bgkit.errors import BgkitError
from bgkit.sweeps import grids, notebooks, parameters

WRITTEN = parameters.WRITTEN
NONE = type(None)


@pytest.fixture
def opened(tmp_path: Path):
    """A notebook of one parameters cell, as a sweep sees it."""
    return lambda cell: grids.open_notebook(noop.write(tmp_path / "mine.ipynb", cell, "pass"))


@pytest.mark.parametrize(
    ("cell", "takes", "default"),
    [
        ("N: float = 0.2", (float,), 0.2),
        ("N: 'float' = 2", (float,), 2.0),
        ("N: float | None = 0.2", (float, NONE), 0.2),
        ("N: typing.Optional[float] = None", (float, NONE), None),
        ("N: float = None", (float, NONE), None),
        ("N: list[str] = [  # who\n  'a',\n]", (list, str), ["a"]),
        ("N: Final = 3", (int,), 3),
        ("N = None", WRITTEN, None),
        ("N = {'a': [1, -2]}", (dict,), {"a": [1, -2]}),
    ],
)
def test_a_parameter_takes_what_its_default_and_its_annotation_say(cell, takes, default) -> None:
    assert parameters.read(cell, "mine.ipynb") == ({"N": default}, {"N": takes})
    assert type(parameters.read(cell, "mine.ipynb")[0]["N"]) is type(default)


@pytest.mark.parametrize(
    "line",
    [
        "N: int",
        "N = len('abc')",
        "N = 60 * 24",
        "A, B = 1, 2",
        "import os",
        "SIZES = (1, 2)",
        "OF = {1: 2}",
        "NAME = f'run-{SEED}'",
        "open('trace', 'w')",
        "if SEED:\n    N = 1",
    ],
)
def test_more_than_plain_values_is_refused_by_its_line(opened, line) -> None:
    first = line.partition("\n")[0]
    with pytest.raises(BgkitError, match=r"mine\.ipynb holds more than plain.*later one") as told:
        opened(f"SEED = 0\n{line}")
    assert first in str(told.value)


def test_another_default_is_another_run_and_a_comment_is_none(opened) -> None:
    def hash_of(cell: str) -> str:
        book = opened(f"{cell}\nN = 0")
        return grids.hash_of(book, grids.expand(book, {"N": 1})[0])

    assert hash_of("RATE: float = 0.1") == hash_of("RATE = 0.1  # a word") != hash_of("RATE = 0.9")


def test_a_comment_lists_the_choices(opened) -> None:
    cell = 'A = "x"  # way: x, y\nB = "u"  # model: u, v, or a folder\nC = "u"  # such: u, ...'
    assert opened(cell).choices == {"A": ["x", "y"]}


@pytest.mark.parametrize(
    ("cell", "text", "values"),
    [
        ("SEED = None", "0:3,7", [0, 1, 2, 7]),
        ("X = None", "0.5,true,None,word", [0.5, True, None, "word"]),
        ("X = None", '{"a": [1, 2]}', [{"a": [1, 2]}]),
        ("X: str | None = None", "1,0:3,None", ["1", "0:3", None]),
        ("X: int | str = 0", "3,all", [3, "all"]),
        ("X: float = 1", "2,3.5", [2.0, 3.5]),
        ("WAY = 'a'", "a, b", ["a", "b"]),
        ("X: list | None = None", "[1]", [[1]]),
    ],
)
def test_texts_become_values_of_what_a_parameter_takes(opened, cell, text, values) -> None:
    book, name = opened(cell), cell.split()[0].strip(":")
    found = grids.parse_settings(book, [f"{name.lower()}={text}"])
    assert list(found[name]) == values
    runs = grids.expand(book, found)
    assert [type(run[name]) for run in runs] == list(map(type, values))


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [("[1]", "[[2, 3]]", [2, 3]), ("['a']", "[c, b]", ["c", "b"]), ("{}", "[{a: 1}]", {"a": 1})],
)
def test_lists_and_mappings_in_a_file_are_as_yaml_has_them(
    opened, tmp_path: Path, default, text, value
) -> None:
    (tmp_path / "grid.yaml").write_text(f"X: {text}")
    book = opened(f"X = {default}")
    runs = grids.expand(book, grids.read_grids(book, tmp_path / "grid.yaml"))
    assert runs == [{"X": value}]


@pytest.mark.parametrize(
    ("cell", "name", "value", "words"),
    [
        ("N: float = 1", "N", "fast", r"mine\.ipynb takes N as float, such as 1\.0, not"),
        ("N: float | None = 0.1", "N", "x", "as float or None"),
        ("N = 3", "N", 0.5, "takes N as int, such as 3, not 0.5"),
        ("N: bool = True", "N", 1, "takes N as bool"),
        ("N = None", "N", Path("x"), "takes N as bool or int"),
        ("N = []", "N", [Path("x")], "takes N as list"),
        ("N = 1", "M", 1, "no parameter 'M'; it has N"),
        ("N = = 1", "N", 1, r"parameters cell of mine\.ipynb is no Python"),
    ],
)
def test_what_can_not_be_set_is_one_sentence(opened, cell, name, value, words) -> None:
    with pytest.raises(BgkitError, match=words):
        grids.expand(opened(cell), {name: [value]})
    if isinstance(value, str):
        with pytest.raises(BgkitError, match=words):
            grids.expand(opened(cell), grids.parse_settings(opened(cell), [f"{name}={value}"]))


def test_several_cells_of_parameters_are_refused(tmp_path: Path) -> None:
    path = noop.write(tmp_path / "mine.ipynb", "A = 1", "A = 2")
    book = nbformat.read(path, as_version=4)
    book.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    with pytest.raises(BgkitError, match=r"mine\.ipynb has 2 cells tagged 'parameters'"):
        parameters.open_notebook(path)


def test_a_notebook_without_parameters_runs_as_it_is(tmp_path: Path) -> None:
    path = noop.write(tmp_path / "mine.ipynb", "A = 1", "print(A)")
    book = nbformat.read(path, as_version=4)
    del book.cells[0].metadata["tags"]
    nbformat.write(book, path)
    notebooks.run_notebook(path, tmp_path / "done.ipynb")
    with pytest.raises(BgkitError, match="no cell tagged 'parameters'"):
        notebooks.run_notebook(path, tmp_path / "done.ipynb", {"A": 2})
