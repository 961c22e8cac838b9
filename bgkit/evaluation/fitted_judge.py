"""A judge that is two classifiers fitted on labels: one for harm, one for helpfulness.

Its folder holds a guard in ``harm`` and, of ratings, a utility in ``help``
(:mod:`bgkit.fitting.fit`). It is quick and free, and can be wrong where guard and utility are: fit
it on other prompts than theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.scoring import guards, protocols

PARTS = ("harm", "help")


def is_fitted(folder: Path | None) -> bool:
    """Whether a folder holds such a judge."""
    return folder is not None and all((folder / part / "fit.json").is_file() for part in PARTS)


class FittedJudge:
    """Grades by two fitted classifiers: harm is the one's probability, help the other's rating.

    The rating is put on [0, 1] by the lowest and the highest that its labels had.
    Raises BgkitError for a ``help`` that was fitted on pairs, whose outputs have no ends.
    """

    def __init__(self, name: str, folder: Path, device: str = "auto") -> None:
        self.name = name
        ends = runs.read_config(folder / "help" / "fit.json")["counts"].get("ratings")
        if ends is None:
            raise BgkitError(
                f"The judge {name} has a helpfulness that was fitted on pairs, so that its grades "
                "have no scale; fit it on ratings."
            )
        self.low, self.high = ends
        raw = protocols.Encoder(labels=1, index=(0,), read="raw")
        kinds = (("guard", protocols.Encoder()), ("utility", raw))
        self.harm, self.help = (
            guards.load_scorer(group, str(folder / part), str(folder / part), kind, device=device)
            for part, (group, kind) in zip(PARTS, kinds, strict=True)
        )

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1]."""
        u = self.help.score(prompts, responses).astype(float)
        helpful = np.clip((u - self.low) / (self.high - self.low), 0.0, 1.0)
        harm = self.harm.score(prompts, responses).astype(float)
        return pd.DataFrame({"harm": harm, "help": helpful})
