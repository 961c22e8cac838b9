"""Check claims about the designs on a collection's results.

Two designs that have a strength are compared as frontiers (:mod:`bgkit.evaluation.frontiers`): at
equal help of what the user sees, and at equal KL from base. A design is compared with base (a
single point) at each of its strengths, on the same prompts. A claim states the sign of a
difference. The p-values of all claims checked in one call are corrected together (Holm).

The sentences (``data/claims.yaml``) are our wording of what the paper says without numbers (Ball
and Haupt, arXiv 2510.11834: its abstract, Proposition 1 and its ablations), and of possible
objections. Where the paper uses a judge's scores, we use the testbed's oracle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bgkit.data import read_data
from bgkit.errors import BgkitError
from bgkit.evaluation import frontiers, settings
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.frontiers import Difference, seeds_needed
from bgkit.evaluation.intervals import CONFIDENCE, crossed_bootstrap, holm, variance_of_mean
from bgkit.evaluation.metrics import METRICS, values_of
from bgkit.progress import say
from bgkit.rewards import DESIGNS, has_strength
from bgkit.sweeps import collection

#: Metric at whose equal values frontiers are compared -> name of the comparison in tables.
EQUAL = {"system_help": "at equal help", "kl": "at equal KL"}
#: Metrics that claims are about.
COMPARED = "near_boundary near_below false_negative false_positive system_harm system_help".split()
COMPARED += ["kl"]


class Frontier(NamedTuple):
    """A design's results: ``values`` (strengths, seeds, prompts, metrics), strengths ascending."""

    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    values: np.ndarray

    def pair(self, x: str, y: str) -> np.ndarray:
        """Values (strengths, seeds, prompts, 2) of two metrics."""
        return self.values[..., [self.metrics.index(x), self.metrics.index(y)]]


class Claim(NamedTuple):
    """``design`` has a lower or higher (``expected``) ``metric`` than ``against``."""

    says: str
    metric: str
    design: str
    against: str
    expected: str


CLAIMS = tuple(Claim(*row) for row in read_data("claims.yaml"))


def frontiers_of(
    index: pd.DataFrame, values: pd.DataFrame, metrics: Iterable[str], kind: str = "all"
) -> dict[str, Frontier]:
    """Frontier of each design, and of ``base``, from :func:`bgkit.sweeps.collection.load`.

    Only runs whose other settings are a training's defaults count, and of a design only the seeds
    that all of its strengths have. ``metrics`` are names of
    :data:`bgkit.evaluation.metrics.METRICS`; ``kind`` selects one kind of prompt. Raises BgkitError
    for an unknown metric or kind, and if no design has two strengths.
    """
    metrics = tuple(metrics)
    if kind not in (kinds := ["all", *values["kind"].unique()]):
        names = ", ".join(kinds)
        raise BgkitError(f"The results have no kind of prompt {kind!r}; choose one of {names}.")
    part = values if kind == "all" else values[values["kind"] == kind]
    numbers = values_of(part)
    if unknown := [name for name in metrics if name not in numbers]:
        names = ", ".join(numbers)
        raise BgkitError(f"The results have no metric {unknown[0]!r}; choose one of {names}.")
    numbers = numbers[list(metrics)]
    by_run = {n: numbers.loc[rows].to_numpy() for n, rows in part.groupby("run").groups.items()}
    default_runs = settings.default_rows(index, free=["strength"])
    by_design = {}
    for design, rows in default_runs.groupby("design", sort=False):
        names = rows.pivot(index="strength", columns="seed", values="run").dropna(axis=1)
        if names.size:
            cube = np.stack([[by_run[name] for name in line] for line in names.to_numpy()])
            by_design[str(design)] = Frontier(tuple(names.index), tuple(names), metrics, cube)
    if not any(len(frontier.strengths) > 1 for frontier in by_design.values()):
        raise BgkitError("The results have no design with two strengths or more; sweep STRENGTH.")
    configs = sorted(collection.configs_of(default_runs), key=lambda config: config.seed)
    bases = {config.seed: evaluation.base_name(config) for config in configs}
    cube = np.stack([[by_run[name] for name in bases.values()]])
    return {"base": Frontier((0.0,), tuple(bases), metrics, cube), **by_design}


def differences_from_base(design: Frontier, base: Frontier, metric: str) -> list[Difference]:
    """A metric of a design minus base's at each strength, paired by seed and prompt."""
    seeds = [seed for seed in design.seeds if seed in base.seeds]
    column, differences = design.metrics.index(metric), []
    of_base = base.values[0, [base.seeds.index(seed) for seed in seeds], :, column]
    for of_design in design.values[..., column]:
        delta = of_design[[design.seeds.index(seed) for seed in seeds]] - of_base
        (interval,) = crossed_bootstrap(delta[..., None], rates=False)
        if len(seeds) > 1:
            variance, freedom = variance_of_mean(delta)
        else:
            variance, freedom = np.nanvar(delta, ddof=1) / delta.shape[1], delta.shape[1] - 1
        t = abs(interval.mean) / variance**0.5 if variance > 0 else np.inf * abs(interval.mean)
        p = float(2 * stats.t.sf(np.nan_to_num(t), freedom))
        differences.append(Difference(*interval, p, np.nan))
    return differences


