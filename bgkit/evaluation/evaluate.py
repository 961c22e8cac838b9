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
from bgkit.evaluation.results import bases_called, design_of, runs_of
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
        identity.check(run, policy=identity.PolicyScorer(*made))
    return made


def _adapter_of(run: Run) -> Path:
    if not run.adapter.is_dir():
        raise BgkitError(
            f"The run {run.folder} has no adapter, so its policy can not be asked again (of some "
            "runs that come with the kit only samples and results are kept); train it anew."
        )
    return run.adapter


def samples_of(
    config: TrainConfig,
    run: Run | None = None,
    device: str = "auto",
    *,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
) -> pd.DataFrame:
    """Graded samples of base, or of a run's policy, on the test prompts of a config.

    ``guard`` and ``utility`` are those of the config unless given, and the ones that the run was
    made with where it names the same; ``u`` is NaN where the config names a utility that is an
    object, and none is given.
    """
    with phase(f"evaluating {'base' if run is None else run.label}"):
        guard = guards.guard_of(config, device, given=guard)
        utility = guards.utility_if_known(config, device, utility)
        if run is not None:
            own = {"guard": guard, "utility": utility}
            same = {k: own[k] for k in own if getattr(config, k) == getattr(run.config, k)}
            identity.check(run, **same)
        model, tokenizer = policy_of(config, run, device)
        beside = "adapter" if config.lora_rank else None  # a whole model has none beside it
        scorers = {"guard": guard, "utility": utility, "base": model if run is None else beside}
        return sampling.sample_test(config, model, tokenizer, **scorers)


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
    (:func:`samples_of`). ``policy``, ``guard``, ``utility`` and ``judge`` are names, or what
    ``bgkit.load_policy`` (model and tokenizer), ``load_guard``, ``as_guard``, ``load_utility`` and
    ``load_judge`` give; ``prompt_set`` is a name, a file or a prompt table. The testbed's own
    prompts are graded by its oracle, others by the judge. Columns as in
    :func:`bgkit.evaluation.samples.sample_as`, with those of a refusal where there is a truth.
    """
    if isinstance(policy, TrainConfig):
        return samples_of(policy, device=device)
    truth, table = None, prompt_set
    if not isinstance(prompt_set, pd.DataFrame):
        table = load.load_prompts(prompt_set, split, n, seed)
        truth = sampling.truth_of(prompt_set)
    if not isinstance(policy, tuple | list):
        policy = policies.load_policy(policy, None, device)
    if not (judge is None or hasattr(judge, "grade")):
        judge = load_judge(judge, device)
    if not (utility is None or hasattr(utility, "score")):
        utility = guards.load_utility(utility, device)
    judges = tuple(filter(None, [truth, judge]))
    told = {"tau": tau, "temperature": temperature, "seed": seed}
    return sampling.sample_as(
        TrainConfig(max_completion_length=max_completion_length, **told),
        *policy,
        table,
        guard=guards.load_guard(guard, device) if isinstance(guard, str) else as_guard(guard),
        utility=utility,
        judges=judges,
        # a language model is not asked about refusals, too: that would double what it is asked
        refusals=not (judges and isinstance(judges[0], LanguageJudge)),
    )


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
    wanted = {"tau": tau, "test_prompts": test_prompts, "prompts": prompts, "judge": judge}
    if isinstance(guard, str):
        wanted, guard = {**wanted, "guard": guard}, None
    changes = {key: value for key, value in wanted.items() if value is not None}
    found = runs_of(results, complete=True)
    for run in found:  # before anything is sampled
        _adapter_of(run)
    named = {design_of(run, found[0], but=["reward"]): run for run in found}
    configs = {name: _deployed(run.config, changes, guard) for name, run in named.items()}
    called = bases_called({name: sampling.base_name(config) for name, config in configs.items()})
    bases: dict[str, pd.DataFrame] = {}
    base_rows, rows, paired = [], [], []
    for name, config in configs.items():
        label = called[name]
        if label not in bases:
            bases[label] = samples_of(config, None, device, guard=guard)
            base_rows += summarise(bases[label], sampling.labels_of(config, label))
        samples = samples_of(config, named[name], device, guard=guard)
        labels = sampling.labels_of(config, name)
        rows += summarise(samples, labels)
        paired += paired_differences(samples, bases[label], labels)
    return {**devices.provenance(), "rows": base_rows + rows, "paired": paired}


def _deployed(config: TrainConfig, changes: dict, guard: Scorer | None) -> TrainConfig:
    """A config with changes, and behind a guard if one is given; another guard is taken plain."""
    plain = {**identity.LOADING["guard"], "guard_temperature": 1.0}
    own = runs.make_config(changes, config)
    other = own if guard is None else identity.name_objects(replace(own, **plain), guard)
    return replace(other, **plain) if other.guard != config.guard else own
