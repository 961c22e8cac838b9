"""Which of the paper's qualitative claims hold in a collection of results, and by how much.

A claim says that one design lies below or above another in a metric. It is checked on the same
prompts and training seeds: the mean paired difference with its 95% interval over both
(:func:`bgkit.evaluation.intervals.crossed`) is wholly on the claimed side of zero (``holds``),
wholly on the other (``fails``), or includes zero (``open``: these runs do not tell).

The sentences are our wording of what the paper says without numbers (Ball and Haupt, arXiv
2510.11834): its abstract, Proposition 1 and its ablations. Where the paper speaks of a judge's
scores, the testbed's oracle stands here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation import settings
from bgkit.evaluation.intervals import Interval, crossed
from bgkit.evaluation.metrics import values_of
from bgkit.sweeps import collection

#: What the "why" of a verdict is kept in, beside a collection.
WHY = "why.json"


@dataclass(frozen=True)
class Claim:
    """``design`` is ``expected`` (lower or higher) than ``against`` in ``metric``, at ``scale``."""

    name: str
    says: str
    metric: str
    design: str
    against: str
    expected: str
    scale: str = "small"


def read_claims() -> list[Claim]:
    """The claims that come with the kit (``claims.csv`` of the shipped collection)."""
    table = pd.read_csv(collection.shipped() / "claims.csv")
    return [Claim(**row) for row in table.to_dict("records")]


def difference(
    index: pd.DataFrame,
    numbers: pd.DataFrame,
    metric: str,
    design: Mapping[str, object],
    against: Mapping[str, object],
) -> tuple[Interval, int]:
    """Mean of ``design`` - ``against`` on the same prompts and seeds, and the number of seeds.

    ``index`` is that of :func:`bgkit.sweeps.collection.load`, ``numbers`` the metrics of its values
    (:func:`bgkit.evaluation.metrics.values_of`) with their column ``run``. ``design`` and
    ``against`` map columns of the index to values and must leave one run for each seed; the design
    ``base`` stands for the untrained policy. Raises BgkitError if no seed has both.
    """
    ours, theirs = _by_seed(index, design), _by_seed(index, against)
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        raise BgkitError(f"The results have no seed with both {dict(design)} and {dict(against)}.")
    by_run = {name: part.to_numpy() for name, part in numbers.groupby("run", sort=False)[metric]}
    delta = np.stack([by_run[ours[seed]] - by_run[theirs[seed]] for seed in seeds])
    (interval,) = crossed(delta[..., None], rates=False)
    return interval, len(seeds)


def _by_seed(index: pd.DataFrame, setting: Mapping[str, object]) -> dict[int, str]:
    """Seed -> name of the run (or of base's values) with a setting."""
    is_base = setting["design"] == "base"
    chosen = index
    for column, value in setting.items():
        if column in chosen and not (is_base and column == "design"):
            chosen = chosen[chosen[column] == value]
    names = dict(zip(chosen["seed"], chosen["run"], strict=True))
    if is_base:
        configs = collection.configs_of(chosen)
        return {config.seed: evaluation.base_name(config) for config in configs}
    if len(names) < len(chosen):
        raise BgkitError(f"The results have several runs with {dict(setting)}; say which.")
    return names


def verdict(interval: Interval, expected: str) -> str:
    """What an interval of a difference says about a claim.

    >>> verdict(Interval(-0.2, -0.3, -0.1), "lower"), verdict(Interval(0.1, -0.1, 0.3), "lower")
    ('holds', 'open')
    """
    side = -1 if expected == "lower" else 1
    if min(side * interval.low, side * interval.high) > 0:
        return "holds"
    return "fails" if max(side * interval.low, side * interval.high) < 0 else "open"


def check(
    index: pd.DataFrame, values: pd.DataFrame, claims: Iterable[Claim] | None = None
) -> pd.DataFrame:
    """Check claims (:func:`read_claims`) with every utility that the results have runs for.

    Returns one row per claim and utility: claim, says, metric, utility, scale, mean (of the paired
    difference), low, high, n_seeds, verdict. Settings beyond design, utility, scale and seed are
    held at a training's defaults.
    """
    index = settings.at_defaults(index, free=["utility", "scale"])
    numbers = values_of(values).assign(run=values["run"])
    rows = []
    for claim in read_claims() if claims is None else claims:
        for utility in settings.values_of(index, "utility"):
            where = {"utility": utility, "scale": claim.scale}
            sides = ({"design": name, **where} for name in (claim.design, claim.against))
            try:
                interval, n_seeds = difference(index, numbers, claim.metric, *sides)
            except BgkitError:  # these results do not have it
                continue
            found = {"claim": claim.name, "says": claim.says, "metric": claim.metric, **where}
            told = {**interval._asdict(), "n_seeds": n_seeds}
            rows.append({**found, **told, "verdict": verdict(interval, claim.expected)})
    if not rows:
        raise BgkitError("These results have none of the designs that the claims are about.")
    return pd.DataFrame(rows)


def read_why(folder: str | Path | None = None) -> dict[str, dict[str, str]]:
    """Explanations that were written for a collection's verdicts: claim -> {verdicts, why}."""
    path = Path(folder or collection.shipped()) / WHY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def readable(checked: pd.DataFrame, why: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """One row per claim, a column per utility, and why, for printing.

    A cell holds the verdict and the difference. An explanation is shown only beside the verdicts
    that it was written for; for others it says that they are not explained yet.
    """
    rows = {}
    for (name, says), part in checked.groupby(["claim", "says"], sort=False):
        cells = {
            row.utility: f"{row.verdict} {row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
            for row in part.itertuples()
        }
        told = why.get(name, {})
        same = told.get("verdicts") == " ".join(part["verdict"])
        rows[says] = {**cells, "why": told["why"] if same else "(not explained yet)"}
    utilities = list(np.unique([key for row in rows.values() for key in row if key != "why"]))
    ordered = [value for value in settings.ORDERS["utility"] if value in utilities]
    ordered += [value for value in utilities if value not in ordered]
    return pd.DataFrame.from_dict(rows, orient="index")[[*ordered, "why"]].fillna("–")
