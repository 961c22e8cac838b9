"""The scorecard of stress tests: which design is best in each test, and by how much.

A test is a table with one row per response (:func:`bgkit.stress.contenders.respond`), a metric and
its good direction. The winner has the best mean. It was chosen for that, so the difference to the
runner-up flatters it a little; only an interval that excludes zero decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from bgkit import evaluation
from bgkit.errors import BgkitError
from bgkit.intervals import Interval, crossed, difference
from bgkit.stress.contenders import BASE, by_seed, summary

DIRECTIONS = ("low", "high")  # what is good
SAME = 1e-12  # means that differ by no more are tied
UNKNOWN = Interval(np.nan, np.nan, np.nan)


class Test(NamedTuple):
    """Rows per response, the metric that is compared, and whether ``low`` or ``high`` is good.

    ``metric`` is one of :data:`bgkit.evaluation.METRICS`, or a column of ``samples``.
    """

    __test__ = False  # no test case for pytest

    samples: pd.DataFrame
    metric: str
    direction: str


class Scorecard(NamedTuple):
    """What :func:`scorecard` found, as two tables.

    ``means`` has a row per test and design: test, metric, direction, design, mean, low, high, n
    (prompts), n_seeds, winner (boolean). ``winners`` has a row per test: test, metric, direction,
    winner, runner_up (missing where there is none), tied (the runner-up has the same mean); winner
    minus runner-up as difference, low, high, paired, decided (its interval excludes zero); winner
    minus base as base_difference, base_low, base_high, base_paired. NaN: there is no such
    difference.
    """

    means: pd.DataFrame
    winners: pd.DataFrame


def scorecard(tests: Mapping[str, Test | tuple[pd.DataFrame, str, str]]) -> Scorecard:
    """Compare designs test by test.

    Differences are paired over prompts and seeds where both designs have the same prompts, in the
    same order, for the same seeds (:func:`bgkit.intervals.crossed`; over the responses for which
    both are known); else ``paired`` is False, and the two intervals are joined as independent ones
    (:func:`bgkit.intervals.difference`), which is wider. A design without a known value in a test
    is not ranked there, and of tied designs the first one wins. Raises BgkitError without tests,
    for an unknown direction or metric, and for a test without rows.
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
    order = ["test", "metric", "direction", "design", "mean", "low", "high", "n", "n_seeds"]
    return Scorecard(pd.concat(means, ignore_index=True)[[*order, "winner"]], pd.DataFrame(winners))


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
    if metric not in evaluation.METRICS and metric not in samples:
        raise BgkitError(
            f"The test {name!r} has no metric {metric!r}; choose one of its columns or of "
            f"{', '.join(evaluation.METRICS)}."
        )
    read = evaluation.METRICS.get(metric, lambda table: table[metric])
    return read(samples).astype(float).to_frame(metric)


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
    if _prompts(parts[0]) == _prompts(parts[1]):
        seeds = list(_prompts(parts[0]))
        ones, others = (_cube(part, values, seeds) for part in parts)
        (found,) = crossed(ones - others, rates=False)
        return found, True
    ends = ranked.set_index("design")[["mean", "low", "high"]]
    return difference(*(Interval(*map(float, ends.loc[name])) for name in (first, second))), False


def _prompts(part: pd.DataFrame) -> dict[int, list[str]]:
    """The prompts of each seed, seeds in ascending order."""
    return {seed: rows["prompt"].tolist() for seed, rows in part.groupby("seed")}


def _cube(part: pd.DataFrame, values: pd.DataFrame, seeds: list[int]) -> np.ndarray:
    """Values (seeds, prompts, 1), seeds in the order given."""
    part = pd.concat([part[part["seed"] == seed] for seed in seeds])
    return by_seed(part, values.loc[part.index])


def readable(card: Scorecard) -> pd.DataFrame:
    """The scorecard for printing: tests by designs, each cell ``0.031 [0.020, 0.043]``.

    The winner's cell ends in ``*``; further columns are the winner, the runner-up, the winner minus
    the runner-up, and minus base (``unpaired`` where it is, ``–`` where there is none).
    """
    means, winners = card
    cells = means.assign(
        text=[_cell(Interval(r.mean, r.low, r.high)) + " *" * r.winner for r in means.itertuples()]
    )
    wide = cells.pivot(index="test", columns="design", values="text").fillna("–")
    wide = wide.loc[winners["test"], list(dict.fromkeys(means["design"]))]
    told = winners.set_index("test")
    wide["winner"] = told["winner"].fillna("–") + np.where(told["tied"], " (tied)", "")
    wide["runner-up"] = told["runner_up"].fillna("–")
    for heading, prefix, middle in (
        ("winner - runner-up", "", "difference"),
        ("winner - base", "base_", "base_difference"),
    ):
        columns = told[[middle, f"{prefix}low", f"{prefix}high", f"{prefix}paired"]]
        wide[heading] = [
            _cell(Interval(*ends)) + ("" if paired or np.isnan(ends[0]) else " unpaired")
            for *ends, paired in columns.itertuples(index=False)
        ]
    return wide.rename_axis(columns=None)


def _cell(interval: Interval) -> str:
    """A mean with its interval as text, or a dash."""
    mean, low, high = interval
    return "–" if np.isnan(mean) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
