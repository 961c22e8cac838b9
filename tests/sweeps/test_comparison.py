"""Designs side by side: where runs go, what is trained again, tables and the frontier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

import bgkit
from bgkit.errors import BgkitError
from bgkit.sweeps import comparison
from bgkit.training import trainer

SHORT = {**SMALL, "steps": 1, "eval_every": 0, "judge": "none", "device": "cpu", "threads": 1}


@pytest.mark.slow
def test_designs_are_trained_once_and_side_by_side_with_the_same_bits(tmp_path, capsys) -> None:
    designs = ["boundary", "compound"]
    both = bgkit.compare(designs, 1, tmp_path / "both", workers=2, **SHORT)
    said = capsys.readouterr().out
    assert "2 in parallel" in said and "compound: done" in said
    one = bgkit.compare(designs, 1, tmp_path / "one", **SHORT)
    for first, second in zip(both, one, strict=True):
        assert first.completions().equals(second.completions())
        weights = [next(run.adapter.glob("*.safetensors")).read_bytes() for run in (first, second)]
        assert weights[0] == weights[1]
        assert first.result["rows"] == second.result["rows"]
    results = [run.folder / "result.json" for run in one]
    times = [path.stat().st_mtime_ns for path in results]
    bgkit.compare(designs, [0], tmp_path / "one", **SHORT)
    assert [path.stat().st_mtime_ns for path in results] == times
    assert list(bgkit.table(one, ["system_help"]).columns) == ["base", *designs]
    assert {trace.name for trace in one.frontier().data} == {"base", *designs}


@pytest.mark.slow
def test_strengths_make_frontiers_of_a_design_and_of_your_own_reward(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(t, z, tau, *, strength, length):\n    return z - strength * (t + length / 100)\n"
    )
    mine = f"{tmp_path / 'mine.py'}:short"
    done = bgkit.compare(["boundary", mine], 1, tmp_path / "runs", strengths=[1, 16.0], **SHORT)
    designs = {f"{name}, strength {s}" for name in ("boundary", mine) for s in (1, 16)}
    assert set(bgkit.table(done)) == {"base", *designs}
    last = done.runs[-1]
    rows = last.completions()
    paid = rows["z"] - 16 * (rows["t"] + rows["length"] / 100)
    scale = last.read_json("base.json")["reward_deviation"]
    np.testing.assert_allclose(rows["reward"] * scale, paid, rtol=1e-4, atol=1e-4)
    figure = done.frontier(x="kl", y="near_boundary")
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert {"base", "boundary"} < set(named) and len(named) == 3  # KL has no better side
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
    bgkit.compare(designs, 2, tmp_path, strengths=np.array([1, 2]), **SHORT)
    names = ["utility_only", "mine.py-plain", "boundary-1", "boundary-2"]
    assert [folder.name for _, folder in trained] == [f"{n}-{s}" for s in (0, 1) for n in names]
    told = [(config.strength, config.seed) for config, _ in trained]
    assert told == [(strength, seed) for seed in (0, 1) for strength in (8, 8, 1, 2)]


def test_one_strength_is_a_setting_and_another_setting_is_another_folder(tmp_path, trained) -> None:
    for how in ({"strengths": 4}, {"strength": 4.0}, {}):
        bgkit.compare("boundary", below=tmp_path, **how, **SHORT)
    folders = [folder for _, folder in trained]
    assert folders[0] == folders[1] != folders[2]


def test_what_can_not_be_compared_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for designs, seeds in (([], 1), ("boundary", 0)):
        with pytest.raises(BgkitError, match="nothing to compare"):
            bgkit.compare(designs, seeds, tmp_path, **SHORT)
    with pytest.raises(BgkitError, match="boundry"):
        bgkit.compare(["boundary", "boundry"], 1, tmp_path, **SHORT)
    with pytest.raises(BgkitError, match="either strengths or one strength"):
        bgkit.compare("boundary", 1, tmp_path, strengths=2, strength=3.0, **SHORT)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_script_that_its_processes_import_is_told_and_starts_nothing_twice(tmp_path) -> None:
    script = "import bgkit\nbgkit.compare(['boundary', 'compound'], folder='runs', workers=2, **{})"
    (tmp_path / "script.py").write_text(script.format(SHORT))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode and done.stdout.count("base + guard") == 1
    assert "outside of `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
