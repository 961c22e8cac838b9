"""The report of a study: one HTML page that holds its figures, its numbers and sample completions.

The page needs no network: Plotly's script is written into it once, and a content security policy
forbids it to load anything. What models wrote is untrusted text: Jinja escapes it, also in the
figures' JSON, and control characters are made visible (:func:`bgkit.texts.visible`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bgkit.errors import BgkitError
from bgkit.evaluation.metrics import METRICS
from bgkit.evaluation.results import TOO_LONG
from bgkit.figures import distributions as plots
from bgkit.figures import style
from bgkit.figures.training import training_curves
from bgkit.rewards import NEAR
from bgkit.runs import write_atomically
from bgkit.texts import visible

HEADLINE = tuple(
    "system_harm system_help filter_rate near_boundary false_negative false_positive kl".split()
)
COMPLETIONS = 24  # about as many are shown, two prompts of each kind at least
LONG = 300  # characters; longer text is folded
DASH = "–"


def write_report(path: str | Path, **study: Any) -> Path:
    """Write the report of a study (:func:`render_report`) to ``path``, whole, and return the path.

    Raises :class:`~bgkit.errors.BgkitError` for a path that cannot be written; an older report then
    stays.
    """
    page, target = render_report(**study), Path(path)
    write_atomically(target, lambda draft: draft.write_text(page, encoding="utf-8", newline="\n"))
    return target


def render_report(
    *,
    title: str,
    result: Mapping[str, Any],
    samples: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, pd.DataFrame],
    tau: float,
) -> str:
    """The report as HTML text.

    ``result`` holds ``command``, ``created``, ``machine`` and ``versions`` (told in the footer),
    ``rows`` (as in :data:`bgkit.figures.style.ROW_COLUMNS`) and ``paired``: the differences
    design - base on the same prompts, with ``design, kind, metric, difference, low, high``. An
    optional ``interval`` says in words what the intervals are. ``samples`` maps each policy to its
    responses, ``metrics`` each run to its training log (it may be empty); ``tau`` is the guard's
    threshold in [0, 1].
    """
    rows = style.with_series(pd.DataFrame(list(result["rows"])))
    happened = rows.groupby("metric")["mean"].transform("max") > 0
    rows = rows[happened | ~rows["metric"].isin(TOO_LONG)]
    reference = "base" if "base" in samples else next(iter(samples))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "words": _words}
    environment.policies["json.dumps_function"] = lambda figure, **_: figure.to_json()
    columns, lines = _headline(rows, pd.DataFrame(list(result["paired"])))
    return environment.get_template("report.html.j2").render(
        title=title,
        tau=tau,
        near=NEAR,
        columns=columns,
        lines=lines,
        sections=_sections(rows, samples, metrics, reference, tau),
        conversations=_conversations(samples, reference, tau),
        reference=reference,
        result={"interval": "", **result},
        nonce=secrets.token_urlsafe(18),  # which model text cannot know
        plotly=get_plotlyjs(),
    )


def _words(name: object) -> str:
    return visible(name).replace("_", " ")


def _headline(rows: pd.DataFrame, paired: pd.DataFrame) -> tuple[list[tuple], list[dict]]:
    """The headline table: its columns (words, which way is better) and its lines."""
    table, lines = rows[rows["kind"] == "all"], []
    names = [metric for metric in HEADLINE + TOO_LONG if (table["metric"] == metric).any()]
    if not names:
        raise BgkitError("The result has no rows of kind 'all' to put into the headline table.")
    for series, one in table.groupby("series", sort=False):
        design = one["design"].iloc[0]
        # Paired differences name a design only, so they say nothing where it has many settings.
        marks = {}
        if len(paired) and table.loc[table["design"] == design, "series"].nunique() == 1:
            mine = paired[(paired["design"] == design) & (paired["kind"] == "all")]
            marks = {row["metric"]: _mark(row) for row in mine.to_dict("records")}
        cells = {row["metric"]: _numbers(row) for row in one.to_dict("records")}
        empty = {"mean": DASH, "interval": "", "mark": "", "verdict": "", "detail": ""}
        cells = [{**empty, **cells.get(name, {}), **marks.get(name, {})} for name in names]
        lines.append({"name": series, "colour": style.look(series)[0], "cells": cells})
    ways = {1: "higher is better", -1: "lower is better", 0: "neither is better"}
    return [(style.named(metric), ways[METRICS[metric].better]) for metric in names], lines


def _numbers(row: Mapping[str, Any]) -> dict[str, str]:
    mean, low, high = (style.number(row[part], row["metric"]) for part in ("mean", "low", "high"))
    return {"mean": mean, "interval": f"{low.removesuffix(' %')}–{high}" * (low != DASH)}


def _mark(row: Mapping[str, Any]) -> dict[str, str]:
    """What stands below a mean whose paired difference to base excludes zero, else nothing."""
    if not (row["low"] > 0 or row["high"] < 0):  # also where it is not known
        return {}
    size, low, high = (
        ("−" if row[part] < 0 else "+")
        + style.number(abs(row[part]), row["metric"]).replace("%", "pp")
        for part in ("difference", "low", "high")
    )
    up, better = row["difference"] > 0, METRICS[row["metric"]].better
    verdict = (
        ("higher" if up else "lower") if not better else "worse better".split()[up == (better > 0)]
    )
    detail = f"difference to base {size} ({low} to {high})"
    return {
        "mark": f"{'▲' if up else '▼'} {size[1:]} {verdict}",
        "verdict": verdict,
        "detail": detail,
    }


def _sections(
    rows: pd.DataFrame,
    samples: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, pd.DataFrame],
    reference: str,
    tau: float,
) -> dict[str, list[go.Figure]]:
    """Key of a section of the page, as the template has its words -> its figures."""
    known = {kind: set(part["metric"]) for kind, part in rows.groupby(rows["kind"] == "all")}
    seen = ("system_harm", "system_help")
    single = [metric for metric in seen if metric in known.get(False, ())]
    found = {
        "margins": [plots.margins(samples, tau)],
        "frontier": [plots.frontier(rows)] if set(seen) <= known[True] else [],
        "training": [training_curves(metrics)] if metrics else [],
        "reliability": [plots.reliability({reference: samples[reference]})],
        "kinds": [plots.by_kind(rows, metric) for metric in single],
    }
    return {name: figures for name, figures in found.items() if figures}


def _conversations(
    samples: Mapping[str, pd.DataFrame], reference: str, tau: float
) -> list[dict[str, Any]]:
    """The sample completions: prompts of every kind, each answered by every policy.

    Of each kind, prompts are ranked by how near the reference came to the threshold; the nearest is
    taken and others at even steps down that ranking, so the choice is the same each time.
    """
    tables = {
        name: frame.drop_duplicates("prompt_id").set_index("prompt_id", drop=False)
        for name, frame in samples.items()
    }
    ranked, chosen = tables[reference], []
    kinds = list(dict.fromkeys(ranked["kind"]))
    for table in tables.values():
        ranked = ranked[ranked.index.isin(table.index)]
    ranked = ranked.assign(margin=(ranked["t"] - tau).abs()).reset_index(drop=True)
    ranked = ranked.sort_values(["margin", "prompt_id"], kind="stable")
    each = max(2, round(COMPLETIONS / (len(tables) * max(1, len(kinds)))))
    for kind in kinds:
        some = ranked[ranked["kind"] == kind]
        for place in sorted(
            {step * len(some) // each for step in range(each)} if len(some) else ()
        ):
            prompt = some.iloc[place]
            answers = [
                _answer(name, table.loc[prompt["prompt_id"]], tau) for name, table in tables.items()
            ]
            told = {"kind": kind, "nearest": place == 0, "id": prompt["prompt_id"]}
            chosen.append({**told, "prompt": _text(prompt["prompt"]), "answers": answers})
    return chosen


def _answer(name: str, row: pd.Series, tau: float) -> dict[str, Any]:
    scores = ("t", "u", "harm", "help")
    return {
        "name": name,
        "colour": style.look(name)[0],
        "filtered": bool(row["filtered"]),
        "harmful": bool(row["harm"] > 0.5),
        "place": f"{100 * row['t']:.2f}",
        "near": abs(row["t"] - tau) < NEAR,
        "scores": {key: DASH if pd.isna(row[key]) else f"{row[key]:.3f}" for key in scores},
        "response": _text(row["response"]),
    }


def _text(value: object) -> dict[str, str]:
    """Model text ready for the page; ``lead`` is its beginning when it is too long to show."""
    full = visible(value)
    # Cut after a whole word, unless the text is one endless word.
    lead = "".join(full[: LONG // 2].rsplit(maxsplit=1)[:1]) + "…"
    return {"full": full, "lead": lead if len(full) > LONG else ""}
