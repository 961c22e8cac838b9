"""Sampling, metrics and judges on the embedded models, and hand-made tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import judges, results
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.evaluation.thresholds import operating_points
from bgkit.models import policies
from bgkit.prompts import load as prompts
from bgkit.runs import TrainConfig
from bgkit.scoring import guards
from bgkit.scoring.adapters import CalibratedGuard
from bgkit.testbed import oracle
from bgkit.testbed.lexicon import CANNED_REFUSAL


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
    guard.max_length = max(len(guard.encode([p], [""])[0]["input_ids"]) for p in short["prompt"])
    guard.max_length += 6
    config = TrainConfig(max_completion_length=14, seed=3)
    found = evaluation.sample_as(config, *policy, short, guard=CalibratedGuard(guard, 2.0))
    lengths = [
        len(guard.tokenizer([p], [r])["input_ids"][0])
        for p, r in zip(found["prompt"], found["response"], strict=True)
    ]
    in_part = [length > guard.max_length for length in lengths]
    assert found["seen_in_part"].tolist() == in_part and 0 < sum(in_part) == len(guard.truncated)
    assert f"beginning of {sum(in_part)} of 6 responses" in capsys.readouterr().err
    assert found["cut_off"].tolist() == [length == 14 for length in found["length"]]
    rows = summarise(found, {"design": "base"})
    (row,) = [r for r in rows if (r["kind"], r["metric"]) == ("all", "seen_in_part")]
    assert row["mean"] == sum(in_part) / 6 and row["low"] <= row["mean"] <= row["high"]
    asked = ("filter_rate", "cut_off", "seen_in_part")
    assert list(results.table(rows, asked).index) == list(asked)
    assert not samples["seen_in_part"].any() and not samples["cut_off"].any()
    assert list(results.table(summarise(samples, {"design": "base"}), asked).index) == [
        "filter_rate"
    ]


def test_refusals_tell_what_the_user_sees_at_the_threshold_of_sampling(samples) -> None:
    graded = evaluation.grade_samples(samples, judges.load_judge("oracle"), refusals=True)
    assert graded[list(samples)].equals(samples)
    row = operating_points(graded, [0.5]).iloc[0]
    assert row["system_harm"] == pytest.approx(samples["system_harm"].mean())
    assert row["system_help"] == pytest.approx(samples["system_help"].mean())
    assert "refusal_harm" not in samples


@pytest.mark.slow
def test_the_same_seed_repeats_the_samples_and_leaves_the_global_state(policy, table) -> None:
    import torch

    texts = table["prompt"].tolist()
    before = torch.random.get_rng_state()
    first = policies.generate(*policy, texts, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert policies.generate(*policy, texts, seed=5).texts == first.texts
    assert policies.generate(*policy, texts, seed=6).texts != first.texts
    assert policies.generate(*policy, [], seed=5).texts == []


def test_log_probabilities_match_one_pass_without_padding(policy, table) -> None:
    import torch

    model, tokenizer = policy
    completions = policies.generate(model, tokenizer, table["prompt"].tolist(), seed=5)
    batched = policies.log_probabilities(model, completions)
    for i, (prompt, ids) in enumerate(zip(completions.prompt_ids, completions.ids, strict=True)):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
        logp = torch.log_softmax(logits, -1)[range(len(ids)), ids].sum().item()
        assert batched[i] == pytest.approx(logp, abs=1e-3)


def hand_made() -> pd.DataFrame:
    """Four responses: true positive, false positive, false negative, true negative."""
    frame = pd.DataFrame(
        {
            "prompt_id": list("abcd"),
            "kind": ["benign", "benign", "jailbreak", "jailbreak"],
            "t": [0.9, 0.55, 0.3, 0.1],
            "u": [0.0, 1.0, 2.0, 3.0],
            "harm": [0.8, 0.2, 0.9, 0.1],
            "help": [0.4, 0.4, 0.8, 0.8],
            "kl": [0.0, 1.0, 2.0, 3.0],
            "length": [5, 5, 5, 5],
        }
    )
    frame["filtered"] = frame["t"] >= 0.5
    frame["near"] = (frame["t"] - 0.5).abs() < 0.3
    frame["system_harm"] = [0.0, 0.0, 0.9, 0.1]
    frame["system_help"] = [0.0, 0.0, 0.8, 0.8]
    for column in ("harm", "help", "system_harm", "system_help"):
        frame[f"judge_{column}"] = np.nan
    return frame


def test_metrics_by_hand() -> None:
    rows = pd.DataFrame(summarise(hand_made(), {"design": "x"}))
    means = rows.set_index(["kind", "metric"])["mean"]
    everything = means["all"]
    expected = {
        "filter_rate": 0.5,
        "near_boundary": 0.5,
        "false_positive": 0.25,
        "false_negative": 0.25,
        "raw_harm": 0.5,
        "raw_help": 0.6,
        "system_harm": 0.25,
        "system_help": 0.4,
        "kl": 1.5,
        "brier": (0.1**2 + 0.55**2 + 0.7**2 + 0.1**2) / 4,
    }
    assert dict(everything[list(expected)]) == pytest.approx(expected)
    assert means["benign"]["false_positive"] == 0.5
    assert "judge_system_harm" not in everything
    unknown = hand_made().assign(harm=np.nan, help=np.nan, system_harm=np.nan, system_help=np.nan)
    metrics = {row["metric"] for row in summarise(unknown, {})}
    assert metrics == {"filter_rate", "near_boundary", "near_below", "kl", "utility", "length"}


def test_paired_intervals_are_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    base = pd.concat([hand_made()] * 50, ignore_index=True)
    base["prompt_id"] = [str(i) for i in range(200)]
    base["system_help"] = 0.8 * rng.random(200)
    better = base.assign(system_help=base["system_help"] + 0.1 + 0.01 * rng.random(200))
    paired = pd.DataFrame(paired_differences(better, base, {"design": "x"}))
    row = paired[(paired["kind"] == "all") & (paired["metric"] == "system_help")].iloc[0]
    assert row["difference"] == pytest.approx(0.105, abs=0.002)
    levels = pd.DataFrame(summarise(better, {}))
    level = levels[(levels["kind"] == "all") & (levels["metric"] == "system_help")].iloc[0]
    assert row["high"] - row["low"] < 0.1 * (level["high"] - level["low"])
    with pytest.raises(BgkitError, match="same prompts"):
        paired_differences(better.iloc[::-1], base, {})


def test_an_adapter_switched_off_is_base(small_run) -> None:
    made = policies.load_policy("tiny", small_run.adapter, device="cpu")
    asked, guard = prompts.load_prompts("testbed", "test", 8), guards.load_guard("weak", "cpu")
    kl = [
        evaluation.sample_as(TrainConfig(), *made, asked, guard=guard, base=base, seed=1)["kl"]
        for base in ("adapter", policies.load_policy("tiny", device="cpu")[0])
    ]
    np.testing.assert_allclose(*kl, atol=1e-3)
