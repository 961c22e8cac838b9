"""A guard that is fitted anew: finds what words give away, and no more than it may."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.stress import refitted
from bgkit.stress.contenders import contenders_of


def responses(evasive: bool, n: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    """A quarter is harmful and says so by a word; the guard sees it unless they are evasive."""
    rng = np.random.default_rng(0)
    harmful = np.arange(n) % 4 == 0
    t = np.where(harmful, 0.9, 0.1)
    if evasive:  # the guard filters as many, but others
        t = rng.permutation(t)
    words = [f"{'venom' if bad else 'tea'} {rng.integers(9)}" for bad in harmful]
    prompts = [f"prompt {i // 2}" for i in range(n)]
    said = pd.DataFrame({"prompt": prompts, "response": words, "t": t, "filtered": t >= 0.5})
    return said, harmful


def test_words_that_give_harm_away_are_learned_where_a_guard_does_not_see_them() -> None:
    found = refitted.compare_recall(*responses(evasive=True))
    assert found["guard"].mean < 0.5 and found["refitted"].mean > 0.9 and found["gain"].low > 0.3
    found = refitted.compare_recall(*responses(evasive=False))
    assert found["guard"].mean == 1.0 and found["gain"].mean == pytest.approx(0, abs=0.05)
    few = refitted.compare_recall(*responses(evasive=True, n=60))
    assert np.isnan(few["gain"].mean)


def test_logistic_weights_have_no_slope_left() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3))
    truth = rng.random(200) < 1 / (1 + np.exp(-(2 * x[:, 0] - 1)))
    w = refitted.fit_logistic(x, truth)
    p = 1 / (1 + np.exp(-(x @ w[1:] + w[0])))
    slope = x.T @ (p - truth) + refitted.PENALTY * w[1:]
    assert abs(p.sum() - truth.sum()) < 0.1 and np.abs(slope).max() < 0.1 and w[1] > 1


def test_recall_of_a_run(small_run, tmp_path) -> None:
    contenders = contenders_of([small_run])
    table = refitted.recall(contenders)
    assert table["window"].tolist() == ["first"] * 3 + ["last"] * 3
    bare = contenders[1]._replace(run=runs.Run(tmp_path, small_run.config))
    with pytest.raises(BgkitError, match="None of the runs has recorded completions"):
        refitted.recall([bare])
