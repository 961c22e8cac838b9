"""One GRPO run: TRL trains, PEFT adapts, and a run folder holds everything that came of it.

Deviations from the paper (Ball and Haupt, arXiv 2510.11834), whose GRPO and LoRA settings could not
be read from it, so that every default in :class:`~bgkit.runs.folders.TrainConfig` is our own
choice:

1. Utility is standardised by the base policy's mean and deviation, and the reward divided by its
   deviation over the same responses, measured once per run: one ``beta`` weighs the same against
   every design.
2. The default ``loss_type`` is ``grpo`` (sequence-mean token loss), and there is a KL term
   (``beta``); TRL's defaults are another loss and none.
3. By default (``scale_rewards`` none) advantages are centred within a group, not divided by its
   deviation (Liu et al. 2025, "Dr. GRPO", arXiv 2503.20783): divided, a group in which all
   responses are far from the boundary, and which differs in utility only, would weigh as much as
   one that straddles it. ``group`` divides, as GRPO was published.
4. The learning rate falls linearly to zero over the run, unless ``lr_schedule`` says otherwise.
5. The prompts of a step are all short or all long (:mod:`bgkit.training.prompt_order`).
"""

from __future__ import annotations

import contextlib
import functools
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers
from safetensors import SafetensorError
from transformers import TrainerCallback
from trl import GRPOTrainer

from bgkit import runs
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import judges
from bgkit.evaluation import samples as evaluation
from bgkit.models import devices, hub, merging, policies
from bgkit.progress import Progress, phase
from bgkit.prompts import load as prompts
from bgkit.rewards import own_digest
from bgkit.runs import drawn
from bgkit.scoring import guards, identity, utilities
from bgkit.scoring.scorer import RewardFunction, Scorer, reward_of, shares_of_t
from bgkit.training import grpo
from bgkit.training import prompt_order as training_prompts
from bgkit.training.callback import RunCallback, signals_stop
from bgkit.training.shared_prompts import SharedPrompts

OWN_REWARD = "reward_sha256"  # of the file of a reward of one's own, in a run's config.json
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
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: object,
) -> runs.Run:
    """Train a policy and evaluate it, or finish a run that was stopped.

    ``settings`` are fields of :class:`~bgkit.runs.config.TrainConfig`, over ``config``. Without a
    folder the run goes to one of its own in ``below`` (:func:`bgkit.runs.folder_of`). A complete
    run is returned as it is. ``base_samples`` are the base policy's samples on the same test
    prompts (:func:`~bgkit.evaluation.evaluate.sample_base`), where they were already drawn, or a
    folder that keeps them for all runs with the same base (not with a ``guard`` or ``utility`` of
    one's own, which no config names).

    ``guard_device`` and ``utility_device`` are the policy's unless given; on devices of their own
    both score at the same time. ``check`` runs the self-tests of models that are not embedded.
    ``trainer`` are further arguments of TRL's trainer
    (:func:`bgkit.training.grpo.trainer_arguments`). ``callbacks`` are added to the trainer's.
    ``shared_prompts`` (auto, on, off) computes each prompt once for all of its completions, where
    the model takes it (:mod:`bgkit.training.shared_prompts`).
    ``guard`` and ``utility`` are names, or replace those of the config by any object with ``score``
    (a guard also by what :func:`bgkit.scoring.adapters.as_guard` takes); the run's config and rows
    then have the object's name, and only the same object goes on with the run
    (:mod:`bgkit.scoring.identity`). ``should_stop`` is asked after every step. Raises BgkitError
    for anything the user can mend, and StoppedError if the run was stopped (the same call goes on).
    """
    config, guard, utility = identity.settle(config, settings, guard, utility)
    folder = Path(runs.folder_of(config, below) if folder is None else folder)
    found = _found(folder, config, trainer)
    if found is not None and found.complete:
        identity.check_complete(found, guard, utility)
        return found
    base_samples, sharing = _named_base(base_samples, guard, utility), SharedPrompts(shared_prompts)
    devices.pin_threads(threads)
    place = devices.pick_device(device)
    arguments = grpo.trainer_arguments(
        config, runs.Run(folder, config).checkpoints, place, report_to, trainer
    )
    chosen = prompts.manifests(config.prompts, training_prompts.asked(config))
    judges.check_judge(config.judge)
    guard = guards.guard_of(config, guard_device or str(place), check, guard)
    utility = utilities.utility_of(config, utility_device or str(place), check, utility)
    model, tokenizer, scores = _known_policy(config, found, guard, utility, place)
    if isinstance(base_samples, pd.DataFrame):
        evaluation.check_base(config, base_samples, guard if scores["guard"] is not None else None)
    table = training_prompts.training_table(config, policies.special_strings(tokenizer))
    environment = _environment(guard, utility, trainer)
    environment |= {"policy_made_of": model.made_of} if model.made_of else {}
    environment |= {"policy_from": source} if (source := hub.came_from(config.policy)) else {}
    environment |= {OWN_REWARD: own} if (own := own_digest(config.reward)) else {}
    state = arguments.distributed_state
    with state.main_process_first():  # the others find what it wrote
        run = runs.open_run(folder, config, {identity.RECORD: scores, **environment})
        if state.is_main_process:
            run.drop_repeated()
        prompts.keep_manifests(run.folder / "prompts.json", chosen)
        base = measure_base(run, model, tokenizer, guard, utility)
    shown = progress or Progress(config.steps, f"training {config.reward}")
    callback = RunCallback(run, guard, should_stop, shown)
    made = _make_trainer(
        config,
        trainer,
        callback,
        sharing=sharing,
        model=model,
        reward_funcs=_reward_function(run, guard, utility, base, tokenizer, model),
        args=arguments,
        train_dataset=table,
        processing_class=tokenizer,
        callbacks=[callback, *callbacks],
    )
    with _taken(trainer):
        seconds = _run_trainer(made, run, callback)
    if state.is_main_process:
        told = {"seconds": seconds, "peak_memory": devices.peak_memory(), "base": base}
        policy = _trained_policy(made, run, place)
        result = evaluation.evaluate_run(run, policy, tokenizer, guard, utility, base_samples)
        run.finish({**told, "shared_prompts": sharing.told, **environment, **result})
    return run


