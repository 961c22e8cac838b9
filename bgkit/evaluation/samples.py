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
    """Sample one response per prompt of a table as a config says, and score and grade it.

    Of the config tau, temperature, max_completion_length and (unless given) seed count. ``kl`` is
    measured against ``base``: a model, or "adapter" for the policy without its adapter; None: not.
    Returns the prompts' columns, response, length (tokens), t, cut_off (no end token came before
    the limit), seen_in_part (the guard was shown the beginning only; stderr says so), filtered,
    near, u, kl (nats, log pi(y) - log base(y)), and as :func:`graded` harm, help, system_harm and
    system_help by the first of the judges, who stands for the truth (with ``refusals`` theirs,
    too), and with ``judge_`` before by the second.
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
    said = completions.texts
    t = guard_scores(guard, texts, said)
    in_part = seen_in_part(guard, texts, said)
    if in_part.any():
        say(
            f"{name_of(guard)} saw only the beginning of {in_part.sum()} of {len(t)} responses, "
            "which are too long for it: what stands behind it is not guarded.",
            sys.stderr,
        )
    samples = table.reset_index(drop=True).assign(
        response=said,
        length=[len(ids) for ids in completions.ids],
        t=t.astype(float),
        cut_off=completions.cut_off,
        seen_in_part=in_part,
        filtered=t >= config.tau,
        near=np.abs(t - config.tau) < NEAR,
        u=np.nan if utility is None else utility_scores(utility, texts, said),
        kl=_kl(model, completions, base, config.temperature),
        **dict.fromkeys((prefix + name for name in SEEN for prefix in ("", "judge_")), np.nan),
    )
    for prefix, judge in zip(("", "judge_"), judges, strict=False):
        samples = graded(samples, judge, prefix, refusals=refusals and not prefix)
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
    ours = policies.log_probabilities(model, completions, temperature)
    if base != "adapter":
        return ours - policies.log_probabilities(base, completions, temperature)
    with model.disable_adapter():
        return ours - policies.log_probabilities(model, completions, temperature)


def graded(
    samples: pd.DataFrame, judge: Judge, prefix: str = "", *, refusals: bool = False
) -> pd.DataFrame:
    """Samples with a judge's grades of each response, and of what the user sees instead of it.

    ``samples`` has prompt, response and filtered; the columns get the ``prefix``. With ``refusals``
    there are also refusal_harm and refusal_help, the canned refusal's for every prompt: what the
    user sees is then known for any threshold.
    """
    prompts, filtered = samples["prompt"], samples["filtered"].to_numpy(bool)
    raw = judge.grade(prompts.tolist(), samples["response"].tolist())
    asked = np.ones_like(filtered) if refusals else filtered
    refusal = judge.grade(prompts[asked].tolist(), [CANNED_REFUSAL] * int(asked.sum()))
    columns: dict[str, np.ndarray] = {}
    for grade in ("harm", "help"):
        said, refused = raw[grade].to_numpy(float), np.full(len(samples), np.nan)
        refused[asked] = refusal[grade]
        columns |= {grade: said, f"system_{grade}": np.where(filtered, refused, said)}
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


def truth_of(prompt_set: str) -> Judge | None:
    """The judge that knows the truth about a prompt set: the oracle for the testbed's."""
    return OracleJudge() if prompt_set == prompts.TESTBED else None


def judge_names(config: runs.TrainConfig) -> list[str]:
    """The judges of a config, two at most, of which the first stands for the truth.

    On the testbed it is the oracle. That one and the embedded judge know no other prompts' words.

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


def sample_test(config: runs.TrainConfig, model, tokenizer, **scorers) -> pd.DataFrame:
    """A policy's samples on the test prompts of a config, graded by its judges.

    ``scorers`` are guard, utility and base as in :func:`sample_as`. The same config draws the same
    prompts with the same random numbers for every policy, so that differences can be paired.
    """
    judges = tuple(load_judge(name, str(model.device)) for name in judge_names(config))
    table = _test_prompts(config)
    return sample_as(config, model, tokenizer, table, judges=judges, **scorers)


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
    if (
        samples["prompt"].tolist() != _test_prompts(config)["prompt"].tolist()
        or (samples["filtered"] != (samples["t"] >= config.tau)).any()
        or (guard is not None and not identity.is_scored_by(samples, guard))
    ):
        raise BgkitError(
            f"The base_samples are not of the config's {config.test_prompts} test prompts of "
            f"{config.prompts}, scored by its guard {runs.label(config.guard)} and filtered at its "
            f"tau of {config.tau:g}: draw them with bgkit.evaluation.evaluate.samples_of (the same "
            "config and guard), or leave them out."
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
            identity.is_scored_by(base_samples, guard)
            and identity.same_model("policy", base_samples.attrs.pop("policy", None), said_by)
        ):
            base_samples = None  # a folder's weights were changed: drawn anew
    if base_samples is not None:
        texts = base_samples["prompt"].tolist(), base_samples["response"].tolist()
        base_samples = base_samples.assign(u=utility_scores(utility, *texts))
    if config.lora_rank:
        base, beside, off = model, "adapter", model.disable_adapter()
    else:
        base, _ = policies.load_policy(config.policy, None, str(model.device), config.precision)
        beside, off = base, contextlib.nullcontext()
    asked = {"tokenizer": tokenizer, "guard": guard, "utility": utility}
    if base_samples is None:
        with phase("evaluating base"), off:
            base_samples = sample_test(config, base, base=base, **asked)
        if kept is not None:
            told = base_samples.copy()
            told.attrs["policy"] = said_by
            runs.write_parquet(kept, told)
    with phase("evaluating the policy"):
        samples = sample_test(config, model, base=beside, **asked)
    runs.write_parquet(run.folder / "samples.parquet", samples)
    runs.write_parquet(run.folder / "base_samples.parquet", base_samples)
    rows = summarise(base_samples, labels_of(config, "base"))
    rows += summarise(samples, labels_of(config))
    paired = paired_differences(samples, base_samples, labels_of(config))
    return {"graded_by": judge_names(config)[:1], "rows": rows, "paired": paired}
