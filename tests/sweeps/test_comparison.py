"""Designs side by side: where runs go, what is trained again, tables and the frontier."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SMALL

import bgkit
from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.sweeps import comparison
from bgkit.training import trainer

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test

SHORT = {**SMALL, "steps": 1, "eval_every": 0, "judge": "none"}


@pytest.mark.slow
def test_designs_and_seeds_are_trained_once_and_read_by_name(tmp_path: Path) -> None:
    done = bgkit.compare(["boundary"], 2, tmp_path / "both", device="cpu", threads=1, **SHORT)
    assert [run.folder.name for run in done] == ["boundary-0", "boundary-1"]
    before = [(run.folder / "result.json").stat().st_mtime_ns for run in done]
    again = bgkit.compare("boundary", [0, 1], tmp_path / "both", device="cpu", threads=1, **SHORT)
    assert [(run.folder / "result.json").stat().st_mtime_ns for run in again] == before
    table = bgkit.table(done, ["system_help", "system_harm"])
    assert list(table.columns) == ["base", "boundary"]
    figure = done.frontier()
    assert {trace.name for trace in figure.data} == {"base", "boundary"}


@pytest.mark.slow
def test_strengths_make_frontiers(tmp_path: Path) -> None:
    done = bgkit.compare(
        ["boundary", "filter_avoidance"], 1, tmp_path, strengths=[1, 16.0], threads=1, **SHORT
    )
    assert [run.folder.name for run in done] == [
        f"{design}-{strength}"
        for design in ("boundary", "filter_avoidance")
        for strength in (1, 16)
    ]
    assert [run.config.strength for run in done] == [1, 16, 1, 16]
    assert "boundary, strength 16.0" in bgkit.table(done)
    figure = done.frontier(x="kl", y="near_boundary")
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert set(named) == {"base", "boundary", "filter avoidance"}  # KL has no better side
    assert len(named["boundary"].x) == 2
    assert "strength 1" in done.claims().columns


@pytest.fixture
def trained(monkeypatch) -> list[tuple]:
    """Config and folder of every training, of which there is none."""
    asked: list[tuple] = []
    monkeypatch.setattr(comparison, "samples_of", lambda *_, **__: None)
    monkeypatch.setattr(trainer, "train", lambda *given, **_: asked.append(given))
    return asked


def test_designs_without_a_strength_are_trained_once(tmp_path: Path, trained) -> None:
    own = tmp_path / "mine.py"
    own.write_text("def plain(t, z, tau):\n    return z\n")
    designs = ["utility_only", f"{own}:plain", "boundary"]
    bgkit.compare(designs, 2, tmp_path, strengths=[1, 2], threads=1, **SHORT)
    names = ["utility_only", "mine.py-plain", "boundary-1", "boundary-2"]
    assert [folder.name for _, folder in trained] == [f"{n}-{s}" for s in (0, 1) for n in names]
    assert [config.strength for config, _ in trained] == [8, 8, 1, 2] * 2


def test_one_strength_is_a_setting_like_others(tmp_path: Path, trained) -> None:
    for how in ({"strengths": 4}, {"strength": 4.0}, {}):
        bgkit.compare("boundary", below=tmp_path, threads=1, **how, **SHORT)
    folders = [folder for _, folder in trained]
    assert folders[0] == folders[1] != folders[2]


def test_without_a_folder_another_setting_is_another_run(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def find(folder: Path, config) -> None:
        asked.append(folder)
        raise BgkitError("looked for")

    monkeypatch.setattr(runs, "find_run", find)
    for name in ("mild", "blind", "mild"):
        with pytest.raises(BgkitError, match="looked for"):
            bgkit.train(below=tmp_path, utility=name, **SHORT)
    names = [folder.name for folder in asked]
    assert names[0] == names[2] != names[1] and names[0].startswith("boundary-mild-0-")
    with pytest.raises(BgkitError, match="Unknown key 'stepz'"):
        bgkit.train(below=tmp_path, stepz=3)


def test_what_can_not_be_compared_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for designs, seeds in (([], 1), ("boundary", 0)):
        with pytest.raises(BgkitError, match="nothing to compare"):
            bgkit.compare(designs, seeds, tmp_path, **SHORT)
    with pytest.raises(BgkitError, match="boundry"):
        bgkit.compare(["boundary", "boundry"], 1, tmp_path, **SHORT)
    assert not list(tmp_path.iterdir())


def test_side_by_side_gives_the_same_bits(tmp_path: Path, capsys) -> None:
    designs, threads = ["boundary", "compound"], {"device": "cpu", "threads": 1}
    both = bgkit.compare(designs, 1, tmp_path / "both", workers=2, **threads, **SHORT)
    said = capsys.readouterr().out
    assert "2 in parallel" in said and "compound: done" in said
    one = bgkit.compare(designs, 1, tmp_path / "one", **threads, **SHORT)
    for first, second in zip(both, one, strict=True):
        assert first.completions().equals(second.completions())
        names = [path.name for path in first.adapter.glob("*.safetensors")]
        for name in names:
            assert (first.adapter / name).read_bytes() == (second.adapter / name).read_bytes()
        assert first.result["rows"] == second.result["rows"]
    assert names
