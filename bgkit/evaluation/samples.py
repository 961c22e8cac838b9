"""What a policy says and what the user sees: sampling, scoring and judging of completions.

``base`` always means the untrained policy behind the same guard. Where there is no truth (prompts
that are not the testbed's), the columns that need it are NaN.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation.judges import OracleJudge, is_quick, load_judge
from bgkit.evaluation.language_judge import Judge
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.models import policies
from bgkit.progress import phase, say
from bgkit.prompts import load as prompts
from bgkit.scoring import identity
from bgkit.scoring.scorer import (
    NEAR,
    Scorer,
    guard_scores,
    name_of,
    seen_in_part,
    utility_scores,
)
from bgkit.testbed.lexicon import CANNED_REFUSAL


def sample_policy(
    model,
    tokenizer,
    table: pd.DataFrame,
    *,
    guard: Scorer,
    tau: float = 0.5,
    utility: Scorer | None = None,
    judges: tuple[Judge, ...] = (),
    base=None,
    temperature: float = 1.0,
    max_completion_length: int = 60,
    seed: int = 0,
) -> pd.DataFrame:
    """Sample one response per prompt and score everything that is known about it.

    ``table`` is a prompt table. ``base`` is the model that ``kl`` is measured against: None, a
    model, or "adapter" for the policy with its adapter switched off. Returns the prompts' columns,
    response, t, u, filtered, near, kl (nats, log pi(y) - log base(y)), length (tokens), cut_off
    (``max_completion_length`` came before an end token), seen_in_part (the guard was shown its
    beginning only; stderr says so), and as :func:`graded` harm, help, system_harm and system_help
    by the first of the judges, who stands for the truth, and with ``judge_`` before by the second.
    """
    checks.threshold(tau)
    texts = table["prompt"].tolist()
    completions = policies.generate(
        model,
        tokenizer,
        texts,
        max_completion_length=max_completion_length,
        temperature=temperature,
        seed=seed,
    )
    said = completions.texts
    samples = table.reset_index(drop=True).copy()
    samples["response"] = said
    samples["length"] = [len(ids) for ids in completions.ids]
    t = guard_scores(guard, texts, said)
    samples["t"] = t.astype(float)
    samples["cut_off"] = completions.cut_off
    samples["seen_in_part"] = seen_in_part(guard, texts, said)
    if missed := int(samples["seen_in_part"].sum()):
        say(
            f"{name_of(guard)} saw only the beginning of {missed} of {len(samples)} responses, "
            "which are too long for it: what stands behind it is not guarded.",
            sys.stderr,
        )
    samples["filtered"] = t >= tau
    samples["near"] = np.abs(t - tau) < NEAR
    samples["u"] = np.nan if utility is None else utility_scores(utility, texts, said)
    samples["kl"] = _kl(model, completions, base, temperature)
    for column in ("harm", "help", "system_harm", "system_help"):
        samples[column] = samples[f"judge_{column}"] = np.nan
    for prefix, judge in zip(("", "judge_"), judges, strict=False):
        samples = graded(samples, judge, prefix)
        if missing := int(samples[f"{prefix}harm"].isna().sum()):
            say(
                f"{judge.name} left {missing} of {len(samples)} responses without a grade; its "
                "means are those of the others.",
                sys.stderr,
            )
    return samples


def sample_as(
    config: runs.TrainConfig, model, tokenizer, table: pd.DataFrame, **more
) -> pd.DataFrame:
    """:func:`sample_policy` with a config's threshold, sampling and seed; ``more`` goes over it."""
    names = ("tau", "temperature", "max_completion_length", "seed")
    given = {**{name: getattr(config, name) for name in names}, **more}
    return sample_policy(model, tokenizer, table, **given)


