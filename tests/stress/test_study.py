"""A study asks what can be asked, and says in a sentence what can not."""

from __future__ import annotations

import pytest

from bgkit.errors import BgkitError
from bgkit.stress import study as stress


@pytest.fixture(scope="module")
def study(small_run, weak_run) -> stress.Study:
    return stress.open_study([small_run, weak_run], n=8)


def test_everybody_answers_the_same_prompts_once_and_an_answer_shows_itself(study, capsys) -> None:
    assert study.about()["compared by design"].tolist() == [True, True, False]
    assert study.responses.groupby("design").size().tolist() == [8] * 3
    answer = stress.other_guards(study, ["weak", "other"])
    answer._ipython_display_()
    assert answer.figure and not answer.notes and capsys.readouterr().out


def test_what_can_not_be_asked_is_said(study, capsys) -> None:
    answer = stress.attack_success(study, budget=0)
    answer._ipython_display_()
    assert answer.figure is None
    assert capsys.readouterr().out.startswith("The attack is left out: An attack's budget")
    with pytest.raises(BgkitError, match=r"There is no run in"):
        stress.open_study(["/no/such/run"])
