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
def test_the_multiplier_finds_the_bound(bound: float, multiplier: float) -> None:
    def risk() -> float:  # of a policy that gives in as the multiplier rises
        return 0.2 / (1 + multiplier)

    for _ in range(3000):
        multiplier = next_multiplier(multiplier, risk(), bound)
    assert risk() == pytest.approx(bound, rel=1e-3)


def test_a_bound_out_of_reach_is_no_runaway() -> None:
    multiplier = 8.0
    for _ in range(500):
        multiplier = next_multiplier(multiplier, 0.03, bound=1e-6)
    assert multiplier == 1000.0
    for _ in range(100):  # and what was added is taken away again
        multiplier = next_multiplier(multiplier, 0.0, bound=1e-6)
    assert multiplier < 8.0


def test_a_bound_needs_a_penalty_that_it_can_move(tmp_path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("def own(t, z, tau, strength):\n    return z - strength * t\n")
    assert runs.make_config({"max_false_negatives": 0.1, "reward": f"{own}:own"})
    for changes in ({"reward": "guard_only"}, {"reward": "filter_avoidance"}, {"strength": 0.0}):
        with pytest.raises(BgkitError, match=r"'max_false_negatives' moves the penalty of"):
            runs.make_config({"max_false_negatives": 0.1, **changes})
    free = runs.make_config({"max_false_negatives": 0.0})
    assert runs.config_hash(free) == runs.config_hash(runs.TrainConfig())


@pytest.mark.slow  # two trainings
def test_a_run_moves_its_multiplier_and_a_resumed_one_goes_on_with_it(tmp_path) -> None:
    config = runs.make_config({**SMALL, "reward": "shown_risk", "max_false_negatives": 0.01})
    options, asked = {"device": "cpu", "threads": 1}, itertools.count(1)
    whole = train(config, tmp_path / "whole", **options)
    completions, curve = whole.completions(), whole.curve()
    curve = curve.dropna(subset=["expected_false_negatives"])
    z, t = completions["z"], completions["t"]
    means = t.where(~completions["filtered"], 0.0).groupby(completions["step"]).mean()
    np.testing.assert_allclose(curve["expected_false_negatives"], means, atol=1e-6)
    expected = [config.strength]
    for risk in curve["expected_false_negatives"][:-1]:
        expected.append(next_multiplier(expected[-1], risk, 0.01))
    assert curve["multiplier"].tolist() == pytest.approx(expected)
    assert whole.strength == pytest.approx(expected[-1])
    deviation = whole.read_json("base.json")["reward_deviation"]
    reward = np.where(t < 0.5, z - np.repeat(expected, 8) * t, -2.0) / deviation
    np.testing.assert_allclose(completions["reward"], reward, atol=1e-4)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", should_stop=lambda: next(asked) == 2, **options)
    resumed = train(config, tmp_path / "run", **options)
    columns = ["step", "multiplier", "expected_false_negatives", "reward"]
    pd.testing.assert_frame_equal(resumed.curve()[columns], whole.curve()[columns])
