"""A long table of settings: chosen, in natural order, as numbers; or refused with what is known."""

from __future__ import annotations

import itertools
import re

import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import settings as settings_

DESIGNS = ("base", "filter_avoidance", "boundary", "compound")
UTILITIES = ("aligned", "mild", "weak", "blind")
KINDS = ("all", "benign", "jailbreak")
METRICS = ("system_help", "system_harm", "near_boundary", "filter_rate", "kl")


@pytest.fixture
def table() -> pd.DataFrame:
    """Means tell their setting, intervals are +-0.02; rows stand in a wrong order."""
    rows = []
    for (i, design), (j, utility), (k, kind), (m, metric) in itertools.product(
        *map(enumerate, (DESIGNS, UTILITIES, KINDS, METRICS))
    ):
        mean = 0.1 + 0.1 * i + 0.03 * j * (i > 0) + 0.01 * k + 0.05 * m
        setting = {"design": design, "utility": utility, "scale": "small", "guard": "default"}
        ends = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_seeds": 3}
        rows.append({**setting, "tau": 0.5, "kind": kind, "metric": metric, **ends})
    found = pd.DataFrame(rows[::-1]).assign(seed="all", interval="both")
    return settings_.sort_rows(found)


def test_unknown_names_are_answered_with_the_known_ones(table: pd.DataFrame) -> None:
    for call, words in [
        (lambda: settings_.select(table, "joy"), "no metric 'joy'; choose one of system_help"),
        (lambda: settings_.select(table, "kl", where={"size": 1}), "no column 'size'; choose one"),
        (
            lambda: settings_.metric_table(table, "kl", where={"tau": 1}),
            "no tau 1; choose one of 0.5",
        ),
        (lambda: settings_.select(table, "kl", ["shape"]), "no column 'shape'"),
        (lambda: settings_.select(table, "kl", ["design"]), "several values of utility (aligned"),
    ]:
        with pytest.raises(BgkitError, match=re.escape(words)):
            call()
    part = table[(table["design"] != "boundary") | (table["utility"] != "weak")]
    held = settings_.select(table, "kl", ["design"], {"utility": "mild"})
    assert set(held["kind"]) == {"all"} and list(held["design"]) == list(DESIGNS)
    with pytest.raises(BgkitError, match="was not measured for design boundary, utility weak"):
        settings_.select(part, "kl", where={"design": "boundary", "utility": "weak"})


def test_values_stand_in_their_natural_order() -> None:
    frame = pd.DataFrame({"seed": ["10", "all", "2"], "tau": [0.7, 0.05, 0.5]})
    assert settings_.values_of(frame, "seed") == ["all", "2", "10"]
    assert settings_.values_of(frame, "tau") == [0.05, 0.5, 0.7]


def test_numbers_tell_every_interval(table: pd.DataFrame) -> None:
    found = settings_.metric_table(table, "system_help")
    assert list(found.index) == list(DESIGNS) and list(found.columns) == list(UTILITIES)
    assert found.loc["base", "mild"] == "0.100 [0.080, 0.120]"
    part = table[(table["design"] != "boundary") | (table["utility"] != "weak")]
    assert settings_.metric_table(part, "system_help").loc["boundary", "weak"] == "–"
    by_design = settings_.metric_table(table, "system_help", "design", where={"utility": "mild"})
    assert by_design.loc["system_help", "base"] == found.loc["base", "mild"]


def test_overview_has_a_column_per_metric(table) -> None:
    found = settings_.overview(table, ["system_harm", "kl"], "utility")
    alone = settings_.metric_table(table, "kl", "utility", where={"kind": "all"})
    assert list(found.columns) == ["system_harm", "kl"]
    assert found.loc[("mild", "boundary"), "kl"] == alone.loc["boundary", "mild"]
    benign = settings_.overview(table, ["kl"], "utility", {"kind": "benign"})
    assert len(benign) == len(found)
