"""Without reinforcement learning: the best of n samples at deployment, and what methods cost.

The base policy may be asked n times and its best answer shown; nothing is trained, and every answer
costs n times as many generated tokens. :mod:`bgkit.stress.rejection` fine-tunes on such answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bgkit import evaluation, guards, rewards, runs, utilities
from bgkit.errors import BgkitError
from bgkit.scoring import Scorer, is_refusal
from bgkit.stress.contenders import BASE, Contender, _labelled, policy_of

#: What of a config the samples of the base policy and their scores depend on.
SAMPLING = (
    "policy precision prompts temperature max_completion_length tau guard guard_temperature "
    "guard_verdicts guard_bits utility utility_bits"
).split()


def choose(t: np.ndarray, score: np.ndarray, tau: float) -> np.ndarray:
    """Which of n candidates each prompt gets: the best score of those that pass the guard.

    ``t`` and ``score`` are (prompts, n); a candidate passes if t < tau. Where none passes, the one
    with the least t is taken (and filtered). Returns indices (prompts,).

    >>> choose(np.array([[0.9, 0.1, 0.2], [0.9, 0.6, 0.7]]), np.array([[3, 1, 2], [3, 1, 2]]), 0.5)
    array([2, 1])
    """
    t, score = np.asarray(t, float), np.asarray(score, float)
    passes = t < tau
    best = np.where(passes, score, -np.inf).argmax(axis=1)
    return np.where(passes.any(axis=1), best, t.argmin(axis=1))


def run_reward(run: runs.Run, samples: pd.DataFrame) -> np.ndarray:
    """The reward (n,) that a run's design gives samples with prompt, response, t and u.

    Utility is standardised by the run's base policy, as in training.
    """
    base, config = run.read_json("base.json"), run.config
    z = (samples["u"].to_numpy(float) - base["utility_mean"]) / base["utility_deviation"]
    known = {"harmful_request": samples["harmful_request"]} if "harmful_request" in samples else {}
    return rewards.compute_reward(
        config.reward,
        samples["t"].to_numpy(float),
        z,
        config.tau,
        refusal=[is_refusal(response) for response in samples["response"]],
        **known,
        **config.weights(),
    )


def best_of_n(
    contenders: Sequence[Contender],
    table: pd.DataFrame,
    *,
    n: int = 8,
    guard: Scorer | None = None,
    tau: float | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """The base policy's best of ``n`` samples to each prompt of a table, by two kinds of scores.

    Design ``best of 8: utility`` takes the highest utility among the samples that pass the guard;
    ``best of 8: boundary`` the highest reward of a run's own design among them, once for each
    different reward of the ``contenders`` (boundary guidance without training). Where none passes,
    the sample with the least t is taken, and filtered. ``guard`` and ``tau`` are those of the
    configs unless given; they decide what passes, and the reward sees that guard's t, too.

    Columns as in :func:`bgkit.stress.contenders.respond` (``length`` is that of the answer, ``kl``
    NaN: only a bound of it is known), and ``generated``: the tokens of all n samples. Raises
    BgkitError for n below 1 and without a trained contender, whose config says how base is sampled.
    """
    trained = [contender for contender in contenders if contender.run]
    if n < 1 or not trained:
        raise BgkitError(
            f"The best of n needs n of at least 1 (not {n}) and the run of a trained policy (there "
            f"are {len(trained)}), whose settings and reward it takes."
        )
    sampled: dict[tuple, pd.DataFrame] = {}
    tables, named = [], set()
    for contender in trained:
        config = contender.config
        key = (contender.seed, *(getattr(config, name) for name in SAMPLING))
        if key not in sampled:
            sampled[key] = _candidates(contender, table, n, guard, tau, device)
        for name, score in _scores(contender, sampled[key]):
            design = f"best of {n}: {name}"
            if (design, contender.seed) not in named:
                named.add((design, contender.seed))
                limit = config.tau if tau is None else tau
                chosen = _chosen(sampled[key], score, n, limit)
                who = contender._replace(design=design)
                tables.append(_labelled(chosen, who, evaluation.truth_of(config.prompts)))
    return pd.concat(tables, ignore_index=True)


def _scores(contender: Contender, samples: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Names of scores and their values (rows,); weights that are not the usual ones are named."""
    yield "utility", samples["u"].to_numpy(float)
    usual, weights = runs.TrainConfig().weights(), contender.config.weights()
    other = [f"{k} {v}" for k, v in weights.items() if v != usual[k]]
    yield ", ".join([contender.config.reward, *other]), run_reward(contender.run, samples)


