"""The best of n, rejection fine-tuning, and costs."""

from __future__ import annotations

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

LEARNED = Settings(learning_rate=5e-3, epochs=6)


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
    return rejection_fine_tuning(small_run.config, folder, 1200, LEARNED, threads=1)


@pytest.fixture(scope="module")
def best(small_run, table) -> dict[str, pd.DataFrame]:
    """The best of 1, 2 and 4 by utility and by reward, by name."""
    found = best_of_n(contenders_of([small_run]), table, (1, 2, 4))
    return {name: part.reset_index(drop=True) for name, part in found.groupby("design")}


def test_the_best_of_n_has_better_scores_and_is_that_of_the_first_samples(
    small_run, table, best
) -> None:
    contenders = contenders_of([small_run])
    plain = respond(contenders[:1], table)
    many = [best["best of 4: utility"], best["best of 4: boundary"]]
    for rows in many:
        assert set(rows) == {*plain, "generated"} and rows["kl"].isna().all()
        assert rows["prompt"].tolist() == table["prompt"].tolist()
        assert (rows["filtered"] == (rows["t"] >= 0.5)).all()
    u, r = (rows[~many[0]["filtered"] & ~many[1]["filtered"]].reset_index() for rows in many)
    assert (u["u"] >= r["u"]).all() and (run_reward(small_run, r) >= run_reward(small_run, u)).all()
    recorded = small_run.completions()
    np.testing.assert_allclose(run_reward(small_run, recorded), recorded["reward"], atol=1e-5)
    one, two, four = (best[f"best of {n}: utility"] for n in (1, 2, 4))
    for n, same in ((1, plain), (4, four)):
        alone = best_of_n(contenders, table, (n,))
        assert alone["response"].head(12).tolist() == same["response"].tolist()
    assert (one["generated"] == one["length"]).all()
    for fewer, more in ((one, two), (two, four)):
        shown = ~fewer["filtered"]  # a shown answer is one of those that more samples choose from
        assert not more.loc[shown, "filtered"].any() and (more["u"] >= fewer["u"])[shown].all()
        assert (more["generated"] > fewer["generated"]).all()


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
    again = table.groupby("prompt_id")["response"].nunique()
    assert (again > 4).any()  # prompts were asked again, with other random numbers
    kept = table[table["kept"]]
    assert len(kept) == result["kept"] and kept["prompt_id"].is_unique
    assert (kept["t"] <= 0.2).all() and not kept["filtered"].any()
    model, tokenizer = policies.load_policy("tiny", fine_tuned.adapter, device="cpu")
    asked = policies.prompt_ids(tokenizer, kept["prompt"].tolist())
    ids = tokenizer(kept["response"].tolist(), add_special_tokens=False)["input_ids"]
    texts = policies.Completions(kept["response"].tolist(), asked, ids)
    ours = policies.log_probabilities(model, texts)
    with model.disable_adapter():
        base = policies.log_probabilities(model, texts)
    assert (ours - base).mean() > 1


def test_it_is_a_contender_beside_grpo_and_tokens_are_counted(small_run, fine_tuned, best) -> None:
    contenders = contenders_of([small_run, fine_tuned])
    names = [contender.design for contender in contenders]
    assert names == ["base", "boundary", "rejection fine-tuning: boundary"]
    two, trained = best["best of 2: utility"], contenders[1:]
    said = [label_samples(each.run.samples(), each) for each in trained]
    found = tokens(pd.concat([*said, two], ignore_index=True), contenders)
    assert found.index.tolist() == [*names[1:], "best of 2: utility"]
    counted = [generated_tokens(each.run) for each in trained]
    assert found["tokens in training"].tolist() == [*counted, 0]
    answers = found["tokens per answer"]
    assert answers["best of 2: utility"] == two["generated"].mean()
    assert answers["boundary"] == small_run.samples()["length"].mean()


def test_bad_input_is_one_sentence(small_run, fine_tuned, table, tmp_path: Path) -> None:
    base, trained = contenders_of([small_run])
    with pytest.raises(BgkitError, match=r"n of at least 1 \(not \(0,\)\)"):
        best_of_n([trained], table, (0,))
    for contenders, designs in (([base], "none"), ([trained, trained._replace(design="b")], "b, ")):
        with pytest.raises(BgkitError, match=rf"runs of one design \(not of {designs}"):
            best_of_n(contenders, table, (1,))
    with pytest.raises(BgkitError, match="holds rejection fine-tuning with the same config"):
        training.train(small_run.config, fine_tuned.folder)
    for folder, options, words in (
        (small_run.folder, (100,), "another method, budget or settings"),
        (fine_tuned.folder, (100, LEARNED), "another method, budget or settings"),
        ("a", (3,), "budget of 3 tokens does not suffice"),
        ("b", (70, Settings(most_risk=0.0)), "None of 4 samples of tiny passes the guard"),
    ):
        with pytest.raises(BgkitError, match=words):
            rejection_fine_tuning(small_run.config, tmp_path / folder, *options)
    before = (fine_tuned.folder / "result.json").stat().st_mtime_ns  # what is complete stays
    rejection_fine_tuning(small_run.config, fine_tuned.folder, 1200, LEARNED)
    assert (fine_tuned.folder / "result.json").stat().st_mtime_ns == before
