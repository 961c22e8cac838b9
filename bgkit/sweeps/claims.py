"""Which claims about the designs hold in a collection, as frontiers and beside base.

Two designs that have a strength are compared as frontiers (:mod:`bgkit.evaluation.frontiers`): at
equal help of what the user sees, and at equal KL from base. A design is compared with base (which
has one point) at each of its strengths, on the same prompts. A claim says on which side a
difference lies; all that are asked for at once are corrected for their number (Holm).

The sentences (``data/claims.yaml``) are our wording of what the paper says without numbers (Ball
and Haupt, arXiv 2510.11834: its abstract, Proposition 1 and its ablations), and of what could be
said against it. Where the paper speaks of a judge's scores, the testbed's oracle stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers, settings
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.frontiers import Difference
from bgkit.evaluation.intervals import CONFIDENCE, crossed_bootstrap, holm, variance_of_mean
from bgkit.evaluation.metrics import values_of
from bgkit.sweeps import collection
from bgkit.testbed.store import data_folder

#: What is held equal between frontiers -> its word in tables.
EQUAL = {"system_help": "at equal help", "kl": "at equal KL"}
#: What claims read.
METRICS = "near_boundary near_below false_negative false_positive system_harm system_help".split()
METRICS += ["kl"]


class Frontier(NamedTuple):
    """A design's trainings: ``values`` (strengths, seeds, prompts, metrics), strengths rising."""

    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    values: np.ndarray

    def pair(self, x: str, y: str) -> np.ndarray:
        """Values (strengths, seeds, prompts, 2) of two metrics."""
        return self.values[..., [self.metrics.index(x), self.metrics.index(y)]]


class Claim(NamedTuple):
    """``design`` is ``expected`` (lower, higher) than ``against`` in ``metric``, where both are."""

    says: str
    metric: str
    design: str
    against: str
    expected: str


_ROWS = yaml.safe_load((data_folder() / "claims.yaml").read_text(encoding="utf-8"))
CLAIMS = tuple(Claim(*row) for row in _ROWS)


def frontiers_of(
    index: pd.DataFrame, values: pd.DataFrame, metrics: Iterable[str], kind: str = "all"
) -> dict[str, Frontier]:
    """Design -> its frontier in a collection (:func:`bgkit.sweeps.collection.load`), ``base`` too.

    Everything but strength and seed is held at a training's defaults; seeds are those that every
    strength of a design has. ``kind`` keeps one kind of prompt. Raises BgkitError for an unknown
    metric or kind, and where no design has two strengths.
    """
    metrics = tuple(metrics)
    if kind not in (kinds := ["all", *values["kind"].unique()]):
        told = ", ".join(kinds)
        raise BgkitError(f"The results have no kind of prompt {kind!r}; choose one of {told}.")
    part = values if kind == "all" else values[values["kind"] == kind]
    numbers = values_of(part)
    if unknown := [name for name in metrics if name not in numbers]:
        told = ", ".join(numbers)
        raise BgkitError(f"The results have no metric {unknown[0]!r}; choose one of {told}.")
    numbers = numbers[list(metrics)]
    by_run = {n: numbers.loc[rows].to_numpy() for n, rows in part.groupby("run").groups.items()}
    held = settings.default_rows(index, free=["strength"])
    found = {}
    for design, rows in held.groupby("design", sort=False):
        names = rows.pivot(index="strength", columns="seed", values="run").dropna(axis=1)
        if names.size:
            cube = np.stack([[by_run[name] for name in line] for line in names.to_numpy()])
            found[str(design)] = Frontier(tuple(names.index), tuple(names), metrics, cube)
    if not any(len(one.strengths) > 1 for one in found.values()):
        raise BgkitError("The results have no design with two strengths or more; sweep STRENGTH.")
    configs = sorted(collection.configs_of(held), key=lambda config: config.seed)
    bases = {config.seed: evaluation.base_name(config) for config in configs}
    cube = np.stack([[by_run[name] for name in bases.values()]])
    return {"base": Frontier((0.0,), tuple(bases), metrics, cube), **found}


