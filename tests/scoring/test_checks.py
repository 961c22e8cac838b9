"""What is no probability, truth or threshold is refused by every function that takes one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import bgkit
from bgkit import checks, rewards
from bgkit.errors import BgkitError
from bgkit.evaluation import calibration, risk, thresholds
from bgkit.evaluation.metrics import judge_agreement, paired_differences, summarise
from bgkit.figures import distributions as plots
from bgkit.figures import risk as plots_risk
from bgkit.scoring import scorer as scoring
from bgkit.scoring import temperature
from bgkit.scoring.adapters import CalibratedGuard, CallableGuard
from bgkit.stress import contenders, without_training
from bgkit.widgets import thresholds as explorer

T, TRUTH = [0.9, 0.2, 0.6, 0.1], [1.0, 1.0, 0.0, 0.0]
Z = [0.0, 1.0, -1.0, 0.5]
TEXTS = (["p"] * 4, ["a", "b", "c", "d"])


def fixed(values: object) -> SimpleNamespace:
    """A guard that returns what it was given, whatever that is."""
    return SimpleNamespace(name="fixed", score=lambda prompts, responses: values)


def table(t: object = T, harm: object = TRUTH) -> pd.DataFrame:
    """Samples with every column that some function needs."""
    made = {"prompt_id": [*"wxyz"], "prompt": TEXTS[0], "response": TEXTS[1], "kind": "benign"}
    made |= {"design": "base", "seed": 0, "reward": Z, "u": Z, "kl": 0.0, "length": 3}
    made |= dict.fromkeys(checks.GRADES, 0.5)
    return pd.DataFrame(made).assign(filtered=False, near=False, t=list(t), harm=list(harm))


#: name -> what a function makes of a table of samples
OF_SAMPLES = {
    "calibration_table": lambda s: calibration.calibration_table({"a": s}),
    "fit_on_half": calibration.fit_on_half,
    "operating_points": lambda s: thresholds.operating_points(s, [0.5]),
    "missing_note": thresholds.missing_note,
    "measured_risk": risk.measured_risk,
    "near_table": lambda s: risk.near_table({"a": s}),
    "summarise": lambda s: summarise(s, {}),
    "paired_differences": lambda s: paired_differences(s, table(), {}),
    "margins": lambda s: plots.margins({"a": s}, 0.5),
    "explore": explorer.explore,
}
#: name -> what a function makes of probabilities alone
OF_T = {
    "calibration_interval": lambda t: calibration.calibration_interval(t, TRUTH),
    "log_loss": lambda t: temperature.log_loss(t, TRUTH),
    "temperature_scale": lambda t: temperature.temperature_scale(t, TRUTH),
    "with_temperature": lambda t: temperature.with_temperature(t, 2.0),
    "expected_cost": lambda t: risk.expected_cost(t, 0.5),
    "risk_curve": plots_risk.risk_curve,
    "tent": rewards.tent,
    "choose": lambda t: without_training.choose([t], [Z], 0.5),
    "CalibratedGuard": lambda t: CalibratedGuard(fixed(t), 2.0).score(*TEXTS),
    "CallableGuard": lambda t: CallableGuard(lambda p, r: t, "f").score(*TEXTS),
    "guard_scores": lambda t: scoring.guard_scores(fixed(t), *TEXTS),
    "redeployed behind another": lambda t: contenders.redeploy(table(), fixed(t), 0.5),
}
OF_T |= {f"{name} of samples": lambda t, f=f: f(table(t)) for name, f in OF_SAMPLES.items()}
OF_TRUTH = {
    "calibration_interval": lambda h: calibration.calibration_interval(T, h),
    "temperature_scale": lambda h: temperature.temperature_scale(T, h),
    "prompt_aware": lambda h: rewards.compute_reward(
        "prompt_aware", [0.5] * 4, Z, 0.5, harmful_request=h
    ),
    "hybrid_guard": lambda h: rewards.compute_reward("hybrid_guard", [0.5] * 4, Z, 0.5, refusal=h),
}
OF_GRADES = {name: lambda h, f=f: f(table(harm=h)) for name, f in OF_SAMPLES.items()}
OF_GRADES["judge_agreement"] = lambda h: judge_agreement(table().assign(judge_help=h))
OF_TAU = {
    "operating_points": lambda tau: thresholds.operating_points(table(), [tau]),
    "measured_risk": lambda tau: risk.measured_risk(table(), tau),
    "expected_cost": lambda tau: risk.expected_cost([0.5], tau),
    "near_table": lambda tau: risk.near_table({"a": table()}, tau),
    "margins": lambda tau: plots.margins({"a": table()}, "" if tau is None else tau),
    "explore": lambda tau: explorer.explore(table(), "" if tau is None else tau),
    "redeployed": lambda tau: contenders.redeploy(table(), fixed([0.5] * 4), tau),
    "boundary": lambda tau: rewards.compute_reward("boundary", [0.5] * 4, Z, tau),
}
#: functions, what each of them refuses, a word of each refusal, and what it takes
REFUSED = (
    (OF_T, ([90.0, 20.0, 60.0, 10.0], [0.9, -1.3, 0.4, 0.1], [0.9, np.nan, 0.6, 0.1]), "in [0, 1]"),
    (OF_T, (["0.9", "0.2", "0.6", "0.1"],), "number"),
    (OF_TRUTH, ([0, 5, 2, 3], [0.2, 1, 0, 1], [*"1010"], [1, 0, 1], 1.0), "truth"),
    (OF_GRADES, ([1, 5, 2, 3], [-1, 1, -1, 1]), "in [0, 1]"),
    (OF_TAU, (-0.1, 50, np.nan, "0.5", None, True, [0.5]), "threshold tau"),
)
CASES = {
    f"{name}, {words}": (function, values, words)
    for functions, values, words in REFUSED
    for name, function in functions.items()
}


def refused(call, value: object) -> str:
    with pytest.raises(BgkitError) as caught:
        call(value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("call", "values", "words"), CASES.values(), ids=CASES)
def test_what_is_no_probability_truth_grade_or_threshold_is_refused(call, values, words) -> None:
    for value in values:
        assert words in refused(call, value), value


@pytest.mark.parametrize("call", [*OF_T.values(), *OF_TRUTH.values()], ids=[*OF_T, *OF_TRUTH])
def test_what_is_one_is_taken(call) -> None:
    call(TRUTH)


@pytest.mark.parametrize("name", ["CalibratedGuard", "guard_scores", "log_loss"])
def test_another_number_of_probabilities_is_refused(name: str) -> None:
    refused(OF_T[name], [0.9, 0.2, 0.6])
    refused(OF_T[name], [[0.9, 0.2], [0.6, 0.1]])


def test_tables_that_lack_a_column_or_have_one_twice_or_as_categories_are_refused() -> None:
    good, points = table(), OF_SAMPLES["operating_points"]
    assert "the help 5.0" in refused(points, good.assign(help=[1.0, 5.0, np.nan, 3.0]))
    for column in ("t", "harm"):
        assert "twice" in refused(points, pd.concat([good, good[[column]]], axis=1))
        assert "categories" in refused(points, good.astype({column: "category"}))
    for call in (judge_agreement, OF_SAMPLES["summarise"]):
        assert "lacks the column(s)" in refused(call, pd.DataFrame({"harm": [0.0]}))


def test_what_is_masked_or_none_is_not_known() -> None:
    masked = np.ma.masked_array([1, 1, 0], [False, True, False])
    assert "nan for response 1 of 3" in refused(checks.probabilities, masked)
    np.testing.assert_array_equal(checks.truths(masked, (3,)), [1, np.nan, 0])
    truth = [True, False, None, 0]
    np.testing.assert_array_equal(checks.truths(truth, (4,)), [1, 0, np.nan, 0])
    found, _ = temperature.temperature_scale([0.9, 0.2, 1.0, 0.1], truth)
    assert found == pytest.approx(temperature.temperature_scale([0.9, 0.2, 0.1], [1, 0, 0])[0])
    t = torch.tensor([0.5, 0.25], dtype=torch.bfloat16, requires_grad=True)
    assert checks.probabilities(t).tolist() == [0.5, 0.25]
    assert "no plain numbers" in refused(risk.filter_cost, [[0.5], [0.5, 0.1]])


FRAME = pd.DataFrame({"prompt": ["a"], "response": ["b"]})
MISTYPED = {
    "mine must be a table": lambda: bgkit.table({"mine": 3}),
    "folder .* not None": lambda: bgkit.load_run(None),
    "policy .* not None": lambda: bgkit.sample(None, FRAME),
    "n .* whole number, not True": lambda: bgkit.load_prompts(n=True),
    "seed .* whole number, not 'x'": lambda: bgkit.load_prompts(seed="x"),
    "prompt set .* not 7": lambda: bgkit.load_prompts(7),
    "judge .* not 5": lambda: bgkit.sample("tiny", FRAME, judge=5),
    "'temperature' .* not -1": lambda: bgkit.sample("tiny", FRAME, temperature=-1),
    "length' .* not 0": lambda: bgkit.sample("tiny", FRAME, max_completion_length=0),
    "config must be a TrainConfig": lambda: bgkit.train({"steps": 1}),
    "folder .* not 9": lambda: bgkit.train(folder=9),
    "'seed' .* not 'x'": lambda: bgkit.compare(seeds="x"),
    "seeds, not 1.5": lambda: bgkit.compare(seeds=1.5),
    "designs, not 3": lambda: bgkit.compare(3),
    "'reward' .* not 3": lambda: bgkit.compare([3]),
    "strengths, not None": lambda: bgkit.compare(strengths=None),
    "workers .* not '2'": lambda: bgkit.compare(workers="2"),
    "threads .* not '2'": lambda: bgkit.start("2"),
    "notebook .* not 3": lambda: bgkit.sweep(3, {}),
    "model .* not 6": lambda: bgkit.load_guard(6),
    "table .* not 6": lambda: bgkit.fit_guard(6, "out"),
    "run, its folder, .* not 8": lambda: bgkit.figures.margins(8),
}


@pytest.mark.parametrize("said", MISTYPED)
def test_arguments_of_another_type_are_told_by_name(said: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BgkitError, match=said):
        MISTYPED[said]()
