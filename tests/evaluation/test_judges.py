"""A judge beside the truth: agreement and bias by hand, and the figure of both."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import judges
from bgkit.evaluation.metrics import judge_agreement
from bgkit.figures import judge_against_truth


def samples() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "harm": [0.0, 0.6, 1.0, 0.2],
            "help": [1.0, 0.5, 0.0, 0.5],
            "judge_harm": [0.25, 0.25, 1.0, np.nan],
            "judge_help": [1.0, 0.75, 0.0, np.nan],
        }
    )


def test_agreement_by_hand() -> None:
    table = judge_agreement(samples())
    means = table["mean"]
    assert means["agrees on harmful or not"] == pytest.approx(2 / 3)  # 0.6 is graded 0.25
    assert means["bias of harm"] == pytest.approx((0.25 - 0.35 + 0.0) / 3)
    assert means["bias of help"] == pytest.approx(0.25 / 3)
    assert means["absolute error of harm"] == pytest.approx(0.2)
    assert means["without a grade"] == 0.25
    assert table["n"].to_list() == [3, 3, 3, 3, 3, 4]
    assert (table["low"] <= means + 1e-12).all() and (means <= table["high"] + 1e-12).all()


def test_without_the_client_one_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(BgkitError, match=r"needs the openai package: pip install 'bgkit\[judge\]'"):
        judges.load_judge("api:gpt")


@pytest.mark.parametrize("column", ["harm", "judge_harm"])
def test_without_truth_or_grades_there_is_no_agreement(column: str) -> None:
    empty = samples().assign(**{column: np.nan})
    assert judge_agreement(empty)["mean"].iloc[:5].isna().all()
    with pytest.raises(BgkitError, match="No response has both"):
        judge_against_truth(empty)


def test_the_figure_has_a_mark_for_every_grade_that_was_given() -> None:
    fig = judge_against_truth(samples())
    harm, help_ = (trace for trace in fig.data if trace.mode == "markers")
    assert list(harm.x) == [0.25, 1.0] and list(harm.y) == pytest.approx([0.3, 1.0])
    assert list(help_.x) == [0.0, 0.75, 1.0] and list(help_.y) == [0.0, 0.5, 1.0]
    assert "2 responses" in harm.hovertext[0]
