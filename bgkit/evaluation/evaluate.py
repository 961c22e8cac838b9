"""Evaluate complete runs beside base, as they were trained or behind another guard or threshold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as sampling
from bgkit.evaluation.judges import load_judge
from bgkit.evaluation.language_judge import Judge, LanguageJudge
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.evaluation.results import design_of, runs_of
from bgkit.models import devices, policies
from bgkit.progress import phase
from bgkit.prompts import load
from bgkit.runs import Run, TrainConfig
from bgkit.scoring import guards, identity
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import Scorer


def policy_of(config: TrainConfig, run: Run | None = None, device: str = "auto") -> tuple:
    """Model and tokenizer of a run's policy, or of base (no run).

    Raises BgkitError where the run was made with another policy of that name, or has none.
    """
    adapter = run and _adapter_of(run)
    made = policies.load_policy(config.policy, adapter, device, config.precision)
    if run is not None and config.lora_rank:
        identity.check(run, policy=identity.Speaker(*made))
    return made


def _adapter_of(run: Run) -> Path:
    if not run.adapter.is_dir():
        raise BgkitError(
            f"The run {run.folder} has no adapter, so its policy can not be asked again (of some "
            "runs that come with the kit only samples and results are kept); train it anew."
        )
    return run.adapter


def sample_base(
    config: TrainConfig,
    device: str = "auto",
    *,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
) -> pd.DataFrame:
    """The base policy's graded samples on the test prompts of a config.

    ``guard`` and ``utility`` are those of the config unless given; ``u`` is NaN where the config
    names a utility that is an object, and none is given.
    """
    with phase("evaluating base"):
        return _sample(config, None, device, guard, utility)


def _sample(
    config: TrainConfig,
    run: Run | None,
    device: str,
    guard: Scorer | None,
    utility: Scorer | None = None,
) -> pd.DataFrame:
    """Graded samples of a run's policy, or of base (no run), on a config's test prompts.

    A guard or utility of the name that stands in the config of ``run`` is the one it was made with.
    """
    guard = guards.guard_of(config, device, given=guard)
    utility = guards.utility_if_known(config, device, utility)
    if run is not None:
        own = {"guard": guard, "utility": utility}
        same = [group for group in own if getattr(config, group) == getattr(run.config, group)]
        identity.check(run, **{group: own[group] for group in same})
    model, tokenizer = policy_of(config, run, device)
    beside = "adapter" if config.lora_rank else None  # a whole model has none beside it
    base = model if run is None else beside
    return sampling.sample_test(config, model, tokenizer, guard, utility, base)


def sample(
    policy: str | tuple | TrainConfig = "small",
    prompt_set: str | pd.DataFrame = load.TESTBED,
    *,
    n: int | None = None,
    split: str = "test",
    guard: str | object = "default",
    utility: str | Scorer | None = None,
    judge: str | Judge | None = None,
    tau: float = 0.5,
    temperature: float = 1.0,
    max_completion_length: int = 60,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """What a policy says to ``n`` prompts of a set, once each, scored and graded.

    A config in place of the policy gives base's samples as its run would have them
    (:func:`sample_base`). ``policy``, ``guard``, ``utility`` and ``judge`` are names, or what
    ``bgkit.load_policy`` (model and tokenizer), ``load_guard``, ``as_guard``, ``load_utility`` and
    ``load_judge`` give; ``prompt_set`` is a name, a file or a prompt table. The testbed's own
    prompts are graded by its oracle, others by the judge. Columns as in
    :func:`bgkit.evaluation.samples.sample_policy`, with those of a refusal where there is a truth.
    """
    if isinstance(policy, TrainConfig):
        return sample_base(policy, device)
    named = not isinstance(prompt_set, pd.DataFrame)
    table = load.load_prompts(prompt_set, split, n, seed) if named else prompt_set
    model, tokenizer = (
        policy if isinstance(policy, tuple | list) else policies.load_policy(policy, None, device)
    )
    truth = sampling.truth_of(prompt_set) if named else None
    graded = judge is None or hasattr(judge, "grade")
    judges = tuple(filter(None, [truth, judge if graded else load_judge(judge, device)]))
    if not (utility is None or hasattr(utility, "score")):
        utility = guards.load_utility(utility, device)
    samples = sampling.sample_policy(
        model,
        tokenizer,
        table,
        guard=guards.load_guard(guard, device) if isinstance(guard, str) else as_guard(guard),
        tau=tau,
        utility=utility,
        judges=judges,
        temperature=temperature,
        max_completion_length=max_completion_length,
        seed=seed,
    )
    if not judges or isinstance(judges[0], LanguageJudge):  # which would be asked twice as much
        return samples
    return sampling.graded(samples, judges[0], refusals=True, raw=samples)


def evaluate(
    results: Run | str | Path | Iterable[str | Path | Run],
    *,
    guard: str | Scorer | None = None,
    tau: float | None = None,
    test_prompts: int | None = None,
    prompts: str | None = None,
    judge: str | None = None,
    device: str = "auto",
) -> dict:
    """Evaluate complete runs (and base) on test prompts, if wanted with another guard or tau.

    ``results`` are runs or their folders, one or several. ``guard`` is a name, or an object (as in
    :func:`bgkit.training.trainer.train`): a run that was trained with one needs it again, or
    another guard. ``prompts`` is another prompt set, ``judge`` another judge. The utility of runs
    that were trained with an object is not known.

    Returns provenance, ``rows`` (:func:`bgkit.evaluation.metrics.summarise`) and ``paired``
    differences, labelled by design and what else differs; a base that runs do not share stands once
    for each, as ``base of NAME``.
    """
    named_guard, guard = (guard, None) if isinstance(guard, str) else (None, guard)
    wanted = {"tau": tau, "test_prompts": test_prompts, "prompts": prompts, "judge": judge}
    changes = {key: value for key, value in wanted.items() if value is not None}
    found = runs_of(results, complete=True)
    for run in found:  # before anything is sampled
        _adapter_of(run)
    named = {design_of(run, found[0], but=["reward"]): run for run in found}
    configs = {
        name: _deployed(runs.make_config(changes, run.config), named_guard, guard)
        for name, run in named.items()
    }
    sources = {name: sampling.base_name(config) for name, config in configs.items()}
    bases: dict[str, pd.DataFrame] = {}
    base_rows, rows, paired = [], [], []
    for name, config in configs.items():
        if sources[name] not in bases:
            base = bases[sources[name]] = sample_base(config, device, guard=guard)
            label = "base" if len(set(sources.values())) == 1 else f"base of {name}"
            base_rows += summarise(base, sampling.labels_of(config, label))
        with phase(f"evaluating {name}"):
            samples = _sample(config, named[name], device, guard)
        labels = sampling.labels_of(config, name)
        rows += summarise(samples, labels)
        paired += paired_differences(samples, bases[sources[name]], labels)
    return {**devices.provenance(), "rows": base_rows + rows, "paired": paired}


def _deployed(config: TrainConfig, name: str | None, guard: Scorer | None) -> TrainConfig:
    """A config behind another guard; its own one's settings are undone."""
    plain = {**identity.LOADING["guard"], "guard_temperature": 1.0}
    other = replace(config, guard=config.guard if name is None else name, **plain)
    if guard is not None:
        other = identity.named(other, guard)
    return other if other.guard != config.guard else config
