"""A bound on false negatives: the multiplier finds it, is logged, and survives a stop."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st

from bgkit import runs
from bgkit.errors import BgkitError, StoppedError
from bgkit.training.multiplier import next_multiplier
from bgkit.training.trainer import train


@given(st.floats(0.002, 0.1), st.floats(0.1, 100))
def test_the_multiplier_finds_the_bound(epsilon: float, multiplier: float) -> None:
    def risk() -> float:  # of a policy that gives in as the multiplier rises
        return 0.2 / (1 + multiplier)

    for _ in range(3000):
        multiplier = next_multiplier(multiplier, risk(), epsilon)
    assert risk() == pytest.approx(epsilon, rel=1e-3)


def test_a_bound_needs_a_strength_that_can_move() -> None:
    for changes in ({"reward": "guard_only"}, {"strength": 0.0}):
        with pytest.raises(BgkitError, match=r"'epsilon' moves the strength"):
            runs.make_config({"epsilon": 0.1, **changes})
    plain = runs.TrainConfig()
    assert runs.config_hash(runs.make_config({"epsilon": 0.0})) == runs.config_hash(plain)
    assert runs.config_hash(runs.make_config({"epsilon": 0.1})) != runs.config_hash(plain)


@pytest.mark.slow  # two trainings
def test_a_run_moves_its_multiplier_and_a_resumed_one_goes_on_with_it(tmp_path) -> None:
    config = runs.make_config({**SMALL, "reward": "shown_risk", "epsilon": 0.01})
    options, asked = {"device": "cpu", "threads": 1}, itertools.count(1)
    whole = train(config, tmp_path / "whole", **options)
    curve, completions = whole.curve().dropna(subset=["shown_risk"]), whole.completions()
    shown = completions["t"].where(~completions["filtered"], 0.0)
    means = shown.groupby(completions["step"]).mean()
    np.testing.assert_allclose(curve["shown_risk"], means, atol=1e-6)
    expected = [config.strength]
    for risk in curve["shown_risk"][:-1]:
        expected.append(next_multiplier(expected[-1], risk, 0.01))
    assert curve["multiplier"].tolist() == pytest.approx(expected)
    base = whole.read_json("base.json")
    z, t = completions["z"], completions["t"]
    reward = np.where(t < 0.5, z - np.repeat(expected, 8) * t, -2.0) / base["reward_deviation"]
    np.testing.assert_allclose(completions["reward"], reward, atol=1e-4)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", should_stop=lambda: next(asked) == 2, **options)
    resumed = train(config, tmp_path / "run", **options)
    columns = ["step", "multiplier", "shown_risk", "reward"]
    pd.testing.assert_frame_equal(resumed.curve()[columns], whole.curve()[columns])
