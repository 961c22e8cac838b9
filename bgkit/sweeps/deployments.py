"""Designs behind deployments that differ from training's, compared at equal help.

A collection (:mod:`bgkit.sweeps.collection`) keeps t, harm and help of every response. What a user
would have seen of it at another threshold, with the guard's temperature changed, or with noise on
its scores follows without sampling, for every strength and seed. In each deployment designs are
compared as frontiers (:mod:`bgkit.evaluation.frontiers`), where their users get equal help; all
differences are corrected for their number (Holm). A temperature moves no response over a threshold
of 0.5, so it is tried with another one.

Other guards, unseen prompts and an attacker need the policies themselves. A collection's
``elsewhere.parquet`` holds what they did there (:func:`measured`; ``benchmarks/elsewhere.py``
writes it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.intervals import CONFIDENCE, as_text, holm
from bgkit.evaluation.metrics import READ
from bgkit.prompts import load
from bgkit.scoring.temperature import with_temperature
from bgkit.sweeps import claims, collection
from bgkit.testbed.lexicon import CANNED_REFUSAL


class Deployment(NamedTuple):
    """A threshold, the guard's temperature, and the deviation of noise on the logit of its t."""

    tau: float = 0.5
    temperature: float = 1.0
    noise: float = 0.0


DEPLOYMENTS = {
    "as trained": Deployment(),
    **{f"tau {tau:g}": Deployment(tau=tau) for tau in (0.2, 0.35, 0.65, 0.8)},
    **{f"tau 0.3, T {t:g}": Deployment(tau=0.3, temperature=t) for t in (0.5, 2.0, 4.0)},
    **{f"noise {noise:g}": Deployment(noise=noise) for noise in (0.5, 1.0, 2.0)},
}
#: Which design is compared with which.
PAIRS = (
    ("boundary", "filter_avoidance"),
    ("filter_avoidance_soft", "boundary"),
    ("compound", "boundary"),
    ("compound", "filter_avoidance_soft"),
    ("prompt_aware", "boundary"),
    ("hybrid_guard", "boundary"),
)
ELSEWHERE = "elsewhere.parquet"
POWER = 0.8  # with which the least detectable difference would be found


def refusals_of(index: pd.DataFrame) -> pd.DataFrame:
    """Harm and help (prompts, 2) of the canned refusal to each test prompt of a collection.

    Raises BgkitError where the prompts' truth is not known.
    """
    config = collection.configs_of(index)[0]
    if not (truth := evaluation.truth_of(config.prompts)):
        raise BgkitError(
            f"What a refusal is worth to the prompts {config.prompts!r} is not known; deployments "
            "can be compared on the testbed's prompts."
        )
    asked = load.load_prompts(config.prompts, "test", config.test_prompts)["prompt"].tolist()
    return truth.grade(asked, [CANNED_REFUSAL] * len(asked))


def redeployed(
    values: pd.DataFrame, refusals: pd.DataFrame, deployment: Deployment, seed: int = 0
) -> pd.DataFrame:
    """Values of a collection as they would have been in another deployment.

    Raises BgkitError for a tau off (0, 1), a temperature that is not above 0, and a noise below 0.
    """
    checks.threshold(deployment.tau)
    if deployment.noise < 0:
        raise BgkitError(f"Noise is a deviation, at least 0, not {deployment.noise}.")
    t = with_temperature(values["t"], deployment.temperature)
    if deployment.noise:
        normal = np.random.default_rng(seed).standard_normal(len(values))
        t = special.expit(special.logit(t) + deployment.noise * normal)
    return evaluation.rescored_samples(values, t, deployment.tau, refusals.iloc[values["prompt"]])


def measured(folder: str | Path | None = None) -> dict[str, pd.DataFrame]:
    """Deployment -> what a collection's policies (by default the shipped ones) did in it.

    Values for :func:`differences`; metrics that were not measured are NaN. Empty where
    ``benchmarks/elsewhere.py`` was not run while the policies' folders were there.
    """
    path = Path(folder or collection.shipped()) / ELSEWHERE
    if not path.is_file():
        return {}
    table = pd.read_parquet(path)
    table[[name for name in READ if name not in table]] = np.nan
    return dict(iter(table.groupby("deployment", sort=False)))


def differences(
    index: pd.DataFrame,
    values: pd.DataFrame,
    deployments: Mapping[str, Deployment | pd.DataFrame] = DEPLOYMENTS,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    *,
    metric: str = "system_harm",
    resamples: int = 1000,
) -> pd.DataFrame:
    """A metric of one design minus another's at equal system help, in each deployment.

    ``index`` and ``values`` are those of :func:`bgkit.sweeps.collection.load`; a deployment is a
    :class:`Deployment`, or the values that were :func:`measured` in it, of some of the runs. One
    row per deployment and pair: deployment, design, against, metric, the difference, p_holm,
    decided, n_seeds, and ``detectable``, the least difference that trainings and prompts like these
    would find with a probability of 0.8, corrected for the number of rows (Bonferroni). Pairs of
    designs that are not there are left out. Raises BgkitError where none is left.
    """
    refusals, rows = refusals_of(index), []
    for name, deployment in deployments.items():
        follows = isinstance(deployment, Deployment)
        there = redeployed(values, refusals, deployment) if follows else deployment
        tried = index[index["run"].isin(there["run"].unique())]
        try:
            found = claims.frontiers_of(tried, there, ["system_help", metric])
        except BgkitError as error:  # values that were measured of too few runs
            raise BgkitError(f"In the deployment {name!r}: {error}") from error
        for design, against in (pair for pair in pairs if {*pair} <= {*found}):
            both = found[design], found[against]
            x_y = (one.pair("system_help", metric) for one in both)
            apart = frontiers.difference(*x_y, resamples=resamples)
            told = {"deployment": name, "design": design, "against": against, "metric": metric}
            seeds = min(len(one.seeds) for one in both)
            rows.append({**told, **apart._asdict(), "n_seeds": seeds})
    if not rows:
        raise BgkitError("These results have none of the pairs of designs that are compared.")
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    table["decided"] = table["p_holm"] < 1 - CONFIDENCE
    deviation = (table["high"] - table["low"]) / 2 / stats.norm.ppf((1 + CONFIDENCE) / 2)
    level = stats.norm.ppf(1 - (1 - CONFIDENCE) / 2 / len(table))
    return table.assign(detectable=(level + stats.norm.ppf(POWER)) * deviation)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Deployments by pairs; a cell is the difference, with ``*`` where it is beyond chance."""
    marks = [" *" * decided for decided in table["decided"]]
    return as_text(table.assign(pair=_pair(table)), ["deployment"], "pair", marks)


def _pair(table: pd.DataFrame) -> pd.Series:
    return (table["design"] + " - " + table["against"]).str.replace("_", " ").rename("pair")


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Of each pair: deployments that decide, and the medians of difference and least detectable."""
    groups = table.assign(size=table["mean"].abs()).groupby(_pair(table), sort=False)
    columns = {"decided": ("decided", "sum"), "of": ("decided", "size")}
    columns |= {"median difference": ("size", "median"), "detectable": ("detectable", "median")}
    return groups.agg(**columns).round(4)
