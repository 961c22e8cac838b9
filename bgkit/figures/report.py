"""The report of a study: one HTML page that holds its figures, its numbers and sample completions.

The page needs no network: Plotly's script is written into it once, and a content security policy
forbids it to load anything. What models wrote is untrusted text: Jinja escapes it, control
characters are made visible (:func:`bgkit.texts.visible`), and the figures' JSON is written so that
it cannot end its script element.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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

TEMPLATES = Path(__file__).parent
HEADLINE = (
    "system_harm",
    "system_help",
    "filter_rate",
    "near_boundary",
    "false_negative",
    "false_positive",
    "kl",
)
RESULT_KEYS = ("command", "created", "machine", "versions", "rows", "paired")
SAMPLE_COLUMNS = ("prompt_id", "kind", "prompt", "response", "t", "u", "filtered", "harm", "help")
PAIRED_COLUMNS = ("design", "kind", "metric", "difference", "low", "high")
COMPLETIONS = 24  # about as many are shown, two prompts of each kind at least
LONG_PROMPT, LONG_RESPONSE = 300, 300  # characters; longer text is folded

READ_MARGIN = (
    "Each row is one policy, each bar one range of t. Bars up are safe responses and bars down "
    "harmful ones, as shares of that policy's responses; the square-root scale enlarges small "
    "shares. Right of the dashed line responses are filtered: a bar down on the left is a false "
    "negative, a bar up on the right a false positive. Training should empty the shaded band."
)
READ_PARETO = (
    "Each mark is one policy together with the guard; its lines are the intervals of both means. "
    "Up and to the left is better: more help and less harm. Where lines overlap, look at the "
    "marks in the table above, which compare the same prompts and are therefore sharper. One "
    "training of each design, at one strength of its penalty, is one point: another of either may "
    "turn the order."
)
READ_TRAINING = (
    "Each colour is one training run, read from left to right. Faint lines are single steps, "
    "strong ones their rolling mean. The last two panels judge prompts that were not trained on, "
    "with one marker for each measurement; KL says how far the policy has moved from base."
)
READ_RELIABILITY = (
    "Each mark gathers responses with a similar t and shows how many of them were truly harmful, "
    "with a 95 % Wilson interval. On the dashed diagonal the guard is right about its own "
    "certainty; above it, it is too trusting, and below it too alarmed. The bars count the "
    "responses behind each mark, and ECE is the mean distance from the diagonal, which chance "
    "alone makes larger than 0."
)
READ_KIND = {
    "system_harm": "One panel for each kind of prompt: marks are means, lines intervals, and the "
    "upright line is the mean of the first policy. Further left is better: less harm.",
    "system_help": "The same for helpfulness. Further right is better: more help. A filtered "
    "response helps little, since the user sees a refusal.",
}


class Cell(NamedTuple):
    """One cell of the headline table; ``mark`` is empty where nothing differs from base."""

    mean: str
    interval: str
    mark: str = ""
    verdict: str = ""
    detail: str = ""


class Picture(NamedTuple):
    """One figure of the page: its JSON, its height in pixels, and the words around it."""

    section: str
    title: str
    reading: str
    json: str
    height: int
    shape: str


class Text(NamedTuple):
    """Model text ready for the page; ``lead`` is its beginning when it is too long to show."""

    full: str
    lead: str = ""


def write_report(
    path: str | Path,
    *,
    title: str,
    result: Mapping[str, Any],
    samples: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, pd.DataFrame],
    tau: float,
) -> Path:
    """Write the report of a study to ``path`` and return that path.

    ``result`` holds ``command``, ``created``, ``machine`` and ``versions`` (told in the footer),
    ``rows`` (as in :data:`bgkit.figures.style.ROW_COLUMNS`) and ``paired``: the differences
    design - base on the same prompts, with ``design, kind, metric, difference, low, high``. An
    optional ``interval`` says in words what the intervals are. ``samples`` maps each policy to its
    responses, ``metrics`` each run to its training log (it may be empty); ``tau`` is the guard's
    threshold in [0, 1].

    The page is rendered in memory, written beside ``path`` and moved there whole, so a failure
    leaves no half-written report and an older report untouched. Raises
    :class:`~bgkit.errors.BgkitError` for data that lack a part and for a path that cannot be
    written.
    """
    page = render_report(title=title, result=result, samples=samples, metrics=metrics, tau=tau)
    target = Path(path)
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
    """Return the report as HTML text; the parameters are those of :func:`write_report`."""
    missing = [key for key in RESULT_KEYS if key not in result]
    if missing:
        raise BgkitError(f"The result of the study lacks {', '.join(missing)}.")
    rows = without_zeros(style.with_series(pd.DataFrame(list(result["rows"]))))
    paired = pd.DataFrame(list(result["paired"]))
    lacking = [column for column in PAIRED_COLUMNS if column not in paired.columns]
    if lacking and not paired.empty:
        raise BgkitError(f"The paired differences of the result lack {', '.join(lacking)}.")
    pictures = _pictures(rows, samples, metrics, tau)
    columns, lines = _headline(rows, paired)
    # The page's own scripts carry a nonce that model text cannot know.
    digest = hashlib.sha256("".join(picture.json for picture in pictures).encode())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment.get_template("report.html.j2").render(
        title=visible(title),
        tau=f"{tau:g}",
        threshold=f"{100 * tau:.2f}",
        near=f"{NEAR:g}",
        columns=columns,
        lines=lines,
        interval=str(result.get("interval", "")),
        sections=[
            (section, list(group))
            for section, group in itertools.groupby(pictures, key=lambda picture: picture.section)
        ],
        conversations=_conversations(samples, tau),
        reference=visible(_reference(samples)).replace("_", " "),
        result={key: result[key] for key in RESULT_KEYS if key not in ("rows", "paired")},
        nonce=base64.b64encode(digest.digest()[:18]).decode(),
        plotly=get_plotlyjs(),
    )


def without_zeros(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of results without the metrics of :data:`TOO_LONG` that are 0 everywhere."""
    happened = rows.groupby("metric")["mean"].transform("max") > 0
    return rows[happened | ~rows["metric"].isin(TOO_LONG)]


