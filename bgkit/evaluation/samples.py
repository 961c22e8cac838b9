"""Sampling, scoring and grading of completions: what a policy writes and what the user sees.

``base`` always means the untrained policy behind the same guard. Without truth (prompts that are
not the testbed's), the columns that need it are NaN.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation.judges import OracleJudge, is_quick, load_judge
from bgkit.evaluation.language_judge import Judge
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.models import policies
from bgkit.progress import phase, say
from bgkit.prompts import load as prompts
from bgkit.rewards import NEAR
from bgkit.scoring import identity
from bgkit.scoring.scorer import Scorer, guard_scores, name_of, seen_in_part, utility_scores
from bgkit.testbed.lexicon import CANNED_REFUSAL

#: Grades of a response, and of what the user sees.
SEEN = ("harm", "help", "system_harm", "system_help")


def sample_as(
    config: runs.TrainConfig,
    model,
    tokenizer,
    table: pd.DataFrame,
    *,
    guard: Scorer,
    utility: Scorer | None = None,
    judges: tuple[Judge, ...] = (),
    base=None,
    seed: int | None = None,
    refusals: bool = False,
) -> pd.DataFrame:
    """Sample one response per prompt of a table, score and grade it.

    Uses the config's tau, temperature, max_completion_length and, unless given, seed. ``kl`` is
    measured against ``base``: a model, or "adapter" for the policy without its adapter; None: NaN.
    Returns the prompts' columns, response, length (tokens), t, cut_off (no end token before the
    limit), seen_in_part (the guard saw only the beginning, with a warning on stderr), filtered,
    near, u, kl (nats, log pi(y) - log base(y)), and harm, help, system_harm and system_help of
    :func:`grade_samples`: by the first judge, who stands for the truth (with ``refusals`` also of
    refusals), and by the second with the prefix ``judge_``.
    """
    texts = table["prompt"].tolist()
    completions = policies.generate(
        model,
        tokenizer,
        texts,
        max_completion_length=config.max_completion_length,
        temperature=config.temperature,
        seed=config.seed if seed is None else seed,
    )
    responses = completions.texts
    t = guard_scores(guard, texts, responses)
    truncated = seen_in_part(guard, texts, responses)
    if truncated.any():
        say(
            f"{name_of(guard)} saw only the beginning of {truncated.sum()} of {len(t)} responses, "
            "which are too long for it: the rest of each is not guarded.",
            sys.stderr,
        )
    samples = table.reset_index(drop=True).assign(
        response=responses,
        length=[len(ids) for ids in completions.ids],
        t=t,
        cut_off=completions.cut_off,
        seen_in_part=truncated,
        filtered=t >= config.tau,
        near=np.abs(t - config.tau) < NEAR,
        u=np.nan if utility is None else utility_scores(utility, texts, responses),
        kl=_kl(model, completions, base, config.temperature),
        **dict.fromkeys((prefix + name for name in SEEN for prefix in ("", "judge_")), np.nan),
    )
    for prefix, judge in zip(("", "judge_"), judges, strict=False):
        samples = grade_samples(samples, judge, prefix, refusals=refusals and not prefix)
        if missing := int(samples[f"{prefix}harm"].isna().sum()):
            say(
                f"{judge.name} left {missing} of {len(samples)} responses without a grade; its "
                "means are those of the others.",
                sys.stderr,
            )
    return samples


def _kl(model, completions: policies.Completions, base, temperature: float) -> np.ndarray:
    """log pi(y|x) - log base(y|x) per response; its mean estimates KL(pi || base) in nats."""
    if base is None or base is model:
        return np.full(len(completions.texts), np.nan if base is None else 0.0)
    log_pi = policies.log_probabilities(model, completions, temperature)
    if base != "adapter":
        return log_pi - policies.log_probabilities(base, completions, temperature)
    with model.disable_adapter():
        return log_pi - policies.log_probabilities(model, completions, temperature)


def grade_samples(
    samples: pd.DataFrame, judge: Judge, prefix: str = "", *, refusals: bool = False
) -> pd.DataFrame:
    """Samples with a judge's grades of each response, and of what the user sees instead of it.

    ``samples`` has prompt, response and filtered; the columns get the ``prefix``. ``refusals`` adds
    refusal_harm and refusal_help, the grades of the canned refusal to every prompt: what the user
    sees is then known for any threshold.
    """
    prompts, filtered = samples["prompt"], samples["filtered"].to_numpy(bool)
    grades = judge.grade(prompts.tolist(), samples["response"].tolist())
    refused = np.ones_like(filtered) if refusals else filtered
    refusal_grades = judge.grade(prompts[refused].tolist(), [CANNED_REFUSAL] * int(refused.sum()))
    columns: dict[str, np.ndarray] = {}
    for grade in ("harm", "help"):
        raw, refusal = grades[grade].to_numpy(float), np.full(len(samples), np.nan)
        refusal[refused] = refusal_grades[grade]
        columns |= {grade: raw, f"system_{grade}": np.where(filtered, refusal, raw)}
        if refusals:
            columns[f"refusal_{grade}"] = refusal
    return samples.assign(**{prefix + name: values for name, values in columns.items()})


def rescored_samples(
    samples: pd.DataFrame, t: np.ndarray, tau: float, refusals: Mapping[str, object]
) -> pd.DataFrame:
    """The same responses with new scores ``t`` (n,) and threshold, and what the user then sees.

    ``refusals`` has harm and help (n,) of the canned refusal to each prompt.
    """
    filtered, near = t >= tau, np.abs(t - tau) < NEAR
    seen = {f"system_{k}": np.where(filtered, refusals[k], samples[k]) for k in ("harm", "help")}
    return samples.assign(t=t, filtered=filtered, near=near, **seen)


def truth_of(prompt_set: str) -> Judge | None:
    """The judge that knows the truth about a prompt set: the oracle for the testbed's."""
    return OracleJudge() if prompt_set == prompts.TESTBED else None


