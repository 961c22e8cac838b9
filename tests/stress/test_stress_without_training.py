"""The best of n, rejection fine-tuning, and costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rejection import Settings, generated_tokens, keep_best, rejection_fine_tuning

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import policies
from bgkit.prompts import load as prompts
from bgkit.stress.contenders import contenders_of, label_samples, respond
from bgkit.stress.without_training import best_of_n, choose, run_reward, tokens
from bgkit.training import trainer as training


def stored(contenders) -> pd.DataFrame:
    """What the contenders said to the test prompts, as the first run's evaluation kept it."""
    base = next(one.run for one in contenders if one.run).samples("base")
    said = [label_samples(one.run.samples() if one.run else base, one) for one in contenders]
    return pd.concat(said, ignore_index=True)


@settings(max_examples=60)
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
    folder = tmp_path_factory.mktemp("r") / "run"
    return rejection_fine_tuning(small_run.config, folder, 1200, Settings(epochs=1), threads=1)


@pytest.fixture(scope="module")
def best(small_run, table) -> dict[str, pd.DataFrame]:
    """The best of 1, 2 and 4 by utility and by reward, by name."""
    found = best_of_n(contenders_of([small_run]), table, (1, 2, 4))
    return {name: part.reset_index(drop=True) for name, part in found.groupby("design")}


def test_the_best_of_n_has_the_columns_of_responses_and_better_scores(
    small_run, table, best
) -> None:
    contenders = contenders_of([small_run])
    plain, one = respond(contenders[:1], table), best_of_n(contenders, table, (1,))
    assert one["response"].head(12).tolist() == plain["response"].tolist()
    many = [best["best of 4: utility"], best["best of 4: boundary"]]
    for rows in many:
        assert set(rows) == {*plain, "generated"} and rows["kl"].isna().all()
        assert rows["prompt"].tolist() == table["prompt"].tolist()
        assert (rows["filtered"] == (rows["t"] >= 0.5)).all()
        assert (rows["generated"] > rows["length"]).all()
    u, r = (rows[~many[0]["filtered"] & ~many[1]["filtered"]].reset_index() for rows in many)
    assert (u["u"] >= r["u"]).all() and (run_reward(small_run, r) >= run_reward(small_run, u)).all()


def test_the_best_of_fewer_is_that_of_the_first_samples_and_costs_less(
    small_run, table, best
) -> None:
    one, two, four = (best[f"best of {n}: utility"] for n in (1, 2, 4))
    alone = best_of_n(contenders_of([small_run]), table, (4,))
    assert four["response"].tolist() == alone["response"].head(12).tolist()
    assert (one["generated"] == one["length"]).all()
    for fewer, more in ((one, two), (two, four)):
        shown = ~fewer["filtered"]  # a shown answer is one of those that more samples choose from
        assert not more.loc[shown, "filtered"].any() and (more["u"] >= fewer["u"])[shown].all()
        assert (more["generated"] > fewer["generated"]).all()


def test_the_reward_of_samples_is_that_of_training(small_run) -> None:
    recorded = small_run.completions()
    np.testing.assert_allclose(run_reward(small_run, recorded), recorded["reward"], atol=1e-5)


def test_only_safely_passed_samples_are_kept_and_the_best_of_each_prompt() -> None:
    t, reward = [0.1, 0.2, 0.25, 0.0, 1.0, 0.05, 0.05], [1.0, 2.0, 9.0, -3.0, 9.0, 4.0, 4.0]
    table = pd.DataFrame({"prompt_id": list("aaabbcc"), "t": t, "reward": reward})
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


def test_the_fine_tuned_policy_likes_the_kept_answers_better_than_base(small_run, tmp_path) -> None:
    config = replace(small_run.config, test_prompts=4)
    learned = Settings(learning_rate=5e-3, epochs=6)
    run = rejection_fine_tuning(config, tmp_path / "run", 600, learned, threads=1)
    kept = run.completions().query("kept")
    model, tokenizer = policies.load_policy("tiny", run.adapter, device="cpu")
    asked = policies.prompt_ids(tokenizer, kept["prompt"].tolist())
    ids = tokenizer(kept["response"].tolist(), add_special_tokens=False)["input_ids"]
    texts = policies.Completions(kept["response"].tolist(), asked, ids)
    ours = policies.log_probabilities(model, texts)
    with model.disable_adapter():
        base = policies.log_probabilities(model, texts)
    assert (ours - base).mean() > 1


def test_it_is_a_contender_beside_grpo_and_complete_folders_are_reused(
    small_run, fine_tuned
) -> None:
    contenders = contenders_of([small_run, fine_tuned])
    name = "rejection fine-tuning: boundary"
    assert [contender.design for contender in contenders] == ["base", "boundary", name]
    before = (fine_tuned.folder / "result.json").stat().st_mtime_ns
    rejection_fine_tuning(small_run.config, fine_tuned.folder, 1200, Settings(epochs=1))
    assert (fine_tuned.folder / "result.json").stat().st_mtime_ns == before


def test_tokens_by_hand(small_run, fine_tuned, best) -> None:
    contenders = contenders_of([small_run, fine_tuned])
    two = best["best of 2: utility"]
    found = tokens(pd.concat([stored(contenders), two], ignore_index=True), contenders)
    assert found.index.tolist() == [*(one.design for one in contenders), "best of 2: utility"]
    trained = [generated_tokens(run) for run in (small_run, fine_tuned)]
    assert found["tokens in training"].tolist() == [0, *trained, 0]
    answers = found["tokens per answer"]
    assert answers["best of 2: utility"] == two["generated"].mean()
    assert answers["boundary"] == small_run.samples()["length"].mean()


def test_bad_input_is_one_sentence(small_run, fine_tuned, table, tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match=r"n of at least 1 \(not \(0,\)\)"):
        best_of_n(contenders_of([small_run]), table, (0,))
    base, trained = contenders_of([small_run])
    for contenders, designs in (([base], "none"), ([trained, trained._replace(design="b")], "b, ")):
        with pytest.raises(BgkitError, match=rf"runs of one design \(not of {designs}"):
            best_of_n(contenders, table, (1,))
    with pytest.raises(BgkitError, match="holds rejection fine-tuning with the same config"):
        training.train(small_run.config, fine_tuned.folder)
    none = Settings(most_risk=0.0)
    for folder, options, words in (
        (small_run.folder, (100,), "another method, budget or settings"),
        (fine_tuned.folder, (100,), "another method, budget or settings"),
        ("a", (3,), "budget of 3 tokens does not suffice"),
        ("b", (70, none), "None of 4 samples of tiny passes the guard"),
    ):
        with pytest.raises(BgkitError, match=words):
            rejection_fine_tuning(small_run.config, tmp_path / folder, *options)