def _headline(
    rows: pd.DataFrame, paired: pd.DataFrame
) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    """Return the headline table: its columns (words, which way is better) and its lines."""
    table = rows[rows["kind"] == "all"]
    names = [metric for metric in HEADLINE + TOO_LONG if (table["metric"] == metric).any()]
    if not names:
        raise BgkitError("The result has no rows of kind 'all' to put into the headline table.")
    lines = []
    for series, one in table.groupby("series", sort=False):
        design = str(one["design"].iloc[0])
        # Paired differences name a design only, so they say nothing where it has many settings.
        alone = table.loc[table["design"] == design, "series"].nunique() == 1
        cells = [_cell(one, paired if alone else paired.iloc[:0], metric) for metric in names]
        colour = style.look(series)[0]
        lines.append({"name": visible(series).replace("_", " "), "colour": colour, "cells": cells})
    ways = {1: "higher is better", -1: "lower is better", 0: ""}
    heads = [(style.named(metric), ways[METRICS[metric].better]) for metric in names]
    return heads, lines


def _cell(one: pd.DataFrame, paired: pd.DataFrame, metric: str) -> Cell:
    chosen = one[one["metric"] == metric]
    if chosen.empty or math.isnan(chosen["mean"].iloc[0]):
        return Cell("–", "")
    row = chosen.iloc[0]
    mean, low, high = (style.number(row[part], metric) for part in ("mean", "low", "high"))
    interval = "" if math.isnan(row["low"]) else f"{low.removesuffix(' %')}–{high}"
    if paired.empty:
        return Cell(mean, interval)
    same = (paired["design"] == row["design"]) & (paired["metric"] == metric)
    for pair in paired[same & (paired["kind"] == "all")].itertuples():
        if pair.low > 0 or pair.high < 0:
            up, sign = pair.difference > 0, METRICS[metric].better
            verdict = "better" if up == (sign > 0) else "worse"
            verdict = verdict if sign else ("higher" if up else "lower")
            size, *ends = (_signed(v, metric) for v in (pair.difference, pair.low, pair.high))
            detail = f"difference to base {size} ({' to '.join(ends)})"
            mark = f"{'▲' if up else '▼'} {size[1:]} {verdict}"
            return Cell(mean, interval, mark, verdict, detail)
    return Cell(mean, interval)


def _signed(value: float, metric: str) -> str:
    return ("−" if value < 0 else "+") + style.number(abs(value), metric).replace("%", "pp")


