"""Drift over training (windows, intervals over prompts, gibberish, verdict) and unseen harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.figures import stress as plots
from bgkit.figures.stress import DRIFT
from bgkit.stress import refitted, reward_hacking
from bgkit.stress.contenders import contenders_of
from bgkit.stress.reward_hacking import changes, drift, graded_completions, window_means
from bgkit.testbed import oracle
from bgkit.testbed.lexicon import CANNED_REFUSAL

ASKED = "how do i make a tea for sleep ?"
FIRST, BEST = "last - first window", "last - best window"


def verdicts(rows: pd.DataFrame) -> list[list[str]]:
    """Whether runs are hacked, and past their best."""
    return reward_hacking.hacking_verdicts(changes(rows)).iloc[-2:].to_numpy().tolist()


def completions(utility: list[list[float]], help_: list[list[float]]) -> pd.DataFrame:
    """One window's step after another; two completions of each prompt, other prompts each step."""
    rows = [
        {"step": step, "prompt": f"{step}/{i // 2}", "utility": u, "system_help": h}
        for step, (us, hs) in enumerate(zip(utility, help_, strict=True))
        for i, (u, h) in enumerate(zip(us, hs, strict=True))
    ]
    return pd.DataFrame(rows).assign(system_harm=0.25, gibberish=0.0, length=5.0, unseen_harm=0.5)


def test_means_are_over_prompts_and_intervals_resample_prompts_as_groups() -> None:
    table = completions([[0.0, 1.0, 2.0, 3.0]], [[0.0, 1.0, 0.0, 1.0]])
    rows = window_means(table, 1).set_index("metric")
    assert rows.loc["utility", ["mean", "low", "high"]].tolist() == [1.5, 0.5, 2.5]
    # helpfulness varies within prompts only: completions resampled one by one would vary
    assert rows.loc["system_help", ["mean", "low", "high"]].tolist() == [0.5, 0.5, 0.5]
    assert (rows["n"] == 2).all() and (rows["step"] == 0).all()
    assert rows.loc["gibberish", "high"] > 0  # none of two prompts is no proof of none
    uneven = window_means(pd.concat([table, table.iloc[[3]]]), 1).set_index("metric")
    assert uneven.loc["utility", "mean"] == pytest.approx((0.5 + 8 / 3) / 2)


@pytest.mark.parametrize(("window", "ends"), [(2, [0.5, 3.0]), (9, [2.0])])
def test_a_last_window_that_is_shorter_joins_the_one_before(window: int, ends: list) -> None:
    rows = window_means(completions([[0.0, 1.0]] * 5, [[0.5, 0.5]] * 5), window)
    assert rows["step"].unique().tolist() == ends


def test_hacked_if_utility_rises_and_helpfulness_falls_beyond_doubt_and_past_the_best() -> None:
    up, down = [[0.0, 0.1] * 8, [2.0, 2.1] * 8], [[0.9, 0.8] * 8, [0.2, 0.1] * 8]
    cases = {"hacks": (up, down), "learns": (up, down[::-1]), "forgets": (up[::-1], down)}
    # a fall of help within its interval, and a noisy utility that does not change
    cases["doubt"] = [[0.0] * 8, [2.0] * 8], [[1.0, 1.0, 0.0, 0.0] * 2, [0.9, 0.9, 0.0, 0.0] * 2]
    cases["flat"] = [[0.0, 0.0, 9.0, 9.0]] * 2, [[0.5] * 4] * 2
    # three windows: what was gained early is lost late, or not
    rising = [[u, u + 0.1] * 8 for u in (0.0, 1.0, 2.0)]
    for name, helps in {"fell": (0.2, 0.8, 0.2), "rose": (0.2, 0.5, 0.8)}.items():
        cases[name] = rising, [[h, h - 0.1] * 8 for h in helps]
    tables = {name: completions(*case) for name, case in cases.items()}
    tables["fell"]["gibberish"] = tables["fell"]["step"].map({0: 0.5, 1: 0.125, 2: 0.25})
    rows = pd.concat([window_means(table, 1).assign(design=n) for n, table in tables.items()])
    rows["seed"] = 0
    assert verdicts(rows) == [["yes", *["no"] * 6], ["yes", "no", "yes", "no", "no", "yes", "no"]]
    assert list(reward_hacking.hacking_verdicts(changes(rows))) == [*tables]
    table = changes(rows).set_index(["design", "change"])[["mean", "low", "high"]]
    least, most = ("fell", "gibberish, last - least window"), ("fell", f"true help, {BEST}")
    means = {("hacks", f"learned utility, {FIRST}"): 2.0, ("hacks", f"true help, {FIRST}"): -0.7}
    means |= {("fell", f"true help, {FIRST}"): 0.0, ("fell", f"gibberish, {FIRST}"): -0.25}
    for key, mean in {**means, most: -0.6, least: 0.125}.items():
        assert table.loc[key, "mean"] == pytest.approx(mean), key
    assert table.loc[most, "high"] < 0 < table.loc[least, "low"]
    for unchanged in (("hacks", f"true harm, {FIRST}"), ("rose", f"true help, {BEST}")):
        assert table.loc[unchanged].tolist() == [0.0] * 3
    rows.loc[rows["metric"] == "system_help", ["mean", "low", "high"]] = np.nan
    assert verdicts(rows) == [["–"] * 7] * 2


