"""What happens between a run's steps: its curve, held-out evaluation, progress, and stopping."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from bgkit import runs
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.language_judge import Judge
from bgkit.evaluation.metrics import values_of
from bgkit.progress import Phase, phase, say
from bgkit.scoring.scorer import Scorer
from bgkit.training.reward_function import EXPECTED, MULTIPLIER

SAME = "step reward t u margin filter_rate near_boundary kl seen_in_part entropy loss".split()
SAME += [EXPECTED, MULTIPLIER]
#: name of a logged value, TRL's or the reward's -> its column in metrics.parquet
LOGGED = {name: name for name in SAME} | {
    "reward_std": "reward_deviation",
    "frac_reward_zero_std": "no_spread",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "cut_off",
    "grad_norm": "gradient_norm",
    "step_time": "seconds",
}
#: column of the metrics -> its label on the progress line
PROGRESS_LABELS = {
    "reward": "reward",
    "filter_rate": "filtered",
    "near_boundary": "near",
    "kl": "KL/token",  # the trainer's is a mean over tokens; an evaluation's is over responses
    "no_spread": "no spread",
}
HELD_OUT = ("filter_rate", "near_boundary", "system_harm", "system_help")  # during training


class RunCallback(TrainerCallback):
    """Keeps the training curve, evaluates on held-out prompts, shows progress, stops on request."""

    trainer: GRPOTrainer
    progress: Phase  # over the steps
    judges: tuple[Judge, ...] | None = None  # of the held-out evaluations
    stopped = signalled = False

    def __init__(
        self,
        run: runs.Run,
        guard: Scorer,
        held_out: pd.DataFrame | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.run, self.guard, self.held_out, self.should_stop = run, guard, held_out, should_stop

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start the progress at the resumed step; evaluate base."""
        self.progress.first = self.progress.done = state.global_step
        if not state.global_step:
            self._evaluate(state)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Show the newest values."""
        if logs and "reward" in logs:
            row = metrics_row(logs)
            parts = [f"{n}={row[key]:.2f}" for key, n in PROGRESS_LABELS.items() if key in row]
            self.progress.done, self.progress.more = state.global_step, ", ".join(parts)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Evaluate when it is due; stop, with a checkpoint, when any process was asked to."""
        self._evaluate(state)
        stop, accelerator = self.signalled or self.should_stop(), self.trainer.accelerator
        # the processes of a launch must all stop after the same step
        if accelerator.gather(torch.tensor([float(stop)], device=accelerator.device)).any():
            self.stopped = state.global_step < state.max_steps
            control.should_training_stop = control.should_save = True

    def on_save(self, args, state, control, **kwargs) -> None:
        """Write the curve at each checkpoint and at the end."""
        if not state.is_world_process_zero:
            return
        rows: dict[int, dict] = {}
        for entry in state.log_history:  # TRL logs a step; the held-out values follow it
            row = metrics_row(entry) if "reward" in entry else {"step": entry["step"]}
            row |= {key: value for key, value in entry.items() if key.startswith("eval_")}
            rows.setdefault(entry["step"], {}).update(row)
        if curve := [row for row in rows.values() if len(row) > 1]:
            runs.write_parquet(self.run.folder / "metrics.parquet", pd.DataFrame(curve))

    on_train_end = on_save

    def _evaluate(self, state) -> None:
        """Add held-out metrics to the trainer's (saved) history, if they are due."""
        config, trainer, step = self.run.config, self.trainer, state.global_step
        if not config.eval_every or step % config.eval_every:
            return
        with phase("held-out evaluation"):
            if self.judges is None:
                self.judges = evaluation.quick_truth(config, str(trainer.model.device))
            options = {"guard": self.guard, "judges": self.judges, "seed": 1}
            with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as policy:
                inputs = policy, trainer.processing_class, self.held_out
                samples = evaluation.sample_as(config, *inputs, **options)
        means = values_of(samples).mean()[list(HELD_OUT)].dropna().astype(float)
        state.log_history.append({"step": step, **means.add_prefix("eval_").to_dict()})


def metrics_row(logs: dict) -> dict[str, float]:
    """A step's logged values, by column of metrics.parquet."""
    return {column: logs[name] for name, column in LOGGED.items() if name in logs}


@contextlib.contextmanager
def stop_on_signals(callback: RunCallback) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a stop after the current step; a second Ctrl-C stops at once."""

    def stop(number, frame) -> None:
        again, callback.signalled = callback.signalled, True
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            say("stopping after this step ...", sys.stderr)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the handlers of a notebook or sweep apply
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
