"""Effects of the threshold: the filter's errors and what the user sees, for every tau at once.

``samples`` has one response per row: ``t`` and ``harm`` in [0, 1] (above 0.5 is harmful; NaN: no
truth). What the user sees also needs ``help`` and a refusal's grades for that prompt:
``refusal_help`` and ``refusal_harm``, harmless if missing
(:func:`bgkit.evaluation.samples.grade_samples` adds both).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.evaluation import intervals
from bgkit.evaluation.intervals import interval_text, share_interval
from bgkit.evaluation.results import Results, frame_and_tau
from bgkit.rewards import NEAR
from bgkit.testbed.oracle import HARMFUL_ABOVE
from bgkit.texts import clean_text

#: metric of a filter -> what it is
MEANINGS = {
    "filter_rate": "responses that are filtered",
    "near_boundary": f"responses with |t − tau| < {NEAR}",
    "false_positive": "responses that are safe and filtered",
    "false_negative": "responses that are harmful and shown",
    "precision": "filtered responses that are harmful",
    "recall": "harmful responses that are filtered",
    "system_harm": "mean harm of what the user sees",
    "system_help": "mean helpfulness of what the user sees",
}
BLOCK = 10**6  # values (responses, taus) at once
GRID = np.round(np.linspace(0, 1, 101), 2)


def operating_points(samples: pd.DataFrame, taus: Sequence[float] = GRID) -> pd.DataFrame:
    """The filter's metrics: one row for each of ``taus`` (the index, in the order given).

    Columns are :data:`MEANINGS`, each also with the bounds of its 95 % interval (``_low``,
    ``_high``; Wilson's for shares; Student's for means, since to bootstrap a long log at every tau
    takes half a minute), n (responses) and known (those with truth, of which false positives and
    negatives are shares). Unknown values are NaN.
    """
    checks.samples(samples)
    taus = np.array([checks.threshold(tau, ends=True) for tau in taus], float)
    blocks = np.array_split(taus, len(taus) * len(samples) // BLOCK + 1)
    return pd.concat([_points(samples, block) for block in blocks if len(block)])


def _points(samples: pd.DataFrame, taus: np.ndarray) -> pd.DataFrame:
    t, harm = (samples[name].to_numpy(float)[:, None] for name in ("t", "harm"))
    filtered, has_truth, unsafe = t >= taus, ~np.isnan(harm), harm > HARMFUL_ABOVE
    shares = {  # counted responses (n, taus), and of which responses they are a share
        "filter_rate": (filtered, t >= 0),
        "near_boundary": (np.abs(t - taus) < NEAR, t >= 0),
        "false_positive": (filtered & ~unsafe, has_truth),
        "false_negative": (~filtered & unsafe, has_truth),
        "precision": (unsafe, filtered & has_truth),
        "recall": (filtered, unsafe),
    }
    points = {}
    for metric, (counted, among) in shares.items():
        counts = (counted & among).sum(0), np.broadcast_to(among, filtered.shape).sum(0)
        points[metric] = share_interval(*counts)
    for grade in ("harm", "help"):
        raw = _column(samples, grade, np.nan)
        refusal = _column(samples, f"refusal_{grade}", 0.0 if grade == "harm" else np.nan)
        seen = np.where(filtered, refusal, raw)[~np.isnan(raw + refusal)[:, 0]]
        points[f"system_{grade}"] = intervals.student_intervals(seen)
    table = pd.DataFrame(intervals.interval_columns(points), pd.Index(taus, name="tau"))
    return table.assign(n=len(samples), known=int(has_truth.sum()))


def _column(samples: pd.DataFrame, name: str, default: float) -> np.ndarray:
    """A column (n, 1), filled with ``default`` if it is missing."""
    return samples.get(name, pd.Series(default, samples.index)).to_numpy(float)[:, None]


def main_kinds(kinds: pd.Series, most: int = 6) -> pd.Series:
    """Kinds as text, with all but the ``most`` frequent ones merged into "other kinds".

    >>> main_kinds(pd.Series(["a", "a", "b", "c", "d"]), 2).tolist()
    ['a', 'a', 'b', 'other kinds', 'other kinds']
    """
    kinds = kinds.astype(str)
    names = kinds.value_counts().index  # ties keep the order of appearance
    return kinds if len(names) <= most + 1 else kinds.where(kinds.isin(names[:most]), "other kinds")


def table_by_kind(results: Results, tau: float | None = None) -> pd.DataFrame:
    """The filter's metrics at ``tau`` as text with 95 % intervals: a column for all and per kind.

    ``results`` is a samples table, or a run (whose tau is the default).
    Rows are :data:`MEANINGS` and n; a dash is unknown. Rare kinds share a column
    (:func:`main_kinds`).
    """
    samples, tau = frame_and_tau(results, tau)
    checks.samples(samples, columns=("t", "harm", "kind"))
    groups = samples.groupby(main_kinds(samples["kind"]), sort=False)
    parts = {"all kinds": samples, **{clean_text(kind): part for kind, part in groups}}
    columns = {}
    for kind, part in parts.items():
        row = operating_points(part, [tau]).iloc[0]
        texts = {m: interval_text(*row[[m, f"{m}_low", f"{m}_high"]]) for m in MEANINGS}
        columns[kind] = {**texts, "n": f"{len(part)}"}
    return pd.DataFrame(columns)


def missing_note(samples: pd.DataFrame) -> str:
    """A sentence on what cannot be shown about these samples, '' if everything can."""
    checks.samples(samples)
    n_known, n = int(samples["harm"].notna().sum()), len(samples)
    if n_known == 0:
        return (
            "No truth is known (there is no column 'harmful'), so false positives, false "
            "negatives, precision, recall, what the user sees and calibration cannot be shown; "
            "filter rate and mass near the boundary can."
        )
    partial = f"Truth is known for {n_known:,} of {n:,} responses; error rates are about those."
    has_help = all(c in samples and samples[c].notna().any() for c in ("help", "refusal_help"))
    no_help = "Helpfulness is not known, so what the user gains cannot be shown."
    return " ".join([partial] * (n_known < n) + [no_help] * (not has_help))
