"""Evaluate complete runs and base, with their own or another guard or threshold."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as sampling
from bgkit.evaluation.judges import load_judge
from bgkit.evaluation.language_judge import Judge, LanguageJudge
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.evaluation.results import base_names, design_names, runs_of
from bgkit.models import devices, policies
from bgkit.progress import phase, say
from bgkit.prompts import load
from bgkit.runs import Run, TrainConfig
from bgkit.scoring import guards, identity
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import Scorer


def policy_of(config: TrainConfig, run: Run | None = None, device: str = "auto") -> tuple:
    """Model and tokenizer of a run's policy, or of base (no run).

    Raises BgkitError if the run used another policy of that name, or has no adapter.
    """
    adapter = run and _adapter_of(run)
    policy = policies.load_policy(config.policy, adapter, device, config.precision)
    if run is not None and config.lora_rank:
        identity.check(run, policy=identity.PolicyScorer(*policy))
    return policy


def _adapter_of(run: Run) -> Path:
    if not run.adapter.is_dir():
        raise BgkitError(
            f"The run {run.folder} has no adapter, so its policy cannot be sampled (some runs that "
            "come with the kit hold only samples and results); train it again."
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

    ``guard`` and ``utility`` default to the config's. Where config and run name the same one, it
    must be the one that the run used, else BgkitError. ``u`` is NaN where the config's utility is a
    Python object and none is given.
    """
    with phase(f"evaluating {'base' if run is None else run.label}"):
        guard = guards.guard_of(config, device, given=guard)
        scorers = {"guard": guard, "utility": guards.utility_if_known(config, device, utility)}
        if run is not None:
            shared = [key for key in scorers if getattr(config, key) == getattr(run.config, key)]
            identity.check(run, **{key: scorers[key] for key in shared})
        model, tokenizer = policy_of(config, run, device)
        base = model if run is None else "adapter"
        if run is not None and not config.lora_rank:
            base, _ = policy_of(config, None, device)
        return sampling.sample_test(config, model, tokenizer, base=base, **scorers)


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
    """Sample one completion for each of ``n`` prompts of a set, score and grade it.

    A config in place of the policy gives base's samples on the config's test prompts
    (:func:`samples_of`). ``policy``, ``guard``, ``utility`` and ``judge`` are names, or what
    ``bgkit.load_policy`` (model and tokenizer), ``load_guard``, ``as_guard``, ``load_utility`` and
    ``load_judge`` return; ``prompt_set`` is a name, a file or a prompt table (of which
    the first ``n`` are taken). The testbed's oracle grades its own prompts, the judge all others.
    Columns as in :func:`bgkit.evaluation.samples.sample_as`, and refusals' grades unless a language
    model grades.
    """
    if isinstance(policy, TrainConfig):
        return samples_of(policy, device=device)
    truth = table = None
    if n is not None:
        checks.require_positive(n=n)
    if isinstance(prompt_set, pd.DataFrame):
        table = prompt_set.head(len(prompt_set) if n is None else n)
    else:
        table = load.load_prompts(prompt_set, split, n, seed)
        truth = sampling.truth_of(prompt_set)
    if not isinstance(policy, tuple | list):
        policy = policies.load_policy(policy, None, device)
    if not (judge is None or hasattr(judge, "grade")):
        judge = load_judge(judge, device)
    if not (utility is None or hasattr(utility, "score")):
        utility = guards.load_utility(utility, device)
    judges = tuple(filter(None, [truth, judge]))
    options = {"tau": tau, "temperature": temperature, "seed": seed}
    return sampling.sample_as(
        TrainConfig(max_completion_length=max_completion_length, **options),
        *policy,
        table,
        guard=guards.load_guard(guard, device) if isinstance(guard, str) else as_guard(guard),
        utility=utility,
        judges=judges,
        # grading refusals as well would double the requests to a language model
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
    """Evaluate complete runs (and base) on test prompts, optionally with another guard or tau.

    ``results`` is a run or its folder, or several. ``guard`` is a name or an object (as in
    :func:`bgkit.training.trainer.train`): a run that was trained with an object needs it again, or
    another guard. ``prompts`` is another prompt set, ``judge`` another judge. The utility of runs
    trained with an object is NaN.

    Returns provenance, ``rows`` (:func:`bgkit.evaluation.metrics.summarise`) and ``paired``
    differences, labelled by design and what else differs. Runs that share no base have one each,
    ``base of NAME``.
    """
    options = {"tau": tau, "test_prompts": test_prompts, "prompts": prompts, "judge": judge}
    if isinstance(guard, str):
        options, guard = {**options, "guard": guard}, None
    changes = {key: value for key, value in options.items() if value is not None}
    complete = runs_of(results, complete=True)
    for run in complete:  # before anything is sampled
        _adapter_of(run)
    by_name = dict(zip(design_names(complete, but=["reward"]), complete, strict=True))
    configs = {name: _new_deployment(run.config, changes, guard) for name, run in by_name.items()}
    base_labels = base_names({name: sampling.base_name(c) for name, c in configs.items()})
    bases: dict[str, pd.DataFrame] = {}
    base_rows, rows, paired = [], [], []
    for name, config in configs.items():
        _note_changed_prompts(by_name[name], config)
        label = base_labels[name]
        if label not in bases:
            bases[label] = samples_of(config, None, device, guard=guard)
            base_rows += summarise(bases[label], sampling.labels_of(config, label))
        samples = samples_of(config, by_name[name], device, guard=guard)
        labels = sampling.labels_of(config, name)
        rows += summarise(samples, labels)
        paired += paired_differences(samples, bases[label], labels)
    return {**devices.provenance(), "rows": base_rows + rows, "paired": paired}


def _note_changed_prompts(run: Run, config: TrainConfig) -> None:
    """Write to stderr if a run's test prompts are no longer those of its own evaluation."""
    same = (config.prompts, config.test_prompts) == (run.config.prompts, run.config.test_prompts)
    if not same or not (run.folder / "prompts.json").is_file():  # shipped runs have none
        return
    _, manifest = load.load_with_manifest(config.prompts, "test", config.test_prompts, 0)
    if run.read_json("prompts.json")["test"]["sha256"] != manifest["sha256"]:
        say(
            f"The prompts {config.prompts!r} have changed since {run.folder} was evaluated: these "
            "results are not comparable with its own. Restore the file, or evaluate all runs anew.",
            sys.stderr,
        )


def _new_deployment(config: TrainConfig, changes: dict, guard: Scorer | None) -> TrainConfig:
    """A config with changes and, if given, a guard; a new guard loads with default options."""
    defaults = {**identity.LOADING["guard"], "guard_temperature": 1.0}
    changed = runs.make_config(changes, config)
    other = changed if guard is None else identity.name_objects(replace(changed, **defaults), guard)
    return replace(other, **defaults) if other.guard != config.guard else changed
