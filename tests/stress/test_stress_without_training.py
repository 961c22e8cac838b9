"""The best of n, rejection fine-tuning, and costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rejection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rejection import Settings, generated_tokens, keep_best, rejection_fine_tuning

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import policies
from bgkit.prompts import load as prompts
from bgkit.stress import without_training
from bgkit.stress.contenders import contenders_of, label_samples, respond
from bgkit.stress.without_training import best_of_n, choose, run_reward, tokens
from bgkit.training import trainer as training

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test


class ByLength:
    """A scorer of lengths: the more words, the higher, up to 1."""

    name = "by length"

    def __init__(self, most: int = 20) -> None:
        self.most = most

    def score(self, asked, said) -> np.ndarray:
        return np.array([min(1, len(text.split()) / self.most) for text in said], np.float32)


def stored(contenders) -> pd.DataFrame:
    """What the contenders said to the test prompts, as the first run's evaluation kept it."""
    first = next(one.run for one in contenders if one.run)
    said = [one.run.samples() if one.run else first.samples("base") for one in contenders]
    tables = [label_samples(rows, one) for rows, one in zip(said, contenders, strict=True)]
    return pd.concat(tables, ignore_index=True)


@settings(max_examples=200)
@given(
    hnp.arrays(float, (5, 4), elements=st.floats(0, 1)),
    hnp.arrays(float, (5, 4), elements=st.floats(-9, 9)),
    st.floats(0.05, 0.95),
)
def test_the_best_shown_is_no_worse_than_any_sample_shown(t, score, tau) -> None:
    index, rows = choose(t, score, tau), np.arange(5)
    shown = t < tau
    assert (shown[rows, index] == shown.any(axis=1)).all()  # shown wherever one can be
    worst = np.where(shown, score, -np.inf).max(axis=1)
    assert (score[rows, index] >= worst).all()
    assert (t[rows, index][~shown.any(axis=1)] == t.min(axis=1)[~shown.any(axis=1)]).all()


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return prompts.load_prompts("testbed", "test", 12)


@pytest.fixture(scope="module")
def fine_tuned(small_run, tmp_path_factory) -> runs.Run:
    folder = tmp_path_factory.mktemp("rejection") / "run"
    return rejection_fine_tuning(
        small_run.config, folder, tokens=1200, settings=Settings(epochs=1), device="cpu", threads=1
    )


def test_the_best_of_n_has_the_columns_of_responses_and_better_scores(small_run, table) -> None:
    contenders = contenders_of([small_run])
    one, many = (best_of_n(contenders, table, (n,)) for n in (1, 4))
    plain = respond(contenders[:1], table)
    assert set(many) == {*plain, "generated"}
    assert many["design"].unique().tolist() == ["best of 4: utility", "best of 4: boundary"]
    first = one[one["design"] == "best of 1: utility"]
    assert first["response"].tolist() == plain["response"].tolist()
    assert (one["generated"] == one["length"]).all() and (many["generated"] > many["length"]).all()
    assert (many["filtered"] == (many["t"] >= 0.5)).all() and many["kl"].isna().all()
    assert many.groupby("design")["prompt"].apply(list).map(table["prompt"].tolist().__eq__).all()
    by_design = {name.split(": ")[1]: rows for name, rows in many.groupby("design")}
    shown = [rows[~rows["filtered"]] for rows in by_design.values()]
    common = np.intersect1d(*(rows["prompt"] for rows in shown))
    u, r = (by_design[name].set_index("prompt").loc[common] for name in ("utility", "boundary"))
    assert (u["u"] >= r["u"]).all()
    rewards = [run_reward(small_run, rows.reset_index()) for rows in (u, r)]
    assert (rewards[1] >= rewards[0]).all()


def test_the_best_of_n_asks_the_guard_that_is_given(small_run, table, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        without_training, "choose", lambda *told: asked.append(told[2]) or choose(*told)
    )
    found = best_of_n(contenders_of([small_run]), table, (3,), guard=ByLength(16))
    words = found["response"].str.split().str.len()
    np.testing.assert_allclose(found["t"], (words / 16).clip(upper=1), atol=1e-6)
    assert (found["filtered"] == (found["t"] >= 0.5)).all()
    assert asked == [0.5, 0.5]


@pytest.mark.slow
def test_the_best_of_fewer_is_that_of_the_first_samples_and_costs_less(small_run, table) -> None:
    contenders = contenders_of([small_run])
    found, alone = best_of_n(contenders, table, (1, 2, 4)), best_of_n(contenders, table, (4,))
    parts = {name: part.reset_index() for name, part in found.groupby("design")}
    one, two, four = (parts[f"best of {n}: utility"] for n in (1, 2, 4))
    whole = alone[alone["design"] == "best of 4: utility"]
    assert four["response"].tolist() == whole["response"].tolist()
    assert (one["generated"] == one["length"]).all()
    for fewer, more in ((one, two), (two, four)):
        shown = ~fewer["filtered"]  # a shown answer is one of those that more samples choose from
        assert not more.loc[shown, "filtered"].any() and (more["u"] >= fewer["u"])[shown].all()
        assert (more["generated"] > fewer["generated"]).all()


def test_the_reward_of_samples_is_that_of_training(small_run) -> None:
    recorded = small_run.completions()
    np.testing.assert_allclose(run_reward(small_run, recorded), recorded["reward"], atol=1e-5)


