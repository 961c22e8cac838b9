"""Deployment: the same responses behind another guard, or at another threshold tau.

Nothing is sampled here. Responses are those of :func:`bgkit.stress.contenders.respond` or
:func:`~bgkit.stress.contenders.stored`; what a user would have seen of them is worked out anew, so
that all differences come from the deployment alone. Grades are the ones the samples have
(:func:`~bgkit.stress.contenders.graded` grades them by any judge). Means with intervals::

    table = transfer(respond(found, prompts), GUARDS)
    summary(table, ["design", "guard"], METRICS)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.runs import TrainConfig, label
from bgkit.scoring.scorer import Scorer
from bgkit.stress.contenders import Contender, guards_by_name, redeployed

#: The testbed's guards. ``overconfident`` is ``default`` with its logits multiplied by 4: at tau =
#: 0.5 it filters the same responses, only fewer lie near the boundary.
GUARDS = ("default", "weak", "overconfident", "other")
TAUS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
#: What a deployment changes; shares of responses, but system_harm and system_help in [0, 1].
METRICS = (
    "system_harm",
    "system_help",
    "filter_rate",
    "near_boundary",
    "false_negative",
    "false_positive",
)
NOT_TRAINED = "–"  # the guard that base was trained with
_NEEDED = ("design", "seed", "prompt", "response", "t", "refusal_harm", "refusal_help")


def transfer(
    samples: pd.DataFrame,
    guards: Mapping[str, Scorer] | Sequence[str | Scorer] = GUARDS,
    tau: float = 0.5,
    *,
    contenders: Sequence[Contender] = (),
    device: str = "auto",
) -> pd.DataFrame:
    """Every contender's responses behind each of several guards.

    ``samples`` is a table of :func:`bgkit.stress.contenders.respond`. ``guards`` maps names to any
    scorers, or lists scorers and names that :func:`bgkit.scoring.guards.load_guard` knows. ``tau``
    in (0, 1) is that of all deployments. Returns the columns of ``samples`` with ``guard`` behind
    ``seed``, one row for each guard and response, guard by guard; t, filtered, near, system_harm
    and system_help are the guard's. With ``contenders`` (those of the samples) a column
    ``trained_with`` in front of ``guard`` names the guard that each was trained with, so that
    ``["trained_with", "guard"]`` gives the full matrix.

    Raises BgkitError for no or unknown guards, ``tau`` out of range, samples that lack a column,
    and samples of a design that is not among ``contenders``.
    """
    checks.samples(samples, columns=_NEEDED)
    checks.threshold(tau)
    if isinstance(guards, str) or not len(guards):
        raise BgkitError(
            "Transfer needs guards to deploy with: give a list of names, or a mapping of names to "
            "guards, with at least one."
        )
    samples, tables = samples.reset_index(drop=True), []
    for name, guard in guards_by_name(guards, device).items():
        # each contender by itself, as it was when sampled: the same batches give the same bits
        parts = samples.groupby(["design", "seed"], sort=False)
        scored = pd.concat([redeployed(part, guard, tau) for _, part in parts]).loc[samples.index]
        tables.append(scored.assign(guard=name))
    table = pd.concat(tables, ignore_index=True)
    if not contenders:
        return _in_front(table, "guard")
    known = trained_with(contenders)
    if strangers := sorted(set(table["design"]) - set(known)):
        raise BgkitError(
            f"The samples hold the design {strangers[0]!r}, which is not among the contenders "
            f"({', '.join(known)}); give the contenders that the samples are of."
        )
    return _in_front(table.assign(trained_with=table["design"].map(known)), "trained_with", "guard")


def trained_with(contenders: Sequence[Contender]) -> dict[str, str]:
    """The guard that each design was trained with, by design; :data:`NOT_TRAINED` for base."""
    return {one.design: guard_name(one.config) if one.run else NOT_TRAINED for one in contenders}


def guard_name(config: TrainConfig) -> str:
    """A config's guard with what was done to its scores.

    >>> guard_name(TrainConfig()), guard_name(TrainConfig(guard="weak", guard_temperature=2.0))
    ('default', 'weak at T = 2')
    """
    if config.guard_temperature == 1.0:
        return label(config.guard)
    return f"{label(config.guard)} at T = {config.guard_temperature:.3g}"


def threshold_shift(samples: pd.DataFrame, taus: Sequence[float] = TAUS) -> pd.DataFrame:
    """The same responses and the same scores t at other thresholds.

    Returns the columns of ``samples`` with ``tau`` behind ``seed``, one row for each threshold and
    response, threshold by threshold; filtered (t >= tau), near (within 0.3 of tau), system_harm
    and system_help are made anew. Raises BgkitError for no thresholds, one out of (0, 1), one that
    is given twice, and samples that lack a column.
    """
    checks.samples(samples, columns=_NEEDED)
    taus = [checks.threshold(tau) for tau in taus]
    if not taus or len(set(taus)) < len(taus):
        raise BgkitError("Give at least one threshold, and each one once.")
    tables = [redeployed(samples, None, tau).assign(tau=tau) for tau in taus]
    return _in_front(pd.concat(tables, ignore_index=True), "tau")


def _in_front(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with columns moved behind design and seed."""
    front = ["design", "seed", *names]
    return table[[*front, *(column for column in table if column not in front)]]
