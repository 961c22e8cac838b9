"""A study asks what can be asked, and says in a sentence what can not."""

from __future__ import annotations

import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.stress import study as stress


@pytest.fixture(scope="module")
def study(small_run, weak_run) -> stress.Study:
    return stress.open_study([small_run, weak_run], n=8)


def test_everybody_answers_the_same_prompts_once(study: stress.Study) -> None:
    assert study.about()["compared by design"].tolist() == [True, True, False]
    assert study.said.groupby("design").size().tolist() == [8] * 3
    assert set(study.ours["design"]) == {"base", "boundary"}


def test_answers_have_a_figure_tables_and_tests_for_the_card(study, capsys) -> None:
    answers = [stress.behind_guards(study, ["weak", "other"]), stress.other_thresholds(study)]
    assert [set(answer.tests) for answer in answers] == [
        {"guards, harm"},
        {"tau 0.8, harm", "tau 0.2, help"},
    ]
    card = stress.card(study, answers)
    assert list(card.tables[0].index) == [
        *("as trained, harm", "as trained, help", "guards, harm"),
        *("tau 0.8, harm", "tau 0.2, help"),
    ]
    card._ipython_display_()
    assert "excludes zero" in card.tables[0] and capsys.readouterr().out


def test_what_can_not_be_asked_is_said(study, capsys) -> None:
    answer = stress.attacked(study, budget=0)
    assert answer.figure is None and not answer.tests
    answer._ipython_display_()
    assert capsys.readouterr().out.startswith("The attack is left out: An attack's budget")
    assert "No run has a fitted temperature" in stress.miscalibrated(study).said[0]
    with pytest.raises(BgkitError, match=r"There is no run in"):
        stress.open_study(["/no/such/run"])


def test_rows_become_a_wide_table_in_their_order() -> None:
    rows = pd.DataFrame({"a": ["y", "x"], "m": "k", "mean": 0.5, "low": 0.25, "high": 1.0})
    table = stress.as_text(rows, "a", "m")
    assert table["k"].to_dict() == {"y": "0.500 [0.250, 1.000]", "x": "0.500 [0.250, 1.000]"}