def test_only_safely_passed_samples_are_kept_and_the_best_of_each_prompt() -> None:
    table = pd.DataFrame(
        {
            "prompt_id": list("aaabbcc"),
            "t": [0.1, 0.2, 0.25, 0.0, 1.0, 0.05, 0.05],
            "reward": [1.0, 2.0, 9.0, -3.0, 9.0, 4.0, 4.0],
        }
    )
    assert keep_best(table, 0.5).tolist() == [1, 3, 5]  # 0.25 is too near, 1.0 filtered
    assert keep_best(table, 0.5, most_risk=1.0).tolist() == [2, 3, 5]
    assert keep_best(table, 0.1).tolist() == [3]
    assert keep_best(table.assign(t=0.5), 0.5).tolist() == []


def test_rejection_fine_tuning_keeps_to_its_budget_and_learns_what_it_kept(fine_tuned) -> None:
    table, result = fine_tuned.completions(), fine_tuned.read_json("result.json")
    assert result["tokens"] == table["length"].sum() == generated_tokens(fine_tuned)
    assert 1200 - 4 * 16 < result["tokens"] <= 1200
    assert table.groupby(["step", "prompt_id"]).size().eq(4).all()
    assert table["step"].max() > 0  # the 8 prompts were asked more than once
    again = table.groupby("prompt_id")["response"].nunique()
    assert (again > 4).any()  # with other random numbers
    kept = table[table["kept"]]
    assert len(kept) == result["kept"] and kept["prompt_id"].is_unique
    assert (kept["t"] <= 0.2).all() and not kept["filtered"].any()
    assert result["seconds"] > 0 and result["peak_memory"] > 100


def test_the_fine_tuned_policy_likes_the_kept_answers_better_than_base(
    small_run, tmp_path, monkeypatch
) -> None:
    data = []

    class Spy(rejection.QuietTrainer):
        def __init__(self, **arguments) -> None:
            data.extend(arguments["train_dataset"])
            super().__init__(**arguments)

    monkeypatch.setattr(rejection, "QuietTrainer", Spy)
    learned = Settings(learning_rate=5e-3, epochs=6)
    config = replace(small_run.config, test_prompts=4)
    run = rejection_fine_tuning(
        config, tmp_path / "run", tokens=600, settings=learned, device="cpu", threads=1
    )
    kept = run.completions().query("kept")
    model, tokenizer = policies.load_policy("tiny", run.adapter, device="cpu")
    ids = tokenizer(kept["response"].tolist(), add_special_tokens=False)["input_ids"]
    asked = policies.prompt_ids(tokenizer, kept["prompt"].tolist())
    for row, prompt in zip(data, asked, strict=True):  # prompts are masked, answers are whole
        said = row["input_ids"][len(prompt) :]
        assert row["input_ids"][: len(prompt)] == prompt and said
        assert row["labels"] == [-100] * len(prompt) + said
    texts = policies.Completions(kept["response"].tolist(), asked, ids)
    ours = policies.log_probabilities(model, texts)
    with model.disable_adapter():
        base = policies.log_probabilities(model, texts)
    assert (ours - base).mean() > 1


def test_it_is_a_contender_beside_grpo_and_complete_folders_are_reused(
    small_run, fine_tuned, table
) -> None:
    contenders = contenders_of([small_run, fine_tuned])
    name = "rejection fine-tuning: boundary"
    assert [contender.design for contender in contenders] == ["base", "boundary", name]
    samples = stored(contenders)
    assert samples.groupby("design").size().eq(16).all()
    assert (respond(contenders[2:], table)["design"] == name).all()
    before = (fine_tuned.folder / "result.json").stat().st_mtime_ns
    same = {"tokens": 1200, "settings": Settings(epochs=1)}
    rejection_fine_tuning(small_run.config, fine_tuned.folder, **same, device="cpu")
    assert (fine_tuned.folder / "result.json").stat().st_mtime_ns == before


def test_tokens_by_hand(small_run, fine_tuned, table) -> None:
    contenders = contenders_of([small_run, fine_tuned])
    best = best_of_n(contenders[:2], table, (2,))
    samples = pd.concat([stored(contenders), best], ignore_index=True)
    found = tokens(samples, contenders)
    assert found.index.tolist() == samples["design"].unique().tolist()
    trained = [generated_tokens(run) for run in (small_run, fine_tuned)]
    assert found["tokens in training"].tolist() == [0, *trained, 0, 0]
    answers = found["tokens per answer"]
    assert answers["best of 2: utility"] == best["generated"].iloc[:12].mean()
    assert answers["boundary"] == small_run.samples()["length"].mean()


def test_bad_input_is_one_sentence(small_run, fine_tuned, table, tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match=r"n of at least 1 \(not \(0,\)\)"):
        best_of_n(contenders_of([small_run]), table, (0,))
    with pytest.raises(BgkitError, match="the run of a trained policy"):
        best_of_n(contenders_of([small_run])[:1], table)
    config = small_run.config
    with pytest.raises(BgkitError, match="Say how many tokens"):
        rejection_fine_tuning(config, tmp_path / "a")
    for folder in (small_run.folder, fine_tuned.folder):
        with pytest.raises(BgkitError, match="another method, budget or settings"):
            rejection_fine_tuning(config, folder, tokens=100)
    with pytest.raises(BgkitError, match="holds rejection fine-tuning with the same config"):
        training.train(config, fine_tuned.folder)
    with pytest.raises(BgkitError, match="budget of 3 tokens does not suffice"):
        rejection_fine_tuning(config, tmp_path / "b", tokens=3, device="cpu")
    with pytest.raises(BgkitError, match="None of 4 samples of tiny passes the guard far"):
        rejection_fine_tuning(config, tmp_path / "c", tokens=70, device="cpu", guard=ByLength(1))
