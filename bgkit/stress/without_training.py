"""Without reinforcement learning: the base policy is asked n times, and its best answer shown.

Nothing is trained, and every answer costs n times as many generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation.language_judge import Judge
from bgkit.scoring.scorer import Scorer, reward_of
from bgkit.stress.contenders import Contender, graded, judge_of, labelled, sampled

_ANY = runs.TrainConfig()


def choose(t: np.ndarray, score: np.ndarray, tau: float) -> np.ndarray:
    """Which of n candidates each prompt gets: the best score of those that pass the guard.

    ``t`` and ``score`` are (prompts, n); a candidate passes if t < tau. Where none passes, the one
    with the least t is taken (and filtered). Returns indices (prompts,). Raises BgkitError for
    t off [0, 1], tau off (0, 1), and scores that are NaN or of another shape.

    >>> choose(np.array([[0.9, 0.1, 0.2], [0.9, 0.6, 0.7]]), np.array([[3, 1, 2], [3, 1, 2]]), 0.5)
    array([2, 1])
    """
    t, score = checks.probabilities(t), checks.as_numbers(score)
    if t.ndim != 2 or score.shape != t.shape or np.isnan(score).any():
        raise BgkitError("Each candidate needs one t and one known score, prompts by n.")
    passes = t < checks.threshold(tau)
    best = np.where(passes, score, -np.inf).argmax(axis=1)
    return np.where(passes.any(axis=1), best, t.argmin(axis=1))


def run_reward(run: runs.Run, samples: pd.DataFrame) -> np.ndarray:
    """The reward (n,) that a run's design gives samples with prompt, response, t and u.

    Utility and reward are scaled by the run's base policy, as in training.
    """
    config, base = run.config, run.read_json("base.json")
    return reward_of(samples, config.reward, tau=config.tau, strength=config.strength, base=base)


def best_of_n(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    n: Sequence[int] = (8,),
    *,
    guard: Scorer | None = None,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """The base policy's best of ``n`` samples to each prompt of a table, by two kinds of scores.

    ``best of 8: utility`` has the highest utility among the samples that pass the guard, ``best of
    8: boundary`` the highest reward of a run's design, once for each different reward of the
    ``contenders``; see :func:`choose`. The best of fewer is that of the first samples. The
    ``judge`` grades chosen answers only.

    Columns as in :func:`bgkit.stress.contenders.respond` (``kl`` is NaN) and ``generated``, the
    tokens of all n samples. Raises BgkitError for n below 1, without a trained contender, and for
    one whose utility no name loads.
    """
    trained = [contender for contender in contenders if contender.run]
    if min(n, default=0) < 1 or not trained:
        raise BgkitError(
            f"The best of n needs n of at least 1 (not {n}) and the run of a trained policy (there "
            f"are {len(trained)}), whose settings and reward it takes."
        )
    found: dict[runs.TrainConfig, pd.DataFrame] = {}
    tables: dict[tuple[str, int], pd.DataFrame] = {}
    for contender in trained:
        config = contender.config  # all but these two may change what base says and its scores
        key = replace(config, reward=_ANY.reward, strength=_ANY.strength)
        if key not in found:
            several = table.loc[table.index.repeat(max(n))]
            found[key] = sampled(contender._replace(run=None), several, guard)
        samples, who = found[key], judge_of(config, judge)
        if samples["u"].isna().any():
            raise BgkitError(
                f"The utility of {contender.design} is a Python object, which no name loads; the "
                "best of n needs runs with a named one."
            )
        other = f", strength {config.strength}" * (config.strength != _ANY.strength)
        scores = {"utility": samples["u"].to_numpy(float)}
        scores[config.reward + other] = run_reward(contender.run, samples)
        for name, score in scores.items():
            for count in n:
                named = contender._replace(design=f"best of {count}: {name}")
                if named[:2] not in tables:
                    chosen = graded(_chosen(samples, score, max(n), count, config.tau), who)
                    tables[named[:2]] = labelled(chosen, named)
    return pd.concat(tables.values(), ignore_index=True)


def _chosen(
    samples: pd.DataFrame, score: np.ndarray, most: int, n: int, tau: float
) -> pd.DataFrame:
    """One of the first n of the ``most`` samples of each prompt, and what these n cost."""
    columns = (samples["t"], samples["length"], score)
    t, length, score = (np.asarray(values).reshape(-1, most)[:, :n] for values in columns)
    index = choose(t, score, tau)
    chosen = samples.iloc[np.arange(len(index)) * most + index].reset_index(drop=True)
    return chosen.assign(generated=length.sum(axis=1))


def tokens(samples: pd.DataFrame, contenders: Sequence[Contender]) -> pd.DataFrame:
    """Tokens that each design of ``samples`` generates per answer, and did ``in training``.

    ``samples`` are tables of :func:`bgkit.stress.contenders.respond` and :func:`best_of_n`, joined:
    an answer of a best of n costs all n samples. In training: of the completions that it recorded
    (0 without training, NaN where none are recorded). Means over seeds.
    """
    length, nothing = samples["length"], pd.Series(dtype=float)
    generated = samples.get("generated", length).fillna(length)
    spent = pd.DataFrame(
        [
            (one.design, one.run.completions().get("length", nothing).sum(min_count=1))
            for one in contenders
            if one.run
        ],
        columns=["design", "tokens"],
    )
    answers = generated.groupby(samples["design"], sort=False).mean()
    training = spent.groupby("design")["tokens"].mean().reindex(answers.index, fill_value=0.0)
    return pd.DataFrame({"tokens per answer": answers, "tokens in training": training})
