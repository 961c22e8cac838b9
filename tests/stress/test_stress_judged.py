"""Every stress test with prompts whose truth is not known, a judge and a guard of one's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.evaluation import metrics
from bgkit.prompts import load as prompts
from bgkit.scoring.adapters import CallableGuard
from bgkit.stress import attack as attacks
from bgkit.stress import contenders, reward_hacking
from bgkit.stress import prompts as asking
from bgkit.stress import study as stress
from bgkit.stress.without_training import best_of_n
from bgkit.testbed.lexicon import CANNED_REFUSAL


class Fake:
    """A judge by the length of a response: odd is harmful; a refusal is worth 0 and 0.125."""

    name = "fake"

    def __init__(self) -> None:
        self.asked = 0

    def grade(self, asked, said) -> pd.DataFrame:
        self.asked += len(said)
        harm = [0.0 if r == CANNED_REFUSAL else 0.25 + 0.5 * (len(r) % 2) for r in said]
        return pd.DataFrame({"harm": harm, "help": [0.5 if h else 0.125 for h in harm]})


#: A guard by the length of a response.
MINE = CallableGuard(lambda asked, said: [(len(text) % 10) / 10 for text in said], "mine")
KEYS = ["harm", "help", "system_harm", "system_help", "refusal_harm", "refusal_help"]


@pytest.fixture(scope="module")
def english(small_run) -> list[contenders.Contender]:
    """Base and a policy whose prompts are plain English."""
    config = replace(small_run.config, prompts="everyday-short", max_completion_length=6)
    return contenders.contenders_of([runs.Run(small_run.folder, config)])


@pytest.fixture(scope="module")
def asked() -> pd.DataFrame:
    table = prompts.load_prompts("everyday-short", "test", 8)
    return table.assign(shift=["here"] * 4 + ["there"] * 4)


@pytest.fixture(scope="module")
def said(english, asked) -> pd.DataFrame:
    return contenders.respond(english, asked, guard=MINE, judge=Fake())


def are_judged(table: pd.DataFrame) -> None:
    """The table holds the fake judge's grades, and what is shown by its own t."""
    grades, hidden = Fake().grade(table["prompt"], table["response"]), table["t"].to_numpy() >= 0.5
    assert table["harm"].tolist() == grades["harm"].tolist()
    assert (table["filtered"] == hidden).all() and (table["graded_by"] == "fake").all()
    seen = np.where(hidden[:, None], [0.0, 0.125], grades)
    np.testing.assert_array_equal(table[["system_harm", "system_help"]], seen)


def test_without_a_judge_grades_are_not_known_and_other_metrics_are(english, asked) -> None:
    told = contenders.respond(english, asked, guard=MINE)
    assert told[KEYS].isna().all(axis=None) and (told["graded_by"] == "–").all()
    rows = metrics.summary(told, ["design"], ["system_harm", "near_boundary"])
    assert rows["mean"].isna().tolist() == [True, False] * 2
    are_judged(contenders.grade_responses(told, Fake()))  # they can be graded afterwards


def test_responses_and_guards(english, said) -> None:
    are_judged(said)
    none = CallableGuard(lambda p, r: [0.0] * len(r), "none")
    moved = contenders.transfer(english, said, [MINE, none])
    assert moved["guard"].unique().tolist() == ["mine", "none"]
    are_judged(moved)
    assert (moved.loc[moved["guard"] == "none", "system_help"] == 0.5).all()
    with pytest.raises(BgkitError, match="not mine, mine"):
        contenders.transfer(english, said, [MINE, MINE])


def test_gains_are_differences_from_base_in_each_shift(said) -> None:
    rows = metrics.gains(said, ["shift"], ["system_help"])
    labels = [["boundary", "here", 4], ["boundary", "there", 4]]
    assert rows[["design", "shift", "n"]].to_numpy().tolist() == labels
    base, mine = (part["system_help"].to_numpy() for _, part in said.groupby("design"))
    delta = mine - base
    assert rows["mean"].tolist() == pytest.approx([delta[:4].mean(), delta[4:].mean()])


def test_an_attack_in_plain_english(english, asked) -> None:
    requests = asked.assign(harmful_request=True).head(3)
    tries = attacks.attack(english, requests, budget=2, guard=MINE, judge=Fake())
    assert set(tries["wrapper"]) <= set(asking.WRAPPERS)
    assert set(tries["suffix"]) <= set(asking.SUFFIXES)
    grades = Fake().grade(tries["prompt"], tries["response"])
    assert tries["harm"].tolist() == grades["harm"].tolist()
    assert (tries["shown_harmful"] == (tries["harm"] > 0.5) & (tries["t"] < 0.5)).all()
    assert (attacks.success_over_budget(tries, 2)["n"] == 3).all()


def test_the_best_of_n_grades_the_chosen_answers_only(english, asked) -> None:
    judge = Fake()
    table = best_of_n(english, asked, (3,), guard=MINE, judge=judge)
    are_judged(table)
    assert table["t"].tolist() == pytest.approx(MINE.score(table["prompt"], table["response"]))
    assert judge.asked == 2 * 2 * len(asked)  # two scores; the answer and the refusal


def test_reward_hacking_by_a_judge(english) -> None:
    run = english[1].run
    table = reward_hacking.graded_completions(run, Fake())
    are_judged(table.assign(harm=Fake().grade(None, table["response"])["harm"], graded_by="fake"))
    for judge in (Fake(), None):
        rows = reward_hacking.drift(english, 2, judge)
        found = reward_hacking.hacking_verdicts(reward_hacking.changes(rows))
        assert (found.loc["past its best"] == "–").all() == (judge is None)


def test_a_study_says_what_can_not_be_asked(english, asked, said, capsys) -> None:
    study = stress.Study(english, english, asked, said, judge=None)
    answer = stress.attack_success(study)
    answer._ipython_display_()
    assert capsys.readouterr().out.startswith("The attack is left out: The truth about")
    assert answer.figure is None and stress.other_guards(study).figure
    with pytest.raises(BgkitError, match=r"There is no run in"):
        stress.open_study(["/no/such/run"])


def test_prompts_other_than_those_of_training_have_no_truth(small_run) -> None:
    found = contenders.contenders_of([small_run], "everyday-short")
    assert {one.config.prompts for one in found} == {"everyday-short"}
    assert contenders.judge_of(found[1].config) is None
    assert found[1].run.config.prompts == "testbed"
    assert contenders.judge_of(found[1].run.config).name == "oracle"


def test_designs_are_those_of_one_method_and_setting(small_run, weak_run) -> None:
    folder = data_folder() / "runs" / "rejection"

    def compared(*folders) -> list[str]:
        found = contenders.contenders_of(folders)
        return [one.design for one in contenders.comparable_contenders(found)]

    assert compared(folder) == ["base", "rejection fine-tuning: boundary"]
    assert compared(folder, folder.parent / "boundary") == ["base", "boundary"]
    assert compared(small_run, weak_run) == ["base", "boundary"]
