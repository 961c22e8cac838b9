"""One GRPO run: TRL trains, PEFT adapts, and a run folder holds everything that came of it.

Deviations from the paper (Ball and Haupt, arXiv 2510.11834), whose GRPO and LoRA settings could not
be read from it, so that every default in :class:`~bgkit.runs.TrainConfig` is our own choice:

1. Utility is standardised by the base policy's mean and deviation, measured once per run.
2. ``loss_type="grpo"`` (sequence-mean token loss) and ``beta`` are set explicitly, for TRL's
   defaults are another loss and no KL term.
3. Advantages are centred within a group, not divided by its deviation (Liu et al. 2025, "Dr. GRPO",
   arXiv 2503.20783): divided, a group in which all responses are far from the boundary, and which
   differs in utility only, would weigh as much as one that straddles it.
4. The learning rate falls linearly to zero over the run.
5. The prompts of a step are all short or all long, for a batch is padded to its longest prompt.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from datasets import Dataset
from safetensors import SafetensorError
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from bgkit import devices, evaluation, guards, judges, policies, prompts, runs, utilities
from bgkit.errors import BgkitError, StoppedError
from bgkit.progress import Progress
from bgkit.scoring import RewardFunction, Scorer, shares_of_t

BASE_SAMPLES = 256  # completions of the base policy that standardise the utility
#: TRL's or the reward's name of a logged value -> its column in metrics.parquet
LOGGED = {
    "step": "step",
    "reward": "reward",
    "reward_std": "reward_deviation",
    "t": "t",
    "u": "u",
    "margin": "margin",
    "filter_rate": "filter_rate",
    "near_boundary": "near_boundary",
    "kl": "kl",
    "frac_reward_zero_std": "no_spread",
    "completions/mean_length": "completion_length",
    "entropy": "entropy",
    "loss": "loss",
    "grad_norm": "gradient_norm",
    "step_time": "seconds",
}
HELD_OUT = ("filter_rate", "near_boundary", "system_harm", "system_help")  # along the way


def train(
    config: runs.TrainConfig,
    folder: str | Path,
    *,
    device: str = "auto",
    guard_device: str = "",
    utility_device: str = "",
    check: bool = True,
    threads: int = 0,
    report_to: str = "none",
    guard: Scorer | None = None,
    utility: Scorer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    base_samples: pd.DataFrame | None = None,
    progress: Progress | None = None,
) -> runs.Run:
    """Train a policy and evaluate it, or finish a run that was stopped.

    A complete run is returned as it is. ``base_samples`` are the base policy's samples on the same
    test prompts (:func:`~bgkit.comparison.sample_base`), where they were already drawn.

    ``guard_device`` and ``utility_device`` are the policy's unless given; on devices of their own
    both score at the same time. ``check`` runs the self-tests of models that are not embedded.
    ``guard`` and ``utility`` replace the ones that the config names by any object with ``score``.
    ``should_stop`` is asked after every step. Raises BgkitError for anything the user can mend,
    and StoppedError if the run was stopped (the same call goes on).
    """
    found = runs.find_run(Path(folder), config)
    if found is not None and found.complete:
        return found
    devices.pin_threads(threads)
    place = devices.pick_device(device)
    chosen = prompts.manifests(config.prompts, _asked(config))
    judges.check_judge(config.judge)
    guard = guard or guards.guard_of(config, guard_device or str(place), check)
    utility = utility or utilities.utility_of(config, utility_device or str(place), check)
    model, tokenizer = policies.load_policy(config.policy, None, str(place), config.precision)
    table = _training_table(config, policies.special_strings(tokenizer))
    environment = _environment(guard, utility)
    run = found or runs.open_run(Path(folder), config, environment)
    prompts.keep_manifests(run.folder / "prompts.json", chosen)
    base = _measure_base(run, model, tokenizer, guard, utility)
    progress = progress or Progress(config.steps, f"training {config.reward}")
    callback = RunCallback(run, guard, should_stop, progress)
    trainer = callback.trainer = _QuietTrainer(
        model=model,
        reward_funcs=_reward_function(run, guard, utility, base),
        args=_trainer_arguments(run, place, report_to),
        train_dataset=table,
        processing_class=tokenizer,
        peft_config=policies.lora_config(config.lora_rank, config.lora_alpha),
        callbacks=[callback],
    )
    seconds = _run_trainer(trainer, run, callback)
    trainer.save_model(str(run.adapter))
    policy = trainer.accelerator.unwrap_model(trainer.model)
    result = evaluation.evaluate_run(run, policy, tokenizer, guard, utility, base_samples)
    run.finish({"seconds": seconds, "base": base, **environment, **result})
    return run


def _environment(*scorers: Scorer) -> dict:
    """What a run keeps beside its config: versions, machine, and what the self-tests found."""
    found = [getattr(scorer, "checked", None) for scorer in scorers]
    return {
        "versions": devices.versions(),
        "machine": devices.machine(),
        "git": runs.git_revision(),
        "self_tests": [outcome for outcome in found if outcome],
    }


def _run_trainer(trainer: GRPOTrainer, run: runs.Run, callback: RunCallback) -> float:
    """Train from the newest checkpoint; returns seconds, raises StoppedError if asked to stop."""
    trainer.remove_callback(transformers.PrinterCallback)
    started = time.time()
    with callback.progress, signals_stop(callback), _writing(run):
        checkpoint = run.last_checkpoint()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callback.stopped:
        raise StoppedError(
            f"Stopped after step {trainer.state.global_step} of {run.config.steps}; nothing is "
            f"lost: run the same command again to go on from {run.folder}."
        )
    return round(time.time() - started, 1)


def _reward_function(run: runs.Run, guard: Scorer, utility: Scorer, base: dict) -> RewardFunction:
    return RewardFunction(
        run.config.reward,
        guard,
        utility,
        tau=run.config.tau,
        weights=run.config.weights(),
        utility_mean=base["utility_mean"],
        utility_deviation=base["utility_deviation"],
        record=run.record_completions,
    )


class _QuietTrainer(GRPOTrainer):
    """GRPOTrainer that leaves no model card draft beside the adapter; a run has its own files."""

    def create_model_card(self, *args, **kwargs) -> None:
        """Write nothing."""


def _trainer_arguments(run: runs.Run, place: torch.device, report_to: str) -> GRPOConfig:
    config, on_gpu = run.config, place.type == "cuda"
    half = on_gpu and devices.pick_dtype(place, config.precision) is torch.bfloat16
    return GRPOConfig(
        output_dir=str(run.checkpoints),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size // config.accumulation,
        gradient_accumulation_steps=config.accumulation,
        num_generations=config.num_generations,
        max_completion_length=config.max_completion_length,
        temperature=config.temperature,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        beta=config.beta,
        loss_type="grpo",
        scale_rewards="none",
        shuffle_dataset=False,  # the table is already in the order of training
        seed=config.seed,
        use_cpu=place.type == "cpu",
        bf16=half,
        gradient_checkpointing=half,
        logging_steps=1,
        save_steps=config.save_every,
        save_total_limit=2,
        disable_tqdm=True,
        report_to=report_to,
        dataloader_pin_memory=on_gpu,
        pad_to_multiple_of=None,
    )


def _asked(config: runs.TrainConfig) -> dict[str, tuple[int, int]]:
    """Number of prompts and seed of each split that a run uses."""
    needed = config.steps * (config.batch_size // config.num_generations)
    asked = {"train": (needed, config.seed), "test": (config.test_prompts, 0)}
    return asked | ({"validation": (config.eval_prompts, 1)} if config.eval_every else {})


def _training_table(config: runs.TrainConfig, specials: list[str]) -> Dataset:
    """The prompts of every step, in order: ``batch_size / num_generations`` rows a step."""
    per_step = config.batch_size // config.num_generations
    needed = config.steps * per_step
    table = prompts.load_prompts(config.prompts, "train", needed, config.seed)
    known = "harmful_request" in table and table["harmful_request"].notna().all()
    if config.reward == "prompt_aware" and not known:
        raise BgkitError(
            "The reward 'prompt_aware' needs the column 'harmful_request' (true or false) for all "
            f"prompts of {config.prompts}; add it, or choose another reward."
        )
    table = table.iloc[_order(table["prompt"].str.len().to_numpy(), per_step, needed, config.seed)]
    columns = {
        "prompt": [policies.as_chat(text, specials) for text in table["prompt"]],
        "question": table["prompt"].tolist(),
        "prompt_id": table["prompt_id"].tolist(),
        "kind": table["kind"].tolist(),
    }
    if "harmful_request" in table:
        columns["harmful_request"] = table["harmful_request"].tolist()
    return Dataset.from_dict(columns)


def _order(lengths: np.ndarray, per_step: int, needed: int, seed: int) -> np.ndarray:
    """Row numbers (needed,) in which the prompts of a step are all short or all long.

    The two groups are divided at the length that pads least; within them the order is random, so
    that a step mixes kinds of requests (steps of a single kind undo each other's updates). Rows
    are repeated only where their number is no multiple of ``per_step``.
    """
    rng = np.random.default_rng([seed, 7])
    rows, n = np.argsort(lengths, kind="stable"), len(lengths)
    short = np.arange(per_step, n + 1, per_step)  # possible sizes of the short group
    padded = short * lengths[rows[short - 1]] + (n - short) * lengths[rows[-1]]
    divide = short[padded.argmin()] if len(short) else 0
    steps: list[np.ndarray] = []
    while len(steps) * per_step < needed:
        repeats = rng.choice(rows, -n % per_step)
        for group in (rows[:divide], np.concatenate([rows[divide:], repeats])):
            steps += list(rng.permutation(group).reshape(-1, per_step))
    shuffled = [steps[i] for i in rng.permutation(len(steps))]
    return np.concatenate(shuffled)[:needed]


def _measure_base(run: runs.Run, model, tokenizer, guard: Scorer, utility: Scorer) -> dict:
    """Mean and deviation of the base policy's utility, measured once and kept with the run."""
    if (run.folder / "base.json").is_file():
        return run.read_json("base.json")
    config = run.config
    table = prompts.load_prompts(config.prompts, "train", BASE_SAMPLES, config.seed)
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
    runs.write_json(run.folder / "base.json", base)
    return base


class RunCallback(TrainerCallback):
    """Keeps the training curve, evaluates on held-out prompts, shows progress, stops politely."""

    def __init__(
        self,
        run: runs.Run,
        guard: Scorer,
        should_stop: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self.run, self.guard, self.progress = run, guard, progress
        self.should_stop, self.stopped, self.signalled = should_stop, False, False
        self.trainer: GRPOTrainer | None = None
        self._prompts: pd.DataFrame | None = None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start the display at the resumed step."""
        self.progress.start(state.global_step)
        if state.global_step == 0:
            self._evaluate(state)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Show the newest values."""
        if logs and "reward" in logs:
            self.progress.update(state.global_step, self._row(logs))

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Evaluate when it is due; stop, with a checkpoint, when asked to."""
        if self.run.config.eval_every and state.global_step % self.run.config.eval_every == 0:
            self._evaluate(state)
        if self.signalled or self.should_stop():
            self.stopped = state.global_step < state.max_steps
            control.should_training_stop = control.should_save = True

    def on_save(self, args, state, control, **kwargs) -> None:
        """Keep the curve up to each checkpoint."""
        self._write_metrics(state)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Keep the whole curve."""
        self._write_metrics(state)

    def _evaluate(self, state) -> None:
        """Add held-out metrics of the policy as it is now to the trainer's (saved) history."""
        config = self.run.config
        if not config.eval_every:
            return
        if self._prompts is None:
            self._prompts = prompts.load_prompts(
                config.prompts, "validation", config.eval_prompts, seed=1
            )
        samples = evaluation.sample_policy(
            self.trainer.accelerator.unwrap_model(self.trainer.model),
            self.trainer.processing_class,
            self._prompts,
            guard=self.guard,
            tau=config.tau,
            judges=evaluation.truth_of(config.prompts),
            temperature=config.temperature,
            max_completion_length=config.max_completion_length,
            seed=1,
        )
        means = evaluation.values_of(samples).mean()
        state.log_history.append(
            {"step": state.global_step}
            | {f"eval_{name}": float(means[name]) for name in HELD_OUT if not np.isnan(means[name])}
        )

    def _row(self, logs: dict) -> dict[str, float]:
        return {column: logs[name] for name, column in LOGGED.items() if name in logs}

    def _write_metrics(self, state) -> None:
        rows: dict[int, dict] = {}
        for entry in state.log_history:  # TRL logs a step; the held-out values follow it
            row = self._row(entry) if "reward" in entry else {"step": entry["step"]}
            row |= {key: value for key, value in entry.items() if key.startswith("eval_")}
            rows.setdefault(entry["step"], {}).update(row)
        frame = pd.DataFrame([row for row in rows.values() if len(row) > 1])
        if len(frame):
            runs.write_parquet(self.run.folder / "metrics.parquet", frame)


@contextmanager
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


@contextmanager
def signals_stop(callback: RunCallback) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a stop after the current step (a second Ctrl-C is at once)."""

    def stop(number, frame) -> None:
        if callback.signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        callback.signalled = True
        print("\nstopping after this step ...", file=sys.stderr, flush=True)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: a notebook's or sweep's own handling applies
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
