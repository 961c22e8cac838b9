"""Temperatures fitted for a miscalibrated guard, and pairs of runs with and without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.figures import stress_training as plots
from bgkit.scoring import guards
from bgkit.scoring.temperature import with_temperature
from bgkit.stress.calibrated import behind, fit_on, fit_temperature, train_pair

CONFIG = runs.make_config(
    {**SMALL, "guard": "overconfident", "steps": 2, "eval_every": 0, "judge": "none"}
)


def sharpened(temperature: float, n: int = 4000) -> pd.DataFrame:
    """Responses of a guard that was calibrated before its logits were multiplied."""
    rng = np.random.default_rng(0)
    t = rng.random(n)
    harm = (rng.random(n) < t).astype(float)
    return pd.DataFrame({"t": with_temperature(t, 1 / temperature), "harm": harm})


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fit_finds_the_temperature_by_which_a_guard_is_off(temperature: float) -> None:
    fit = fit_on(sharpened(temperature))
    assert fit.temperature == pytest.approx(temperature, rel=0.1)
    assert fit.table.index.tolist() == ["as it is", "scaled"] and (fit.table["n"] == 2000).all()
    if temperature != 1:
        assert fit.table.loc["scaled", "ece"] < fit.table.loc["as it is", "ece"] / 2
        assert fit.table.loc["scaled", "brier"] < fit.table.loc["as it is", "brier"]


def test_halves_are_mixed_where_kinds_alternate() -> None:
    """Every other prompt harmless: halves that were not mixed would have one kind each."""
    samples = pd.DataFrame({"t": [0.2, 0.8] * 100, "harm": [0.0, 1.0] * 100})
    table = fit_on(samples).table
    assert (table["n"] == 100).all() and 0.1 < table.loc["as it is", "ece"] < 0.3


def test_the_overconfident_guard_gets_a_temperature_above_one() -> None:
    fit = fit_temperature(CONFIG, n=400, device="cpu")
    assert 1.5 < fit.temperature < 20
    assert fit.table.loc["scaled", "ece"] < fit.table.loc["as it is", "ece"]
    assert fit.table.loc["scaled", "log_loss"] < fit.table.loc["as it is", "log_loss"]
    assert fit.table.loc["scaled", "n"] == 200


class Contrary:
    """A judge that calls harmful what the guard passes; the other way round for odd lengths."""

    name = "contrary"

    def grade(self, prompts, responses) -> pd.DataFrame:
        return pd.DataFrame({"harm": [float(len(r) % 2) for r in responses], "help": 0.0})


def test_a_judge_labels_where_the_truth_is_not_known() -> None:
    config = replace(CONFIG, prompts="everyday", max_completion_length=4)
    with pytest.raises(BgkitError, match="give a judge that labels"):
        fit_temperature(config, n=8, device="cpu")
    fit = fit_temperature(config, n=24, judge=Contrary(), device="cpu")
    assert fit.temperature > 5  # its grades have nothing to do with the guard's


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return train_pair(CONFIG, tmp_path_factory.mktemp("pair"), n=200, device="cpu", threads=1)


def test_a_pair_differs_in_the_temperature_and_is_compared_behind_both_guards(pair) -> None:
    assert pair.as_it_is.config == CONFIG
    assert pair.scaled.config == replace(CONFIG, guard_temperature=pair.fit.temperature)
    here, there = (run.completions().query("step == 0") for run in pair[:2])
    assert here["response"].tolist() == there["response"].tolist()
    scaled = with_temperature(here["t"], pair.fit.temperature)
    np.testing.assert_allclose(there["t"], scaled, atol=1e-3)
    table = pair.table
    designs = ["base", "boundary", f"boundary, guard_temperature {pair.fit.temperature}"]
    assert table["design"].unique().tolist() == designs
    assert table["guard"].unique().tolist() == ["overconfident", "default"]
    samples = pd.read_parquet(pair.scaled.folder / "samples.parquet")
    t = guards.load_guard("default", "cpu").score(samples["prompt"], samples["response"])
    found = table.set_index(["guard", "design", "metric"])["mean"]
    assert found["default", designs[2], "filter_rate"] == (t >= 0.5).mean()
    assert len(plots.with_and_without_calibration(table).data) == 2 * 3


def test_what_is_complete_is_reused_and_other_settings_are_refused(pair, tmp_path: Path) -> None:
    folder = pair.scaled.folder.parent
    before = (pair.scaled.folder / "result.json").stat().st_mtime_ns
    again = train_pair(CONFIG, folder, n=200, device="cpu", threads=1)
    assert (pair.scaled.folder / "result.json").stat().st_mtime_ns == before
    assert again.fit.temperature == pair.fit.temperature
    pd.testing.assert_frame_equal(again.fit.table, pair.fit.table)
    pd.testing.assert_frame_equal(again.table, pair.table)
    with pytest.raises(BgkitError, match="fitted for another config"):
        train_pair(replace(CONFIG, seed=1), folder, n=200, device="cpu")
    with pytest.raises(BgkitError, match="leave 'guard_temperature' at 1"):
        train_pair(replace(CONFIG, guard_temperature=2.0), tmp_path, device="cpu")


def test_thresholds_must_agree(pair, tmp_path: Path) -> None:
    other = runs.Run(pair.as_it_is.folder, replace(CONFIG, tau=0.25))
    with pytest.raises(BgkitError, match=r"different thresholds \(0.25, 0.5\)"):
        behind([pair.scaled, other], ["default"], device="cpu")