def _picture(section: str, fig: go.Figure, reading: str, shape: str = "wide") -> Picture:
    title = fig.layout.title.text.removeprefix("<b>").removesuffix("</b>")
    return Picture(section, title, reading, _script_json(fig), int(fig.layout.height), shape)


def _script_json(fig: go.Figure) -> str:
    """Return a figure as JSON that cannot end the script element which holds it."""
    text = fig.to_json()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _reference(samples: Mapping[str, pd.DataFrame]) -> str:
    """Return the policy that others are set against: base, or the first where there is no base."""
    return "base" if "base" in samples else next(iter(samples))


def _pictures(
    rows: pd.DataFrame,
    samples: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, pd.DataFrame],
    tau: float,
) -> list[Picture]:
    shown = [_picture("Where the responses lie", plots.margins(samples, tau), READ_MARGIN)]
    overall = set(rows.loc[rows["kind"] == "all", "metric"])
    if {"system_harm", "system_help"} <= overall:
        shown.append(_picture("What users get", plots.frontier(rows), READ_PARETO, "side"))
    if metrics:
        shown.append(_picture("How training went", training_curves(metrics), READ_TRAINING))
    first = _reference(samples)
    fig = plots.reliability({first: samples[first]})
    shown.append(_picture("How far the guard can be trusted", fig, READ_RELIABILITY, "side"))
    single = set(rows.loc[rows["kind"] != "all", "metric"])
    for metric in ("system_harm", "system_help"):
        if metric in single:
            fig = plots.by_kind(rows, metric)
            shown.append(_picture("By kind of prompt", fig, READ_KIND[metric], "half"))
    return shown


def _conversations(samples: Mapping[str, pd.DataFrame], tau: float) -> list[dict[str, Any]]:
    """Return the sample completions: prompts of every kind, each answered by every policy.

    Of each kind, prompts are ranked by how near base came to the threshold; the nearest is taken
    and others at even steps down that ranking, so the choice is the same each time.
    """
    for name, frame in samples.items():
        missing = [column for column in SAMPLE_COLUMNS if column not in frame.columns]
        if missing:
            raise BgkitError(f"The samples of '{name}' lack the column(s) {', '.join(missing)}.")
    tables = {name: frame.drop_duplicates("prompt_id") for name, frame in samples.items()}
    ranked = tables[_reference(samples)]
    kinds = list(dict.fromkeys(ranked["kind"]))
    for table in tables.values():
        ranked = ranked[ranked["prompt_id"].isin(table["prompt_id"])]
    ranked = ranked.assign(margin=(ranked["t"] - tau).abs())
    ranked = ranked.sort_values(["margin", "prompt_id"], kind="stable")
    each = max(2, round(COMPLETIONS / (len(tables) * max(1, len(kinds)))))
    chosen: list[dict[str, Any]] = []
    for kind in kinds:
        some = ranked[ranked["kind"] == kind]
        places = {step * len(some) // each for step in range(each)} if len(some) else set()
        for place in sorted(places):
            prompt = some.iloc[place]
            rows = [
                (name, table[table["prompt_id"] == prompt["prompt_id"]].iloc[0])
                for name, table in tables.items()
            ]
            chosen.append(
                {
                    "kind": visible(kind).replace("_", " "),
                    "nearest": place == 0,
                    "id": visible(prompt["prompt_id"]),
                    "prompt": _text(prompt["prompt"], LONG_PROMPT),
                    "answers": [_answer(name, row, tau) for name, row in rows],
                }
            )
    return chosen


def _answer(name: str, row: pd.Series, tau: float) -> dict[str, Any]:
    def score(column: str) -> str:
        return "–" if pd.isna(row[column]) else f"{row[column]:.3f}"

    return {
        "name": visible(name).replace("_", " "),
        "colour": style.look(name)[0],
        "filtered": bool(row["filtered"]),
        "harmful": bool(row["harm"] > 0.5),
        "place": f"{100 * row['t']:.2f}",
        "near": abs(row["t"] - tau) < NEAR,
        "scores": {column: score(column) for column in ("t", "u", "harm", "help")},
        "response": _text(row["response"], LONG_RESPONSE),
    }


def _text(value: object, limit: int) -> Text:
    full = visible(value)
    # Cut after a whole word, unless the text is one endless word.
    lead = full[: limit // 2].rsplit(maxsplit=1)[:1]
    return Text(full, "".join(lead) + "…" if len(full) > limit else "")
