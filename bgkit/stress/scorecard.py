"""The scorecard of stress tests: which design is best in each test, and by how much.

A test is a table with one row per response (:func:`bgkit.stress.contenders.respond`), a metric and
its good direction. The winner has the best mean. It was chosen for that, so the difference to the
runner-up flatters it a little; only an interval that excludes zero decides anything. Of many tests
some exclude zero by chance, one in twenty: ``decided_by_holm`` allows for their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import CONFIDENCE, Interval, difference, interval_text
from bgkit.evaluation.intervals import holm as adjusted
from bgkit.evaluation.means import paired, summary
from bgkit.evaluation.metrics import METRICS
from bgkit.stress.contenders import BASE

DIRECTIONS = ("low", "high")  # what is good
SAME = 1e-12  # means that differ by no more are tied
UNKNOWN = Interval(np.nan, np.nan, np.nan)


class Test(NamedTuple):
    """Rows per response, the metric that is compared, and whether ``low`` or ``high`` is good.

    ``metric`` is one of :data:`bgkit.evaluation.metrics.METRICS`, or a column of ``samples``.
    """

    __test__ = False  # no test case for pytest

    samples: pd.DataFrame
    metric: str
    direction: str


class Scorecard(NamedTuple):
    """What :func:`scorecard` found, as two tables.

    ``means`` has a row per test and design: test, metric, direction, design, mean, low, high, n
    (different prompts), n_seeds, winner (boolean). ``winners`` has a row per test: test, metric,
    direction, winner, runner_up (missing where there is none), tied (the runner-up has the same
    mean); winner minus runner-up as difference, low, high, paired, decided (its interval excludes
    zero), decided_by_holm (:func:`holm`, over the tests with such a difference); winner minus base
    as base_difference, base_low, base_high, base_paired. NaN: there is no such difference.
    """

    means: pd.DataFrame
    winners: pd.DataFrame


def scorecard(tests: Mapping[str, Test | tuple[pd.DataFrame, str, str]]) -> Scorecard:
    """Compare designs test by test.

    Values of a prompt that a design answered several times are averaged for each seed
    (:func:`bgkit.evaluation.means.by_seed`). Differences are paired over prompts and seeds where
    both designs have the same prompts for the same seeds (:func:`bgkit.evaluation.means.paired`;
    over the prompts for which both are known); else ``paired`` is False, and the two intervals are
    joined as independent ones (:func:`bgkit.evaluation.intervals.difference`), which is wider. A
    design without a known value in a test is not ranked there, and of tied designs the first one
    wins. Raises BgkitError without tests, for an unknown direction or metric, and for a test
    without rows.
    """
    if not tests:
        raise BgkitError("There is nothing to compare: give at least one test.")
    means, winners = [], []
    for name, test in tests.items():
        test = Test(*test)
        test = test._replace(samples=test.samples.reset_index(drop=True))
        values = _values(name, test)
        rows = summary(test.samples, ["design"], [test.metric], values)
        ranked = _ranked(rows, test.direction)
        labels = {"test": name, "metric": test.metric, "direction": test.direction}
        best = ranked["design"].iloc[0] if len(ranked) else None
        means.append(rows.drop(columns="metric").assign(**labels, winner=rows["design"] == best))
        winners.append({**labels, **_comparison(test, values, ranked)})
    table = pd.DataFrame(winners)
    table.insert(list(table).index("decided") + 1, "decided_by_holm", holm(table))
    order = ["test", "metric", "direction", "design", "mean", "low", "high", "n", "n_seeds"]
    return Scorecard(pd.concat(means, ignore_index=True)[[*order, "winner"]], table)


def _values(name: str, test: Test) -> pd.DataFrame:
    """The metric's values, a column of one row per response."""
    samples, metric, direction = test
    if direction not in DIRECTIONS:
        raise BgkitError(
            f"The test {name!r} has the direction {direction!r}; say 'low' or 'high': which values "
            "of the metric are good."
        )
    if samples.empty or not {"design", "seed", "prompt"} <= set(samples):
        raise BgkitError(
            f"The test {name!r} has no responses to compare; give a table with one row per "
            "response and the columns design, seed and prompt."
        )
    if metric not in METRICS and metric not in samples:
        raise BgkitError(
            f"The test {name!r} has no metric {metric!r}; choose one of its columns or of "
            f"{', '.join(METRICS)}."
        )
    checks.samples(samples, name, columns=())
    read = METRICS[metric].read(samples) if metric in METRICS else samples[metric]
    return read.astype(float).to_frame(metric)


def _ranked(rows: pd.DataFrame, direction: str) -> pd.DataFrame:
    """Designs with a known mean, best first, tied ones in their order."""
    known = rows.dropna(subset=["mean"])
    return known.sort_values("mean", ascending=direction == "low", kind="stable")


