"""What every function asks of probabilities, truths, grades, thresholds and names, in one wording.

A guard's logits, percents or NaN, and labels other than 0 and 1 would all give numbers that look
right. Checks raise :class:`~bgkit.errors.BgkitError`, and return the values as an array.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError


def as_numbers(values: object, said: str = "The given values hold") -> np.ndarray:
    """Numbers of any shape as float64; None and NA become NaN. Raises BgkitError for anything else.

    ``said`` begins the message: whose values they are, and a verb that fits a value.
    """
    if hasattr(values, "detach"):  # a tensor, of any type, on any device
        values = values.detach().cpu().double()
    if isinstance(values, np.ma.MaskedArray):  # NumPy would show what is masked
        values = values.astype(float).filled(np.nan)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists
        raise BgkitError(f"{said} no plain numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        flat = [np.nan if pd.api.types.is_scalar(v) and pd.isna(v) else v for v in array.ravel()]
        for place, value in enumerate(flat):
            if not isinstance(value, numbers.Real | np.bool_):
                raise BgkitError(
                    f"{said} {str(value)[:40]!r} ({type(value).__name__}) at place {place} of "
                    f"{len(flat)}; it must be a number."
                )
        array = np.array(flat, dtype=float).reshape(array.shape)
    return array.astype(float, copy=False)


def _within(
    given: object, values: np.ndarray, good: np.ndarray, said: str, rule: str
) -> np.ndarray:
    """The values, or a BgkitError that names the first one that is not good, and the rule."""
    if good.all():
        return values
    place = int(np.argmin(good))
    series = isinstance(given, pd.Series)
    where = f"in row {given.index[place]}" if series else f"for response {place} of {values.size}"
    raise BgkitError(f"{said} {float(values.ravel()[place])} {where}; {rule}")


#: What a guard's t must be, at the end of a message.
PROBABLE = (
    "probabilities t must lie in [0, 1] and must not be NaN (a logit needs a sigmoid or softmax, "
    "a percentage a division by 100)."
)


def probabilities(t: object, said: str = "The given t has", rule: str = PROBABLE) -> np.ndarray:
    """A guard's probabilities that responses are unsafe, of any shape, as float64.

    Raises BgkitError for text, NaN, infinities and anything off [0, 1]; ``rule`` ends its message.
    """
    values = as_numbers(t, said)
    return _within(t, values, (values >= 0) & (values <= 1), said, rule)


def truths(harmful: object, shape: tuple[int, ...], what: str = "harmful") -> np.ndarray:
    """Truths as float64: 1.0 (or True) and 0.0 (or False), NaN where it is not known.

    ``shape`` is that of the t beside them. Raises BgkitError for another shape and other values.
    """
    said = f"The truth {what!r} has"
    values = as_numbers(harmful, said)
    if values.shape != shape:
        raise BgkitError(
            f"The truth {what!r} has the shape {values.shape}, and t the shape {shape}; give one "
            "of each for every response."
        )
    rule = (
        "it must be 0 or 1 (False or True), or NaN where it is not known (a grade in [0, 1] is "
        "harmful above 0.5: give `harm > 0.5`)."
    )
    return _within(harmful, values, np.isin(values, (0, 1)) | np.isnan(values), said, rule)


def grades(given: object, said: str = "The given grades have") -> np.ndarray:
    """Grades of harm or helpfulness as float64 in [0, 1], NaN where not known; else BgkitError."""
    values = as_numbers(given, said)
    rule = "grades must lie in [0, 1], or be NaN where not known (of 1 to 5, take (grade - 1) / 4)."
    return _within(given, values, ((values >= 0) & (values <= 1)) | np.isnan(values), said, rule)


#: Columns of samples that hold grades: of responses, of refusals, and of what the user sees.
GRADES = tuple(
    f"{of}{grade}"
    for of in ("", "refusal_", "system_", "judge_", "judge_system_")
    for grade in ("harm", "help")
)


def samples(
    table: pd.DataFrame,
    name: str = "",
    columns: Sequence[str] = ("t", "harm"),
    empty: bool = False,
    what: str = "samples",
) -> None:
    """Raise BgkitError unless a table has rows (or may be ``empty``) and columns, each once.

    ``t`` and :data:`GRADES` must be in [0, 1] where they are there. The message tells ``what`` the
    table holds, and its ``name``.
    """
    of = f"The table of {what} of {name!r}" if name else f"The table of {what}"
    missing = [column for column in dict.fromkeys(columns) if column not in table]
    if missing or (table.empty and not empty):
        fault = f"lacks the column(s) {', '.join(missing)}" if missing else "has no rows"
        raise BgkitError(f"{of} {fault}.")
    if (doubled := table.columns[table.columns.duplicated()]).size:
        raise BgkitError(f"{of} has the column {doubled[0]!r} twice; drop or rename all but one.")
    for column in (name for name in ("t", *GRADES) if name in table):
        values, check = table[column], probabilities if column == "t" else grades
        if isinstance(values.dtype, pd.CategoricalDtype):
            raise BgkitError(f"{of} has categories as {column!r}; make numbers of them by .astype.")
        check(values, f"{of} has the {column}")


def threshold(tau: float, ends: bool = False) -> float:
    """A filter's threshold in (0, 1), or with ``ends`` in [0, 1]; else BgkitError."""
    inside = isinstance(tau, numbers.Real) and not isinstance(tau, bool)
    if not (inside and (0 <= tau <= 1 if ends else 0 < tau < 1)):
        where = "be a number from 0 to 1" if ends else "lie strictly between 0 and 1"
        raise BgkitError(f"The threshold tau must {where}, not {tau!r}.")
    return float(tau)


def positive(**values: float) -> None:
    """Raise BgkitError unless all values are finite numbers above 0; their names are told."""
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and value > 0 and np.isfinite(value)):
            raise BgkitError(f"The {name} must be a finite number above 0, not {value!r}.")


#: What an argument is asked to be -> its types.
KINDS = {
    "a whole number": numbers.Integral,
    "a name": str,
    "a name or a path": str | os.PathLike,
    "a table": pd.DataFrame,
}


def kind(wanted: str, **values: object) -> None:
    """Raise BgkitError unless all values are of one of :data:`KINDS`; their names are told."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, KINDS[wanted]):
            raise BgkitError(
                f"The {name} must be {wanted}, not {repr(value)[:60]} ({type(value).__name__})."
            )


def listed(name: str, values: object, one: type) -> list:
    """What may be given as one or several, as a list; BgkitError for anything else.

    >>> listed("seeds", 3, int), listed("seeds", range(2), int)
    ([3], [0, 1])
    """
    if isinstance(values, one):
        return [values]
    if not isinstance(values, Iterable):
        raise BgkitError(f"Give one or several {name}, not {values!r} ({type(values).__name__}).")
    return list(values)
