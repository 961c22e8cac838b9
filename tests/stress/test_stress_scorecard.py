"""The scorecard: winners, ties, gaps, and intervals of differences, on hand-made tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.evaluation.means import by_seed
from bgkit.figures import stress_training as plots
from bgkit.stress.contenders import contenders_of, stored
from bgkit.stress.scorecard import Test, readable, scorecard


def responses(values: dict[str, list[float]], seeds: int = 1, **columns) -> pd.DataFrame:
    """A table with one row per response; every seed has the same values."""
    return pd.DataFrame(
        [
            {"design": design, "seed": seed, "prompt": f"p{i}", "score": value, **columns}
            for design, row in values.items()
            for seed in range(seeds)
            for i, value in enumerate(row)
        ]
    )


def test_the_winner_runner_up_and_differences_by_hand() -> None:
    table = responses({"base": [0.5, 0.7], "boundary": [0.1, 0.3], "compound": [0.2, 0.4]}, seeds=2)
    card = scorecard({"a": Test(table, "score", "low"), "b": (table, "score", "high")})
    low, high = (row for _, row in card.winners.iterrows())
    assert (low["winner"], low["runner_up"], low["decided"], low["tied"]) == (
        "boundary",
        "compound",
        True,
        False,
    )
    assert low[["difference", "low", "high"]].tolist() == pytest.approx([-0.1] * 3)
    assert low[["base_difference", "base_low", "base_high"]].tolist() == pytest.approx([-0.4] * 3)
    assert low["paired"] and low["base_paired"]
    assert (high["winner"], high["runner_up"]) == ("base", "compound")
    assert np.isnan(high["base_difference"])  # base is not compared with itself
    means = card.means[card.means["test"] == "a"].set_index("design")
    assert means["mean"].tolist() == pytest.approx([0.6, 0.2, 0.3])
    assert means["winner"].tolist() == [False, True, False]
    assert (means["n"] == 2).all() and (means["n_seeds"] == 2).all()


def test_pairing_finds_a_difference_that_unpaired_prompts_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(60)
    table = responses({"base": list(hard), "boundary": list(hard - 0.02 - 0.01 * rng.random(60))})
    paired = scorecard({"a": (table, "score", "low")}).winners.iloc[0]
    other = table.copy()
    other.loc[other["design"] == "base", "prompt"] += " (another)"
    unpaired = scorecard({"a": (other, "score", "low")}).winners.iloc[0]
    assert paired["paired"] and paired["decided"]
    assert not unpaired["paired"] and not unpaired["decided"]
    assert paired["difference"] == pytest.approx(unpaired["difference"])
    assert unpaired["low"] < paired["low"] < paired["high"] < 0 < unpaired["high"]
    assert "unpaired" in readable(scorecard({"a": (other, "score", "low")})).iloc[0, -1]


def test_other_seeds_are_not_paired_and_rows_of_seeds_may_be_in_any_order() -> None:
    table = responses({"base": [0.5, 0.7], "boundary": [0.1, 0.2]}, seeds=2)
    fewer = table[(table["design"] == "base") | (table["seed"] == 0)]
    assert not scorecard({"a": (fewer, "score", "low")}).winners["paired"][0]
    table.loc[table["seed"] == 1, "score"] += 0.5
    turned = pd.concat(
        [
            part.sort_values("seed", ascending=d == "base", kind="stable")
            for d, part in table.groupby("design")
        ]
    )
    one, two = (scorecard({"a": (t, "score", "low")}).winners for t in (table, turned))
    pd.testing.assert_frame_equal(one, two)


def test_ties_gaps_and_a_single_design() -> None:
    tied = responses({"base": [0.2, 0.4], "boundary": [0.4, 0.2]})
    alone = responses({"boundary": [1.0, 0.0]})
    gap = responses({"base": [0.1, 0.2], "boundary": [np.nan, np.nan], "compound": [np.nan, 0.3]})
    nothing = responses({"base": [np.nan], "boundary": [np.nan]})
    tables = {"t": tied, "a": alone, "g": gap, "n": nothing}
    card = scorecard({name: (table, "score", "low") for name, table in tables.items()})
    rows = card.winners.set_index("test")
    assert rows["winner"].fillna("none").tolist() == ["base", "boundary", "base", "none"]
    assert rows["runner_up"].fillna("none").tolist() == ["boundary", "none", "compound", "none"]
    assert rows["tied"].tolist() == [True, False, False, False]
    assert not rows["decided"].loc[["t", "a", "n"]].any()
    assert rows.loc["g", "difference"] == pytest.approx(-0.1)  # of the prompt known for both
    text = readable(card)
    assert text.loc["t", "winner"] == "base (tied)"
    assert text.loc["t", "base"].startswith("0.300 [") and text.loc["t", "base"].endswith("] *")
    assert text.loc["a", ["base", "runner-up", "winner - base"]].tolist() == ["–"] * 3
    assert text.loc["n"].tolist() == ["–"] * 9


def test_every_row_twice_leaves_means_intervals_and_numbers_of_prompts() -> None:
    """Repeated rows of a prompt are no further prompts, whatever their order."""
    rng = np.random.default_rng(0)
    values = {"base": list(rng.random(30)), "boundary": list(rng.random(30))}
    table = responses(values, seeds=2).assign(yes=lambda t: t["score"] > 0.5)
    twice = pd.concat([table, table.sample(frac=1, random_state=1)])
    for metric in ("score", "yes"):
        once, again = (scorecard({"a": (t, metric, "low")}) for t in (table, twice))
        pd.testing.assert_frame_equal(once.means, again.means)
        pd.testing.assert_frame_equal(once.winners, again.winners)
        assert (once.means["n"] == 30).all() and once.winners["paired"].all()


def test_repeats_are_averaged_by_prompt_before_they_are_compared() -> None:
    """By hand: prompts of 0.5 and 0.0, though three of four answers are to the second one."""
    table = pd.DataFrame({"prompt": list("abbb"), "score": [0.5, 0.0, 0.0, 0.0]})
    base = pd.DataFrame({"prompt": list("aab"), "score": [0.4, 0.8, 0.1]})
    both = pd.concat([table.assign(design="x"), base.assign(design="base")]).assign(seed=0)
    card = scorecard({"a": (both, "score", "low")})
    assert card.means["mean"].tolist() == pytest.approx([0.25, 0.35])
    row = card.winners.iloc[0]
    assert (row["winner"], row["paired"]) == ("x", True)
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([-0.1] * 3)


def test_a_prompt_that_one_seed_did_not_meet_is_not_known_there() -> None:
    table = pd.DataFrame({"seed": [0, 0, 1], "prompt": list("aba"), "score": [1.0, 0.0, 0.5]})
    cube = by_seed(table, table[["score"]])
    np.testing.assert_array_equal(cube[..., 0], [[1.0, 0.0], [0.5, np.nan]])


def test_the_number_of_tests_is_allowed_for_by_holm() -> None:
    """Leads of 2.2 standard errors (p = 0.028) decide alone and not among four; 6 always do."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(400)
    noise = (noise - noise.mean()) / noise.std() / 20  # the mean of 400 has an error of 1 / 20

    def lead(errors: float) -> pd.DataFrame:
        return responses({"base": list(20 * noise), "boundary": [-errors / 20] * 400})

    weak, strong = (lead(2.2), "score", "low"), (lead(6.0), "score", "low")
    assert scorecard({"a": weak}).winners["decided_by_holm"].tolist() == [True]
    card = scorecard({"a": weak, "b": strong, "c": weak, "d": weak})
    assert card.winners["decided"].tolist() == [True] * 4
    assert card.winners["decided_by_holm"].tolist() == [False, True, False, False]
    text = readable(card)
    assert text["excludes zero"].tolist() == ["yes"] * 4
    assert text["after Holm"].tolist() == ["no", "yes", "no", "no"]


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["base", "boundary", "compound", "guard_only"]),
        st.lists(st.floats(0, 1), min_size=3, max_size=3),
        min_size=1,
    ),
    st.sampled_from(["low", "high"]),
)
def test_the_winner_has_the_best_mean_and_its_difference_the_right_sign(values, direction) -> None:
    card = scorecard({"a": (responses(values), "score", direction)})
    means, row = card.means.set_index("design")["mean"], card.winners.iloc[0]
    best = means.min() if direction == "low" else means.max()
    assert means[row["winner"]] == best
    assert card.means["winner"].sum() == 1
    if len(values) > 1:
        assert row["difference"] == pytest.approx(best - means[row["runner_up"]], abs=1e-9)
        assert row["low"] <= row["difference"] + 1e-9 and row["difference"] <= row["high"] + 1e-9
        assert row["difference"] * (1 if direction == "high" else -1) >= -1e-9


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({}, "give at least one test"),
        ({"a": (responses({"base": [1.0]}), "score", "up")}, "'low' or 'high'"),
        ({"a": (responses({"base": [1.0]}), "shine", "low")}, "no metric 'shine'"),
        ({"a": (pd.DataFrame(), "score", "low")}, "no responses to compare"),
    ],
)
def test_bad_input_is_one_sentence(tests, message: str) -> None:
    with pytest.raises(BgkitError, match=message) as caught:
        scorecard(tests)
    assert "\n" not in str(caught.value)


def test_a_scorecard_of_a_real_run(small_run) -> None:
    samples = stored(contenders_of([small_run]))
    tests = {
        "harm": (samples, "system_harm", "low"),
        "help": (samples, "system_help", "high"),
    }
    card = scorecard(tests)
    expected = samples.groupby("design")[["system_harm", "system_help"]].mean()
    row = card.winners.set_index("test").loc["harm"]
    assert row["winner"] == expected["system_harm"].idxmin() and row["paired"]
    assert set(readable(card).columns) >= {"base", "boundary", "winner"}
    fig = plots.scorecard(card)
    assert list(fig.data[0].y) == ["base", "boundary"]
    assert sum(text.text.endswith(("★</b>", "☆</b>")) for text in fig.layout.annotations) == 2
