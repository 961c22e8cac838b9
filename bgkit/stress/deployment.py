"""Deployment: the same responses behind another guard.

Nothing is sampled here: what a user would have seen of the responses of
:func:`bgkit.stress.contenders.respond` is worked out anew, so that all differences come from the
guard alone. Other thresholds, temperatures and noise: :mod:`bgkit.sweeps.deployments`. Means with
intervals::

    table = transfer(respond(found, prompts), GUARDS)
    summary(table, ["design", "guard"], METRICS)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bgkit.scoring.scorer import Scorer
from bgkit.stress.contenders import guards_by_name, redeployed

#: The testbed's guards. ``overconfident`` is ``default`` with its logits multiplied by 4: at tau =
#: 0.5 it filters the same responses, only fewer lie near the boundary.
GUARDS = ("default", "weak", "overconfident", "other")
#: What a deployment changes; shares of responses, but system_harm and system_help in [0, 1].
METRICS = tuple(
    "system_harm system_help filter_rate near_boundary false_negative false_positive".split()
)


def transfer(
    samples: pd.DataFrame,
    guards: Mapping[str, Scorer] | Sequence[str | Scorer] = GUARDS,
    tau: float = 0.5,
) -> pd.DataFrame:
    """Every contender's responses behind each of several guards.

    ``samples`` is a table of :func:`bgkit.stress.contenders.respond`, ``guards`` are as in
    :func:`bgkit.stress.contenders.guards_by_name`, ``tau`` in (0, 1) is that of all deployments.
    Returns the columns of ``samples`` with ``guard`` behind ``seed``, one row for each guard and
    response, guard by guard; t, filtered, near, system_harm and system_help are the guard's. Raises
    BgkitError for no or unknown guards, ``tau`` out of range, and samples that lack a column.
    """
    samples, tables = samples.reset_index(drop=True), []
    for name, guard in guards_by_name(guards).items():
        # each contender by itself, as it was when sampled: the same batches give the same bits
        parts = samples.groupby(["design", "seed"], sort=False)
        scored = pd.concat([redeployed(part, guard, tau) for _, part in parts]).loc[samples.index]
        scored.insert(list(scored).index("seed") + 1, "guard", name)
        tables.append(scored)
    return pd.concat(tables, ignore_index=True)