def _comparison(test: Test, values: pd.DataFrame, ranked: pd.DataFrame) -> dict:
    """A row of ``winners``, without its labels."""
    names, means = ranked["design"].tolist(), ranked["mean"].tolist()
    winner, runner_up = [*names, None, None][:2]
    (first, paired), (to_base, base_paired) = (
        _apart(test, values, ranked, winner, other)
        for other in (runner_up, BASE if BASE in names and winner != BASE else None)
    )
    return {
        "winner": winner,
        "runner_up": runner_up,
        "tied": len(names) > 1 and abs(means[0] - means[1]) <= SAME,
        "difference": first.mean,
        "low": first.low,
        "high": first.high,
        "paired": paired,
        "decided": bool(first.low > 0 or first.high < 0),
        "base_difference": to_base.mean,
        "base_low": to_base.low,
        "base_high": to_base.high,
        "base_paired": base_paired,
    }


def _apart(
    test: Test, values: pd.DataFrame, ranked: pd.DataFrame, first: str | None, second: str | None
) -> tuple[Interval, bool]:
    """first - second with its interval, and whether it is paired."""
    if first is None or second is None:
        return UNKNOWN, False
    parts = [test.samples[test.samples["design"] == name] for name in (first, second)]
    if found := paired(*parts, values):
        return found[0], True
    ends = ranked.set_index("design")[["mean", "low", "high"]]
    return difference(*(Interval(*map(float, ends.loc[name])) for name in (first, second))), False


def holm(rows: pd.DataFrame) -> np.ndarray:
    """Which differences (with low and high) are beyond chance, given how many there are (n,).

    Holm's procedure (:func:`bgkit.evaluation.intervals.holm`) at 5%. The p of a
    difference is that of a normal distribution whose 95% interval reaches as far towards zero as
    the one given, so that p < 0.05 just where it excludes zero. Differences that are not known are
    not counted.

    >>> rows = pd.DataFrame({"difference": [3.0, 1.2, 0.5], "low": [2.0, 0.2, -0.5]})
    >>> holm(rows.assign(high=rows["difference"] + 1)).tolist()  # p = 4e-9, 0.019, 0.33
    [True, True, False]
    >>> holm(pd.concat([rows.iloc[1:]] * 2).assign(high=rows["difference"] + 1)).tolist()
    [False, False, False, False]
    """
    middle, low, high = (rows[name].to_numpy(float) for name in ("difference", "low", "high"))
    arm = np.where(middle > 0, middle - low, high - middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.abs(middle) / arm  # NaN for 0 / 0: no lead
    p = np.nan_to_num(2 * stats.norm.sf(z), nan=1.0)
    return adjusted(np.where(np.isnan(middle), np.nan, p)) < 1 - CONFIDENCE


def readable(card: Scorecard) -> pd.DataFrame:
    """The scorecard for printing: tests by designs, each cell ``0.031 [0.020, 0.043]``.

    The winner's cell ends in ``*``; further columns are the winner, the runner-up, the winner minus
    the runner-up, whether that interval excludes zero (yes or no), whether it still does after
    Holm's correction for the number of tests, and the winner minus base (``unpaired`` where a
    difference is, ``–`` where there is none).
    """
    means, winners = card
    texts = [interval_text(r.mean, r.low, r.high) + " *" * r.winner for r in means.itertuples()]
    wide = means.assign(text=texts).pivot(index="test", columns="design", values="text").fillna("–")
    wide = wide.loc[winners["test"], list(dict.fromkeys(means["design"]))]
    told = winners.set_index("test")
    wide["winner"] = told["winner"].fillna("–") + np.where(told["tied"], " (tied)", "")
    wide["runner-up"] = told["runner_up"].fillna("–")
    wide["winner - runner-up"] = _differences(told, "difference", "")
    for heading, column in (
        ("excludes zero", "decided"),
        ("after Holm", "decided_by_holm"),
    ):
        words = told[column].map({True: "yes", False: "no"})
        wide[heading] = words.where(told["difference"].notna(), "–")
    wide["winner - base"] = _differences(told, "base_difference", "base_")
    return wide.rename_axis(columns=None)


def _differences(told: pd.DataFrame, middle: str, prefix: str) -> list[str]:
    """Differences of the table ``winners`` as text."""
    columns = told[[middle, f"{prefix}low", f"{prefix}high", f"{prefix}paired"]]
    return [
        interval_text(*ends) + ("" if is_paired or np.isnan(ends[0]) else " unpaired")
        for *ends, is_paired in columns.itertuples(index=False)
    ]
