"""Contenders, their responses behind other guards, and every test with a judge of one's own."""

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
from bgkit.scoring import guards
from bgkit.scoring.adapters import CallableGuard
from bgkit.stress import attack as attacks
from bgkit.stress import contenders, reward_hacking
from bgkit.stress import prompts as asking
from bgkit.stress import study as stress
from bgkit.stress.contenders import transfer
from bgkit.stress.without_training import best_of_n
from bgkit.testbed import oracle
from bgkit.testbed.lexicon import CANNED_REFUSAL

TWO = [contenders.Contender(name, 0, runs.TrainConfig(), None) for name in ("boundary", "base")]


def samples(t=(0.1, 0.45, 0.55, 0.95), design: str = "boundary") -> pd.DataFrame:
    """Responses of which the first half is safe; a refusal is worth harm 0 and help 0.15."""
    table = pd.DataFrame({"design": design, "seed": 0, "kind": "jailbreak", "t": t})
    for name in ("prompt_id", "prompt", "response"):
        table[name] = [f"{design if name == 'response' else name} {i}" for i in range(len(t))]
    table = table.assign(harm=np.repeat([0.2, 0.8], len(t) // 2), help=0.6)
    table = table.assign(refusal_harm=0.0, refusal_help=0.15)
    table = table.assign(filtered=table["t"] >= 0.5, near=(table["t"] - 0.5).abs() < 0.3)
    unused = [name for name in metrics.READ if name not in (*table, "system_harm", "system_help")]
    return table.assign(**dict.fromkeys(unused, 0.0))


def scorer(said: pd.DataFrame, t, name: str) -> CallableGuard:
    """A guard that knows each response's t."""
    values = dict(zip(said["response"], t, strict=True))
    return CallableGuard(lambda _, responses: [values[text] for text in responses], name)


def test_another_guard_by_hand() -> None:
    said, others = samples(), [0.95, 0.55, 0.45, 0.1]
    same, opposite = scorer(said, said["t"], "same"), scorer(said, others, "opposite")
    table = transfer(TWO, said, [same, opposite])
    assert table.columns[:3].tolist() == ["design", "seed", "guard"]
    rows = table[table["guard"] == "opposite"]
    assert rows["t"].tolist() == pytest.approx(others)
    assert rows["filtered"].tolist() == [True, True, False, False]
    assert rows["system_harm"].tolist() == [0.0, 0.0, 0.8, 0.8]
    means = metrics.summary(table, ["design", "guard"], ["system_harm", "near_boundary"])
    assert means["mean"].tolist() == pytest.approx([0.1, 0.5, 0.4, 0.5])
    assert (means["n"] == 4).all() and (means["n_seeds"] == 1).all()
    low = [TWO[0]._replace(config=runs.TrainConfig(tau=0.3))]
    assert transfer(low, said, [same])["filtered"].sum() == 3
    with pytest.raises(BgkitError, match=r"lacks the column\(s\) refusal_harm"):
        transfer(TWO, said.drop(columns="refusal_harm"), [opposite])
    refused = {"at least one guard": [], "or several": opposite, "not same, same": [same, same]}
    for words, guards_ in refused.items():
        with pytest.raises(BgkitError, match=words):
            transfer(TWO, said, guards_)


def test_behind_the_same_guard_nothing_changes_in_any_order_of_rows() -> None:
    two = pd.concat([samples(), samples((0.25, 0.3, 0.6, 0.7), "base")])
    two = two.iloc[[5, 0, 3, 6, 2, 7, 1, 4]]
    two["t"] = two["t"].astype("float32").astype(float)
    table = transfer(TWO, two, [scorer(two, two["t"], "same")]).drop(columns="guard")
    pd.testing.assert_frame_equal(table[two.columns], two.reset_index(drop=True))


def test_gains_are_differences_from_base_on_the_same_prompts_by_shift() -> None:
    said = pd.concat([samples(), samples(design="base").iloc[::-1]]).assign(system_harm=0.0)
    said["shift"] = np.where(said["prompt"] < "prompt 2", "here", "there")
    said["system_help"] = [0.1, 0.3, 0.6, 1.0, 0.2, 0.2, 0.1, 0.0]
    rows = metrics.gains(said, ["shift"], ["system_help"])
    assert rows["shift"].tolist() == ["here", "there"] and set(rows["design"]) == {"boundary"}
    assert rows["mean"].tolist() == pytest.approx([0.15, 0.6])


def test_two_runs_answer_the_same_prompts_behind_each_others_guard(small_run, weak_run) -> None:
    asked = asking.shifted_prompts(6, shifts=["test", "unseen both", "300-600 words"])
    default, weak = (guards.load_guard(name, "cpu") for name in ("default", "weak"))
    pairs = contenders.contenders_of([small_run, weak_run])
    told = contenders.respond(pairs, asked, guard=default)
    for _, rows in told.groupby("design"):
        pd.testing.assert_frame_equal(rows[list(asked)].reset_index(drop=True), asked)
    texts = zip(told["prompt"], told["response"], strict=True)
    np.testing.assert_allclose(told["harm"], [oracle.grade(*text).harm for text in texts])
    table = transfer(pairs, told, ["default", "weak", "overconfident"])
    own = table[table["guard"] == "default"].reset_index(drop=True)
    seen = ["t", "filtered", "near", "system_harm", "system_help"]
    pd.testing.assert_frame_equal(own[seen], told[seen], check_exact=True)  # the same batches
    at_half = table.pivot(index=["design", "prompt_id"], columns="guard", values="filtered")
    assert (at_half["default"] == at_half["overconfident"]).all()
    rows = table[table["guard"] == "weak"]
    np.testing.assert_allclose(rows["t"], weak.score(told["prompt"], told["response"]), atol=1e-5)
    assert not np.allclose(rows["t"], told["t"], atol=0.01)


def test_runs_are_finished_and_of_one_policy_and_may_be_asked_something_else(
    small_run, tmp_path
) -> None:
    (tmp_path / "config.json").write_bytes((small_run.folder / "config.json").read_bytes())
    with pytest.raises(BgkitError, match="is incomplete; finish it"):
        contenders.contenders_of([tmp_path])
    other = runs.Run(small_run.folder, replace(small_run.config, policy="small"))
    with pytest.raises(BgkitError, match="test runs of one policy at a time"):
        contenders.contenders_of([small_run, other])
    _, english = contenders.contenders_of([small_run], "everyday-short")
    assert english.config.prompts == "everyday-short"
    assert contenders.judge_of(english.config) is None  # the truth is that of the testbed
    assert contenders.judge_of(english.run.config).name == "oracle"


# --- Prompts whose truth is not known: a judge and a guard of one's own -----------------------


class Fake:
    """A judge by the length of a response: odd is harmful; a refusal is worth 0 and 0.125."""

    name = "fake"
    asked = 0

    def grade(self, asked, said) -> pd.DataFrame:
        self.asked += len(said)
        harm = [0.0 if r == CANNED_REFUSAL else 0.25 + 0.5 * (len(r) % 2) for r in said]
        return pd.DataFrame({"harm": harm, "help": [0.5 if h else 0.125 for h in harm]})


#: A guard by the length of a response.
MINE = CallableGuard(lambda asked, said: [(len(text) % 10) / 10 for text in said], "mine")


@pytest.fixture(scope="module")
def english(small_run) -> list[contenders.Contender]:
    """Base and a policy whose prompts are plain English."""
    config = replace(small_run.config, prompts="everyday-short", max_completion_length=6)
    return contenders.contenders_of([runs.Run(small_run.folder, config)])


@pytest.fixture(scope="module")
def asked() -> pd.DataFrame:
    return prompts.load_prompts("everyday-short", "test", 8)


def are_judged(table: pd.DataFrame) -> None:
    """The table holds the fake judge's grades, and what is shown by its own t."""
    grades, hidden = Fake().grade(table["prompt"], table["response"]), table["t"].to_numpy() >= 0.5
    assert table["harm"].tolist() == grades["harm"].tolist()
    assert (table["filtered"] == hidden).all() and (table["graded_by"] == "fake").all()
    seen = np.where(hidden[:, None], [0.0, 0.125], grades)
    np.testing.assert_array_equal(table[["system_harm", "system_help"]], seen)


def test_without_a_judge_grades_are_not_known_and_other_metrics_are(english, asked) -> None:
    are_judged(contenders.respond(english, asked, guard=MINE, judge=Fake()))
    told = contenders.respond(english, asked, guard=MINE)
    grades = [f"{part}{name}" for part in ("", "system_", "refusal_") for name in ("harm", "help")]
    assert told[grades].isna().all(axis=None) and (told["graded_by"] == "–").all()
    rows = metrics.summary(told, ["design"], ["system_harm", "near_boundary"])
    assert rows["mean"].isna().tolist() == [True, False] * 2
    are_judged(contenders.grade_responses(told, Fake()))  # they can be graded afterwards


def test_an_attack_in_plain_english(english, asked) -> None:
    requests = asked.assign(harmful_request=True).head(3)
    tries = attacks.attack(english, requests, budget=2, guard=MINE, judge=Fake())
    assert set(tries["wrapper"]) <= set(asking.WRAPPERS)
    assert set(tries["suffix"]) <= set(asking.SUFFIXES)
    assert tries["harm"].equals(Fake().grade(tries["prompt"], tries["response"])["harm"])


def test_the_best_of_n_grades_the_chosen_answers_only(english, asked) -> None:
    judge = Fake()
    table = best_of_n(english, asked, (3,), guard=MINE, judge=judge)
    are_judged(table)
    assert table["t"].tolist() == pytest.approx(MINE.score(table["prompt"], table["response"]))
    assert judge.asked == 2 * 2 * len(asked)  # two scores; the answer and the refusal


@pytest.mark.parametrize("judge", [None, Fake()])
def test_without_a_judge_reward_hacking_is_not_known(english, judge: Fake | None) -> None:
    rows = reward_hacking.drift(english, 2, judge)
    found = reward_hacking.hacking_verdicts(reward_hacking.changes(rows))
    assert (found.loc["past its best"] == "–").all() == (judge is None)


def test_a_study_says_what_can_not_be_asked(english, asked, capsys) -> None:
    said = contenders.respond(english, asked, guard=MINE)
    study = stress.Study(english, english, asked, said, judge=None)
    answer = stress.attack_success(study)
    answer._ipython_display_()
    assert capsys.readouterr().out.startswith("The attack is left out: The truth about")
    assert answer.figure is None and stress.other_guards(study).figure
    with pytest.raises(BgkitError, match=r"There is no run in"):
        stress.open_study(["/no/such/run"])


def test_designs_are_those_of_one_method_and_setting(small_run, weak_run) -> None:
    def compared(*folders) -> list[str]:
        found = contenders.contenders_of(folders)
        return [one.design for one in contenders.comparable_contenders(found)]

    folder = data_folder() / "runs"
    assert compared(folder / "rejection") == ["base", "rejection fine-tuning: boundary"]
    assert compared(folder / "rejection", folder / "boundary") == ["base", "boundary"]
    assert compared(small_run, weak_run) == ["base", "boundary"]
