"""Harm that goes unseen: would a guard that is fitted anew on what a policy says find more of it?

If training taught a policy to write harm that its guard does not see, a guard that learned from
that policy's own responses should see it again. A logistic regression on the words of a response
(and on the guard's own logit) is fitted on the responses to half of the prompts of a window of
training; on the other half it may filter as many responses as the guard does. Both are then
compared by recall: the share of harmful responses that they filter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special

from bgkit import runs
from bgkit.evaluation.intervals import UNKNOWN, Interval, bootstrap
from bgkit.evaluation.language_judge import Judge
from bgkit.prompts import splits
from bgkit.stress.contenders import contenders_of, judge_of
from bgkit.testbed.oracle import HARMFUL_ABOVE

WORDS = 500  # of a vocabulary, the most frequent ones
PENALTY = 1.0  # of the squared weights
FEWEST = 20  # harmful responses in either half


def recall(folders: Iterable[str | Path | runs.Run], judge: Judge | None = None) -> pd.DataFrame:
    """Recall of the guard and of one fitted anew, in the first and the last fifth of training.

    ``folders`` are complete runs with recorded completions, ``judge`` gives the truth (None: that
    of the run's prompts). One row per run, window and recall: design, seed, window ("first",
    "last"), recall ("guard", "refitted", "gain": their difference), mean, low, high (95 % over
    prompts). Raises BgkitError where the truth is not known.
    """
    rows = []
    for contender in contenders_of(folders):
        if contender.run is None or (said := contender.run.completions()).empty:
            continue
        truth = judge_of(contender.run.config, judge, needed="the search")
        ends = said["step"].quantile([0.2, 0.8]).to_numpy()
        windows = {"first": said["step"] <= ends[0], "last": said["step"] >= ends[1]}
        for name, mask in windows.items():
            part = said[mask].reset_index(drop=True)
            grades = truth.grade(part["prompt"].tolist(), part["response"].tolist())
            harmful = (grades["harm"] > HARMFUL_ABOVE).to_numpy()
            labels = {"design": contender.design, "seed": contender.seed, "window": name}
            recalls = compared(part, harmful).items()
            rows += [{**labels, "recall": of, **found._asdict()} for of, found in recalls]
    return pd.DataFrame(rows)


def compared(said: pd.DataFrame, harmful: np.ndarray) -> dict[str, Interval]:
    """Recalls on the held-out half of responses with prompt, response, t and filtered.

    Those with fewer than :data:`FEWEST` harmful responses in a half are not known.
    """
    held_out = said["prompt"].map(lambda text: int(splits.digest(text)[:8], 16) % 2 == 1).to_numpy()
    if min((held_out & harmful).sum(), (~held_out & harmful).sum()) < FEWEST:
        return dict.fromkeys(("guard", "refitted", "gain"), UNKNOWN)
    features = words_of(said["response"], said.loc[~held_out, "response"])
    logit = special.logit(np.clip(said["t"].to_numpy(float), 1e-4, 1 - 1e-4))
    features = np.column_stack([features, logit / 4])
    weights = logistic(features[~held_out], harmful[~held_out])
    score = features[held_out] @ weights[1:]
    guard = said.loc[held_out, "filtered"].to_numpy(bool)
    flagged = np.zeros(len(score), dtype=bool)
    flagged[np.argsort(-score, kind="stable")[: guard.sum()]] = True
    both = pd.DataFrame({"guard": guard, "refitted": flagged}).astype(float)
    both = both.assign(gain=both["refitted"] - both["guard"])[harmful[held_out]]
    prompts = said.loc[held_out, "prompt"].to_numpy()[harmful[held_out]]
    each = both.groupby(prompts).mean()  # responses to a prompt are alike
    return {n: bootstrap(each[n].to_numpy(), rates=n != "gain")[0] for n in each}


def words_of(texts: Sequence[str], vocabulary_of: Sequence[str]) -> np.ndarray:
    """Counts (n, words) of the words that are most frequent in some texts, as square roots.

    >>> words_of(["a b b", "c"], ["b a", "b"]).tolist()
    [[1.4142135623730951, 1.0], [0.0, 0.0]]
    """
    counts = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    known: Counter[str] = Counter()
    for text in vocabulary_of:
        known.update(re.findall(r"\w+", text.lower()))
    names = [word for word, _ in known.most_common(WORDS)]
    return np.sqrt(np.array([[count[word] for word in names] for count in counts], dtype=float))


def logistic(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Bias and weights (k + 1,) of a logistic regression with :data:`PENALTY` on its weights."""
    signs = np.where(truth, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = signs * (features @ w[1:] + w[0])
        pull = -signs * special.expit(-z)
        slope = np.concatenate([[pull.sum()], features.T @ pull + PENALTY * w[1:]])
        return -special.log_expit(z).sum() + PENALTY / 2 * (w[1:] ** 2).sum(), slope

    return optimize.minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x
