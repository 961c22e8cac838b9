"""One GRPO run: TRL trains, PEFT adapts, and a run folder holds all results.

Deviations from the paper (Ball and Haupt, arXiv 2510.11834), which does not give its GRPO and LoRA
settings, so every default in :class:`~bgkit.runs.config.TrainConfig` is our own choice:

1. Utility is standardised by the base policy's mean and deviation, and the reward is divided by its
   deviation over the same responses. Both are measured once per run, so one ``beta`` has the same
   weight against every design.
2. The default ``loss_type`` is ``grpo`` (sequence-mean token loss), with a KL term (``beta``); TRL
   by default uses another loss and no KL term.
3. By default (``scale_rewards`` none) advantages are centred within a group but not divided by its
   deviation (Liu et al. 2025, "Dr. GRPO", arXiv 2503.20783). Division would give a group far from
   the boundary, which differs in utility only, the weight of one that straddles it. ``group``
   divides, as in the original GRPO.
4. The learning rate falls linearly to zero over the run, unless ``lr_schedule`` says otherwise.
5. The prompts of a step are all short or all long (:mod:`bgkit.training.prompt_order`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedModel, TrainerCallback
from trl import GRPOTrainer

from bgkit import checks, runs
from bgkit.environment import versions
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import judges
from bgkit.evaluation import samples as evaluation
from bgkit.models import devices, hub, policies
from bgkit.progress import phase
from bgkit.prompts import load as prompts
from bgkit.rewards import reward_file_digest
from bgkit.scoring import guards, identity
from bgkit.scoring.scorer import Scorer, check_prompts
from bgkit.training import grpo
from bgkit.training import prompt_order as training_prompts
from bgkit.training.callback import RunCallback, stop_on_signals
from bgkit.training.multiplier import MultiplierCallback
from bgkit.training.reward_function import RewardFunction, reward_of, shares_of_t
from bgkit.training.shared_prompts import SharedPrompts

OWN_REWARD = "reward_sha256"  # key of config.json: hash of the file of a user's own reward
BASE_SAMPLES = 256  # completions of the base policy that standardise the utility


def train(
    config: runs.TrainConfig | None = None,
    folder: str | Path | None = None,
    *,
    below: str | Path = "runs",
    device: str = "auto",
    guard_device: str = "",
    utility_device: str = "",
    check: bool = True,
    threads: int = 0,
    report_to: str = "none",
    trainer: dict | None = None,
    shared_prompts: str = "auto",
    guard: str | Scorer | Callable | None = None,
    utility: str | Scorer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    base_samples: pd.DataFrame | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: object,
) -> runs.Run:
    """Train a policy and evaluate it, or finish a run that was stopped.

    ``settings`` are fields of :class:`~bgkit.runs.config.TrainConfig` that override ``config``.
    Without a ``folder``, the run gets its own folder in ``below`` (:func:`bgkit.runs.folder_of`).
    ``guard`` and ``utility`` are names or objects with ``score`` (a guard also anything that
    :func:`bgkit.scoring.adapters.as_guard` accepts); each may have its own device. ``check`` runs
    the self-tests of models that are not embedded. ``base_samples`` are the base policy's on the
    same test prompts (:func:`~bgkit.evaluation.evaluate.samples_of`), or a folder that keeps them
    for all runs with the same base. ``trainer`` holds further arguments of TRL's trainer;
    ``callbacks`` are added to our own; ``should_stop`` is called after every step;
    ``shared_prompts`` (auto, off) is explained in :mod:`bgkit.training.shared_prompts`. Raises
    BgkitError for anything the user can fix, StoppedError if the run was stopped (the same call
    resumes it).
    """
    config, guard, utility = identity.split_objects(config, settings, guard, utility)
    checks.require_type("a name or a path", folder=folder or below)
    folder = Path(runs.folder_of(config, below) if folder is None else folder)
    earlier = _earlier_run(folder, config, trainer)
    if earlier is not None and earlier.complete:
        identity.check_complete(earlier, guard, utility)
        training_prompts.check_files(earlier)
        return earlier
    sharing = SharedPrompts(shared_prompts)
    devices.pin_threads(threads)
    place = devices.pick_device(device)
    arguments = grpo.trainer_arguments(config, folder / "checkpoints", place, report_to, trainer)
    splits = training_prompts.load_splits(config)  # cheap checks come before loading models
    judges.check_judge(config.judge)
    guard = guards.guard_of(config, guard_device or str(place), check, guard)
    utility = guards.utility_of(config, utility_device or str(place), check, utility)
    resumes = earlier is not None and earlier.has_measurements
    if resumes:
        identity.check(earlier, guard=guard, utility=utility)  # before a policy is loaded
    policy, tokenizer = policies.load_policy(config.policy, None, str(place), config.precision)
    policy_scorer = identity.PolicyScorer(policy, tokenizer)
    scorers = {"guard": guard, "utility": utility, "policy": policy_scorer}
    for table, _ in splits.values():  # all splits, as the test prompts are used after training
        for scorer in scorers.values():
            check_prompts(scorer, table["prompt"].tolist())
    if resumes:
        identity.check(earlier, policy=policy_scorer)
    scores = identity.fingerprints(**scorers)
    if isinstance(base_samples, pd.DataFrame):
        identifiable = guard if scores["guard"] is not None else None
        evaluation.check_base(config, base_samples, identifiable)
    specials = policies.special_strings(tokenizer)
    steps = training_prompts.training_table(config, splits["train"][0], specials)
    environment = _environment(config, policy, (guard, utility), trainer)
    state = arguments.distributed_state
    with state.main_process_first():  # the other processes read what it wrote
        run = runs.open_run(folder, config, {identity.RECORD: scores, **environment})
        if state.is_main_process:
            run.drop_repeated()
        training_prompts.write_manifests(run, splits)
        base = measure_base(run, policy, tokenizer, guard, utility)
    held_out, _ = splits.get("validation", (None, None))
    callback = RunCallback(run, guard, held_out, should_stop)
    options = {"model": policy, "processing_class": tokenizer, "train_dataset": steps}
    options |= {"args": arguments, "sharing": sharing, "callbacks": [*callbacks, callback]}
    grpo_trainer = _make_trainer(run, (guard, utility), base, trainer, **options)
    seconds = _run_trainer(grpo_trainer, run, callback)
    if state.is_main_process:
        record = {"seconds": seconds, "peak_memory": devices.peak_memory(), "base": base}
        trained = grpo_trainer.accelerator.unwrap_model(grpo_trainer.model)
        base_samples = Path(base_samples) if isinstance(base_samples, str) else base_samples
        result = evaluation.evaluate_run(run, trained, tokenizer, guard, utility, base_samples)
        run.finish({**record, "shared_prompts": sharing.status, **environment, **result})
    return run


def _earlier_run(folder: Path, config: runs.TrainConfig, trainer: dict | None) -> runs.Run | None:
    """The run of a folder, if there is one; raises BgkitError if it was made in another way."""
    if (run := runs.find_run(folder, config)) is None:
        return None
    stored = run.read_json("config.json")
    if method := stored.get(runs.METHOD):
        raise BgkitError(
            f"The run folder {folder} holds {method} with the same config; choose another folder."
        )
    before, now = map(grpo.learning_arguments, (stored.get("trainer"), trainer))
    if run.has_measurements and before != now:
        raise BgkitError(
            f"The run in {folder} was made with other arguments of the trainer ({before} there, "
            f"{now} here); give the same ones, or choose another folder."
        )
    if run.has_measurements and stored.get(OWN_REWARD) != reward_file_digest(config.reward):
        raise BgkitError(
            f"The file of the reward {config.reward!r} has changed since the run in {folder} was "
            "started; choose another folder."
        )
    return run


def _environment(
    config: runs.TrainConfig,
    policy: PreTrainedModel,
    scorers: tuple[Scorer, Scorer],
    trainer: dict | None,
) -> dict:
    """What a run records along with its config: versions, machine, outcomes of self-tests."""
    about = versions()
    outcomes = [getattr(scorer, "test_outcome", None) for scorer in scorers]
    optional = {
        "trainer": trainer,
        "policy_made_of": policy.made_of,
        "policy_from": hub.model_source(config.policy),
        OWN_REWARD: reward_file_digest(config.reward),
    }
    return {key: value for key, value in optional.items() if value} | {
        "processes": devices.rank_and_size()[1],
        "git": about.pop("git"),
        "versions": about,
        "machine": devices.machine(),
        "self_tests": [outcome for outcome in outcomes if outcome],
    }


def measure_base(run: runs.Run, model, tokenizer, guard: Scorer, utility: Scorer) -> dict:
    """Statistics of the base policy's responses that scale the reward; measured once per run.

    Mean and deviation of the utility, and deviation of the reward (1 if all rewards are the same),
    as :func:`~bgkit.training.reward_function.reward_of` needs them.
    """
    if (run.folder / "base.json").is_file():
        return run.read_json("base.json")
    config = run.config
    table = prompts.load_prompts(config.prompts, "train", BASE_SAMPLES, config.seed)
    with phase("base's utility"):
        scorers = {"guard": guard, "utility": utility}
        samples = evaluation.sample_as(config, model, tokenizer, table, **scorers)
    u = samples["u"].to_numpy(float)
    base = {
        "utility_mean": float(u.mean()),
        "utility_deviation": float(max(u.std(), 1e-6)),
        "filter_rate": float(samples["filtered"].mean()),
        "near_boundary": float(samples["near"].mean()),
        "t_shares": shares_of_t(samples["t"].to_numpy()),
        "n": len(u),
    }
    reward = reward_of(samples, config.reward, tau=config.tau, strength=config.strength, base=base)
    spread = float(reward.std())
    base["reward_deviation"] = spread if spread > 1e-6 else 1.0
    runs.write_json(run.folder / "base.json", base)
    return base


def _make_trainer(
    run: runs.Run, scorers: tuple[Scorer, Scorer], base: dict, more: dict | None, **options
) -> grpo.QuietTrainer:
    config, ends = run.config, options["model"].generation_config.eos_token_id
    reward = RewardFunction(
        config.reward,
        *scorers,
        tau=config.tau,
        strength=config.strength,
        base=base,
        record=lambda step, frame: run.record_completions(step, frame, devices.rank_and_size()[0]),
        decode=functools.partial(policies.decode_completions, options["processing_class"], ends),
        moves=config.max_false_negatives > 0,
    )
    if bound := config.max_false_negatives:
        options["callbacks"] = [MultiplierCallback(reward, bound), *options["callbacks"]]
    try:
        with phase("setting up the trainer"):
            return grpo.QuietTrainer(
                peft_config=policies.lora_config(config.lora_rank, config.lora_alpha),
                reward_funcs=reward,
                **options,
            )
    except (ImportError, TypeError, ValueError, NotImplementedError) as error:
        if not more:
            raise
        raise BgkitError(f"TRL rejects the arguments of the trainer {more}: {error}") from error


def _run_trainer(trainer: GRPOTrainer, run: runs.Run, callback: RunCallback) -> float:
    """Train from the newest checkpoint and save the adapter; returns seconds.

    Raises StoppedError if asked to stop, and BgkitError for a checkpoint that cannot be written.
    """
    callback.trainer = trainer
    trainer.remove_callback(transformers.PrinterCallback)
    started, checkpoint = time.time(), run.last_checkpoint()
    try:
        progress = phase(f"training {run.config.reward}", run.config.steps)
        with progress as callback.progress, stop_on_signals(callback):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise BgkitError(
            f"Could not write a checkpoint in {run.checkpoints} ({error}). Free some space; the "
            "same command then resumes from the last checkpoint."
        ) from error
    if callback.stopped:
        raise StoppedError(
            f"Stopped after step {trainer.state.global_step} of {run.config.steps}; nothing is "
            f"lost: run the same command again to resume from {run.folder}."
        )
    seconds = round(time.time() - started, 1)
    trainer.save_model(str(run.adapter))
    if trainer.is_world_process_zero():
        hub.write_base_name(run.adapter, run.config.policy)
    return seconds
