"""Without reinforcement learning: the best of n samples at deployment, and what methods cost.

The base policy may be asked n times and its best answer shown; nothing is trained, and every answer
costs n times as many generated tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

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
    *,
    n: int | Sequence[int] = 8,
    guard: Scorer | None = None,
    tau: float | None = None,
    judge: Judge | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """The base policy's best of ``n`` samples to each prompt of a table, by two kinds of scores.

    Design ``best of 8: utility`` takes the highest utility among the samples that pass the guard;
    ``best of 8: boundary`` the highest reward of a run's own design among them, once for each
    different reward of the ``contenders`` (boundary guidance without training). Where none passes,
    the sample with the least t is taken, and filtered. Several ``n`` share their samples: the best
    of fewer is that of the first ones. ``guard`` and ``tau`` are those of the configs unless given;
    they decide what passes, and the reward sees that guard's t, too. ``judge`` as in
    :func:`bgkit.stress.contenders.graded`; it grades the chosen answers only.

    Columns as in :func:`bgkit.stress.contenders.respond` (``length`` is that of the answer, ``kl``
    NaN: only a bound of it is known); ``generated``, the tokens of all n samples; and ``seconds``,
    wall time of sampling and scoring them. Raises BgkitError for n below 1 and without a trained
    contender, whose config says how base is sampled.
    """
    counts, trained = _asked(n, contenders)
    found: dict[tuple, pd.DataFrame] = {}
    tables: dict[tuple[str, int], pd.DataFrame] = {}
    for contender in trained:
        config = contender.config
        key = (contender.seed, *(getattr(config, name) for name in SAMPLING))
        if key not in found:
            found[key] = _candidates(contender, table, max(counts), guard, tau, device)
        limit, who = config.tau if tau is None else tau, judge_of(config, judge)
        for name, score in _scores(contender, found[key]):
            for count in counts:
                named = contender._replace(design=f"best of {count}: {name}")
                if named[:2] not in tables:
                    chosen = graded(_chosen(found[key], score, max(counts), count, limit), who)
                    tables[named[:2]] = labelled(chosen, named)
    return pd.concat(tables.values(), ignore_index=True)


def _asked(
    n: int | Sequence[int], contenders: Sequence[Contender]
) -> tuple[list[int], list[Contender]]:
    """The numbers of samples, and the trained contenders."""
    counts = [n] if isinstance(n, int) else list(n)
    trained = [contender for contender in contenders if contender.run]
    if min(counts, default=0) < 1 or not trained:
        raise BgkitError(
            f"The best of n needs n of at least 1 (not {n}) and the run of a trained policy (there "
            f"are {len(trained)}), whose settings and reward it takes."
        )
    return counts, trained


def _scores(contender: Contender, samples: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Names of scores and their values (rows,); a strength that is not the usual one is named."""
    if samples["u"].isna().any():
        raise BgkitError(
            f"The utility of {contender.design} is a Python object, which no name loads; the best "
            "of n needs runs with a named one."
        )
    yield "utility", samples["u"].to_numpy(float)
    config = contender.config
    other = f", strength {config.strength}" * (config.strength != runs.TrainConfig().strength)
    yield config.reward + other, run_reward(contender.run, samples)


def _candidates(
    contender: Contender,
    table: pd.DataFrame,
    n: int,
    guard: Scorer | None,
    tau: float | None,
    device: str,
) -> pd.DataFrame:
    """n scored samples of the base policy to each prompt, prompt after prompt."""
    base = contender._replace(design=BASE, run=None)
    asked = table.loc[table.index.repeat(n)]
    loaded = policy_of(base, device)
    started = time.perf_counter()
    samples = sampled(base, *loaded, asked, guard, tau, device)
    seconds = (time.perf_counter() - started) / max(1, len(samples))
    return samples.assign(seconds=seconds)


def _chosen(
    samples: pd.DataFrame, score: np.ndarray, most: int, n: int, tau: float
) -> pd.DataFrame:
    """One of the first n of the ``most`` samples of each prompt, and what these n cost."""
    t, score, length, seconds = (
        values.reshape(-1, most)[:, :n]
        for values in (
            samples["t"].to_numpy(float),
            score,
            samples["length"].to_numpy(),
            samples["seconds"].to_numpy(float),
        )
    )
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


def costs(
    samples: pd.DataFrame, contenders: Sequence[Contender], against: str = ""
) -> pd.DataFrame:
    """What each method costs: one row per design of ``samples``, in their order.

    ``samples`` are tables of :func:`bgkit.stress.contenders.respond` and :func:`best_of_n`, joined;
    ``contenders`` tell what training cost (0 for a design that was not trained). Means over seeds.
    Columns: design; training_tokens (generated for training, :func:`generated_tokens`);
    training_seconds (wall time; sampling and fine-tuning for rejection fine-tuning);
    tokens_per_answer (generated at deployment: all n samples of a best of n); seconds_per_answer
    (at the speed per token at which the best of n were sampled and scored, for all of these
    policies have one base model; NaN without a best of n); answers_until_cheaper
    (of methods without training: from how many answers on ``against`` has generated fewer tokens in
    all, training included; NaN where it never has); and training_tokens, tokens_per_answer and
    training_seconds as ratios to the design ``against`` (``_ratio``; by default the first trained
    contender, NaN where that is 0). Raises BgkitError if there is no row of ``against``.
    """
    trained: dict[str, list[runs.Run]] = {}
    for contender in contenders:
        if contender.run:
            trained.setdefault(contender.design, []).append(contender.run)
    against = against or next(iter(trained), "")
    answers = _per_answer(samples)
    if against not in answers.index:
        raise BgkitError(
            f"There are no responses of {against!r} to compare the costs with; choose one of "
            f"{', '.join(answers.index)}."
        )
    frame = pd.DataFrame({name: _training_costs(trained.get(name, [])) for name in answers.index}).T
    frame = frame.join(answers)
    one = frame.loc[against]
    more = frame["tokens_per_answer"] - one["tokens_per_answer"]
    even = (one["training_tokens"] - frame["training_tokens"]) / more
    untrained = frame["training_tokens"] == 0
    frame["answers_until_cheaper"] = even.where(untrained & (more > 0))
    for column in ("training_tokens", "tokens_per_answer", "training_seconds"):
        frame[f"{column}_ratio"] = frame[column] / (one[column] if one[column] else np.nan)
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


def _per_answer(samples: pd.DataFrame) -> pd.DataFrame:
    """Mean tokens and seconds of an answer by design."""
    tokens = samples["length"].astype(float)
    if "generated" in samples:
        tokens = samples["generated"].astype(float).fillna(tokens)
    means = tokens.groupby(samples["design"], sort=False).mean().to_frame("tokens_per_answer")
    speed = np.nan
    if "seconds" in samples:
        timed = samples["seconds"].notna()
        speed = samples.loc[timed, "seconds"].sum() / tokens[timed].sum()
    return means.assign(seconds_per_answer=means["tokens_per_answer"] * speed)


def _training_costs(found: Sequence[runs.Run]) -> dict[str, float]:
    """Mean costs of the runs of one design; a design without runs was not trained."""
    if not found:
        return {"training_tokens": 0.0, "training_seconds": 0.0}
    seconds = [run.read_json("result.json")["seconds"] for run in found]
    return {
        "training_tokens": float(np.mean([generated_tokens(run) for run in found])),
        "training_seconds": float(np.mean(seconds)),
    }
