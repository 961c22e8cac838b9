"""The house: a room imports only rooms below it, modules are small, public names documented."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bgkit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bgkit"
#: From the ground up; what lies beside the rooms (errors, rewards, ...) is the ground.
FLOORS = (
    "testbed runs models scoring prompts evaluation fitting training figures sweeps stress widgets "
    "cli"
).split()
MOST_LINES = 350  # of a module
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def floor_of(module: str) -> int:
    """0 for the ground; the facade and what starts the command line stand on top of all."""
    parts = module.split(".")
    if module in ("bgkit", "bgkit.__main__"):
        return len(FLOORS) + 1
    return FLOORS.index(parts[1]) + 1 if parts[1] in FLOORS else 0


def imports_of(path: Path) -> set[str]:
    """The modules of bgkit that a module imports, inside functions too."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bgkit"):
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= (below & set(MODULES)) or {node.module}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names if alias.name in MODULES}
    return named - {"bgkit"}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_rooms_below_it(module: str) -> None:
    up = {name for name in imports_of(MODULES[module]) if floor_of(name) > floor_of(module)}
    assert not up


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_small_and_says_what_it_is_for(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    assert text.count("\n") <= MOST_LINES and ast.get_docstring(ast.parse(text))


def test_public_names_are_few_documented_and_there() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert 12 <= len(bgkit.__all__) <= 18
    for name in bgkit.__all__:
        assert getattr(bgkit, name).__doc__ and f"`{name}`" in guide
