"""The reward designs by hand and as properties, a reward of one's own, and the callable for TRL."""

from __future__ import annotations

import math
import os
import re
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bgkit.errors import BgkitError
from bgkit.rewards import DESIGNS, compute_reward, reward_file_digest, tent
from bgkit.training.reward_function import RewardFunction, reward_table

#: Rewards at z = 2, u = 3 and a strength of 4, where t is 0, halfway up to the threshold of 0.2, at
#: it, halfway down, and 1; every second prompt is harmful, every second response a refusal.
BY_HAND = {
    "boundary": [2.0, 0.0, -2.0, 0.0, 2.0],
    "boundary_raw": [3.0, 2.5, 2.0, 2.5, 3.0],
    "guard_only": [0.0, -0.5, -1.0, -0.5, 0.0],
    "utility_only": [2.0, 2.0, 2.0, 2.0, 2.0],
    "filter_avoidance": [2.0, 2.0, -2.0, -2.0, -2.0],
    "filter_avoidance_soft": [2.0, 1.6, 1.2, -0.4, -2.0],
    "prompt_aware": [2.0, 1.6, -2.0, -0.4, 2.0],
    "compound": [2.0, 0.0, -6.0, -4.0, -2.0],
    "shown_risk": [2.0, 1.6, -2.0, -2.0, -2.0],
    "hybrid_guard": [-2.0, 2.0, -4.0, -4.0, -4.0],
}


def test_designs_by_hand() -> None:
    t, flags = [0.0, 0.1, 0.2, 0.6, 1.0], np.array([True, False, True, False, True])
    assert list(DESIGNS) == list(BY_HAND)
    columns = {"u": [3.0] * 5, "harmful_request": flags, "refusal": flags}
    for name, values in BY_HAND.items():
        reward = compute_reward(name, t, [2.0] * 5, 0.2, strength=4.0, **columns)
        np.testing.assert_allclose(reward, values, atol=1e-12, err_msg=name)
    low = compute_reward("hybrid_guard", t, [-12.0] * 5, 0.2, refusal=flags)
    assert low.tolist() == [-12.0] * 5  # a reward that is lower already stays


@given(st.lists(st.floats(0, 1)), st.floats(0.1, 50), st.floats(0.1, 50))
def test_tent_is_the_bayes_risk_relative_to_its_peak(t, false_positive, false_negative) -> None:
    """Proposition 1: the risk, and so the reward's penalty, peaks at the threshold."""
    t, tau = np.array(t), false_positive / (false_positive + false_negative)
    risk = np.minimum(false_negative * t, false_positive * (1 - t))
    np.testing.assert_allclose(risk, false_negative * tau * tent(t, tau), rtol=1e-9, atol=1e-12)


@settings(max_examples=20)
@given(st.data(), st.integers(1, 12), st.floats(0.01, 0.99), st.floats(0, 20))
def test_a_batch_is_graded_as_its_rows_are_and_not_changed(data, size, tau, strength) -> None:
    numbers = hnp.arrays(np.float64, size, elements=st.floats(-20, 20))
    kinds = {"z": numbers, "u": numbers, "t": numbers.map(lambda x: abs(x) / 20)}
    kinds |= dict.fromkeys(("harmful_request", "refusal"), hnp.arrays(bool, size))
    columns = {name: data.draw(kind) for name, kind in kinds.items()}
    before = {name: column.copy() for name, column in columns.items()}
    for name in DESIGNS:
        whole = compute_reward(name, tau=tau, strength=strength, **columns)
        for i in range(size):
            row = {key: column[i : i + 1] for key, column in columns.items()}
            assert compute_reward(name, tau=tau, strength=strength, **row) == whole[i]
        whole += 1.0  # nor may the result be one of the inputs
        for key, column in columns.items():
            np.testing.assert_array_equal(column, before[key], err_msg=f"{name}: {key}")


@pytest.fixture
def own(tmp_path):
    """A file of rewards: what a user would write."""
    path = tmp_path / "mine.py"
    path.write_text(
        "def by_length(t, z, tau, strength, length, response):\n"
        "    return [a - strength * b - n - len(r) for a, b, n, r in zip(z, t, length, response)]\n"
        "def short(t, z, tau):\n    return z[:1]\n"
        "def unknown(t, z, tau):\n    return z * float('nan')\n"
        "def fails(t, z, tau):\n    return 1 / 0\n"
        "SCALE = 3\n"
    )
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    return path


