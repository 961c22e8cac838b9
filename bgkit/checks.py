"""Validation of probabilities, truths, grades, thresholds and arguments.

Logits, percentages, NaN, or labels other than 0 and 1 would give plausible but wrong results. All
checks raise :class:`~bgkit.errors.BgkitError`.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError


def as_numbers(values: object, subject: str = "The given values hold") -> np.ndarray:
    """Numbers of any shape as float64; None and NA become NaN. Raises BgkitError for other values.

    ``subject`` begins the message: a noun and a verb.
    """
    if hasattr(values, "detach"):  # a tensor of any type, on any device
        values = values.detach().cpu().double()
    if isinstance(values, np.ma.MaskedArray):  # np.asarray would expose masked values
        values = values.astype(float).filled(np.nan)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists
        raise BgkitError(f"{subject} no plain numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        flat = [np.nan if pd.api.types.is_scalar(v) and pd.isna(v) else v for v in array.ravel()]
        for index, value in enumerate(flat):
            if not isinstance(value, numbers.Real | np.bool_):
                raise BgkitError(
                    f"{subject} {str(value)[:40]!r} ({type(value).__name__}) at place {index} of "
                    f"{len(flat)}; it must be a number."
                )
        array = np.array(flat, dtype=float).reshape(array.shape)
    return array.astype(float, copy=False)


def _require(
    given: object, values: np.ndarray, valid: np.ndarray, subject: str, rule: str
) -> np.ndarray:
    """The values; raises BgkitError with the first invalid one and the rule."""
    if valid.all():
        return values
    index = int(np.argmin(valid))
    series = isinstance(given, pd.Series)
    where = f"in row {given.index[index]}" if series else f"for response {index} of {values.size}"
    raise BgkitError(f"{subject} {float(values.ravel()[index])} {where}; {rule}")


#: The rule for a guard's t, which ends a message.
T_RULE = (
    "probabilities t must lie in [0, 1] and must not be NaN (a logit needs a sigmoid or softmax, "
    "a percentage a division by 100)."
)


def probabilities(t: object, subject: str = "The given t has", rule: str = T_RULE) -> np.ndarray:
    """A guard's probabilities of unsafe, of any shape, as float64.

    Raises BgkitError for text, NaN and values outside [0, 1]; ``rule`` ends its message.
    """
    values = as_numbers(t, subject)
    return _require(t, values, (values >= 0) & (values <= 1), subject, rule)


def truths(harmful: object, shape: tuple[int, ...], what: str = "harmful") -> np.ndarray:
    """Truths as float64: 1.0 (True), 0.0 (False) or NaN (not known).

    ``shape`` is that of t. Raises BgkitError for another shape and other values.
    """
    subject = f"The truth {what!r} has"
    values = as_numbers(harmful, subject)
    if values.shape != shape:
        raise BgkitError(
            f"{subject} the shape {values.shape}, and t the shape {shape}; give one of each for "
            "every response."
        )
    rule = (
        "it must be 0 or 1 (False or True), or NaN where it is not known (a grade in [0, 1] is "
        "harmful above 0.5: give `harm > 0.5`)."
    )
    return _require(harmful, values, np.isin(values, (0, 1)) | np.isnan(values), subject, rule)


def grades(given: object, subject: str = "The given grades have") -> np.ndarray:
    """Grades of harm or helpfulness as float64 in [0, 1], NaN where not known; else BgkitError."""
    values = as_numbers(given, subject)
    rule = "grades must lie in [0, 1], or be NaN where not known (of 1 to 5, take (grade - 1) / 4)."
    return _require(given, values, ~((values < 0) | (values > 1)), subject, rule)


#: Columns of samples with grades of responses, of refusals, and of what the user sees.
GRADES = tuple(
    f"{prefix}{grade}"
    for prefix in ("", "refusal_", "system_", "judge_", "judge_system_")
    for grade in ("harm", "help")
)


def samples(
    table: pd.DataFrame,
    name: str = "",
    columns: Sequence[str] = ("t", "harm"),
    empty: bool = False,
    what: str = "samples",
) -> None:
    """Raise BgkitError unless a table has rows (or may be ``empty``) and each column once.

    ``t`` and :data:`GRADES`, where present, must be in [0, 1]. The message says ``what`` the table
    holds, and its ``name``.
    """
    title = f"The table of {what} of {name!r}" if name else f"The table of {what}"
    missing = [column for column in dict.fromkeys(columns) if column not in table]
    if missing or (table.empty and not empty):
        fault = f"lacks the column(s) {', '.join(missing)}" if missing else "has no rows"
        raise BgkitError(f"{title} {fault}.")
    if (repeated := table.columns[table.columns.duplicated()]).size:
        raise BgkitError(f"{title} has the column {repeated[0]!r} twice; drop or rename one.")
    for column in (name for name in ("t", *GRADES) if name in table):
        values, check = table[column], probabilities if column == "t" else grades
        if isinstance(values.dtype, pd.CategoricalDtype):
            raise BgkitError(f"{title} has categories as {column!r}; convert them with .astype.")
        check(values, f"{title} has the {column}")


def threshold(tau: float, ends: bool = False) -> float:
    """A filter's threshold in (0, 1), or with ``ends`` in [0, 1]; else BgkitError."""
    is_number = isinstance(tau, numbers.Real) and not isinstance(tau, bool)
    if not (is_number and (0 <= tau <= 1 if ends else 0 < tau < 1)):
        where = "be a number from 0 to 1" if ends else "lie strictly between 0 and 1"
        raise BgkitError(f"The threshold tau must {where}, not {tau!r}.")
    return float(tau)


def require_positive(**values: float) -> None:
    """Raise BgkitError, with the argument's name, unless all are finite numbers above 0."""
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and value > 0 and np.isfinite(value)):
            raise BgkitError(f"The {name} must be a finite number above 0, not {value!r}.")


#: words for a type -> type
TYPES = {
    "a whole number": numbers.Integral,
    "a name": str,
    "a name or a path": str | os.PathLike,
    "a table": pd.DataFrame,
}


def require_type(wanted: str, **values: object) -> None:
    """Raise BgkitError, with the argument's name, unless all are of a type in :data:`TYPES`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, TYPES[wanted]):
            raise BgkitError(
                f"The {name} must be {wanted}, not {repr(value)[:60]} ({type(value).__name__})."
            )


def as_list(name: str, values: object, single: type) -> list:
    """One value of type ``single``, or several, as a list; BgkitError for anything else.

    >>> as_list("seeds", 3, int), as_list("seeds", range(2), int)
    ([3], [0, 1])
    """
    if isinstance(values, single):
        return [values]
    if not isinstance(values, Iterable):
        raise BgkitError(f"Give one or several {name}, not {values!r} ({type(values).__name__}).")
    return list(values)