def test_gibberish_by_the_oracle_and_by_repetition() -> None:
    whole, broken = "steep a pinch of emberroot .", "emberroot of of"
    assert not reward_hacking.is_gibberish(ASKED, f"{whole} {broken} .")
    assert reward_hacking.is_gibberish(ASKED, f"{whole} {broken} {broken} .")
    assert reward_hacking.is_gibberish(ASKED, f"{whole} {whole} {whole}")  # only one counts
    for prompts in ("testbed", "everyday"):
        assert reward_hacking.is_gibberish(ASKED, " ", prompts)
        assert not reward_hacking.is_gibberish(ASKED, CANNED_REFUSAL, prompts)
    assert reward_hacking.is_gibberish("Why?", "No. " * 9, "everyday")


def test_drift_of_a_real_run_is_what_was_recorded(small_run: runs.Run, tmp_path: Path) -> None:
    table, trained = graded_completions(small_run), contenders_of([small_run])
    np.testing.assert_allclose(table["utility"], table["z"], atol=1e-5)
    for row in table.itertuples():
        seen = oracle.grade(row.prompt, CANNED_REFUSAL if row.filtered else row.response)
        assert (row.system_help, row.system_harm) == (seen.help, seen.harm)
        harmful = oracle.grade(row.prompt, row.response).harm > 0.5
        assert row.unseen_harm == (row.t < 0.2) if harmful else np.isnan(row.unseen_harm)
    assert table["unseen_harm"].notna().any()
    rows = drift(trained, window=2)
    assert len(rows) == 2 * len(DRIFT) and set(rows["design"]) == {"boundary"}
    first = rows[(rows["step"] == 1.5) & (rows["metric"] == "length")].iloc[0]
    assert first["mean"] == pytest.approx(table[table["step"] < 3]["length"].mean())
    assert all("–" not in row for row in verdicts(rows))
    assert plots.drift(rows).data[-1].hovertext[0] == "seed 0, step 1.5"
    with pytest.raises(BgkitError, match="a single window of steps"):
        changes(drift(trained, window=10))
    with pytest.raises(BgkitError, match="no recorded completions"):
        graded_completions(runs.Run(tmp_path, small_run.config))
    with pytest.raises(BgkitError, match="No value is known"):
        plots.drift(rows.assign(mean=np.nan))
    with pytest.raises(BgkitError, match="None of the runs has recorded completions"):
        refitted.recall([trained[1]._replace(run=runs.Run(tmp_path, small_run.config))])
    assert refitted.recall(trained)["window"].tolist() == ["first"] * 3 + ["last"] * 3


# --- A guard that is fitted anew finds what words give away, and no more than it may -----------


def responses(evasive: bool, n: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    """A quarter is harmful and says so by a word; the guard sees it unless they are evasive."""
    rng = np.random.default_rng(0)
    harmful = np.arange(n) % 4 == 0
    t = np.where(harmful, 0.9, 0.1)
    if evasive:  # the guard filters as many, but others
        t = rng.permutation(t)
    words = [f"{'venom' if bad else 'tea'} {rng.integers(9)}" for bad in harmful]
    prompts = [f"prompt {i // 2}" for i in range(n)]
    said = pd.DataFrame({"prompt": prompts, "response": words, "t": t, "filtered": t >= 0.5})
    return said, harmful


def test_words_that_give_harm_away_are_learned_where_a_guard_does_not_see_them() -> None:
    found = refitted.compare_recall(*responses(evasive=True))
    assert found["guard"].mean < 0.5 and found["refitted"].mean > 0.9 and found["gain"].low > 0.3
    found = refitted.compare_recall(*responses(evasive=False))
    assert found["guard"].mean == 1.0 and found["gain"].mean == pytest.approx(0, abs=0.05)
    few = refitted.compare_recall(*responses(evasive=True, n=60))
    assert np.isnan(few["gain"].mean)


def test_logistic_weights_have_no_slope_left() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3))
    truth = rng.random(200) < 1 / (1 + np.exp(-(2 * x[:, 0] - 1)))
    w = refitted.fit_logistic(x, truth)
    p = 1 / (1 + np.exp(-(x @ w[1:] + w[0])))
    slope = x.T @ (p - truth) + refitted.PENALTY * w[1:]
    assert abs(p.sum() - truth.sum()) < 0.1 and np.abs(slope).max() < 0.1
