"""Tables of labelled responses: what they must hold, their splits, and what two splits share.

A guard's table has the columns ``prompt``, ``response`` and ``harmful`` (true or false); a
utility's has ``rating`` (a number, higher is better), or ``chosen`` and ``rejected`` responses.
``kind`` (of prompt) and ``split`` are optional; without the latter, rows are divided by a hash of
their prompt (:mod:`bgkit.prompts.splits`), as everywhere in the kit, so that a policy's test
prompts are the guard's, too. Prompts and responses may be chat messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

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

    ``target`` is harmful or rating, for which a table may have chosen and rejected instead.
    ``columns`` maps the kit's names to the table's own, as in {"rating": "helpful"}; ``leave_out``
    drops the rows whose column has the value. Returns prompt, response (of pairs chosen and
    rejected), the target as float, kind and split. Raises BgkitError for ``columns`` that
    name none of these, for a missing column or text, for a row without a label or with one that is
    none, and for splits that share a prompt.
    """
    raw, path = table, Path("the given table")
    if not isinstance(table, pd.DataFrame):
        checks.kind("a name or a path", table=table)
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
        for column in ("prompt", response):
            there = rows[column].map(lambda text: isinstance(text, str) and bool(text.strip()))
            _refuse(~there, path, f"has no {column}; fill it in or delete the row.")
    if not pairs:
        rows[target] = _labels(raw[target], target, path)
    kinds = raw["kind"] if "kind" in raw else pd.Series(None, raw.index, dtype=object)
    rows["kind"] = tables.labels(kinds, "kind", path).fillna("unknown").to_numpy()
    if "split" not in raw:
        return rows.assign(split=rows["prompt"].map(splits.split_of))
    given = raw["split"].astype(str).str.strip()
    remedy = "as its split; write train, validation or test, or leave the column out."
    _refuse(~given.isin(splits.SHARES), path, remedy, raw["split"])
    parts = {name: rows["prompt"][given == name] for name in splits.SHARES}
    splits.check_leakage(parts, str(path))
    return rows.assign(split=given)


def _require(table: pd.DataFrame, column: str, path: Path) -> None:
    if column not in table:
        raise BgkitError(
            f"{path} has no column {column!r} (it has {', '.join(map(str, table))}); name its own "
            f'one by columns={{"{column}": "..."}}, on the command line --columns.'
        )


def _refuse(wrong: pd.Series, path: Path, what: str, values: pd.Series | None = None) -> None:
    """Raise BgkitError for the first row that is wrong, with its value where that tells more."""
    if wrong.any():
        place = int(wrong.to_numpy().argmax())
        what = what if values is None else f"has {tables.shortened(values.iloc[place])} {what}"
        raise BgkitError(f"Row {place + 1} of {path} {what}")


def _labels(column: pd.Series, name: str, path: Path) -> np.ndarray:
    if name == "harmful":
        values = tables.truth_values(column, name, path)
    else:
        values = pd.to_numeric(column, errors="coerce").to_numpy(float)
        wrong = pd.Series(np.isnan(values)) & column.notna()
        _refuse(wrong, path, f"as {name!r}; write a number.", column)
    no_label = f"has no label in {name!r}; label it or delete the row."
    _refuse(pd.Series(np.isnan(values)), path, no_label)
    return values


def check_classes(rows: pd.DataFrame, path: object = "the table") -> None:
    """Raise BgkitError unless there are enough harmful and harmless rows to fit and to measure."""
    for name, value in CLASSES:
        count = int((rows["harmful"] == value).sum())
        if count == 0:
            raise BgkitError(
                f"All {len(rows)} responses of {path} have the same label (none is {name}); a "
                "guard is fitted on both."
            )
        if count < LEAST:
            raise BgkitError(
                f"Only {count} responses of {path} are {name}; a guard is fitted on at least "
                f"{LEAST} of either label. Label more."
            )
    train = rows[rows["split"] == "train"]
    if train["harmful"].nunique() < 2:
        raise BgkitError(
            f"The training rows of {path} ({len(train)}) do not have both labels; divide the rows "
            "otherwise by a column split."
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
    numbers: dict[tuple[str, ...], int] = {}
    ours, theirs = (_runs(part, numbers) for part in (texts, others))
    found = []
    size = [np.asarray(part.sum(axis=1)).ravel() for part in (ours, theirs)]
    known = theirs[:, : ours.shape[1]].T  # runs that only the others have count for nothing
    for start in range(0, len(texts), 500):  # a block of the products at once
        both = (ours[start : start + 500] @ known).tocoo()
        rows, columns = both.row + start, both.col
        least = np.minimum(size[0][rows], size[1][columns])
        close = both.data / np.maximum(least, 1) > NEAR
        found += dict(zip(rows[close].tolist(), columns[close].tolist(), strict=True)).items()
    return sorted(found)


def _runs(texts: list[str], numbers: dict[tuple[str, ...], int]) -> sparse.csr_array:
    """(texts, runs) which runs of words each text has; unknown runs get a number."""
    rows, columns = [], []
    for row, text in enumerate(texts):
        words = splits.normalise(text).split()
        for run in {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}:
            rows.append(row)
            columns.append(numbers.setdefault(run, len(numbers)))
    shape = (len(texts), len(numbers))
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
