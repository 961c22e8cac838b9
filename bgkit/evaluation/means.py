"""Means of stress tests over prompts and seeds, and paired differences, with 95% intervals.

A test may ask a prompt several times (behind two guards, with two strategies, eight completions in
training). Repeated answers to one prompt are alike, and no further prompts: values are averaged by
seed and prompt first, and prompts are what is resampled and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bgkit.evaluation.intervals import at_least, crossed
from bgkit.evaluation.metrics import RATES, values_of


def summary(samples: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Means of metrics with 95% intervals, one row for each combination of ``by`` and metric.

    Intervals are :func:`bgkit.evaluation.intervals.crossed`. Columns: ``by``, metric, mean, low,
    high, n (different prompts), n_seeds; groups keep the order in which they first appear.
    """
    values, rates = values_of(samples)[list(metrics)], [metric in RATES for metric in metrics]
    rows = []
    for key, group in samples.groupby(list(by), sort=False):
        cube = by_seed(group, values.loc[group.index])
        n_seeds, n, _ = cube.shape
        for metric, interval, rate in zip(metrics, crossed(cube, rates=rates), rates, strict=True):
            if rate and n_seeds == 1:  # a prompt's answers may be several
                interval = at_least(interval, n)
            labels = {**dict(zip(by, key, strict=True)), "metric": metric}
            rows.append({**labels, **interval._asdict(), "n": n, "n_seeds": n_seeds})
    return pd.DataFrame(rows)


def by_seed(
    group: pd.DataFrame,
    values: pd.DataFrame,
    seeds: Sequence[int] | None = None,
    prompts: Sequence[str] | None = None,
) -> np.ndarray:
    """Values (rows, k) as an array (seeds, prompts, k): the means of each seed's rows of a prompt.

    ``group`` has the columns seed and prompt, which stand in the order in which they first appear,
    unless given. NaN where a seed has no known value for a prompt.
    """
    seeds = group["seed"].unique() if seeds is None else seeds
    prompts = group["prompt"].unique() if prompts is None else prompts
    means = values.astype(float).groupby([group["seed"], group["prompt"]], sort=False).mean()
    return np.stack([means.loc[seed].reindex(prompts).to_numpy() for seed in seeds])


def gains(
    samples: pd.DataFrame, by: Sequence[str], metrics: Sequence[str], against: str = "base"
) -> pd.DataFrame:
    """What each design has more than ``against`` on the same prompts, paired, with 95% intervals.

    ``samples`` is a table of :func:`bgkit.stress.contenders.respond`. Columns as in
    :func:`summary`, with ``design`` in front of ``by``; a design is left out where ``against`` was
    not asked the same prompts for its seeds.
    """
    samples = samples.reset_index(drop=True)
    values, rows = values_of(samples)[list(metrics)], []
    for key, group in samples.groupby(list(by), sort=False) if by else [((), samples)]:
        for design, part in group.groupby("design", sort=False):
            both = part, group[(group["design"] == against) & group["seed"].isin(part["seed"])]
            asked = [set(zip(one["seed"], one["prompt"], strict=True)) for one in both]
            if design == against or asked[0] != asked[1]:
                continue
            axes = {"seeds": sorted(part["seed"].unique()), "prompts": part["prompt"].unique()}
            ours, theirs = (by_seed(one, values.loc[one.index], **axes) for one in both)
            found = crossed(ours - theirs, rates=False)
            labels = {"design": design, **dict(zip(by, key, strict=True))}
            counts = {"n": len(axes["prompts"]), "n_seeds": len(axes["seeds"])}
            rows += [
                {**labels, "metric": metric, **interval._asdict(), **counts}
                for metric, interval in zip(metrics, found, strict=True)
            ]
    return pd.DataFrame(rows)
