"""README and docs: every command parses, what is marked ``<!-- runs -->`` runs, no link is dead."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bgkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- runs -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)
BLOCKS = [(page, *found) for page in PAGES for found in BLOCK.findall(page.read_text("utf-8"))]


def commands(text: str) -> list[list[str]]:
    """The arguments of every bgkit command of a shell block."""
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line[1:] for line in words if line[:1] == ["bgkit"]]


@pytest.mark.parametrize(
    ("page", "arguments"),
    [(page, c) for page, _, kind, text in BLOCKS if kind == "sh" for c in commands(text)],
    ids=lambda value: value.name if isinstance(value, Path) else " ".join(value)[:50],
)
def test_a_command_of_the_docs_parses(page: Path, arguments: list[str]) -> None:
    assert main.parser().parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for _, runs, kind, text in BLOCKS if runs],
    ids=lambda value: value[:40].split("\n")[0],
)
@pytest.mark.slow
def test_what_is_marked_runs(
    kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    if kind == "python":
        exec(compile(text, "docs", "exec"), {})
    for arguments in commands(text) if kind == "sh" else []:
        assert main.main(arguments) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_python_compiles(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing
    for kind, block in [found[1:] for found in BLOCK.findall(text)]:
        if kind == "python":
            compile(block, page.name, "exec")
