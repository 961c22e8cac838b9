"""What functions and models of a user return, as one number for each response.

Taken are tensors of any type, on any device, with gradients, arrays, columns of tables, generators,
lists of numbers or of such tensors, and what transformers' pipelines return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Real

import numpy as np

from bgkit.errors import BgkitError
from bgkit.scoring.labels import meaning, unsafe_columns

NAME_IT = "as_guard(model, unsafe={!r})"


def as_numbers(values: object, n: int, who: str) -> np.ndarray:
    """(n,) float64 of whatever holds one number for each of n responses; ``who`` returned it.

    A second dimension of one is dropped. Raises BgkitError for anything else.

    >>> as_numbers([[0.25], [True]], 2, "A function").tolist()
    [0.25, 1.0]
    >>> as_numbers(["0.25", None], 2, "A function")
    Traceback (most recent call last):
    bgkit.errors.BgkitError: A function returned a list with '0.25' in it for 2 responses; it ...
    """
    held = f"a {type(values).__name__}"
    try:
        array = np.asarray(_plain(values))
    except (TypeError, ValueError, RuntimeError):  # lists of unequal length, sparse tensors
        array = np.asarray(None)
    if array.dtype.kind == "O" and all(isinstance(value, Real) for value in array.flat):
        array = array.astype(float)
    if (array.ndim == 0 and n == 1) or (array.ndim == 2 and array.shape[1] == 1):
        array = array.reshape(-1)
    if array.dtype.kind not in "biuf":
        odd = [value for value in array.reshape(-1).tolist() if not isinstance(value, Real)]
        held += f" with {odd[0]!r:.60} in it" if array.ndim and odd else ""
    elif array.shape == (n,):
        return array.astype(float)
    else:
        held = f"values of shape {array.shape}"
    raise BgkitError(
        f"{who} returned {held} for {n} responses; it must return one number for each."
    )


def _plain(values: object) -> object:
    """Arrays instead of tensors, also of those in a list, and lists instead of generators."""
    if isinstance(values, list | tuple | Iterator):
        return [_plain(value) for value in values]
    return values.detach().cpu().float().numpy() if hasattr(values, "detach") else values


def of_pipeline(output: object, unsafe: object = None) -> object:
    """Probabilities of dicts of label and score, as pipelines return them; anything else as it is.

    Each response has those of all labels or, of two whose words tell, of the likeliest. ``unsafe``
    names the unsafe label (:func:`bgkit.scoring.labels.unsafe_columns`). Raises BgkitError where
    the probability can not be told.

    >>> of_pipeline([{"label": "toxic", "score": 0.75}, {"label": "neutral", "score": 0.75}])
    [0.75, 0.25]
    """
    rows = output if isinstance(output, list | tuple) else []
    rows = [row if isinstance(row, list | tuple) else [row] for row in rows]
    found = [one for row in rows for one in row]
    keys = {"label", "score"}
    if not found or not all(isinstance(one, dict) and keys <= {*one} for one in found):
        return output
    scores = as_numbers([one["score"] for one in found], len(found), "A pipeline").tolist()
    left = iter(scores)
    tables = [{str(one["label"]): next(left) for one in row} for row in rows]
    labels = sorted({label for table in tables for label in table})
    if len(labels) > 1 and all(len(table) == len(labels) for table in tables):
        p = np.array([[table[label] for label in labels] for table in tables])
        return sums(p, unsafe_columns(labels, unsafe, NAME_IT))
    bad = {label: meaning(label) if unsafe is None else None for label in labels}
    if None in bad.values() or len(bad) > 2 or {*map(len, tables)} != {1} or min(scores) < 0.5:
        raise BgkitError(
            f"Labels of a pipeline, {', '.join(labels)}, do not tell how likely the unsafe one is; "
            "let it return all of them for each response (top_k=None)."
        )
    return [p if bad[label] else 1 - p for table in tables for label, p in table.items()]


def sums(p: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Probabilities (n,) of several columns together, which rounding may have put above 1."""
    total = p[:, list(columns)].sum(axis=1)
    return np.where(total < 1 + 1e-5, np.minimum(total, 1), total)
