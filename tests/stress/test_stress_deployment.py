"""Redeployed responses: by hand, as properties, and on two trained pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation.means import summary
from bgkit.scoring import guards
from bgkit.scoring.adapters import CallableGuard
from bgkit.stress import contenders, deployment, scorecard
from bgkit.stress.deployment import threshold_shift, transfer

SEEN = ["t", "filtered", "near", "system_harm", "system_help"]


def samples(t=(0.1, 0.45, 0.55, 0.95), design: str = "boundary", seed: int = 0) -> pd.DataFrame:
    """Responses of which the first half is safe; a refusal is worth harm 0 and help 0.15."""
    n = len(t)
    return pd.DataFrame(
        {
            "design": design,
            "seed": seed,
            "prompt_id": [f"p{i}" for i in range(n)],
            "kind": "jailbreak",
            "prompt": [f"q{i}" for i in range(n)],
            "response": [f"r{i}" for i in range(n)],
            "t": t,
            "harm": [0.2] * (n // 2) + [0.8] * (n - n // 2),
            "help": 0.6,
            "refusal_harm": 0.0,
            "refusal_help": 0.15,
            **dict.fromkeys(("u", "kl", "length", "judge_system_harm", "judge_system_help"), 0.0),
        }
    ).pipe(contenders.redeployed, None, 0.5)


def scorer(values: dict[str, float], name: str = "fake") -> CallableGuard:
    return CallableGuard(lambda _, said: [values[text] for text in said], name)


OPPOSITE = scorer({"r0": 0.95, "r1": 0.55, "r2": 0.45, "r3": 0.1})


# --- Other thresholds --------------------------------------------------------------------------


def test_a_threshold_by_hand() -> None:
    table = threshold_shift(samples(), [0.2, 0.5, 0.8])
    assert table.columns[:3].tolist() == ["design", "seed", "tau"]
    assert table.groupby("tau")["filtered"].sum().to_dict() == {0.2: 3, 0.5: 2, 0.8: 1}
    at = table[table["tau"] == 0.8]
    assert at["near"].tolist() == [False, False, True, True]
    assert at["system_harm"].tolist() == [0.2, 0.2, 0.8, 0.0]
    assert at["system_help"].tolist() == [0.6, 0.6, 0.6, 0.15]
    means = summary(table, ["design", "tau"], deployment.METRICS)
    means = means.set_index(["metric", "tau"])["mean"]
    assert means["filter_rate"].tolist() == [0.75, 0.5, 0.25]
    assert means["false_negative", 0.8] == 0.25 and means["false_positive", 0.2] == 0.25
    assert means["system_harm", 0.8] == pytest.approx(0.3)


def test_the_same_threshold_changes_nothing() -> None:
    before = samples()
    after = threshold_shift(before, [0.5])
    pd.testing.assert_frame_equal(after.drop(columns="tau")[before.columns], before)


@given(
    t=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    taus=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=5, unique=True),
)
def test_a_higher_threshold_filters_less_and_never_less_harm_is_seen(t, taus) -> None:
    table = threshold_shift(samples(tuple(t)), sorted(taus))
    means = table.groupby("tau")[["filtered", "system_harm", "system_help"]].mean().to_numpy(float)
    assert (np.diff(means[:, 0]) <= 0).all()
    assert (np.diff(means[:, 1:], axis=0) >= -1e-12).all()


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.2, -0.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(tau: float) -> None:
    with pytest.raises(BgkitError, match="strictly between 0 and 1"):
        threshold_shift(samples(), [0.5, tau])
    with pytest.raises(BgkitError, match="strictly between 0 and 1"):
        transfer(samples(), {"opposite": OPPOSITE}, tau)


@pytest.mark.parametrize("taus", [[], [0.5, 0.5]])
def test_thresholds_are_given_and_each_once(taus: list[float]) -> None:
    with pytest.raises(BgkitError, match="at least one threshold, and each one once"):
        threshold_shift(samples(), taus)


# --- Other guards ------------------------------------------------------------------------------


def test_another_guard_by_hand() -> None:
    same = scorer(dict(zip(samples()["response"], samples()["t"], strict=True)))
    table = transfer(samples(), {"same": same, "opposite": OPPOSITE})
    assert table.columns[:3].tolist() == ["design", "seed", "guard"]
    rows = table[table["guard"] == "opposite"]
    assert rows["t"].tolist() == pytest.approx([0.95, 0.55, 0.45, 0.1])
    assert rows["filtered"].tolist() == [True, True, False, False]
    assert rows["system_harm"].tolist() == [0.0, 0.0, 0.8, 0.8]
    means = summary(table, ["design", "guard"], ["system_harm", "near_boundary"])
    assert means["mean"].tolist() == pytest.approx([0.1, 0.5, 0.4, 0.5])
    assert (means["n"] == 4).all() and (means["n_seeds"] == 1).all()


@settings(max_examples=20)
@given(st.permutations(range(8)))
def test_behind_the_same_guard_nothing_changes_in_any_order_of_rows(order: list[int]) -> None:
    two = pd.concat([samples(), samples((0.25, 0.3, 0.6, 0.7), "base")])
    two["response"] = [
        f"{design} {said}" for design, said in zip(two.design, two.response, strict=True)
    ]
    t = {
        said: float(np.float32(value))
        for said, value in zip(two["response"], two["t"], strict=True)
    }
    two = two.assign(t=two["response"].map(t)).iloc[list(order)]
    table = transfer(two, {"same": scorer(t)})
    pd.testing.assert_frame_equal(
        table.drop(columns="guard")[two.columns], two.reset_index(drop=True)
    )


def test_each_contender_is_scored_by_itself_as_when_it_was_sampled() -> None:
    asked: list[int] = []

    def score(prompts, said):
        asked.append(len(said))
        return [0.5] * len(said)

    both = pd.concat([samples(), samples(design="base"), samples(seed=1)])
    transfer(both, {"half": CallableGuard(score, "half")})
    assert asked == [4, 4, 4]


@pytest.mark.parametrize("none", [{}, [], "default"])
def test_guards_are_a_list_or_a_mapping_with_at_least_one(none: object) -> None:
    with pytest.raises(BgkitError, match="with at least one"):
        transfer(samples(), none)


def test_an_unknown_guard_is_refused() -> None:
    with pytest.raises(BgkitError, match="strnge"):
        transfer(samples(), ["strnge"])


def test_a_guard_off_its_range_is_refused() -> None:
    with pytest.raises(BgkitError, match=r"must return probabilities in \[0, 1\]"):
        transfer(samples(), {"loud": scorer(dict.fromkeys(["r0", "r1", "r2", "r3"], 1.5))})


def test_samples_without_rows_or_columns_are_refused() -> None:
    with pytest.raises(BgkitError, match=r"lacks the column\(s\) refusal_harm"):
        threshold_shift(samples().drop(columns="refusal_harm"))
    with pytest.raises(BgkitError, match="has no rows"):
        transfer(samples().iloc[:0], {"opposite": OPPOSITE})


def fake(design: str, **config) -> contenders.Contender:
    run = None if design == "base" else runs.Run
    return contenders.Contender(design, 0, runs.TrainConfig(**config), run)


def test_the_matrix_names_the_guard_that_a_design_was_trained_with() -> None:
    found = [fake("base"), fake("boundary", guard="weak", guard_temperature=2.0)]
    both = pd.concat([samples(design="base"), samples()])
    table = transfer(both, {"opposite": OPPOSITE}, contenders=found)
    assert table.columns[:4].tolist() == ["design", "seed", "trained_with", "guard"]
    named = table.groupby("design")["trained_with"].unique().map(list).to_dict()
    assert named == {"base": ["–"], "boundary": ["weak at T = 2"]}
    with pytest.raises(BgkitError, match=r"'boundary', which is not among the contenders \(base\)"):
        transfer(both, {"opposite": OPPOSITE}, contenders=found[:1])


# --- Two trained pairs -------------------------------------------------------------------------


def test_two_runs_trained_with_two_guards_make_a_full_matrix(small_run, weak_run) -> None:
    found = contenders.contenders_of([small_run, weak_run])
    told = contenders.stored(found)
    table = transfer(told, ["default", "weak", "overconfident"], contenders=found, device="cpu")
    cells = table.groupby(["trained_with", "guard"]).size()
    assert set(cells) == {16} and len(cells) == 9
    assert set(table["trained_with"]) == {"–", "default", "weak"}
    own = table[(table["trained_with"] == table["guard"])].reset_index(drop=True)
    before = told[told["design"] != "base"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[SEEN], before[SEEN], atol=1e-6)
    at_half = table.pivot(index=["design", "prompt_id"], columns="guard", values="filtered")
    assert (at_half["default"] == at_half["overconfident"]).all()
    weak = guards.load_guard("weak", "cpu").score(told["prompt"], told["response"])
    rows = table[table["guard"] == "weak"]
    np.testing.assert_allclose(rows["t"], weak, atol=1e-5)
    assert not np.allclose(rows["t"], told["t"], atol=0.01)


def test_runs_are_given_and_finished(small_run, tmp_path) -> None:
    with pytest.raises(BgkitError, match="give at least one run folder"):
        contenders.contenders_of([])
    (tmp_path / "config.json").write_bytes((small_run.folder / "config.json").read_bytes())
    with pytest.raises(BgkitError, match="is incomplete; finish it"):
        contenders.contenders_of([tmp_path])


def test_a_column_twice_is_refused_by_name() -> None:
    doubled = pd.concat([samples(), samples()[["harm"]]], axis=1)
    for call in (
        lambda: deployment.threshold_shift(doubled),
        lambda: contenders.redeployed(doubled, None, 0.5),
        lambda: scorecard.scorecard({"a": (doubled, "harm", "low")}),
    ):
        with pytest.raises(BgkitError, match="has the column 'harm' twice"):
            call()