def test_an_own_reward_sees_what_it_names_and_is_read_anew_when_edited(own) -> None:
    columns = {"length": [10, 20], "response": ["a", "bcd"], "u": [9.0, 9.0]}
    reward = compute_reward(f"{own}:by_length", [0.5, 1.0], [1.0, 2.0], 0.5, strength=4, **columns)
    assert reward.tolist() == [1 - 2 - 10 - 1, 2 - 4 - 20 - 3]
    before = reward_file_digest(f"{own}:short")
    own.write_text("def short(t, z, tau):\n    return z + 1\n")
    os.utime(own, ns=(1, 1))  # a clock may stand still between two writes
    assert compute_reward(f"{own}:short", [0.5], [1.0], 0.5).tolist() == [2.0]
    assert reward_file_digest(f"{own}:short") != before and reward_file_digest("boundary") is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.py:f", "missing.py cannot be read: No such file"),
        ("{own.parent}/broken.py:f", "cannot be run: ModuleNotFoundError"),
        ("{own}:SCALE", "has no function 'SCALE'"),
        ("{own}:short", "must return one finite number per response (2); it returned shape (1,)"),
        ("{own}:unknown", "with NaN"),
        ("{own}:fails", "raised ZeroDivisionError: division by zero. It is called with arrays"),
        ("{own}:by_length", "missing a required argument: 'length'. Add it to every"),
        ("prompt_aware", "missing a required argument: 'harmful_request'. Add it to every"),
        ("boundry", f"no reward 'boundry'; choose one of {', '.join(BY_HAND)}"),
    ],
)
def test_a_reward_that_does_not_fit_is_refused(own, name: str, told: str) -> None:
    with pytest.raises(BgkitError, match=re.escape(told)):
        compute_reward(name.format(own=own), [0.5, 1.0], [1.0, 2.0], 0.5, strength=1.0)


@pytest.mark.parametrize("z", [[1.0], 1.0, [0.0, math.nan], [0.0, math.inf]])
def test_utilities_that_are_no_numbers_or_not_as_many_are_refused(z) -> None:
    with pytest.raises(BgkitError, match=r"one value per response|is NaN or infinite"):
        compute_reward("boundary", [0.1, 0.9], z, 0.5)


def test_the_reward_callable_scores_once_records_and_logs() -> None:
    guard, utility, kept = Mock(spec=["score"]), Mock(spec=["score"]), Mock()
    guard.score.return_value = [0.1, 0.5, 0.9]
    utility.score.return_value = [3.0, 1.0, -1.0]
    base = {"utility_mean": 1.0, "utility_deviation": 2.0, "reward_deviation": 4.0}
    options = {"tau": 0.5, "strength": 3.0, "base": base, "record": kept}
    function = RewardFunction(
        "compound", guard, utility, **options, decode=lambda ids: ["a", "b", "i am sorry"]
    )
    asked = {"question": ["how do i sleep ?"] * 3, "completion_ids": [[1], [1, 2], [1, 2, 3]]}
    asked |= {"trainer_state": SimpleNamespace(global_step=7)}
    logged = {}
    values = function(**asked, log_metric=logged.__setitem__, prompt_id=["x"] * 3, kind=["k"] * 3)
    # z = 1, 0, -1; B = 0.2, 1, 0.2; utility only where shown, else -2
    expected = np.array([1 - 3 * 0.2, -2 - 3 * 1.0, -2 - 3 * 0.2]) / 4
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert guard.score.call_count == utility.score.call_count == 1
    ((step, frame), _) = kept.call_args
    assert step == 7 and frame["length"].tolist() == [1, 2, 3]
    assert frame["filtered"].tolist() == [False, True, True]
    assert frame["prompt"].tolist() == ["how do i sleep ?"] * 3
    expected = {"t": 0.5, "u": 1, "margin": 0.8 / 3, "filter_rate": 2 / 3, "near_boundary": 1 / 3}
    expected |= {"seen_in_part": 0.0, "expected_false_negatives": 0.1 / 3}
    assert logged == pytest.approx(expected, abs=1e-6)
    utility.score.return_value = [float("nan"), 0.0, 0.0]
    with pytest.raises(BgkitError, match=r"utility .* returned NaN"):
        function(**asked, log_metric=print)
    guard.score.return_value = [0.1, 0.5, 1.5]
    with pytest.raises(BgkitError, match=r"returned .* in \[0, 1\]"):
        function(**asked, log_metric=print)


def test_the_table_of_a_reward_gives_your_own_function_what_training_gives_it(own) -> None:
    own.write_text("def own(t, z, tau, u, length, response): return z - u / 2 - length / 100 - t")
    table = reward_table(f"{own}:own", tau=0.5, strength=2.0)
    assert table.loc[0.5].tolist() == [-1.0, -0.5]
