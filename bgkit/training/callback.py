"""Beside a run's steps: its curve, held-out evaluation, progress, and a polite stop."""

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

KEPT = "step reward t u margin filter_rate near_boundary kl seen_in_part entropy loss".split()
#: name of a logged value, TRL's or the reward's -> its column in metrics.parquet
LOGGED = {name: name for name in KEPT} | {
    "reward_std": "reward_deviation",
    "frac_reward_zero_std": "no_spread",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "cut_off",
    "grad_norm": "gradient_norm",
    "step_time": "seconds",
}
#: column of the metrics -> how it is called on the line
SHOWN = {
    "reward": "reward",
    "filter_rate": "filtered",
    "near_boundary": "near",
    "kl": "KL/token",  # the trainer's is a mean over tokens; an evaluation's is over responses
    "no_spread": "no spread",
}
HELD_OUT = ("filter_rate", "near_boundary", "system_harm", "system_help")  # along the way


class RunCallback(TrainerCallback):
    """Keeps the training curve, evaluates on held-out prompts, shows progress, stops politely."""

    trainer: GRPOTrainer
    line: Phase  # over the steps
    judges: tuple[Judge, ...] | None = None  # of the evaluations along the way
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
        """Start the line at the resumed step; evaluate base."""
        self.line.first = self.line.done = state.global_step
        if not state.global_step:
            self._evaluate(state)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Show the newest values."""
        if logs and "reward" in logs:
            row = row_of(logs)
            parts = [f"{name}={row[key]:.2f}" for key, name in SHOWN.items() if key in row]
            self.line.done, self.line.more = state.global_step, ", ".join(parts)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Evaluate when it is due; stop, with a checkpoint, when any process was asked to."""
        self._evaluate(state)
        wanted, accelerator = self.signalled or self.should_stop(), self.trainer.accelerator
        # the processes of a launch must all stop after the same step
        if accelerator.gather(torch.tensor([float(wanted)], device=accelerator.device)).any():
            self.stopped = state.global_step < state.max_steps
            control.should_training_stop = control.should_save = True

    def on_save(self, args, state, control, **kwargs) -> None:
        """Keep the curve up to each checkpoint, and in the end the whole."""
        if not state.is_world_process_zero:
            return
        rows: dict[int, dict] = {}
        for entry in state.log_history:  # TRL logs a step; the held-out values follow it
            row = row_of(entry) if "reward" in entry else {"step": entry["step"]}
            row |= {key: value for key, value in entry.items() if key.startswith("eval_")}
            rows.setdefault(entry["step"], {}).update(row)
        if kept := [row for row in rows.values() if len(row) > 1]:
            runs.write_parquet(self.run.folder / "metrics.parquet", pd.DataFrame(kept))

    on_train_end = on_save

    def _evaluate(self, state) -> None:
        """Add held-out metrics to the trainer's (saved) history, where they are due."""
        config, trainer, step = self.run.config, self.trainer, state.global_step
        if not config.eval_every or step % config.eval_every:
            return
        with phase("held-out evaluation"):
            if self.judges is None:
                self.judges = evaluation.quick_truth(config, str(trainer.model.device))
            how = {"guard": self.guard, "judges": self.judges, "seed": 1}
            with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as policy:
                asked = policy, trainer.processing_class, self.held_out
                samples = evaluation.sample_as(config, *asked, **how)
        means = values_of(samples).mean()[list(HELD_OUT)].dropna().astype(float)
        state.log_history.append({"step": step, **means.add_prefix("eval_").to_dict()})


def row_of(logs: dict) -> dict[str, float]:
    """A step's logged values by their columns."""
    return {column: logs[name] for name, column in LOGGED.items() if name in logs}


@contextlib.contextmanager
def signals_stop(callback: RunCallback) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a stop after the current step (a second Ctrl-C is at once)."""

    def stop(number, frame) -> None:
        again, callback.signalled = callback.signalled, True
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            say("stopping after this step ...", sys.stderr)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: a notebook's or sweep's own handling applies
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
