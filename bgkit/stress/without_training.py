"""Without reinforcement learning: the best of n samples at deployment, and what methods cost.

The base policy may be asked n times and its best answer shown; nothing is trained, and every answer
costs n times as many generated tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation.language_judge import Judge
from bgkit.scoring.scorer import Scorer, reward_of
from bgkit.stress.contenders import (
    BASE,
    Contender,
    graded,
    judge_of,
    labelled,
    policy_of,
    sampled,
)

#: What of a config the samples of the base policy and their scores depend on.
SAMPLING = (
    "policy precision prompts temperature max_completion_length tau guard guard_temperature "
    "guard_verdicts guard_bits utility utility_bits"
).split()


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

    ``best of 8: utility`` takes the highest utility among the samples that pass the guard, ``best
    of 8: boundary`` the highest reward of a run's design, once for each different reward of the
    ``contenders``. Where none passes, the least t is taken, and filtered. Several ``n`` share their
    samples: the best of fewer is that of the first ones. The ``judge`` grades chosen answers only.

    Columns as in :func:`bgkit.stress.contenders.respond` (``kl`` is NaN), ``generated``, the tokens
    of all n samples, and ``seconds``, wall time of sampling and scoring them. Raises BgkitError for
    n below 1 and without a trained contender, whose config says how base is sampled.
    """
    trained = [contender for contender in contenders if contender.run]
    if min(n, default=0) < 1 or not trained:
        raise BgkitError(
            f"The best of n needs n of at least 1 (not {n}) and the run of a trained policy (there "
            f"are {len(trained)}), whose settings and reward it takes."
        )
    found: dict[tuple, pd.DataFrame] = {}
    tables: dict[tuple[str, int], pd.DataFrame] = {}
    for contender in trained:
        config = contender.config
        key = (contender.seed, *(getattr(config, name) for name in SAMPLING))
        if key not in found:
            found[key] = _candidates(contender, table, max(n), guard)
        samples, who = found[key], judge_of(config, judge)
        if samples["u"].isna().any():
            raise BgkitError(
                f"The utility of {contender.design} is a Python object, which no name loads; the "
                "best of n needs runs with a named one."
            )
        other = f", strength {config.strength}" * (config.strength != runs.TrainConfig().strength)
        scores = {"utility": samples["u"].to_numpy(float)}
        scores[config.reward + other] = run_reward(contender.run, samples)
        for name, score in scores.items():
            for count in n:
                named = contender._replace(design=f"best of {count}: {name}")
                if named[:2] not in tables:
                    chosen = graded(_chosen(samples, score, max(n), count, config.tau), who)
                    tables[named[:2]] = labelled(chosen, named)
    return pd.concat(tables.values(), ignore_index=True)


def _candidates(
    contender: Contender, table: pd.DataFrame, n: int, guard: Scorer | None
) -> pd.DataFrame:
    """n scored samples of the base policy to each prompt, prompt after prompt."""
    base = contender._replace(design=BASE, run=None)
    loaded = policy_of(base)
    started = time.perf_counter()
    samples = sampled(base, *loaded, table.loc[table.index.repeat(n)], guard)
    return samples.assign(seconds=(time.perf_counter() - started) / max(1, len(samples)))


def _chosen(
    samples: pd.DataFrame, score: np.ndarray, most: int, n: int, tau: float
) -> pd.DataFrame:
    """One of the first n of the ``most`` samples of each prompt, and what these n cost."""
    columns = (samples["t"], samples["length"], samples["seconds"], score)
    parts = [np.asarray(values).reshape(-1, most)[:, :n] for values in columns]
    t, length, seconds, score = parts
    index = choose(t, score, tau)
    chosen = samples.iloc[np.arange(len(index)) * most + index].reset_index(drop=True)
    return chosen.assign(generated=length.sum(axis=1), seconds=seconds.sum(axis=1))


def generated_tokens(run: runs.Run) -> int:
    """Tokens that a run generated for its training: the lengths of its recorded completions."""
    table = run.completions()
    if table.empty:
        raise BgkitError(
            f"The run {run.folder} has no recorded completions, so its tokens can not be counted; "
            "say how many tokens may be generated."
        )
    return int(table["length"].sum())


def costs(samples: pd.DataFrame, contenders: Sequence[Contender]) -> pd.DataFrame:
    """What each method costs: one row per design of ``samples``, in their order.

    ``samples`` are tables of :func:`bgkit.stress.contenders.respond` and :func:`best_of_n`, joined;
    ``contenders`` tell what training cost. Means over seeds: training_tokens (generated, 0 without
    training) and training_seconds (wall time); tokens_per_answer (all n samples of a best of n) and
    seconds_per_answer (at the speed per token of the best of n, NaN without one);
    answers_until_cheaper (of methods without training: from how many answers on the first trained
    contender has generated fewer tokens in all, training included; NaN where it never has).
    """
    generated = samples["length"].astype(float)
    if "generated" in samples:
        generated = samples["generated"].astype(float).fillna(generated)
    frame = generated.groupby(samples["design"], sort=False).mean().to_frame("tokens_per_answer")
    timed = samples.get("seconds", pd.Series(np.nan, samples.index)).dropna()
    speed = timed.sum() / generated[timed.index].sum() if len(timed) else np.nan
    frame["seconds_per_answer"] = frame["tokens_per_answer"] * speed
    trained = [contender for contender in contenders if contender.run]
    spent = pd.DataFrame(
        {
            "design": [one.design for one in trained],
            "training_tokens": [generated_tokens(one.run) for one in trained],
            "training_seconds": [one.run.read_json("result.json")["seconds"] for one in trained],
        }
    )
    means = spent.groupby("design").mean()
    frame = means.reindex(frame.index, fill_value=0.0).join(frame)
    one = frame.loc[trained[0].design]
    more = frame["tokens_per_answer"] - one["tokens_per_answer"]
    even = (one["training_tokens"] - frame["training_tokens"]) / more
    untrained = frame["training_tokens"] == 0
    frame["answers_until_cheaper"] = even.where(untrained & (more > 0))
    return frame.rename_axis("design").reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`costs` for printing, units in the headings; a dash: not known."""
    columns = {
        "training: tokens": (table["training_tokens"], ",.0f"),
        "training: seconds": (table["training_seconds"], ",.0f"),
        "tokens per answer": (table["tokens_per_answer"], ",.0f"),
        "seconds per 100 answers": (100 * table["seconds_per_answer"], ",.1f"),
        "answers until training is cheaper": (table["answers_until_cheaper"], ",.0f"),
    }
    texts = {
        head: ["–" if np.isnan(value) else f"{value:{form}}" for value in values]
        for head, (values, form) in columns.items()
    }
    return pd.DataFrame(texts, index=pd.Index(table["design"]))
