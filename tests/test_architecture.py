"""The house: a room imports only rooms below it, modules are small, public names documented."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import bgkit

ROOT = Path(__file__).resolve().parents[1]
#: From the ground up; what lies beside the rooms (errors, rewards, ...) is the ground.
FLOORS = "testbed runs models scoring prompts evaluation fitting training figures sweeps stress"
FLOORS = [*FLOORS.split(), "widgets", "cli"]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "bgkit").rglob("*.py"))
}


def floor_of(module: str) -> int:
    """0 for the ground; the facade and what starts the command line stand on top of all."""
    if module in ("bgkit", "bgkit.__main__"):
        return len(FLOORS) + 1
    return FLOORS.index(room) + 1 if (room := module.split(".")[1]) in FLOORS else 0


def imports_of(code: str) -> set[str]:
    """The modules of bgkit that code imports, inside functions too."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bgkit"):
            named |= set(MODULES) & {f"{node.module}.{a.name}" for a in node.names} or {node.module}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names if alias.name in MODULES}
    return named - {"bgkit"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_small_says_its_job_and_imports_only_rooms_below_it(module: str) -> None:
    code = MODULES[module].read_text("utf-8")
    assert code.count("\n") <= 350 and ast.get_docstring(ast.parse(code))
    assert not {name for name in imports_of(code) if floor_of(name) > floor_of(module)}


def test_a_notebook_imports_at_most_two_rooms() -> None:
    for path in (ROOT / "notebooks").glob("0*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        rooms = {floor_of(module) for module in imports_of("\n".join(code))} - {0}
        assert len(rooms) <= 2, path.name


def test_public_names_are_few_documented_and_there() -> None:
    assert 12 <= len(bgkit.__all__) <= 18
    for name in bgkit.__all__:
        assert getattr(bgkit, name).__doc__
        assert f"`{name}`" in (ROOT / "README.md").read_text("utf-8")