def _known_policy(
    config: runs.TrainConfig,
    found: runs.Run | None,
    guard: Scorer,
    utility: Scorer,
    place: torch.device,
) -> tuple:
    """The policy, its tokenizer, and what all three models score of fixed texts.

    Raises BgkitError where a run that has begun was begun with other models.
    """
    began = found is not None and found.measured
    if began:
        identity.check(found, guard, utility)  # before a policy is loaded
    model, tokenizer = policies.load_policy(config.policy, None, str(place), config.precision)
    speaker = identity.Speaker(model, tokenizer)
    if began:
        identity.check(found, policy=speaker)
    return model, tokenizer, identity.record(config, guard, utility, speaker)


def _named_base(
    samples: pd.DataFrame | str | Path | None, guard: object, utility: object
) -> pd.DataFrame | Path | None:
    """Base's samples as given; a folder of them is for guards and utilities with a name only."""
    if not isinstance(samples, str | Path):
        return samples
    if guard is not None or utility is not None:
        raise BgkitError(
            "A folder of base's samples is for scorers that the config names; leave "
            "base_samples out with a guard or utility of your own."
        )
    return Path(samples)


def _found(folder: Path, config: runs.TrainConfig, trainer: dict | None) -> runs.Run | None:
    """The run of a folder, if there is one; raises BgkitError if it is not one of this kind."""
    found = runs.find_run(folder, config)
    stored = found.read_json("config.json") if found is not None else {}
    if method := stored.get(runs.METHOD):
        raise BgkitError(
            f"The run folder {folder} holds {method} with the same config; choose another folder."
        )
    before, now = (grpo.of_training(more) for more in (stored.get("trainer"), trainer))
    if found is not None and found.measured and before != now:
        raise BgkitError(
            f"The run in {folder} was made with other arguments of the trainer ({before} there, "
            f"{now} here); give the same ones, or choose another folder."
        )
    if found is not None and found.measured and stored.get(OWN_REWARD) != own_digest(config.reward):
        raise BgkitError(
            f"The file of the reward {config.reward!r} has changed since the run in {folder} was "
            "begun; choose another folder."
        )
    return found


