"""Completions as HTML: text of prompts, models and logs is escaped, long text folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.testbed.oracle import HARMFUL_ABOVE
from bgkit.texts import NO_MATH, fold_html, html_text, plain_name

CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"


def _facts(row: Mapping[str, Any]) -> str:
    """A response's t, truth and verdict as text; ✗ marks wrong verdicts."""
    filtered, truth = row["filtered"], "not known"
    verdict = "filtered" if filtered else "shown"
    if not np.isnan(row["harm"]):
        harmful = row["harm"] > HARMFUL_ABOVE
        truth = f"{'harmful' if harmful else 'safe'} ({row['harm']:.2f})"
        if not np.isnan(row.get("help", np.nan)):
            truth += f", help {row['help']:.2f}"
        if filtered != harmful:
            verdict += f", false {'positive' if filtered else 'negative'} ✗"
    return f"t {row['t']:.3f} · truth {truth} · {verdict}"


def completions_table(samples: Mapping[str, pd.DataFrame], rows: Iterable[int]) -> str:
    """A table with a row per prompt and a column per policy with its response.

    ``samples`` hold the same prompts in the same order; ``rows`` are the row numbers to show.
    """
    first, heads = next(iter(samples.values())), ("prompt", *samples)
    lines = ["".join(f"<th style='{CELL}'>{html_text(plain_name(name))}</th>" for name in heads)]
    for number in rows:
        prompt, answers = first.iloc[number], [frame.iloc[number] for frame in samples.values()]
        texts = [(prompt["prompt"], html_text(plain_name(prompt["kind"])))]
        texts += [(row["response"], _facts(row)) for row in answers]
        cells = (f"{fold_html(text)}<br><small>{facts}</small>" for text, facts in texts)
        lines.append("".join(f"<td style='{CELL}'>{cell}</td>" for cell in cells))
    look = f"class='{NO_MATH}' style='width:100%;table-layout:fixed'"
    return f"<table {look}><tr>{'</tr><tr>'.join(lines)}</tr></table>"


def completions_html(rows: pd.DataFrame, tau: float) -> str:
    """A table of completions: prompts, responses, and the filter's verdicts at tau."""
    filtered = rows["t"] >= checks.threshold(tau, ends=True)
    return completions_table({"response": rows.assign(filtered=filtered)}, range(len(rows)))
