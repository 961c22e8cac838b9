"""What scorers have in common: their protocol, and checks of what they take and return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from bgkit import checks
from bgkit.data import read_data
from bgkit.errors import BgkitError


class Scorer(Protocol):
    """Anything that gives one number per prompt and response."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) scores of n prompts and n responses."""


def name_of(scorer: object) -> str:
    """A scorer's name for messages."""
    return getattr(scorer, "name", type(scorer).__name__)


def as_numbers(values: object, n: int, who: str) -> np.ndarray:
    """(n,) float64 from anything that holds one number for each of n responses.

    Accepted are arrays, columns, generators, lists, and tensors of any type on any device. ``who``
    returned them. Raises BgkitError for anything else.

    >>> as_numbers([[0.25], [True]], 2, "A function").tolist()
    [0.25, 1.0]
    >>> as_numbers([0.25], 2, "A function")
    Traceback (most recent call last):
    bgkit.errors.BgkitError: A function returned values of shape (1,) for 2 responses; it must ...
    """
    values = list(values) if isinstance(values, Iterator) else values
    array = checks.as_numbers(values, f"{who} returned")
    if array.shape in ((n,), (n, 1)) or (array.ndim == 0 and n == 1):
        return array.reshape(-1)
    raise BgkitError(
        f"{who} returned values of shape {array.shape} for {n} responses; it must return one "
        "number for each."
    )


def as_probabilities(t: object, n: int, name: str) -> np.ndarray:
    """(n,) float64 of what a guard returned; BgkitError unless there are n, all in [0, 1].

    In float32 a function's 0.9 would be below a tau of 0.9.
    """
    t = as_numbers(t, n, f"The guard {name}")
    rule = "a guard must return probabilities in [0, 1]. Check its head (softmax, sigmoid) and"
    rounded = t.astype(np.float32)  # 1.0000000000000002 is 1
    checks.probabilities(rounded, f"The guard {name} returned", f"{rule} precision.")
    return np.clip(t, 0.0, 1.0)


def guard_scores(guard: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) float64 probabilities of any guard; BgkitError unless there are n, all in [0, 1]."""
    return as_probabilities(guard.score(prompts, responses), len(responses), name_of(guard))


def utility_scores(utility: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) float32 scores of any reward model; BgkitError unless there are n, all finite."""
    u = utility.score(prompts, responses)
    u = as_numbers(u, len(responses), f"The utility {name_of(utility)}").astype(np.float32)
    if not np.isfinite(u).all():
        name = name_of(utility)
        raise BgkitError(f"The utility {name} returned NaN or infinity; check its precision.")
    return u


def seen_in_part(scorer: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) whether a scorer saw only the beginning of a response.

    Scorers keep the hashes of the pairs whose response they cut in ``truncated``.
    """
    truncated = getattr(scorer, "truncated", ())
    return np.array(
        [hash(p) in truncated for p in zip(prompts, responses, strict=True)], dtype=bool
    )


def check_prompts(scorer: object, prompts: Sequence[str]) -> None:
    """Raise BgkitError for a prompt that leaves a scorer no room for a response.

    A scorer with a limit has ``max_length`` in tokens, and ``lengths(prompts)``.
    """
    if not hasattr(scorer, "lengths"):
        return
    for prompt, length in zip(prompts, scorer.lengths(prompts), strict=True):
        if length >= scorer.max_length:
            raise BgkitError(
                f"The prompt {prompt[:40]!r}... of {length} tokens leaves {scorer.name} (at most "
                f"{scorer.max_length} tokens) no room for a response; shorten the prompt or use "
                "a model with a longer context."
            )


#: Columns of samples that follow from a guard's t.
OF_T = ("seen_in_part", "filtered", "near", "system_harm", "system_help")
OF_T += ("judge_system_harm", "judge_system_help")


def with_scores(samples: pd.DataFrame, t: np.ndarray) -> pd.DataFrame:
    """Samples with other scores t (n,), without the columns that follow from the old ones."""
    return samples.drop(columns=list(OF_T), errors="ignore").assign(t=t)


REFUSAL_MARKS = read_data("words.yaml")["refusals"]


def is_refusal(response: str) -> bool:
    """Whether a response contains a common refusal phrase (a heuristic, as in GCG's prefixes).

    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("boil a cup of water .")
    (True, False)
    """
    return any(mark in response.lower() for mark in REFUSAL_MARKS)
