"""How a notebook tells what a test found, or in one sentence why a test can not be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd

from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import interval_text


@contextmanager
def told_if_impossible(what: str) -> Iterator[None]:
    """Print why a test can not be done with these runs, prompts or parameters, and go on.

    ``what`` names the test. Only a :class:`~bgkit.errors.BgkitError` is told; any other error is a
    fault of the kit and is raised.

    >>> with told_if_impossible("The attack"):
    ...     raise BgkitError("There is no harmful request.")
    The attack is left out: There is no harmful request.
    """
    try:
        yield
    except BgkitError as error:
        print(f"{what} is left out: {error}")


def as_text(
    rows: pd.DataFrame, index: str | Sequence[str], columns: str | Sequence[str]
) -> pd.DataFrame:
    """A long table of means as a wide one for printing, with cells as in :func:`interval_text`.

    ``rows`` has mean, low, high and the columns that are named; both axes keep the order of the
    rows. A cell without a row is a dash.
    """
    axes = [[names] if isinstance(names, str) else list(names) for names in (index, columns)]
    texts = [interval_text(row.mean, row.low, row.high) for row in rows.itertuples()]
    wide = rows.assign(text=texts).set_index([*axes[0], *axes[1]])["text"]
    wide = wide.unstack(axes[1], sort=False).fillna("–")
    return wide.rename_axis(columns=None) if len(axes[1]) == 1 else wide
