"""The reward callable: what it pays, records and logs, with each scorer asked once."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from bgkit.errors import BgkitError
from bgkit.training.reward_function import RewardFunction, reward_table


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


def test_the_table_of_a_reward_gives_your_own_function_what_training_gives_it(tmp_path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "def own(t, z, tau, *, u, length, response):\n    return z - u / 2 - length / 100 - t"
    )
    table = reward_table(f"{own}:own", tau=0.5, strength=2.0)
    assert table.loc[0.5].tolist() == [-1.0, -0.5]
