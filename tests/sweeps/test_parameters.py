"""Parameters cells as people write them: what can be set, what is known, what makes another run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import noop
import pytest
from papermill.translators import PythonTranslator

from bgkit.errors import BgkitError
from bgkit.sweeps import grids, notebooks, parameters

WRITTEN = parameters.WRITTEN
NONE = type(None)


@pytest.fixture
def opened(tmp_path: Path):
    """A notebook of one parameters cell, as a sweep sees it."""
    return lambda cell: grids.open_notebook(noop.write(tmp_path / "mine.ipynb", cell, "pass"))


@pytest.mark.parametrize(
    ("cell", "takes", "defaults"),
    [
        ("RATE: float = 0.2", {"RATE": (float,)}, {"RATE": 0.2}),
        ("RATE: 'float' = 2", {"RATE": (float,)}, {"RATE": 2.0}),
        ("RATE: float | None = 0.2", {"RATE": (float, NONE)}, {"RATE": 0.2}),
        ("RATE: typing.Optional[float] = None", {"RATE": (float, NONE)}, {"RATE": None}),
        ("RATE: float = None", {"RATE": (float, NONE)}, {"RATE": None}),
        ("WAY: Literal['up', 'down'] = 'up'", {"WAY": ("up", "down")}, {"WAY": "up"}),
        ("N: Union[Literal['all'], int] = 3", {"N": ("all", int)}, {"N": 3}),
        ("NAMES: list[str] = [  # who\n  'a',\n]", {"NAMES": (list,)}, {"NAMES": ["a"]}),
        ("N: int", {"N": (int,)}, {}),
        ("N: int = len(open('x').read())", {"N": (int,)}, {}),
        ("N: Final = 3", {"N": (int,)}, {"N": 3}),
        ("N = None", {"N": WRITTEN}, {"N": None}),
        ("N = 60 * 24", {"N": (int,)}, {"N": 1440}),
        ("A = 2\nN = A * 3\nA = 5", {"A": (int,), "N": (int,)}, {"A": 5, "N": 6}),
        ("A, (B, *C) = 1, 'bcd'", {"A": (int,), "B": (str,), "C": (list,)}, None),
        ("A = B = 0.5", {"A": (float,), "B": (float,)}, {"A": 0.5, "B": 0.5}),
        ("N = 3\nN *= 2", {"N": (int,)}, {"N": 6}),
        ("OF = dict(a=1)\nOF['b'] = 2", {"OF": (dict,)}, {"OF": {"a": 1, "b": 2}}),
        ("S = 3\nNAME = f'run-{S:02d}'", {"S": (int,), "NAME": (str,)}, {"S": 3, "NAME": "run-03"}),
        ("%pip install -q x\n!ls 'a\nN = 1", {"N": (int,)}, {"N": 1}),
        ("%%time\nN = 1", {"N": (int,)}, {"N": 1}),
        ("import os\nfrom x import y\ndef f(a): b = a", {}, {}),
        ("OUT = pathlib.Path('x')\nN = OUT / 'y'", {"OUT": (), "N": WRITTEN}, {}),
        ("N = int(os.environ['N'])\nB: Path = f()", {"N": (int,), "B": ()}, {}),
        ("N = len(open('x').read())\nB = f'{N}'", {"N": WRITTEN, "B": (str,)}, {}),
        ("SIZES = (1, 2)\nOF = {1: 2}", {"SIZES": (), "OF": ()}, {}),
        ("NAMES = []\nNAMES.append('a')", {"NAMES": (list,)}, {}),
        ("A, N = 0, 9\nif A:\n    N = 1", {"A": (int,), "N": (int,)}, {"A": 0}),
        ("if True:\n    N = 1", {"N": WRITTEN}, {}),
        ("", {}, {}),
    ],
)
def test_a_cell_is_read_as_its_kernel_would(cell, takes, defaults) -> None:
    found = parameters.read(cell, "mine.ipynb")
    assert found.takes == takes and list(found.takes) == list(takes)
    own = {"A": 1, "B": "b", "C": ["c", "d"]} if defaults is None else defaults
    assert found.defaults == own and list(map(type, found.defaults.values())) == list(
        map(type, own.values())
    )


def test_nothing_of_a_cell_is_run_here(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    ways = f"open({str(trace)!r}, 'w')", "().__class__.__base__", "__import__('os')", "eval('1')"
    for way in ways:
        assert parameters.read(f"A = {way}\nB = [{way}]", "mine.ipynb").defaults == {}
    assert not trace.exists()


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("RATE: float = 0.1", "RATE: float = 0.9", False),
        ("RATE: float = 0.1", "RATE: float = 0.1  # a word", True),
        ("RATE = 0.1", "RATE: float = 0.1", True),
        ("SEED = int(open('x').read())", "SEED = int(open('y').read())", False),
        ("import json as x", "import yaml as x", False),
        ("%matplotlib inline", "%matplotlib widget", False),
        ("SIZES = (1, 2)", "SIZES = (1, 3)", False),
        ("A = 1\nB = [A]\nA = 2", "A = 3\nB = [A]\nA = 2", False),
    ],
)
def test_another_parameters_cell_is_another_run(opened, before, after, same) -> None:
    hashes = []
    for cell in (before, after):
        book = opened(f"{cell}\nN = 0")
        hashes += [grids.hash_of(book, run) for run in grids.expand(book, {"N": 1})]
    assert (hashes[0] == hashes[1]) is same


@pytest.mark.parametrize(
    ("cell", "text", "values"),
    [
        ("SEED = None", "0:3,7", [0, 1, 2, 7]),
        ("X = None", "0.5,true,None,word", [0.5, True, None, "word"]),
        ("X = None", '{"a": [1, 2]}', [{"a": [1, 2]}]),
        ("X: str | None = None", "1,0:3,None", ["1", "0:3", None]),
        ("X: int | str = 0", "3,all", [3, "all"]),
        ("X: float = 1", "2,3.5", [2.0, 3.5]),
        ("X: Literal[1, 2] = 1", "2", [2]),
        ("X: list | None = None", "[1]", [[1]]),
    ],
)
def test_texts_become_values_of_what_a_parameter_takes(opened, cell, text, values) -> None:
    book, name = opened(cell), cell.split()[0].strip(":")
    found = grids.parse_settings(book, [f"{name.lower()}={text}"])
    assert found == {name: values}
    assert list(map(type, found[name])) == list(map(type, values))
    grids.expand(book, found)


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [("[1]", "[[2, 3]]", [2, 3]), ("['a']", "[[2, b]]", ["2", "b"]), ("{}", "[{a: 1}]", {"a": 1})],
)
def test_lists_in_a_file_hold_numbers_where_no_texts_are_wanted(
    opened, tmp_path: Path, default, text, value
) -> None:
    (tmp_path / "grid.yaml").write_text(f"X: {text}")
    assert grids.read_grids(opened(f"X = {default}"), tmp_path / "grid.yaml") == [{"X": [value]}]


@pytest.mark.parametrize(
    ("cell", "name", "value", "words"),
    [
        (
            "RATE: float = 0.1",
            "RATE",
            "fast",
            r"mine\.ipynb takes RATE as float, such as 0\.1, not",
        ),
        ("RATE: float | None = 0.1", "RATE", "x", "as float or None"),
        ("N: int", "N", 0.5, "takes N as int, not 0.5"),
        ("WAY: Literal['up', 'down'] = 'up'", "WAY", "left", "as 'up' or 'down'"),
        ("N: bool = True", "N", 1, "takes N as bool"),
        ("SIZES = (1, 2)", "SIZES", (1, 3), r"SIZES in mine\.ipynb can not be set.*SIZES: str"),
        ("OUT = Path('x')", "OUT", "y", "OUT in .* can not be set"),
        ("X = None", "X", Path("x"), "takes X as bool or int"),
        ("X = []", "X", [Path("x")], "takes X as list"),
        ("import json\nX = 1", "json", 1, "no parameter 'json'; it has X"),
        ("import json", "X", 1, "no parameter 'X'; it has none"),
        ("X = = 1", "X", 1, r"parameters cell of mine\.ipynb is no Python"),
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
        notebooks.parameters_of(path)


def test_what_is_computed_before_a_value_is_set_is_said(opened) -> None:
    book = opened("SEED = 0\nNAME = f'run-{SEED}'\nFOLDER = 'x'\nOUT = FOLDER + '/y'")
    told = grids.early(book, grids.expand(book, {"SEED": [0, 1]}))
    assert "`NAME = f'run-{SEED}'` (SEED)" in told and "(FOLDER)" in told and "later cell" in told
    assert "SEED" not in grids.early(book, grids.expand(book, {"NAME": "x"}))


def test_a_cell_of_all_kinds_runs_with_what_is_set_and_the_rest_as_it_is(tmp_path: Path) -> None:
    """papermill knows the same names, and the kernel has the values that are said."""
    cell = (
        "%matplotlib --list\nfrom pathlib import Path\nOUT = Path('x')\nN: int = 10 * 2\n"
        "A, B = 1, 2\nNAME: str = f'{N}'\nRATE: float | None = None\nSIZES = (1, 2)\nLATE: float"
    )
    shown = "print([OUT, N, A, B, NAME, RATE, SIZES, LATE])"
    path = noop.write(tmp_path / "mine.ipynb", cell, shown)
    theirs = PythonTranslator.inspect({"source": cell})
    assert {one.name for one in theirs} <= set(notebooks.parameters_of(path))
    given = {"B": 5, "RATE": 0.5, "LATE": 1, "N": 3}
    with pytest.warns(UserWarning, match=r"NAME = f'\{N\}'` \(N\)"):
        done = notebooks.run_notebook(path, tmp_path / "done.ipynb", given)
    (output,) = nbformat.read(done, as_version=4).cells[-1].outputs
    assert output.text == "[PosixPath('x'), 3, 1, 5, '20', 0.5, (1, 2), 1]\n"


def test_a_notebook_without_parameters_runs_as_it_is(tmp_path: Path) -> None:
    path = noop.write(tmp_path / "mine.ipynb", "A = 1", "print(A)")
    book = nbformat.read(path, as_version=4)
    del book.cells[0].metadata["tags"]
    nbformat.write(book, path)
    notebooks.run_notebook(path, tmp_path / "done.ipynb")
    with pytest.raises(BgkitError, match="no cell tagged 'parameters'"):
        notebooks.run_notebook(path, tmp_path / "done.ipynb", {"A": 2})
