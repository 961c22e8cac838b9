"""Tables of labelled responses: their columns, their splits, and texts that splits share.

A guard's table has the columns ``prompt``, ``response`` and ``harmful`` (true or false); a
utility's has ``rating`` (a number, higher is better), or ``chosen`` and ``rejected`` responses.
``kind`` (of prompt) and ``split`` are optional. Without a split, rows are assigned by a hash of
their prompt (:mod:`bgkit.prompts.splits`), so a policy's test prompts are also the guard's. Prompts
and responses may be chat messages.
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
LEAST = 50  # minimum of responses of either label
NGRAM = 3  # words of the n-grams that near-duplicates are found by
NEAR = 0.7  # share of the shorter prompt's n-grams that the other one has


def read_labelled(
    table: str | Path | pd.DataFrame,
    target: str,
    columns: Mapping[str, str] | None = None,
    leave_out: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The rows of a labelled table under standard column names, each with its split.

    ``target`` is harmful or rating. ``columns`` maps standard names to the table's own, as in
    {"rating": "helpful"}; ``leave_out`` drops the rows with this value in a column. Returns prompt,
    response and the target as float (or chosen and rejected), kind and split. Raises BgkitError for
    missing columns, a row without text or label, and splits that share a prompt.
    """
    raw, path = table, Path("the given table")
    if not isinstance(table, pd.DataFrame):
        checks.require_type("a name or a path", table=table)
        raw, path = tables.read_table(Path(table), ROLE), Path(table)
    for column, value in (leave_out or {}).items():
        _require(raw, column, path)
        raw = raw[raw[column].astype(str) != str(value)]
    columns, standard = columns or {}, (target, *COLUMNS)
    if unknown := [name for name in columns if name not in standard]:
        raise BgkitError(
            f"A labelled table has no column {unknown[0]!r} to map; map {', '.join(standard)} to "
            f'the table\'s own names, as in {{"{target}": "label"}}.'
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
        texts = chats.pairs(raw, path, response=response)
        rows[["prompt", response]] = texts[["conversation", "response"]].to_numpy()
        if rows["prompt"].isna().all():
            _require(raw, "prompt", path)
        for column in ("prompt", response):
            tables.texts(rows[column], column, path)
    if not pairs:
        remedy, values = "a number", pd.to_numeric(raw[target], errors="coerce")
        if target == "harmful":
            remedy, values = "true or false", tables.truth_values(raw[target], target, path)
        rows[target], remedy = np.asarray(values, float), f"{remedy}, or delete the row"
        tables.refuse_rows(~np.isfinite(rows[target]), raw[target], target, path, remedy)
    rows["kind"] = "unknown"
    if "kind" in raw:
        rows["kind"] = tables.labels(raw["kind"], "kind", path).fillna("unknown").to_numpy()
    if "split" not in raw:
        return rows.assign(split=rows["prompt"].map(splits.split_of))
    split = raw["split"].astype(str).str.strip()
    remedy = "train, validation or test, or leave the column out"
    tables.refuse_rows(~split.isin(splits.SHARES), raw["split"], "split", path, remedy)
    parts = {name: rows["prompt"][split == name] for name in splits.SHARES}
    splits.check_leakage(parts, str(path))
    return rows.assign(split=split)


def _require(table: pd.DataFrame, column: str, path: Path) -> None:
    names = f'columns={{"{column}": "..."}}'
    remedy = f"name the one to use by {names}, on the command line --columns"
    tables.require(table, column, path, remedy)


def check_classes(rows: pd.DataFrame, path: object = "the table") -> None:
    """Raise BgkitError unless there are enough harmful and harmless rows to fit and to measure."""
    for name, value in CLASSES:
        split = rows["split"][rows["harmful"] == value]
        train = int((split == "train").sum())
        if len(split) < LEAST or not train:
            raise BgkitError(
                f"Only {len(split)} of {len(rows)} responses of {path} are {name}, {train} of them "
                f"in the training split; a guard is fitted on at least {LEAST} of either label, "
                "some of each in training. Label more, or set the splits in a column 'split'."
            )


def shared_texts(rows: pd.DataFrame) -> dict[str, object]:
    """Texts that test and validation rows share with the training rows, which inflates metrics.

    ``responses`` is the number of held-out responses that are also in the training split,
    ``near_prompts`` that of held-out prompts with a near-duplicate there: more than :data:`NEAR` of
    the shorter prompt's n-grams of :data:`NGRAM` words are in both. ``examples`` are up to three
    such pairs.
    """
    held_out = rows["split"] != "train"
    responses = rows["chosen" if "chosen" in rows else "response"].map(splits.normalise)
    copies = int(responses[held_out].isin(set(responses[~held_out])).sum())
    prompts, training = (list(rows["prompt"][part].unique()) for part in (held_out, ~held_out))
    pairs = _near_duplicates(prompts, training) if prompts and training else []
    examples = [[prompts[i], training[j]] for i, j in pairs[:3]]
    return {"responses": copies, "near_prompts": len(pairs), "examples": examples}


def _near_duplicates(texts: list[str], others: list[str]) -> list[tuple[int, int]]:
    """(i, j) for each text i with a near-duplicate j among the others."""
    ngrams_of_others = list(map(_ngrams, others))
    sizes = np.array(list(map(len, ngrams_of_others)))
    containing = defaultdict(list)  # n-gram -> numbers of the others that contain it
    for j, ngrams in enumerate(ngrams_of_others):
        for ngram in ngrams:
            containing[ngram].append(j)
    containing = {ngram: np.array(numbers) for ngram, numbers in containing.items()}
    pairs = []
    for i, ngrams in enumerate(map(_ngrams, texts)):
        if matches := [containing[ngram] for ngram in ngrams if ngram in containing]:
            shared = np.bincount(np.concatenate(matches), minlength=len(others))
            near = shared / np.maximum(np.minimum(len(ngrams), sizes), 1) > NEAR
            pairs += [(i, int(near.argmax()))] if near.any() else []
    return pairs


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = splits.normalise(text).split()
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}
