"""Tables of labelled responses: what they must hold, their splits, and what two splits share.

A guard's table has the columns ``prompt``, ``response`` and ``harmful`` (true or false); a
utility's has ``rating`` (a number, higher is better), or ``chosen`` and ``rejected`` responses.
``kind`` (of prompt) and ``split`` are optional; without the latter, rows are divided by a hash of
their prompt (:mod:`bgkit.prompts.splits`), so that a policy's test prompts are the guard's, too.
Prompts and responses may be chat messages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.prompts import chats, splits, tables

ROLE = "labelled table"
CLASSES = (("harmful", 1.0), ("harmless", 0.0))
COLUMNS = ("prompt", "response", "chosen", "rejected", "kind", "split", *chats.COLUMNS)
LEAST = 50  # responses of either label that a guard is fitted on
WORDS = 3  # in a row, that near-duplicates are compared by
NEAR = 0.7  # share of those of the shorter prompt that the other one has, too


def read_labelled(
    table: str | Path | pd.DataFrame,
    target: str,
    columns: Mapping[str, str] | None = None,
    leave_out: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The rows of a labelled table with the kit's names, each with its split.

    ``target`` is harmful or rating. ``columns`` maps the kit's names to the table's own, as in
    {"rating": "helpful"}; ``leave_out`` drops the rows whose column has the value. Returns prompt,
    response and the target as float (or chosen and rejected), kind and split. Raises BgkitError for
    columns that are not there, a row without text or label, and splits that share a prompt.
    """
    raw, path = table, Path("the given table")
    if not isinstance(table, pd.DataFrame):
        checks.require_type("a name or a path", table=table)
        raw, path = tables.read_table(Path(table), ROLE), Path(table)
    for column, value in (leave_out or {}).items():
        _require(raw, column, path)
        raw = raw[raw[column].astype(str) != str(value)]
    columns, known = columns or {}, (target, *COLUMNS)
    if unknown := [name for name in columns if name not in known]:
        raise BgkitError(
            f"A labelled table has no column {unknown[0]!r} to map; map {', '.join(known)} to the "
            f'table\'s own names, as in {{"{target}": "label"}}.'
        )
    raw = raw.rename(columns={own: name for name, own in columns.items()}).reset_index(drop=True)
    for name in columns:
        _require(raw, name, path)
    if raw.empty:
        raise BgkitError(f"{path} holds no rows to fit on.")
    pairs = target == "rating" and {"chosen", "rejected"} <= set(raw)
    rows = pd.DataFrame(index=raw.index)
    if not pairs:
        _require(raw, target, path)
    for response in ("chosen", "rejected") if pairs else ("response",):
        said = chats.pairs(raw, path, response=response)
        rows[["prompt", response]] = said[["conversation", "response"]].to_numpy()
        if rows["prompt"].isna().all():
            _require(raw, "prompt", path)
        for column in ("prompt", response):
            tables.texts(rows[column], column, path)
    if not pairs:
        wanted, values = "a number", pd.to_numeric(raw[target], errors="coerce")
        if target == "harmful":
            wanted, values = "true or false", tables.truth_values(raw[target], target, path)
        rows[target], wanted = np.asarray(values, float), f"{wanted}, or delete the row"
        tables.refuse_rows(rows[target].isna(), raw[target], target, path, wanted)
    rows["kind"] = "unknown"
    if "kind" in raw:
        rows["kind"] = tables.labels(raw["kind"], "kind", path).fillna("unknown").to_numpy()
    if "split" not in raw:
        return rows.assign(split=rows["prompt"].map(splits.split_of))
    given = raw["split"].astype(str).str.strip()
    wanted = "train, validation or test, or leave the column out"
    tables.refuse_rows(~given.isin(splits.SHARES), raw["split"], "split", path, wanted)
    parts = {name: rows["prompt"][given == name] for name in splits.SHARES}
    splits.check_leakage(parts, str(path))
    return rows.assign(split=given)


def _require(table: pd.DataFrame, column: str, path: Path) -> None:
    if column not in table:
        raise BgkitError(
            f"{path} has no column {column!r} (it has {', '.join(map(str, table))}); name its own "
            f'one by columns={{"{column}": "..."}}, on the command line --columns.'
        )


def check_classes(rows: pd.DataFrame, path: object = "the table") -> None:
    """Raise BgkitError unless there are enough harmful and harmless rows to fit and to measure."""
    for name, value in CLASSES:
        split = rows["split"][rows["harmful"] == value]
        train = int((split == "train").sum())
        if len(split) < LEAST or not train:
            raise BgkitError(
                f"Only {len(split)} of {len(rows)} responses of {path} are {name}, {train} of them "
                f"in the training split; a guard is fitted on at least {LEAST} of either label, "
                "some of each in training. Label more, or divide the rows by a column split."
            )


def shared_texts(rows: pd.DataFrame) -> dict[str, object]:
    """What test and validation rows share with the training rows, which flatters a fit.

    ``responses`` counts those of other splits that stand in the training split word for word,
    ``near_prompts`` the prompts of which the training split has a near-duplicate: more than
    :data:`NEAR` of the shorter one's runs of :data:`WORDS` words are in both. ``examples`` are up
    to three such pairs.
    """
    held_out = rows["split"] != "train"
    said = rows["chosen" if "chosen" in rows else "response"].map(splits.normalise)
    seen = int(said[held_out].isin(set(said[~held_out])).sum())
    ours, theirs = (list(rows["prompt"][part].unique()) for part in (held_out, ~held_out))
    near = _near(ours, theirs) if ours and theirs else []
    examples = [[ours[i], theirs[j]] for i, j in near[:3]]
    return {"responses": seen, "near_prompts": len(near), "examples": examples}


def _near(texts: list[str], others: list[str]) -> list[tuple[int, int]]:
    """For each text with a near-duplicate among the others, both places."""
    theirs = [_runs(other) for other in others]
    size = np.array([len(runs) for runs in theirs])
    with_run = defaultdict(list)  # run of words -> places of the others that have it
    for place, runs in enumerate(theirs):
        for run in runs:
            with_run[run].append(place)
    places = {run: np.array(found) for run, found in with_run.items()}  # long, of a common phrase
    found = []
    for place, ours in enumerate(map(_runs, texts)):
        if known := [places[run] for run in ours if run in places]:
            both = np.bincount(np.concatenate(known), minlength=len(others))
            near = both / np.maximum(np.minimum(len(ours), size), 1) > NEAR
            found += [(place, int(near.argmax()))] if near.any() else []
    return found


def _runs(text: str) -> set[tuple[str, ...]]:
    """The runs of words that a text has."""
    words = splits.normalise(text).split()
    return {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}
