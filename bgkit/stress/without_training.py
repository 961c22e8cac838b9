"""Best of n: sample the base policy n times and show its best answer, without training.

Every answer costs n times as many generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation.language_judge import Judge
from bgkit.scoring.scorer import Scorer
from bgkit.stress.contenders import Contender, grade_responses, judge_of, label_samples, sample_once
from bgkit.training.reward_function import reward_of

DEFAULT = runs.TrainConfig()


def choose(t: np.ndarray, score: np.ndarray, tau: float) -> np.ndarray:
    """For each prompt, which of n candidates has the best score of those that pass the guard.

    ``t`` and ``score`` are (prompts, n); a candidate passes if t < tau. If none passes, it is the
    one with the lowest t (and filtered). Returns indices (prompts,). Raises BgkitError for t
    outside [0, 1], tau outside (0, 1), and scores that are NaN or of another shape.

    >>> choose(np.array([[0.9, 0.1, 0.2], [0.9, 0.6, 0.7]]), np.array([[3, 1, 2], [3, 1, 2]]), 0.5)
    array([2, 1])
    """
    t, score = checks.probabilities(t), checks.as_numbers(score)
    if t.ndim != 2 or score.shape != t.shape or np.isnan(score).any():
        raise BgkitError("Each candidate needs one t and one score, in tables (prompts, n).")
    passes = t < checks.threshold(tau)
    best = np.where(passes, score, -np.inf).argmax(axis=1)
    return np.where(passes.any(axis=1), best, t.argmin(axis=1))


def run_reward(run: runs.Run, samples: pd.DataFrame) -> np.ndarray:
    """The reward (n,) that a run's design gives samples with prompt, response, t and u.

    Utility and reward are scaled by the run's base policy, as in training (at its last step, if a
    bound moved the strength).
    """
    config, base = run.config, run.read_json("base.json")
    return reward_of(samples, config.reward, tau=config.tau, strength=run.strength, base=base)


def best_of_n(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    n: Sequence[int],
    *,
    guard: Scorer | None = None,
    judge: Judge | None = None,
) -> pd.DataFrame:
    """The base policy's best of ``n`` samples for each prompt of a table, by two kinds of scores.

    ``contenders`` are the seeds of one design (base is left out). ``best of 8: utility`` has the
    highest utility among the samples that pass the guard, ``best of 8: boundary`` the highest
    reward of that design; see :func:`choose`. A smaller n uses the first samples. The ``judge``
    grades chosen answers only.

    Columns as in :func:`bgkit.stress.contenders.respond` (``kl`` is NaN) and ``generated``, the
    tokens of all n samples. Raises BgkitError for n below 1, unless the trained contenders are of
    one design, and for a utility that was given as a Python object.
    """
    trained = [contender for contender in contenders if contender.run]
    designs = {contender.design for contender in trained}
    if min(n, default=0) < 1 or len(designs) != 1:
        raise BgkitError(
            f"The best of n needs n of at least 1 (not {n}) and runs of one design (not of "
            f"{', '.join(sorted(designs)) or 'none'}), whose settings and reward it takes."
        )
    repeated, tables = table.loc[table.index.repeat(max(n))], []
    for contender in trained:
        config, grader = contender.config, judge_of(contender.config, judge)
        samples = sample_once(contender._replace(run=None), repeated, guard)
        if samples["u"].isna().any():
            raise BgkitError(
                f"The utility of {contender.design} is a Python object, which no name loads; the "
                "best of n needs runs with a named one."
            )
        strength = f", strength {config.strength:g}" * (config.strength != DEFAULT.strength)
        scores = {"utility": samples["u"].to_numpy(float)}
        scores[config.reward + strength] = run_reward(contender.run, samples)
        for name, score in scores.items():
            for count in n:
                best = contender._replace(design=f"best of {count}: {name}")
                chosen = _best_samples(samples, score, max(n), count, config.tau)
                tables.append(label_samples(grade_responses(chosen, grader), best))
    return pd.concat(tables, ignore_index=True)


def _best_samples(
    samples: pd.DataFrame, score: np.ndarray, most: int, n: int, tau: float
) -> pd.DataFrame:
    """The best of the first n of ``most`` samples of each prompt, with the tokens of all n."""
    columns = (samples["t"], samples["length"], score)
    t, length, score = (np.asarray(values).reshape(-1, most)[:, :n] for values in columns)
    index = choose(t, score, tau)
    chosen = samples.iloc[np.arange(len(index)) * most + index].reset_index(drop=True)
    return chosen.assign(generated=length.sum(axis=1))


def tokens(samples: pd.DataFrame, contenders: Sequence[Contender]) -> pd.DataFrame:
    """Tokens that each design of ``samples`` generates per answer, and generated in training.

    ``samples`` joins tables of :func:`bgkit.stress.contenders.respond` and :func:`best_of_n`, whose
    answers cost all n samples. Training counts the recorded completions (0 without training, NaN if
    none are recorded). Means over seeds.
    """
    length, empty = samples["length"], pd.Series(dtype=float)
    generated = samples.get("generated", length).fillna(length)
    trained = [c for c in contenders if c.run]
    spent = [c.run.completions().get("length", empty).sum(min_count=1) for c in trained]
    per_run = pd.Series(spent, [c.design for c in trained], dtype=float)
    answers = generated.groupby(samples["design"], sort=False).mean()
    training = per_run.groupby(level=0).mean().reindex(answers.index, fill_value=0.0)
    return pd.DataFrame({"tokens per answer": answers, "tokens in training": training})
