"""Redeployed responses: by hand, as properties, and on two trained pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.evaluation.metrics import summary
from bgkit.prompts import load as prompts
from bgkit.scoring import guards
from bgkit.scoring.adapters import CallableGuard
from bgkit.stress import contenders
from bgkit.stress.contenders import transfer

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test

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
    ).assign(filtered=lambda s: s["t"] >= 0.5, near=lambda s: (s["t"] - 0.5).abs() < 0.3)


def scorer(values: dict[str, float], name: str = "fake") -> CallableGuard:
    return CallableGuard(lambda _, said: [values[text] for text in said], name)


OPPOSITE = scorer({"r0": 0.95, "r1": 0.55, "r2": 0.45, "r3": 0.1})


# --- Other guards ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("none", "words"),
    [({}, "at least one guard"), ([], "at least one guard"), (OPPOSITE, "one or several guards")],
)
def test_guards_are_a_list_or_a_mapping_with_at_least_one(none: object, words: str) -> None:
    with pytest.raises(BgkitError, match=words):
        transfer(samples(), none)


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
    with pytest.raises(BgkitError, match=r"lacks the column\(s\) refusal_harm"):
        transfer(samples().drop(columns="refusal_harm"), {"opposite": OPPOSITE})


@settings(max_examples=20)
@given(st.permutations(range(8)))
def test_behind_the_same_guard_nothing_changes_in_any_order_of_rows(order: list[int]) -> None:
    two = pd.concat([samples(), samples((0.25, 0.3, 0.6, 0.7), "base")])
    two["response"] = two["design"] + " " + two["response"]
    two["t"] = two["t"].astype("float32").astype(float)
    same = scorer(dict(zip(two["response"], two["t"], strict=True)))
    table = transfer(two.iloc[list(order)], {"same": same}).drop(columns="guard")
    whole = two.iloc[list(order)].reset_index(drop=True)
    pd.testing.assert_frame_equal(table[two.columns], whole)


def test_each_contender_is_scored_by_itself_as_when_it_was_sampled() -> None:
    asked: list[int] = []

    def score(prompts, said):
        asked.append(len(said))
        return [0.5] * len(said)

    both = pd.concat([samples(), samples(design="base"), samples(seed=1)])
    transfer(both, {"half": CallableGuard(score, "half")})
    assert asked == [4, 4, 4]


# --- Two trained pairs -------------------------------------------------------------------------


def test_two_runs_behind_each_others_guard(small_run, weak_run) -> None:
    found = contenders.contenders_of([small_run, weak_run])
    asked = prompts.load_prompts("testbed", "test", 16)
    told = contenders.respond(found, asked, guard=guards.load_guard("default", "cpu"))
    table = transfer(told, ["default", "weak", "overconfident"])
    own = table[table["guard"] == "default"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[SEEN], told[SEEN], atol=1e-6)
    at_half = table.pivot(index=["design", "prompt_id"], columns="guard", values="filtered")
    assert (at_half["default"] == at_half["overconfident"]).all()
    weak = guards.load_guard("weak", "cpu").score(told["prompt"], told["response"])
    rows = table[table["guard"] == "weak"]
    np.testing.assert_allclose(rows["t"], weak, atol=1e-5)
    assert not np.allclose(rows["t"], told["t"], atol=0.01)


def test_runs_are_given_and_finished(small_run, tmp_path) -> None:
    with pytest.raises(BgkitError, match="give at least one run"):
        contenders.contenders_of([])
    (tmp_path / "config.json").write_bytes((small_run.folder / "config.json").read_bytes())
    with pytest.raises(BgkitError, match="is incomplete; finish it"):
        contenders.contenders_of([tmp_path])