def check(designs: dict[str, Frontier], claims: Iterable[Claim] = CLAIMS) -> pd.DataFrame:
    """Check claims on frontiers (:func:`frontiers_of`).

    Returns one row per claim and comparison. Columns: claim (its number), the fields of the claim
    and of the difference, place (``at equal help``, ``at equal KL``, ``strength 8`` or ``without
    strength``), p_holm, n_seeds, and verdict: ``holds`` or ``fails`` where the corrected p is below
    0.05, else ``open``. Claims about missing designs are skipped. Raises BgkitError if none is
    left.
    """
    rows = []
    for number, claim in enumerate(claims):
        if claim.design not in designs or claim.against not in designs:
            continue
        design, against = designs[claim.design], designs[claim.against]
        n_seeds = min(len(design.seeds), len(against.seeds))
        labels = {"claim": number, **claim._asdict(), "n_seeds": n_seeds}
        if claim.against == "base":
            plain = claim.design in DESIGNS and not has_strength(claim.design)
            places = [f"strength {strength:g}" for strength in design.strengths]
            places = ["without strength"] if plain and len(places) == 1 else places
            of_places = differences_from_base(design, against, claim.metric)
            differences = zip(places, of_places, strict=True)
        else:
            differences = _differences_at_equal(design, against, claim.metric)
        rows += [{**labels, "place": place, **d._asdict()} for place, d in differences]
    if not rows:
        raise BgkitError("These results have none of the designs that the claims are about.")
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    expected = (table["mean"] < 0) == (table["expected"] == "lower")
    decided = np.where(expected, "holds", "fails")
    return table.assign(verdict=np.where(table["p_holm"] < 1 - CONFIDENCE, decided, "open"))


def check_all(index: pd.DataFrame, values: pd.DataFrame, kind: str = "all") -> pd.DataFrame:
    """All claims checked on the runs of :func:`bgkit.sweeps.collection.load`.

    Where none can be checked (runs of one strength), that is printed, and the table is empty.
    Raises BgkitError for an unknown kind.
    """
    try:
        return check(frontiers_of(index, values, COMPARED, kind))
    except BgkitError as error:
        if kind not in ("all", *values["kind"].unique()):
            raise
        say(f"No claim is checked. {error}")
        return pd.DataFrame(columns=["claim", "says", "against", "place", "verdict"])


def _differences_at_equal(
    design: Frontier, against: Frontier, metric: str
) -> Iterator[tuple[str, Difference]]:
    """Differences at equal help and at equal KL, as far as the two frontiers overlap there."""
    for x, place in EQUAL.items():
        pairs = design.pair(x, metric), against.pair(x, metric)
        try:
            frontiers.shared_range(*pairs)
        except BgkitError:
            continue
        yield place, frontiers.difference(*pairs, better=METRICS[metric].better)


def as_table(checked: pd.DataFrame, base: bool | None = None) -> pd.DataFrame:
    """One row per claim, one column per comparison; a cell is the verdict and the difference.

    With ``base`` only claims about a design and base, without (False) only those about two designs.
    """
    against_base = checked["against"] == "base"
    checked = checked if base is None else checked[against_base == base]
    cells = {
        (row.claim, row.place): f"{row.verdict} {row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        for row in checked.itertuples()
    }
    says = checked.drop_duplicates("claim").set_index("claim")["says"]
    places = [*EQUAL.values(), *checked.loc[checked["against"] == "base", "place"].unique()]
    rows = [[cells.get((claim, place), "–") for place in places] for claim in says.index]
    table = pd.DataFrame(rows, index=pd.Index(says, name="claim"), columns=places)
    return table.loc[:, (table != "–").any()]


def claim_counts(checked: pd.DataFrame) -> pd.DataFrame:
    """How many differences hold, fail and are open, by comparison.

    ``seeds to settle`` is the median, over open differences between two designs, of the number of
    seeds that would decide one of its size (:func:`bgkit.evaluation.frontiers.seeds_needed`), or
    ``>100``.
    """
    kinds = np.where(checked["against"] == "base", "beside base", checked["place"])
    rows = {}
    for kind, part in checked.groupby(kinds, sort=False):
        counts = part["verdict"].value_counts()
        pairs = part[part["verdict"] == "open"].dropna(subset="by_seeds")  # NaN against base
        numbers = (seeds_needed(pair, pair.n_seeds, len(checked)) for pair in pairs.itertuples())
        needed = [number or 101 for number in numbers]
        median = int(np.median(needed)) if needed else 0
        rows[kind] = {
            **{name: int(counts.get(name, 0)) for name in ("holds", "fails", "open")},
            "seeds to settle": (">100" if median > 100 else str(median)) if median else "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
