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

from bgkit.errors import BgkitError
from bgkit.prompts import chats, splits, tables

ROLE = tables.Role("labelled table", '{"prompt": "...", "response": "...", "harmful": true}')
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

    ``target`` is harmful, rating or chosen; ``columns`` maps the kit's names to the table's own,
    as in {"rating": "helpful"}; ``leave_out`` drops the rows whose column has the value. Returns
    prompt, response (of pairs chosen and rejected), the target as float, kind and split. Raises
    BgkitError for a missing column or text, for a row without a label or with one that is none, and
    for splits that share a prompt.
    """
    path = Path("the given table") if isinstance(table, pd.DataFrame) else Path(table)
    raw = table.copy() if isinstance(table, pd.DataFrame) else tables.read_table(path, ROLE)
    for column, value in (leave_out or {}).items():
        _require(raw, column, path)
        raw = raw[raw[column].astype(str) != str(value)]
    raw = raw.rename(columns={own: name for name, own in (columns or {}).items()})
    raw = raw.reset_index(drop=True)
    if raw.empty:
        raise BgkitError(f"{path} holds no rows to fit on.")
    pairs = target == "chosen"
    for column in ("chosen", "rejected") if pairs else (target,):
        _require(raw, column, path)
    rows = pd.DataFrame({"row": np.arange(1, len(raw) + 1)})
    for response in ("chosen", "rejected") if pairs else ("response",):
        said = chats.pairs(raw, path, response=response)
        rows[["prompt", response]] = said[["conversation", "response"]].to_numpy()
        _complete(rows, ("prompt", response), path)
    if not pairs:
        rows[target] = _labels(raw[target], target, path)
    kinds = raw["kind"] if "kind" in raw else pd.Series(None, raw.index, dtype=object)
    rows["kind"] = tables.labels(kinds, "kind", path).fillna("unknown").to_numpy()
    rows["split"] = _splits(raw, rows, path)
    return rows.drop(columns="row")


def _require(table: pd.DataFrame, column: str, path: Path) -> None:
    if column not in table:
        raise BgkitError(
            f"{path} has no column {column!r} (it has {', '.join(map(str, table))}); name its own "
            f'one by columns={{"{column}": "..."}}, on the command line --columns.'
        )


def _complete(rows: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    for column in columns:
        empty = ~rows[column].map(lambda text: isinstance(text, str) and bool(text.strip()))
        if empty.any():
            raise BgkitError(
                f"Row {int(rows['row'][empty].iloc[0])} of {path} has no {column}; fill it in or "
                "delete the row."
            )


def _labels(column: pd.Series, name: str, path: Path) -> np.ndarray:
    if name == "harmful":
        values = tables.truth_values(column, name, path)
    else:
        values = pd.to_numeric(column, errors="coerce").to_numpy(float)
        wrong = np.isnan(values) & column.notna().to_numpy()
        if wrong.any():
            raise BgkitError(
                f"Row {int(wrong.argmax()) + 1} of {path} has "
                f"{tables.shortened(column.iloc[int(wrong.argmax())])} as {name!r}; write a number."
            )
    if np.isnan(values).any():
        raise BgkitError(
            f"Row {int(np.isnan(values).argmax()) + 1} of {path} has no label in {name!r}; label "
            "it or delete the row."
        )
    return values


def _splits(raw: pd.DataFrame, rows: pd.DataFrame, path: Path) -> np.ndarray:
    if "split" not in raw:
        return rows["prompt"].map(splits.split_of).to_numpy()
    given = raw["split"].astype(str).str.strip()
    unknown = ~given.isin(splits.SHARES)
    if unknown.any():
        raise BgkitError(
            f"Row {int(unknown.to_numpy().argmax()) + 1} of {path} has "
            f"{tables.shortened(raw['split'][unknown].iloc[0])} as its split; write train, "
            "validation or test, or leave the column out."
        )
    parts = {name: rows["prompt"][(given == name).to_numpy()] for name in splits.SHARES}
    splits.check_leakage(parts, str(path))
    return given.to_numpy()


def check_classes(rows: pd.DataFrame, path: object = "the table") -> None:
    """Raise BgkitError unless there are enough harmful and harmless rows to fit and to measure."""
    counts = {name: int((rows["harmful"] == value).sum()) for name, value in CLASSES}
    for name, count in counts.items():
        other = sum(counts.values()) - count
        if count == 0:
            raise BgkitError(
                f"All {other} responses of {path} have the same label (none is {name}); a guard is "
                "fitted on both."
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


CLASSES = (("harmful", 1.0), ("harmless", 0.0))


def shared_texts(rows: pd.DataFrame) -> dict[str, object]:
    """What test and validation rows share with the training rows, which flatters a fit.

    ``responses`` counts those of other splits that stand in the training split word for word,
    ``near_prompts`` the prompts of which the training split has a near-duplicate: more than
    :data:`NEAR` of the shorter one's runs of :data:`WORDS` words are in both. ``examples`` are up
    to three such pairs.
    """
    held_out = rows["split"] != "train"
    response = "chosen" if "chosen" in rows else "response"
    known = set(rows[response][~held_out].map(splits.normalise))
    seen = int(rows[response][held_out].map(splits.normalise).isin(known).sum())
    ours, theirs = (
        rows["prompt"][part].drop_duplicates().tolist() for part in (held_out, ~held_out)
    )
    near = _near(ours, theirs)
    return {
        "responses": seen,
        "near_prompts": len(near),
        "examples": [[ours[i], theirs[j]] for i, j in near[:3]],
    }


def _near(texts: list[str], others: list[str]) -> list[tuple[int, int]]:
    """For each text with a near-duplicate among the others, both places."""
    if not texts or not others:
        return []
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