def graded(
    samples: pd.DataFrame,
    judge: Judge,
    prefix: str = "",
    *,
    refusals: bool = False,
    raw: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Samples with a judge's grades of each response, and of what the user sees instead of it.

    ``samples`` has prompt, response and filtered; the columns get the ``prefix``. With ``refusals``
    there are also refusal_harm and refusal_help, the canned refusal's for every prompt: what the
    user sees is then known for any threshold. ``raw`` are the responses' grades, if known already.
    """
    prompts, filtered = samples["prompt"], samples["filtered"].to_numpy(bool)
    if raw is None:
        raw = judge.grade(prompts.tolist(), samples["response"].tolist())
    asked = np.ones_like(filtered) if refusals else filtered
    refusal = judge.grade(prompts[asked].tolist(), [CANNED_REFUSAL] * int(asked.sum()))
    columns: dict[str, np.ndarray] = {}
    for grade in ("harm", "help"):
        columns[grade] = raw[grade].to_numpy(float, copy=True)
        refused = np.full(len(samples), np.nan)
        refused[asked] = refusal[grade]
        columns[f"system_{grade}"] = np.where(filtered, refused, columns[grade])
        if refusals:
            columns[f"refusal_{grade}"] = refused
    return samples.assign(**{prefix + name: values for name, values in columns.items()})


def behind(
    samples: pd.DataFrame, t: np.ndarray, tau: float, refusals: Mapping[str, object]
) -> pd.DataFrame:
    """The same responses with other scores ``t`` (n,) at a threshold, and what is then seen.

    ``refusals`` has harm and help (n,) of the canned refusal to each prompt.
    """
    filtered, near = t >= tau, np.abs(t - tau) < NEAR
    seen = {f"system_{k}": np.where(filtered, refusals[k], samples[k]) for k in ("harm", "help")}
    return samples.assign(t=t, filtered=filtered, near=near, **seen)


def _kl(model, completions: policies.Completions, base, temperature: float) -> np.ndarray:
    """log pi(y|x) - log base(y|x) per response; its mean estimates KL(pi || base) in nats."""
    if base is None or base is model:
        return np.full(len(completions.texts), np.nan if base is None else 0.0)
    ours = policies.log_probabilities(model, completions, temperature)
    if base != "adapter":
        return ours - policies.log_probabilities(base, completions, temperature)
    with model.disable_adapter():
        return ours - policies.log_probabilities(model, completions, temperature)


def truth_of(prompt_set: str) -> Judge | None:
    """The judge that knows the truth about a prompt set: the oracle for the testbed's."""
    return OracleJudge() if prompt_set == prompts.TESTBED else None


def judge_names(config: runs.TrainConfig) -> list[str]:
    """The judges of a config: the oracle on the testbed, then those that it names, two at most.

    The first stands for the truth. The embedded judge and the oracle know the testbed's words only,
    so other prompts get neither.

    >>> judge_names(runs.TrainConfig())
    ['oracle', 'default']
    >>> judge_names(runs.TrainConfig(prompts="everyday", judge="english"))
    ['english']
    """
    named = [] if config.judge == "none" else [name.strip() for name in config.judge.split(",")]
    if config.prompts == prompts.TESTBED:
        return list(dict.fromkeys(["oracle", *named]))[:2]
    return [name for name in named if name not in ("default", "oracle")][:2]


def quick_truth(config: runs.TrainConfig, device: str = "auto") -> tuple[Judge, ...]:
    """What stands for the truth along a training: the oracle, or a judge of classifiers."""
    first = judge_names(config)[:1]
    return tuple(load_judge(name, device) for name in first if is_quick(name))


def sample_test(
    config: runs.TrainConfig, model, tokenizer, guard: Scorer, utility: Scorer, base=None
) -> pd.DataFrame:
    """A policy's samples on the test prompts of a config, graded by its judges.

    The same config draws the same prompts with the same random numbers for every policy, so that
    differences between policies can be paired.
    """
    judges = tuple(load_judge(name, str(model.device)) for name in judge_names(config))
    scorers = {"guard": guard, "utility": utility, "judges": judges, "base": base}
    return sample_as(config, model, tokenizer, _test_prompts(config), **scorers)


def _test_prompts(config: runs.TrainConfig) -> pd.DataFrame:
    return prompts.load_prompts(config.prompts, "test", config.test_prompts, seed=0)


def labels_of(config: runs.TrainConfig, design: str | None = None) -> dict:
    """What identifies a row: design, utility, scale, guard, tau (objects by their own names)."""
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
#: Base says the same whatever reward model reads it.
ANY_UTILITY = {key: getattr(runs.TrainConfig(), key) for key in ("utility", "utility_bits")}


def base_name(config: runs.TrainConfig) -> str:
    """A name for base's samples, the same for all configs that they do not depend on.

    >>> base_name(runs.TrainConfig()) == base_name(runs.TrainConfig(reward="compound", steps=3))
    True
    """
    kept = {key: getattr(config, key) for key in BASE_KEYS}
    return f"base-{runs.config_hash(runs.TrainConfig(**kept))}"


def check_base(config: runs.TrainConfig, samples: pd.DataFrame, guard: Scorer | None) -> None:
    """Raise BgkitError unless samples of base are those of a config's prompts, guard and tau.

    ``guard`` None: one whose scores can not be told from another's.
    """
    if samples["prompt"].tolist() != _test_prompts(config)["prompt"].tolist():
        fault = f"are not of its {config.test_prompts} test prompts of {config.prompts}"
    elif (samples["filtered"] != (samples["t"] >= config.tau)).any():
        fault = f"were not filtered at its tau of {config.tau:g}"
    elif guard is not None and not identity.scored_by(samples, guard):
        fault = f"were not scored by its guard {runs.label(config.guard)}"
    else:
        return
    raise BgkitError(
        f"The base_samples {fault}: draw them with sample_base of the same config and guard, or "
        "leave them out."
    )


def evaluate_run(
    run: runs.Run,
    model,
    tokenizer,
    guard: Scorer,
    utility: Scorer,
    base_samples: pd.DataFrame | Path | None = None,
) -> dict:
    """Evaluate a trained policy beside base on the test prompts; keep both sample tables.

    ``base_samples`` are base's (of any utility: ``u`` is scored anew), or a folder that keeps them
    for other runs (:func:`base_name`). Returns ``rows`` (base and policy, see :func:`summarise`),
    ``paired`` differences, and ``graded_by``: who stands for the truth.
    """
    config, kept = run.config, None
    if isinstance(base_samples, Path):
        kept = base_samples / f"{base_name(replace(config, **ANY_UTILITY))}.parquet"
        said_by = run.read_json("config.json").get(identity.RECORD, {}).get("policy")
        base_samples = pd.read_parquet(kept) if kept.is_file() else None
        if base_samples is not None and not (
            identity.scored_by(base_samples, guard)
            and identity.alike("policy", base_samples.attrs.pop("policy", None), said_by)
        ):
            base_samples = None  # a folder's weights were changed: drawn anew
    if base_samples is not None:
        texts = base_samples["prompt"].tolist(), base_samples["response"].tolist()
        base_samples = base_samples.assign(u=utility_scores(utility, *texts))
    lora = config.lora_rank > 0
    off, base = model.disable_adapter() if lora else contextlib.nullcontext(), model
    if not lora:
        base, _ = policies.load_policy(config.policy, None, str(model.device), config.precision)
    if base_samples is None:
        with phase("evaluating base"), off:
            base_samples = sample_test(config, base, tokenizer, guard, utility, base)
        if kept is not None:
            told = base_samples.copy()
            told.attrs["policy"] = said_by
            runs.write_parquet(kept, told)
    with phase("evaluating the policy"):
        beside = "adapter" if lora else base
        samples = sample_test(config, model, tokenizer, guard, utility, beside)
    runs.write_parquet(run.folder / "samples.parquet", samples)
    runs.write_parquet(run.folder / "base_samples.parquet", base_samples)
    rows = summarise(base_samples, labels_of(config, "base"))
    rows += summarise(samples, labels_of(config))
    paired = paired_differences(samples, base_samples, labels_of(config))
    return {"graded_by": judge_names(config)[:1], "rows": rows, "paired": paired}
