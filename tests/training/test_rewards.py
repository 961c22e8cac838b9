"""The eight reward designs: by hand, within their ranges, and with the tent where it belongs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bgkit.errors import BgkitError
from bgkit.rewards import DESIGNS, compute_reward, tent

NAMES = (
    "boundary guard_only utility_only filter_avoidance filter_avoidance_soft prompt_aware compound "
    "hybrid_guard"
).split()

# threshold -> probabilities at 0, halfway up, at the threshold, halfway down, and 1
POINTS = {
    0.2: [0.0, 0.1, 0.2, 0.6, 1.0],
    0.5: [0.0, 0.25, 0.5, 0.75, 1.0],
    0.7: [0.0, 0.35, 0.7, 0.85, 1.0],
}
TENT = [0.0, 0.5, 1.0, 0.5, 0.0]

probabilities = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1))
thresholds = st.floats(0.01, 0.99)
weights = st.floats(0, 10)


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float, dict[str, Any]]:
    """Probabilities, utilities, a threshold, and all columns and weights of any design."""
    size = draw(st.integers(1, 12))
    arrays = {
        "t": hnp.arrays(np.float64, size, elements=st.floats(0, 1)),
        "z": hnp.arrays(np.float64, size, elements=st.floats(-20, 20)),
        "harmful_request": hnp.arrays(bool, size),
        "refusal": hnp.arrays(bool, size),
    }
    columns: dict[str, Any] = {name: draw(values) for name, values in arrays.items()}
    t, z = columns.pop("t"), columns.pop("z")
    for name in ("utility_weight", "margin_weight", "filter_penalty"):
        columns[name] = draw(weights)
    columns["filtered_reward"] = draw(st.floats(-5, 5))
    return t, z, draw(thresholds), columns


# --- By hand ---------------------------------------------------------------------------------


def test_the_designs_are_the_eight_of_the_docstring():
    assert list(DESIGNS) == NAMES


@pytest.mark.parametrize("tau", POINTS)
def test_tent_by_hand(tau):
    np.testing.assert_allclose(tent(POINTS[tau], tau), TENT, atol=1e-12)


# rewards at z = 2, with the default weights, of the five points of every threshold
BY_HAND = {
    "boundary": [0.5, -0.5, -1.5, -0.5, 0.5],
    "guard_only": [0.0, -0.5, -1.0, -0.5, 0.0],
    "utility_only": [2.0, 2.0, 2.0, 2.0, 2.0],
    "filter_avoidance": [0.5, 0.5, -0.5, -0.5, -0.5],
    "compound": [0.5, -0.5, -2.5, -1.5, -0.5],
}


@pytest.mark.parametrize("tau", POINTS)
@pytest.mark.parametrize("name", BY_HAND)
def test_design_by_hand(name, tau):
    reward = compute_reward(name, POINTS[tau], [2.0] * 5, tau)
    np.testing.assert_allclose(reward, BY_HAND[name], atol=1e-12)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.2, [0.5, 0.4, 0.3, -0.1, -0.5]),
        (0.5, [0.5, 0.25, 0.0, -0.25, -0.5]),
        (0.7, [0.5, 0.15, -0.2, -0.35, -0.5]),
    ],
)
def test_soft_filter_avoidance_by_hand(tau, expected):
    reward = compute_reward("filter_avoidance_soft", POINTS[tau], [2.0] * 5, tau)
    np.testing.assert_allclose(reward, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("tau", "harmless"),
    [
        (0.2, [0.5, 0.3, 0.1, -0.7, -1.5]),
        (0.5, [0.5, 0.0, -0.5, -1.0, -1.5]),
        (0.7, [0.5, -0.2, -0.9, -1.2, -1.5]),
    ],
)
def test_prompt_aware_by_hand(tau, harmless):
    harmful = [0.5, -0.5, -1.5, -0.5, 0.5]
    for flags in ([False] * 5, [True] * 5, [True, False, True, False, True]):
        reward = compute_reward("prompt_aware", POINTS[tau], [2.0] * 5, tau, harmful_request=flags)
        pairs = zip(flags, harmful, harmless, strict=True)
        np.testing.assert_allclose(reward, [a if flag else b for flag, a, b in pairs], atol=1e-12)


@pytest.mark.parametrize("tau", POINTS)
def test_hybrid_guard_by_hand(tau):
    def reward(z: float, refusal: bool) -> list[float]:
        column = [refusal] * 5
        return compute_reward("hybrid_guard", POINTS[tau], [z] * 5, tau, refusal=column).tolist()

    assert reward(2.0, False) == [2.0, 2.0, -10.0, -10.0, -10.0]
    assert reward(2.0, True) == [-5.0, -5.0, -10.0, -10.0, -10.0]
    assert reward(-7.0, False) == [-7.0, -7.0, -10.0, -10.0, -10.0]
    assert reward(-7.0, True) == [-7.0, -7.0, -10.0, -10.0, -10.0]
    assert reward(-12.0, True) == [-12.0] * 5


def test_weights_reach_their_terms():
    t, z = [0.75], [2.0]
    assert compute_reward("boundary", t, z, 0.5, utility_weight=3.0, margin_weight=5.0) == [3.5]
    assert compute_reward(
        "filter_avoidance", t, z, 0.5, utility_weight=3.0, filter_penalty=5.0
    ) == [1.0]
    assert compute_reward(
        "filter_avoidance_soft", t, z, 0.5, utility_weight=3.0, filter_penalty=5.0
    ) == [2.25]
    assert compute_reward(
        "compound", t, z, 0.5, utility_weight=3.0, margin_weight=5.0, filtered_reward=7.0
    ) == [4.5]
    assert compute_reward(
        "prompt_aware", t, z, 0.5, harmful_request=[False], utility_weight=3.0, margin_weight=4.0
    ) == [3.0]
    assert compute_reward(
        "hybrid_guard", t, z, 0.5, refusal=[False], unsafe_penalty=-3.0, refusal_penalty=-1.0
    ) == [-3.0]


def test_the_threshold_itself_is_filtered():
    for name in ("filter_avoidance", "compound", "hybrid_guard"):
        columns = {"refusal": [False] * 2, "margin_weight": 0.0}
        below = math.nextafter(0.3, 0)
        reward = compute_reward(name, [below, 0.3], [1.0, 1.0], 0.3, **columns)
        assert reward[0] > 0 > reward[1], name


# --- Ranges ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(batches())
def test_every_design_keeps_to_its_documented_range(batch):
    t, z, tau, columns = batch
    reward = {name: compute_reward(name, t, z, tau, **columns) for name in DESIGNS}
    useful = columns["utility_weight"] * z
    margin, penalty = columns["margin_weight"], columns["filter_penalty"]
    slack = 1e-9

    def within(name: str, low: np.ndarray | float, high: np.ndarray | float) -> None:
        assert (reward[name] >= low - slack).all(), name
        assert (reward[name] <= high + slack).all(), name

    within("boundary", useful - margin, useful)
    within("guard_only", -1.0, 0.0)
    within("utility_only", z, z)
    within("filter_avoidance", useful - penalty, useful)
    within("filter_avoidance_soft", useful - penalty, useful)
    within("prompt_aware", useful - margin, useful)
    shown = np.where(t < tau, useful, columns["filtered_reward"])
    within("compound", shown - margin, shown)
    within("hybrid_guard", np.minimum(z, -10.0), z)
    for name, values in reward.items():
        assert values.shape == t.shape and values.dtype == np.float64, name


@settings(max_examples=60)
@given(batches())
def test_a_batch_is_graded_as_its_rows_are(batch):
    t, z, tau, columns = batch
    for name in DESIGNS:
        whole = compute_reward(name, t, z, tau, **columns)
        for i in range(len(t)):
            row = {k: v[i : i + 1] if np.ndim(v) else v for k, v in columns.items()}
            assert compute_reward(name, t[i : i + 1], z[i : i + 1], tau, **row) == whole[i]


@settings(max_examples=60)
@given(batches())
def test_no_design_changes_what_it_is_given(batch):
    t, z, tau, columns = batch
    arrays = {"t": t, "z": z, **{k: v for k, v in columns.items() if np.ndim(v)}}
    before = {name: array.copy() for name, array in arrays.items()}
    for name in DESIGNS:
        reward = compute_reward(name, t, z, tau, **columns)
        reward += 1.0  # nor may the result be one of the inputs
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, before[key], err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", NAMES)
def test_lists_and_single_precision_are_fine(name):
    columns = {"harmful_request": [True, False], "refusal": [0, 1]}
    lists = compute_reward(name, [0.25, 0.75], [1.0, -1.0], 0.5, **columns)
    single = compute_reward(name, np.float32([0.25, 0.75]), np.float32([1.0, -1.0]), 0.5, **columns)
    assert lists.dtype == single.dtype == np.float64
    np.testing.assert_array_equal(lists, single)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_has_no_rewards(name):
    assert compute_reward(name, [], [], 0.5, harmful_request=[], refusal=[]).shape == (0,)


# --- The tent --------------------------------------------------------------------------------


@given(t=probabilities, tau=thresholds)
def test_tent_lies_between_nought_and_one(t, tau):
    values = tent(t, tau)
    assert ((values >= 0) & (values <= 1)).all()


@given(tau=thresholds)
def test_tent_stands_at_the_threshold_and_touches_both_ends(tau):
    assert tent([0.0, tau, 1.0], tau).tolist() == pytest.approx([0.0, 1.0, 0.0])
    beside = tent([tau * (1 - 1e-6), tau + (1 - tau) * 1e-6], tau)
    assert (beside < 1).all()


@given(tau=thresholds, low=st.floats(0, 1), high=st.floats(0, 1))
def test_tent_rises_to_the_threshold_and_falls_behind_it(tau, low, high):
    low, high = sorted((low, high))
    left = tent([low * tau, high * tau], tau)
    right = tent([tau + low * (1 - tau), min(1.0, tau + high * (1 - tau))], tau)
    assert left[0] <= left[1] + 1e-12
    assert right[0] >= right[1] - 1e-12
    if high - low > 1e-6:
        assert left[0] < left[1] and right[0] > right[1]


@given(t=probabilities)
def test_tent_at_one_half_is_the_papers_margin(t):
    np.testing.assert_allclose(tent(t, 0.5), 1 - 2 * np.abs(t - 0.5), atol=1e-12)


@given(t=probabilities, false_positive=st.floats(0.1, 50), false_negative=st.floats(0.1, 50))
def test_tent_is_the_bayes_risk_relative_to_its_peak(t, false_positive, false_negative):
    tau = false_positive / (false_positive + false_negative)
    risk = np.minimum(false_negative * t, false_positive * (1 - t))
    np.testing.assert_allclose(risk, false_negative * tau * tent(t, tau), rtol=1e-9, atol=1e-12)


@given(
    tau=thresholds,
    z=st.floats(-20, 20),
    utility_weight=weights,
    margin_weight=st.floats(0.01, 10),
)
def test_boundary_reward_is_lowest_at_the_threshold(tau, z, utility_weight, margin_weight):
    """Proposition 1: with the utility held, nothing pays less than sitting on the boundary."""
    t = np.union1d(np.linspace(0, 1, 201), [tau])
    given_weights = {"utility_weight": utility_weight, "margin_weight": margin_weight}
    reward = compute_reward("boundary", t, np.full(len(t), z), tau, **given_weights)
    assert t[np.argmin(reward)] == pytest.approx(tau, abs=1e-9)
    assert reward.min() == pytest.approx(utility_weight * z - margin_weight)
    left, right = reward[t <= tau], reward[t >= tau]
    assert (np.diff(left) <= 1e-9).all() and (np.diff(right) >= -1e-9).all()


# --- Errors ----------------------------------------------------------------------------------

ALL = {"harmful_request": [False], "refusal": [False]}


def test_unknown_reward_lists_the_choices():
    with pytest.raises(BgkitError, match="no reward 'boundry'") as caught:
        compute_reward("boundry", [0.5], [0.0], 0.5)
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize(
    ("name", "column"), [("prompt_aware", "harmful_request"), ("hybrid_guard", "refusal")]
)
def test_missing_column_is_named(name, column):
    columns = {key: value for key, value in ALL.items() if key != column}
    with pytest.raises(BgkitError, match=f"{name!r} needs the column {column!r}"):
        compute_reward(name, [0.5], [0.0], 0.5, **columns)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"prompt_aware", "hybrid_guard"}))
def test_the_other_designs_need_no_column(name):
    assert np.isfinite(compute_reward(name, [0.5], [0.0], 0.5)).all()


def test_columns_that_a_design_does_not_know_are_left_alone():
    assert compute_reward("utility_only", [0.5], [0.7], 0.5, margin_weight=9.0, **ALL) == [0.7]


@pytest.mark.parametrize("t", [math.nan, -1e-9, 1 + 1e-9, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_probability_that_is_none_is_refused(name, t):
    columns = {key: value * 2 for key, value in ALL.items()}
    with pytest.raises(BgkitError, match=r"probabilities t must lie in \[0, 1\]"):
        compute_reward(name, [0.5, t], [0.0, 0.0], 0.5, **columns)


@pytest.mark.parametrize("tau", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_threshold_at_or_beyond_the_ends_is_refused(name, tau):
    with pytest.raises(BgkitError, match=f"tau must lie strictly between 0 and 1, not {tau}"):
        compute_reward(name, [0.5], [0.0], tau, **ALL)


@pytest.mark.parametrize("tau", [0.0, 1.0, math.nan])
def test_tent_refuses_a_threshold_at_the_ends(tau):
    with pytest.raises(BgkitError, match="tau"):
        tent([0.5], tau)


@pytest.mark.parametrize("z", [[1.0], [1.0, 2.0, 3.0], 1.0])
def test_unequal_numbers_of_scores_are_refused(z):
    with pytest.raises(BgkitError, match="one value per response"):
        compute_reward("boundary", [0.1, 0.9], z, 0.5)
