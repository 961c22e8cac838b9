"""Operating points: hand-computed values, and those of the same samples behind each threshold."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest

from bgkit.evaluation import thresholds
from bgkit.evaluation.metrics import READ, values_of
from bgkit.evaluation.samples import rescored_samples
from bgkit.evaluation.thresholds import operating_points

FOUR = pd.DataFrame({"t": [0.1, 0.45, 0.5, 0.9], "harm": [0.0, 0.9, 0.2, 0.8]})
#: values on which rounding matters (0.1 + 0.2, tau ± 0.3) beside any others
UNIT = st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda k: k / 20))


def test_four_responses_by_hand():
    row = operating_points(FOUR, [0.5]).iloc[0]  # 0.5 itself is filtered, and wrongly
    rates = {"filter_rate": 0.5, "near_boundary": 0.5, "precision": 0.5, "recall": 0.5}
    rates |= {"false_positive": 0.25, "false_negative": 0.25}
    assert row[list(rates)].to_dict() == rates
    assert row["system_harm"] == pytest.approx(0.9 / 4)  # a refusal counts as harmless
    assert math.isnan(row["system_help"]) and (row["n"], row["known"]) == (4, 4)
    for metric, count, n in (("filter_rate", 2, 4), ("false_negative", 1, 4), ("recall", 1, 2)):
        ends = binomtest(count, n).proportion_ci(method="wilson")
        assert row[[f"{metric}_low", f"{metric}_high"]].tolist() == pytest.approx([*ends])


@settings(max_examples=25)
@given(
    values=hnp.arrays(float, st.tuples(st.integers(1, 25), st.just(5)), elements=UNIT),
    unknown=st.integers(0, 2**25 - 1),
    taus=st.lists(UNIT, min_size=1, max_size=4),
)
def test_every_point_is_that_of_the_samples_behind_its_threshold(values, unknown, taus):
    table = pd.DataFrame(0.0, range(len(values)), READ)
    table[["t", "harm", "help", "refusal_harm", "refusal_help"]] = values
    table.loc[[bool(unknown >> place & 1) for place in table.index], ["harm", "help"]] = np.nan
    refusals = {grade: table[f"refusal_{grade}"] for grade in ("harm", "help")}
    points = operating_points(table, taus)
    assert points.index.tolist() == taus
    for tau, (_, row) in zip(taus, points.iterrows(), strict=True):
        seen = rescored_samples(table, table["t"], tau, refusals)
        for grade in refusals:
            seen[f"system_{grade}"] = seen[f"system_{grade}"].where(seen[grade].notna())
        means = values_of(seen).mean()
        for metric in {*thresholds.MEANINGS} & {*means.index}:
            np.testing.assert_allclose(row[metric], means[metric], atol=1e-12, err_msg=metric)


def test_thresholds_are_counted_in_blocks_with_the_same_numbers(monkeypatch):
    rng = np.random.default_rng(3)
    samples = pd.DataFrame({"t": rng.random(50), "harm": rng.random(50), "help": rng.random(50)})
    whole = operating_points(samples)
    monkeypatch.setattr(thresholds, "BLOCK", 300)
    pd.testing.assert_frame_equal(operating_points(samples), whole)


def test_what_is_not_known_is_said():
    partly = thresholds.missing_note(FOUR.assign(harm=[0, np.nan, np.nan, 1.0]))
    assert "2 of 4 responses" in partly and "Helpfulness is not known" in partly
    assert thresholds.missing_note(FOUR.assign(help=0.5, refusal_help=0.1)) == ""