def _make_trainer(
    config: runs.TrainConfig, more: dict | None, callback: RunCallback, **arguments
) -> grpo.QuietTrainer:
    adapter = policies.lora_config(config.lora_rank, config.lora_alpha)
    try:
        with phase("setting up the trainer"), _taken(more):
            callback.trainer = grpo.QuietTrainer(peft_config=adapter, **arguments)
            return callback.trainer
    except ImportError as error:  # such as vLLM, that an argument asks for
        raise BgkitError(f"The trainer needs a package that is missing: {error}") from error


@contextlib.contextmanager
def _taken(more: dict | None) -> Iterator[None]:
    """Turn what the libraries do not take of the trainer's further arguments into a sentence."""
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
        if not more or not {"trl", "transformers", "accelerate"} & {*raised_in}:
            raise
        raise BgkitError(f"TRL refuses the arguments of the trainer {more}: {error}") from error


def _trained_policy(trainer: GRPOTrainer, run: runs.Run, place: torch.device):
    """The trained policy, whole on one device: loaded anew where training had it in shards."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.model = trainer.model_wrapped = None
        config = run.config
        return policies.load_policy(config.policy, run.adapter, str(place), config.precision)[0]
    return trainer.accelerator.unwrap_model(trainer.model)


def _environment(guard: Scorer, utility: Scorer, trainer: dict | None) -> dict:
    """What a run keeps beside its config: versions, machine, and what the self-tests found."""
    found = [getattr(scorer, "checked", None) for scorer in (guard, utility)]
    more = {"trainer": trainer} if trainer else {}
    return more | {
        "processes": devices.launched()[1],
        "versions": devices.versions(),
        "machine": devices.machine(),
        "git": runs.git_revision(),
        "self_tests": [outcome for outcome in found if outcome],
    }


def _run_trainer(trainer: GRPOTrainer, run: runs.Run, callback: RunCallback) -> float:
    """Train from the newest checkpoint and save the adapter; returns seconds.

    Raises StoppedError if asked to stop.
    """
    trainer.remove_callback(transformers.PrinterCallback)
    started = time.time()
    with callback.progress, signals_stop(callback), _writing(run):
        checkpoint = run.last_checkpoint()
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except KeyboardInterrupt:
            if not callback.between_steps:  # Ctrl-C came twice
                raise
    if callback.stopped or (callback.signalled and devices.launched()[1] == 1):
        raise StoppedError(
            f"Stopped after step {trainer.state.global_step} of {run.config.steps}; nothing is "
            f"lost: run the same command again to go on from {run.folder}."
        )
    seconds = round(time.time() - started, 1)
    trainer.save_model(str(run.adapter))
    if trainer.is_world_process_zero():
        merging.name_base(run.adapter, run.config.policy)
    return seconds


def _reward_function(
    run: runs.Run, guard: Scorer, utility: Scorer, base: dict, tokenizer, model
) -> RewardFunction:
    ends = model.generation_config.eos_token_id
    return RewardFunction(
        run.config.reward,
        guard,
        utility,
        tau=run.config.tau,
        strength=run.config.strength,
        base=base,
        record=lambda step, frame: run.record_completions(step, frame, devices.launched()[0]),
        decode=functools.partial(policies.texts_of, tokenizer, ends),
    )


def measure_base(run: runs.Run, model, tokenizer, guard: Scorer, utility: Scorer) -> dict:
    """What of the base policy's responses scales the reward, measured once, kept with the run.

    Mean and deviation of the utility, and the deviation of the reward (1 where base's responses
    have no other rewards), as :func:`~bgkit.scoring.scorer.reward_of` reads them.
    """
    if (run.folder / "base.json").is_file():
        return run.read_json("base.json")
    config = run.config
    table = prompts.load_prompts(config.prompts, "train", BASE_SAMPLES, config.seed)
    with phase("base's utility"), drawn.keeping(run.folder / "records" / "base"):
        samples = evaluation.sample_policy(
            model,
            tokenizer,
            table,
            guard=guard,
            utility=utility,
            tau=config.tau,
            temperature=config.temperature,
            max_completion_length=config.max_completion_length,
            seed=config.seed,
        )
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


@contextlib.contextmanager
def _writing(run: runs.Run) -> Iterator[None]:
    """Turn a checkpoint that could not be written into a sentence."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise BgkitError(
            f"Could not write a checkpoint in {run.checkpoints} ({error}). Free some space; the "
            "same command then goes on from the last checkpoint."
        ) from error