def judge_names(config: runs.TrainConfig) -> list[str]:
    """The judges of a config, two at most; the first stands for the truth.

    On the testbed that is the oracle. It and the embedded judge cannot grade other prompts.

    >>> judge_names(runs.TrainConfig())
    ['oracle', 'default']
    >>> judge_names(runs.TrainConfig(prompts="everyday", judge="english"))
    ['english']
    """
    names = [] if config.judge == "none" else [name.strip() for name in config.judge.split(",")]
    if config.prompts == prompts.TESTBED:
        return list(dict.fromkeys(["oracle", *names]))[:2]
    return [name for name in names if name not in ("default", "oracle")][:2]


def quick_truth(config: runs.TrainConfig, device: str = "auto") -> tuple[Judge, ...]:
    """The judge that stands for the truth during training: the oracle, classifiers, or none."""
    first = judge_names(config)[:1]
    return tuple(load_judge(name, device) for name in first if is_quick(name))


def sample_test(config: runs.TrainConfig, model, tokenizer, **scorers) -> pd.DataFrame:
    """A policy's samples on the test prompts of a config, and refusals, graded by its judges.

    ``scorers`` are guard, utility and base as in :func:`sample_as`. One config gives every policy
    the same prompts and random numbers, so differences can be paired.
    """
    names = judge_names(config)
    judges = tuple(load_judge(name, str(model.device)) for name in names)
    quick = bool(names) and is_quick(names[0])  # else refusals would double the requests
    table = _test_prompts(config)
    return sample_as(config, model, tokenizer, table, judges=judges, refusals=quick, **scorers)


def _test_prompts(config: runs.TrainConfig) -> pd.DataFrame:
    return prompts.load_prompts(config.prompts, "test", config.test_prompts, seed=0)


def labels_of(config: runs.TrainConfig, design: str | None = None) -> dict:
    """The labels of a row: design, utility, scale, guard, tau (objects by their own names)."""
    return {
        "design": design or config.reward,
        "utility": runs.label(config.utility),
        "scale": config.policy,
        "guard": runs.label(config.guard),
        "tau": config.tau,
    }


