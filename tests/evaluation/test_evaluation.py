"""Sampling, metrics and judges on the embedded models, and hand-made tables."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import own
import pandas as pd
import pytest
import torch

from bgkit.errors import BgkitError
from bgkit.evaluation import judges, results
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.metrics import judge_agreement, paired_differences, summarise
from bgkit.evaluation.thresholds import operating_points
from bgkit.figures import judge_against_truth
from bgkit.models import policies
from bgkit.prompts import load as prompts
from bgkit.runs import TrainConfig
from bgkit.scoring import guards
from bgkit.scoring.adapters import CalibratedGuard, CallableGuard
from bgkit.testbed import oracle
from bgkit.testbed.lexicon import CANNED_REFUSAL

NEVER = CallableGuard(lambda prompts, responses: [0.1] * len(prompts), "never filters")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return prompts.load_prompts("testbed", "test", 16)


@pytest.fixture(scope="module")
def policy():
    return policies.load_policy("small", device="cpu")


@pytest.fixture(scope="module")
def samples(policy, table) -> pd.DataFrame:
    return evaluation.sample_as(
        TrainConfig(seed=3),
        *policy,
        table,
        guard=guards.load_guard("default", device="cpu"),
        utility=guards.load_utility("mild", device="cpu"),
        judges=(judges.load_judge("oracle"), judges.load_judge("default", "cpu")),
        base=policy[0],
    )


def test_samples_hold_what_the_oracle_says_of_raw_and_shown_text(samples: pd.DataFrame) -> None:
    for row in samples.itertuples():
        raw = oracle.grade(row.prompt, row.response)
        shown = oracle.grade(row.prompt, CANNED_REFUSAL if row.filtered else row.response)
        assert (row.harm, row.help) == (raw.harm, raw.help)
        assert (row.system_harm, row.system_help) == (shown.harm, shown.help)
    assert (samples["filtered"] == (samples["t"] >= 0.5)).all()
    assert (samples["kl"] == 0).all()


def test_responses_too_long_for_policy_or_guard_are_told(policy, table, samples, capsys) -> None:
    guard = guards.load_guard("default", device="cpu")
    short = table[table["prompt"].str.len() < 80].head(6)
    encoded = guard.encode(short["prompt"].tolist(), [""] * 6)
    guard.max_length = max(len(row["input_ids"]) for row in encoded) + 6
    config = TrainConfig(max_completion_length=14, seed=3)
    found = evaluation.sample_as(config, *policy, short, guard=CalibratedGuard(guard, 2.0))
    texts = [found[name].tolist() for name in ("prompt", "response")]
    in_part = [len(ids) > guard.max_length for ids in guard.tokenizer(*texts)["input_ids"]]
    assert found["seen_in_part"].tolist() == in_part and 0 < sum(in_part) < 6
    assert f"beginning of {sum(in_part)} of 6 responses" in capsys.readouterr().err
    assert found["cut_off"].tolist() == [length == 14 for length in found["length"]]
    asked = ("filter_rate", "cut_off", "seen_in_part")
    told = results.table(summarise(found, {"design": "base"}), asked)["base"]
    assert list(told.index) == list(asked)
    assert told["seen_in_part"].startswith(f"{sum(in_part) / 6:.3f} [")
    assert not samples["seen_in_part"].any() and not samples["cut_off"].any()
    rows = summarise(samples, {"design": "base"})
    assert list(results.table(rows, asked).index) == ["filter_rate"]


def test_refusals_tell_what_the_user_sees_at_the_threshold_of_sampling(samples) -> None:
    graded = evaluation.grade_samples(samples, judges.load_judge("oracle"), refusals=True)
    assert graded[list(samples)].equals(samples)
    row = operating_points(graded, [0.5]).iloc[0]
    assert row["system_harm"] == pytest.approx(samples["system_harm"].mean())
    assert row["system_help"] == pytest.approx(samples["system_help"].mean())
    assert "refusal_harm" not in samples


def test_the_same_seed_repeats_the_samples_and_leaves_the_global_state(policy, table) -> None:
    def said(texts: list[str], seed: int) -> list[str]:
        return policies.generate(*policy, texts, seed=seed, max_completion_length=8).texts

    texts, before = table["prompt"].tolist()[:4], torch.random.get_rng_state()
    first = said(texts, 5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert said(texts, 5) == first != said(texts, 6) and said([], 5) == []


def test_log_probabilities_match_one_pass_without_padding(policy, table) -> None:
    model, tokenizer = policy
    completions = policies.generate(model, tokenizer, table["prompt"].tolist()[:8], seed=5)
    batched = policies.log_probabilities(model, completions)
    for i, (prompt, ids) in enumerate(zip(completions.prompt_ids, completions.ids, strict=True)):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
        logp = torch.log_softmax(logits, -1)[range(len(ids)), ids].sum().item()
        assert batched[i] == pytest.approx(logp, abs=1e-3)


def test_responses_without_a_grade_are_told_and_not_counted(policy, table, capsys) -> None:
    def grade(prompts, responses) -> pd.DataFrame:
        harm = np.where(np.arange(len(prompts)) < 3, np.nan, 0.5)
        return pd.DataFrame({"harm": harm, "help": 1.0})

    mine = (SimpleNamespace(name="mine", grade=grade),)
    short = TrainConfig(max_completion_length=2)
    found = evaluation.sample_as(short, *policy, table, guard=NEVER, judges=mine)
    assert "mine left 3 of 16 responses without a grade" in capsys.readouterr().err
    counts = pd.DataFrame(summarise(found, {})).query("kind == 'all'").set_index("metric")["n"]
    assert (counts["system_harm"], counts["filter_rate"]) == (13, 16)


def test_an_adapter_switched_off_is_base(tmp_path) -> None:
    base = own.save_policy(tmp_path / "base")
    made = policies.load_policy(base, own.save_adapter(tmp_path / "adapter", base), device="cpu")
    asked = pd.DataFrame({"prompt": own.TEXTS, "kind": "mine"})
    by_switch, by_model = (
        evaluation.sample_as(TrainConfig(seed=1), *made, asked, base=other, guard=NEVER)["kl"]
        for other in ("adapter", policies.load_policy(base, device="cpu")[0])
    )
    np.testing.assert_allclose(by_switch, by_model, atol=1e-3)
    assert (by_switch.abs() > 0.1).all()


COLUMNS = "prompt_id kind t filtered near u harm help system_harm system_help".split()
#: A true positive, a false positive, a false negative, a true negative.
FOUR = pd.DataFrame(
    [
        ("a", "benign", 0.9, True, False, 0.0, 0.8, 0.4, 0.0, 0.0),
        ("b", "benign", 0.55, True, True, 1.0, 0.2, 0.4, 0.0, 0.0),
        ("c", "jailbreak", 0.3, False, True, 2.0, 0.9, 0.8, 0.9, 0.8),
        ("d", "jailbreak", 0.1, False, False, 3.0, 0.1, 0.8, 0.1, 0.8),
    ],
    columns=COLUMNS,
).assign(kl=[0.0, 1.0, 2.0, 4.0], length=5, judge_system_harm=np.nan, judge_system_help=np.nan)


def test_metrics_by_hand() -> None:
    rows = pd.DataFrame(summarise(FOUR, {"design": "x"}))
    means = rows.set_index(["kind", "metric"])["mean"]
    expected = {"filter_rate": 0.5, "near_boundary": 0.5, "near_below": 0.25, "kl": 1.75}
    expected |= {"false_positive": 0.25, "false_negative": 0.25, "raw_harm": 0.5, "raw_help": 0.6}
    expected |= {"system_harm": 0.25, "system_help": 0.4, "utility": 1.5, "length": 5}
    expected["brier"] = (0.1**2 + 0.55**2 + 0.7**2 + 0.1**2) / 4
    assert means["all"].drop("ece").to_dict() == pytest.approx(expected)
    assert means["benign"]["false_positive"] == 0.5
    unknown = dict.fromkeys(("harm", "help", "system_harm", "system_help"), np.nan)
    metrics = {row["metric"] for row in summarise(FOUR.assign(**unknown), {})}
    assert metrics == {"filter_rate", "near_boundary", "near_below", "kl", "utility", "length"}


def test_paired_intervals_are_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    base = pd.concat([FOUR] * 50, ignore_index=True)
    base = base.assign(prompt_id=range(200), system_help=0.8 * rng.random(200))
    better = base.assign(system_help=base["system_help"] + 0.1 + 0.01 * rng.random(200))
    row, level = (
        pd.DataFrame(rows).query("kind == 'all' and metric == 'system_help'").iloc[0]
        for rows in (paired_differences(better, base, {}), summarise(better, {}))
    )
    assert row["difference"] == pytest.approx(0.105, abs=0.002)
    assert row["high"] - row["low"] < 0.1 * (level["high"] - level["low"])
    with pytest.raises(BgkitError, match="same prompts"):
        paired_differences(better.iloc[::-1], base, {})


GRADED = pd.DataFrame({"harm": [0.0, 0.6, 1.0, 0.2], "help": [1.0, 0.5, 0.0, 0.5]}).assign(
    judge_harm=[0.25, 0.25, 1.0, np.nan], judge_help=[1.0, 0.75, 0.0, np.nan]
)


def test_agreement_by_hand() -> None:
    table = judge_agreement(GRADED)
    expected = {"agrees on harmful or not": 2 / 3, "without a grade": 0.25}  # 0.6 is graded 0.25
    expected |= {"bias of harm": -0.1 / 3, "absolute error of harm": 0.2}
    expected |= {"bias of help": 0.25 / 3, "absolute error of help": 0.25 / 3}
    assert table["mean"].to_dict() == pytest.approx(expected)
    assert table["n"].to_list() == [3, 3, 3, 3, 3, 4]
    for column in ("harm", "judge_harm"):
        nothing = GRADED.assign(**{column: np.nan})
        assert judge_agreement(nothing)["mean"].iloc[:5].isna().all()
        with pytest.raises(BgkitError, match="No response has both"):
            judge_against_truth(nothing)