def beside_base(design: Frontier, base: Frontier, metric: str) -> list[Difference]:
    """A metric of a design minus base's at each strength, paired by seed and prompt."""
    seeds = [seed for seed in design.seeds if seed in base.seeds]
    place, rows = design.metrics.index(metric), []
    theirs = base.values[0, [base.seeds.index(seed) for seed in seeds], :, place]
    for points in design.values[..., place]:
        delta = points[[design.seeds.index(seed) for seed in seeds]] - theirs
        (found,) = crossed_bootstrap(delta[..., None], rates=False)
        if len(seeds) > 1:
            variance, freedom = variance_of_mean(delta)
        else:
            variance, freedom = np.nanvar(delta, ddof=1) / delta.shape[1], delta.shape[1] - 1
        t = abs(found.mean) / variance**0.5 if variance > 0 else np.inf * abs(found.mean)
        p = float(2 * stats.t.sf(np.nan_to_num(t), freedom))
        rows.append(Difference(*found, p, np.nan, np.nan, np.nan))
    return rows


def check(
    found: dict[str, Frontier], claims: Iterable[Claim] = CLAIMS, resamples: int = 1000
) -> pd.DataFrame:
    """Check claims on frontiers (:func:`frontiers_of`).

    Returns one row per claim and place: those of the claim (a number) and of the difference, place
    (``at equal help``, ``at equal KL``, or ``strength 8``), p_holm, n_seeds, verdict: ``holds`` or
    ``fails`` where the corrected p is below 0.05, else ``open``. Claims about designs that are not
    there are left out. Raises BgkitError where none is left.
    """
    rows = []
    for number, claim in enumerate(claims):
        if claim.design not in found or claim.against not in found:
            continue
        ours, theirs = found[claim.design], found[claim.against]
        n_seeds = min(len(ours.seeds), len(theirs.seeds))
        told = {"claim": number, **claim._asdict(), "n_seeds": n_seeds}
        if claim.against == "base":
            named = [f"strength {strength:g}" for strength in ours.strengths]
            differences = zip(named, beside_base(ours, theirs, claim.metric), strict=True)
        else:
            differences = _at_equal(ours, theirs, claim.metric, resamples)
        rows += [{**told, "place": place, **d._asdict()} for place, d in differences]
    if not rows:
        raise BgkitError("These results have none of the designs that the claims are about.")
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    expected = (table["mean"] < 0) == (table["expected"] == "lower")
    decided = np.where(expected, "holds", "fails")
    return table.assign(verdict=np.where(table["p_holm"] < 1 - CONFIDENCE, decided, "open"))


def _at_equal(
    ours: Frontier, theirs: Frontier, metric: str, resamples: int
) -> list[tuple[str, Difference]]:
    """Differences where help is equal, and where KL is, as far as both frontiers reach there."""
    found = []
    for x, place in EQUAL.items():
        try:
            pairs = (one.pair(x, metric) for one in (ours, theirs))
            found.append((place, frontiers.difference(*pairs, resamples=resamples)))
        except BgkitError:
            continue
    return found


def readable(checked: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, a column per place; a cell is the verdict and the difference."""
    cells = {
        (row.claim, row.place): f"{row.verdict} {row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        for row in checked.itertuples()
    }
    says = checked.drop_duplicates("claim").set_index("claim")["says"]
    places = [*EQUAL.values(), *checked.loc[checked["against"] == "base", "place"].unique()]
    rows = [[cells.get((claim, place), "–") for place in places] for claim in says.index]
    table = pd.DataFrame(rows, index=pd.Index(says, name="claim"), columns=places)
    return table.loc[:, (table != "–").any()]


def counted(checked: pd.DataFrame) -> pd.DataFrame:
    """How many differences hold, fail and are open, by what was compared, and what would settle.

    ``seeds to settle`` are those that the differences between two designs would need, each at its
    own size (:func:`bgkit.evaluation.frontiers.seeds_needed`); their median, ``>100`` beyond that.
    """
    kinds = np.where(checked["against"] == "base", "beside base", checked["place"])
    rows = {}
    for kind, part in checked.groupby(kinds, sort=False):
        counts = part["verdict"].value_counts()
        told = [Difference(*row) for row in part[list(Difference._fields)].itertuples(index=False)]
        pairs = zip(told, part["n_seeds"], strict=True)
        needed = [frontiers.seeds_needed(d, n) or 101 for d, n in pairs if not np.isnan(d.by_seeds)]
        middle = int(np.median(needed)) if needed else 0
        rows[kind] = {
            **{name: int(counts.get(name, 0)) for name in ("holds", "fails", "open")},
            "seeds to settle": (">100" if middle > 100 else str(middle)) if middle else "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