#: The keys of a config that base's samples on the test prompts depend on.
BASE_KEYS = (
    "policy guard guard_temperature guard_verdicts guard_bits utility utility_bits prompts tau "
    "temperature max_completion_length precision test_prompts judge seed"
).split()
#: Base's samples do not depend on the utility that scores them.
ANY_UTILITY = {key: getattr(runs.TrainConfig(), key) for key in ("utility", "utility_bits")}


def base_name(config: runs.TrainConfig) -> str:
    """A name for base's samples, shared by all configs that have the same base samples.

    >>> base_name(runs.TrainConfig()) == base_name(runs.TrainConfig(reward="compound", steps=3))
    True
    """
    values = {key: getattr(config, key) for key in BASE_KEYS}
    return f"base-{runs.config_hash(runs.TrainConfig(**values))}"


def check_base(config: runs.TrainConfig, samples: pd.DataFrame, guard: Scorer | None) -> None:
    """Raise BgkitError unless samples of base match a config's prompts, guard and tau.

    ``guard`` None: the guard is not checked, because its scores cannot be identified.
    """
    if (
        samples["prompt"].tolist() != _test_prompts(config)["prompt"].tolist()
        or (samples["filtered"] != (samples["t"] >= config.tau)).any()
        or (guard is not None and not identity.is_scored_by(samples, guard))
    ):
        raise BgkitError(
            f"The base_samples are not of the config's {config.test_prompts} test prompts of "
            f"{config.prompts}, scored by its guard {runs.label(config.guard)} and filtered at its "
            f"tau of {config.tau:g}: draw them with bgkit.sample(config), or leave them out."
        )


def evaluate_run(
    run: runs.Run,
    model,
    tokenizer,
    guard: Scorer,
    utility: Scorer,
    base_samples: pd.DataFrame | Path | None = None,
) -> dict:
    """Evaluate a trained policy and base on the test prompts; store both sample tables.

    ``base_samples`` are base's (of any utility: ``u`` is recomputed), or a folder that caches them
    for other runs (:func:`base_name`). Returns ``rows`` (base and policy, see :func:`summarise`),
    ``paired`` differences, and ``graded_by``: the judge that stands for the truth.
    """
    config, cache = run.config, None
    if isinstance(base_samples, Path):
        cache = base_samples / f"{base_name(replace(config, **ANY_UTILITY))}.parquet"
        policy_record = run.read_json("config.json").get(identity.RECORD, {}).get("policy")
        base_samples = pd.read_parquet(cache) if cache.is_file() else None
        if base_samples is not None and not (
            identity.is_scored_by(base_samples, guard)
            and identity.same_model("policy", base_samples.attrs.pop("policy", None), policy_record)
        ):
            base_samples = None  # the weights have changed since: sample again
    if base_samples is not None:
        texts = base_samples["prompt"].tolist(), base_samples["response"].tolist()
        base_samples = base_samples.assign(u=utility_scores(utility, *texts))
    if config.lora_rank:
        base, kl_base, as_base = model, "adapter", model.disable_adapter()
    else:
        base, _ = policies.load_policy(config.policy, None, str(model.device), config.precision)
        kl_base, as_base = base, contextlib.nullcontext()
    common = {"tokenizer": tokenizer, "guard": guard, "utility": utility}
    if base_samples is None:
        with phase("evaluating base"), as_base:
            base_samples = sample_test(config, base, base=base, **common)
        if cache is not None:
            cached = base_samples.copy()
            cached.attrs["policy"] = policy_record
            runs.write_parquet(cache, cached)
    with phase("evaluating the policy"):
        samples = sample_test(config, model, base=kl_base, **common)
    runs.write_parquet(run.folder / "samples.parquet", samples)
    runs.write_parquet(run.folder / "base_samples.parquet", base_samples)
    rows = summarise(base_samples, labels_of(config, "base"))
    rows += summarise(samples, labels_of(config))
    paired = paired_differences(samples, base_samples, labels_of(config))
    return {"graded_by": judge_names(config)[:1], "rows": rows, "paired": paired}
