"""A long table of settings: chosen, in natural order, as numbers; or refused with what is known."""

from __future__ import annotations

import itertools
import re

import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import settings as settings_

DESIGNS = ["base", "filter_avoidance", "boundary", "compound"]
UTILITIES = ["aligned", "mild", "weak", "blind"]
VALUES = (DESIGNS, UTILITIES, ("all", "benign"), ("system_help", "system_harm", "kl"))


@pytest.fixture
def table() -> pd.DataFrame:
    """Means count the settings in thousandths, intervals are +-0.02; sorted from a wrong order."""
    names = ["design", "utility", "kind", "metric"]
    rows = pd.DataFrame(itertools.product(*VALUES), columns=names)
    means = rows.assign(mean=rows.index / 1000, low=rows.index / 1000 - 0.02)
    means = means.assign(high=means["low"] + 0.04, scale="small", guard="default", tau=0.5)
    return settings_.sort_rows(means[::-1].assign(seed="all"))


def test_unknown_names_are_answered_with_the_known_ones(table: pd.DataFrame) -> None:
    for arguments, words in [
        (["joy"], "no metric 'joy'; choose one of system_help"),
        (["kl", (), {"size": 1}], "no column 'size'; choose one"),
        (["kl", ["design", "utility"], {"tau": 1}], "no tau 1; choose one of 0.5"),
        (["kl", ["shape"]], "no column 'shape'"),
        (["kl", ["design"]], "several values of utility (aligned"),
    ]:
        with pytest.raises(BgkitError, match=re.escape(words)):
            settings_.select(table, *arguments)
    held = settings_.select(table, "kl", ["design"], {"utility": "mild"})
    assert set(held["kind"]) == {"all"} and list(held["design"]) == DESIGNS


def test_values_stand_in_their_natural_order() -> None:
    frame = pd.DataFrame({"seed": ["10", "all", "2"], "tau": [0.7, 0.05, 0.5]})
    assert settings_.values_of(frame, "seed") == ["all", "2", "10"]
    assert settings_.values_of(frame, "tau") == [0.05, 0.5, 0.7]


def test_numbers_tell_every_interval_and_what_was_not_measured(table: pd.DataFrame) -> None:
    found = settings_.metric_table(table, "system_help")
    assert list(found.index) == DESIGNS and list(found.columns) == UTILITIES
    assert found.loc["base", "mild"] == "0.006 [-0.014, 0.026]"
    by_design = settings_.metric_table(table, "system_help", "design", where={"utility": "mild"})
    assert by_design.loc["system_help", "base"] == found.loc["base", "mild"]
    part = table[(table["design"] != "boundary") | (table["utility"] != "weak")]
    assert settings_.metric_table(part, "system_help").loc["boundary", "weak"] == "–"
    with pytest.raises(BgkitError, match="was not measured for design boundary, utility weak"):
        settings_.select(part, "kl", where={"design": "boundary", "utility": "weak"})


def test_overview_has_a_column_per_metric(table) -> None:
    for kind in ("all", "benign"):
        found = settings_.overview(table, ["system_harm", "kl"], "utility", {"kind": kind})
        alone = settings_.metric_table(table, "kl", where={"kind": kind})
        assert list(found.columns) == ["system_harm", "kl"]
        assert found.loc[("mild", "boundary"), "kl"] == alone.loc["boundary", "mild"]