def _candidates(
    contender: Contender,
    table: pd.DataFrame,
    n: int,
    guard: Scorer | None,
    tau: float | None,
    device: str,
) -> pd.DataFrame:
    """n scored and graded samples of the base policy to each prompt, prompt after prompt."""
    config = contender.config
    model, tokenizer = policy_of(contender._replace(design=BASE, run=None), device)
    return evaluation.sample_policy(
        model,
        tokenizer,
        table.loc[table.index.repeat(n)],
        guard=guard or guards.guard_of(config, device),
        tau=config.tau if tau is None else tau,
        utility=utilities.utility_of(config, device),
        judges=evaluation.truth_of(config.prompts),
        temperature=config.temperature,
        max_completion_length=config.max_completion_length,
        seed=contender.seed,
    )


def _chosen(samples: pd.DataFrame, score: np.ndarray, n: int, tau: float) -> pd.DataFrame:
    """One of every n rows, and what all n cost."""
    shape = (-1, n)
    index = choose(samples["t"].to_numpy().reshape(shape), score.reshape(shape), tau)
    chosen = samples.iloc[np.arange(len(index)) * n + index].reset_index(drop=True)
    return chosen.assign(generated=samples["length"].to_numpy().reshape(shape).sum(axis=1))


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
    tokens_per_answer (generated at deployment: all n samples of a best of n); training_seconds
    (wall time; sampling and fine-tuning for rejection fine-tuning); peak_memory (MiB, see
    :func:`bgkit.devices.peak_memory`; NaN where the run did not record it); and training_tokens,
    tokens_per_answer and training_seconds as ratios to the design ``against`` (``_ratio``; by
    default the first trained contender, NaN where that is 0). Raises BgkitError if there is no row
    of ``against``.
    """
    trained: dict[str, list[runs.Run]] = {}
    for contender in contenders:
        if contender.run:
            trained.setdefault(contender.design, []).append(contender.run)
    against = against or next(iter(trained), "")
    answers = samples["length"].astype(float)
    if "generated" in samples:
        answers = samples["generated"].astype(float).fillna(answers)
    per_answer = answers.groupby(samples["design"], sort=False).mean()
    if against not in per_answer.index:
        raise BgkitError(
            f"There are no responses of {against!r} to compare the costs with; choose one of "
            f"{', '.join(per_answer.index)}."
        )
    rows = [
        {"design": design, **_training_costs(trained.get(design, [])), "tokens_per_answer": tokens}
        for design, tokens in per_answer.items()
    ]
    frame = pd.DataFrame(rows).set_index("design")
    for column in ("training_tokens", "tokens_per_answer", "training_seconds"):
        whole = frame.loc[against, column]
        frame[f"{column}_ratio"] = frame[column] / (whole if whole else np.nan)
    return frame.reset_index()


def _training_costs(found: Sequence[runs.Run]) -> dict[str, float]:
    """Mean costs of the runs of one design; a design without runs was not trained."""
    if not found:
        return {"training_tokens": 0.0, "training_seconds": 0.0, "peak_memory": np.nan}
    results = [run.read_json("result.json") for run in found]
    return {
        "training_tokens": float(np.mean([generated_tokens(run) for run in found])),
        "training_seconds": float(np.mean([result["seconds"] for result in results])),
        "peak_memory": float(np.mean([result.get("peak_memory", np.nan) for result in results])),
    }
