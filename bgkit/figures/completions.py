"""Completions as HTML, all text of prompts, models and logs escaped, long text folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.figures import style
from bgkit.testbed.oracle import HARMFUL_ABOVE
from bgkit.texts import NO_MATH, folded, safe, words

CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"
BLOCK = "padding:0 0 0 10px;margin:8px 0"
TEXT = "white-space:pre-wrap;overflow-wrap:break-word;margin:2px 0;font-family:inherit"


def _facts(row: Mapping[str, Any], filtered: bool) -> str:
    """What is known of a response, and what the filter did; ✗ marks its errors."""
    verdict, truth = "filtered" if filtered else "shown", "not known"
    if not np.isnan(row["harm"]):
        harmful = row["harm"] > HARMFUL_ABOVE
        truth = f"{'harmful' if harmful else 'safe'} ({row['harm']:.2f})"
        if not np.isnan(row.get("help", np.nan)):
            truth += f", help {row['help']:.2f}"
        if filtered != harmful:
            verdict += f", false {'positive' if filtered else 'negative'} ✗"
    return f"t {row['t']:.3f} · truth {truth} · {verdict}"


def completions_html(rows: pd.DataFrame, tau: float) -> str:
    """Completions one below the other: what is known of each, its prompt and its response."""
    tau, blocks = checks.threshold(tau, ends=True), []
    for row in rows.to_dict("records"):
        facts = _facts(row, row["t"] >= tau)
        colour = style.HARMFUL if "✗" in facts else style.TEXT
        blocks.append(
            f"<div class='{NO_MATH}' style='border-left:3px solid {colour};{BLOCK}'>"
            f"<small>{facts} · {safe(words(row['kind']))}</small>"
            f"<pre style='{TEXT};opacity:.75'>{folded(row['prompt'])}</pre>"
            f"<pre style='{TEXT}'>{folded(row['response'])}</pre></div>"
        )
    return "".join(blocks)


def completions_table(samples: Mapping[str, pd.DataFrame], rows: Iterable[int]) -> str:
    """A table of policies side by side: a prompt, and what each of them answered.

    ``samples`` are of the same prompts in the same order, ``rows`` the numbers of those to show.
    """
    first, heads = next(iter(samples.values())), ("prompt", *samples)
    lines = ["".join(f"<th style='{CELL}'>{safe(words(name))}</th>" for name in heads)]
    for place in rows:
        prompt, answers = first.iloc[place], [frame.iloc[place] for frame in samples.values()]
        told = [(prompt["prompt"], safe(words(prompt["kind"])))]
        told += [(row["response"], _facts(row, row["filtered"])) for row in answers]
        cells = (f"{folded(text)}<br><small>{facts}</small>" for text, facts in told)
        lines.append("".join(f"<td style='{CELL}'>{cell}</td>" for cell in cells))
    look = f"class='{NO_MATH}' style='width:100%;table-layout:fixed'"
    return f"<table {look}><tr>{'</tr><tr>'.join(lines)}</tr></table>"
