"""The report of a study: one HTML page with its figures, numbers and sample completions.

The page needs no network: it contains Plotly's script, and a content security policy forbids it to
load anything. Text from models is untrusted: it is escaped, also in the figures' JSON, and control
characters are made visible (:mod:`bgkit.texts`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from bgkit.evaluation.results import table
from bgkit.figures import distributions, means
from bgkit.figures.completions import completions_table
from bgkit.figures.training import training_curves
from bgkit.rewards import NEAR
from bgkit.runs import write_atomically
from bgkit.texts import clean_text, plain_name

COMPLETIONS = 24  # shown, roughly; at least two prompts of each kind


def write_report(
    path: str | Path,
    *,
    title: str,
    result: Mapping[str, Any],
    samples: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, pd.DataFrame],
    tau: float,
) -> Path:
    """Write the report of a study to ``path`` and return the path.

    ``result`` holds ``command``, ``created``, ``machine`` and ``versions`` (for the footer) and
    ``rows`` (as in :mod:`bgkit.figures.means`). ``samples`` maps each policy, base
    first, to its responses to the same prompts in the same order; ``metrics`` maps each run to its
    training log; ``tau`` is the guard's threshold in [0, 1]. Raises BgkitError if the path cannot
    be written; an older report is kept.
    """
    rows, (reference, base) = pd.DataFrame(list(result["rows"])), next(iter(samples.items()))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": clean_text, "words": plain_name}
    environment.policies["json.dumps_function"] = lambda figure, **_: figure.to_json()
    sections = {
        "margins": [distributions.margins(samples, tau)],
        "frontier": [means.frontier(rows)],
        "training": [training_curves(metrics)],
        "reliability": [distributions.reliability({reference: base})],
        "kinds": [means.by_kind(rows, metric) for metric in ("system_harm", "system_help")],
    }
    page = environment.get_template("report.html.j2").render(
        title=title,
        tau=tau,
        near=NEAR,
        table=table(samples),
        sections=sections,
        completions=completions_table(samples, _prompts_to_show(base, tau, len(samples))),
        reference=reference,
        result=result,
        nonce=secrets.token_urlsafe(18),  # model text cannot guess it
        plotly=get_plotlyjs(),
    )
    target = Path(path)
    write_atomically(target, lambda draft: draft.write_text(page, encoding="utf-8", newline="\n"))
    return target


def _prompts_to_show(samples: pd.DataFrame, tau: float, policies: int) -> list[int]:
    """Row numbers of the prompts to show; the choice is deterministic.

    Of each kind: the prompt whose response is nearest to the threshold, and others at equal steps
    in the order of distance.
    """
    order = np.argsort((samples["t"] - tau).abs().to_numpy(), kind="stable")
    ranked = pd.Series(order).groupby(samples["kind"].to_numpy()[order], sort=False)
    each = max(2, round(COMPLETIONS / (policies * ranked.ngroups)))
    numbers: list[int] = []
    for _, of_kind in ranked:
        numbers += dict.fromkeys(of_kind.iloc[i * len(of_kind) // each] for i in range(each))
    return numbers
