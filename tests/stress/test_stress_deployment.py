"""The same responses behind other guards: by hand, as properties, and on two trained pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation.metrics import summary
from bgkit.scoring import guards
from bgkit.scoring.adapters import CallableGuard
from bgkit.stress import contenders
from bgkit.stress.contenders import transfer
from bgkit.stress.prompts import shifted_prompts
from bgkit.testbed import oracle

SEEN = ["t", "filtered", "near", "system_harm", "system_help"]


def samples(t=(0.1, 0.45, 0.55, 0.95), design: str = "boundary") -> pd.DataFrame:
    """Responses of which the first half is safe; a refusal is worth harm 0 and help 0.15."""
    numbers = range(len(t))
    texts = {name: [f"{name}{i}" for i in numbers] for name in ("prompt_id", "prompt")}
    table = pd.DataFrame({"design": design, "seed": 0, **texts, "kind": "jailbreak", "t": t})
    table = table.assign(response=[f"{design} {i}" for i in numbers], help=0.6)
    table = table.assign(harm=[0.2 if i < len(t) / 2 else 0.8 for i in numbers])
    table = table.assign(refusal_harm=0.0, refusal_help=0.15, u=0.0, kl=0.0, length=0.0)
    table = table.assign(judge_system_harm=0.0, judge_system_help=0.0)
    return table.assign(filtered=table["t"] >= 0.5, near=(table["t"] - 0.5).abs() < 0.3)


def scorer(said: pd.DataFrame, t=None) -> CallableGuard:
    """A guard by the response: the t in a table (``same``), or others (``opposite``)."""
    values = dict(zip(said["response"], said["t"] if t is None else t, strict=True))
    name = "same" if t is None else "opposite"
    return CallableGuard(lambda _, responses: [values[text] for text in responses], name)


OPPOSITE = scorer(samples(), [0.95, 0.55, 0.45, 0.1])
TWO = [contenders.Contender(name, 0, runs.TrainConfig(), None) for name in ("boundary", "base")]


def test_another_guard_by_hand() -> None:
    table = transfer(TWO, samples(), [scorer(samples()), OPPOSITE])
    assert table.columns[:3].tolist() == ["design", "seed", "guard"]
    rows = table[table["guard"] == "opposite"]
    assert rows["t"].tolist() == pytest.approx([0.95, 0.55, 0.45, 0.1])
    assert rows["filtered"].tolist() == [True, True, False, False]
    assert rows["system_harm"].tolist() == [0.0, 0.0, 0.8, 0.8]
    means = summary(table, ["design", "guard"], ["system_harm", "near_boundary"])
    assert means["mean"].tolist() == pytest.approx([0.1, 0.5, 0.4, 0.5])
    assert (means["n"] == 4).all() and (means["n_seeds"] == 1).all()
    with pytest.raises(BgkitError, match=r"lacks the column\(s\) refusal_harm"):
        transfer(TWO, samples().drop(columns="refusal_harm"), [OPPOSITE])
    for none, words in (([], "at least one guard"), (OPPOSITE, "or several")):
        with pytest.raises(BgkitError, match=words):
            transfer(TWO, samples(), none)
    low = [TWO[0]._replace(config=runs.TrainConfig(tau=0.3))]
    assert transfer(low, samples(), [scorer(samples())])["filtered"].sum() == 3


@settings(max_examples=6)
@given(st.permutations(range(8)))
def test_behind_the_same_guard_nothing_changes_in_any_order_of_rows(order: list[int]) -> None:
    two = pd.concat([samples(), samples((0.25, 0.3, 0.6, 0.7), "base")]).iloc[order]
    two["t"] = two["t"].astype("float32").astype(float)
    table = transfer(TWO, two, [scorer(two)]).drop(columns="guard")
    pd.testing.assert_frame_equal(table[two.columns], two.reset_index(drop=True))


# --- Two trained pairs -------------------------------------------------------------------------


def test_two_runs_answer_the_same_prompts_behind_each_others_guard(small_run, weak_run) -> None:
    asked = shifted_prompts(6, shifts=["test", "unseen both", "300-600 words"])
    default, weak = (guards.load_guard(name, "cpu") for name in ("default", "weak"))
    pairs = contenders.contenders_of([small_run, weak_run])
    told = contenders.respond(pairs, asked, guard=default)
    for _, rows in told.groupby("design"):
        pd.testing.assert_frame_equal(rows[list(asked)].reset_index(drop=True), asked)
    truth = [
        oracle.grade(*pair).harm for pair in zip(told["prompt"], told["response"], strict=True)
    ]
    np.testing.assert_allclose(told["harm"], truth)
    table = transfer(pairs, told, ["default", "weak", "overconfident"])
    own = table[table["guard"] == "default"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[SEEN], told[SEEN], check_exact=True)  # the same batches
    at_half = table.pivot(index=["design", "prompt_id"], columns="guard", values="filtered")
    assert (at_half["default"] == at_half["overconfident"]).all()
    rows = table[table["guard"] == "weak"]
    np.testing.assert_allclose(rows["t"], weak.score(told["prompt"], told["response"]), atol=1e-5)
    assert not np.allclose(rows["t"], told["t"], atol=0.01)


def test_runs_are_finished_and_of_one_policy(small_run, tmp_path) -> None:
    (tmp_path / "config.json").write_bytes((small_run.folder / "config.json").read_bytes())
    with pytest.raises(BgkitError, match="is incomplete; finish it"):
        contenders.contenders_of([tmp_path])
    other = runs.Run(small_run.folder, replace(small_run.config, policy="small"))
    with pytest.raises(BgkitError, match="test runs of one policy at a time"):
        contenders.contenders_of([small_run, other])
