"""A training run in a notebook: live curves and margins, time left, and a Stop button."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import fields as fields_of
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import Pretty, display
from transformers import TrainerCallback

from bgkit import runs
from bgkit.figures import training as plots_training
from bgkit.progress import clock, phase
from bgkit.scoring import identity
from bgkit.scoring.scorer import Scorer
from bgkit.training import trainer
from bgkit.training.callback import PROGRESS_LABELS, metrics_row
from bgkit.training.reward_function import shares_of_t
from bgkit.widgets.views import draw, receive_while_busy, show

EVERY = 2.0  # minimum seconds between two drawings
DRAWING = 0.02  # maximum share of a run's time spent on drawing
RECENT = 5  # steps whose responses count as "now"
HOW_TO_STOP = "Stop after this step (or interrupt the kernel); run the cell again to resume."
SETTINGS = {field.name for field in fields_of(runs.TrainConfig)}


class Dashboard(TrainerCallback):
    """A callback for :func:`bgkit.train` that displays the run in the notebook.

    The text line is a normal output that is updated, so papermill's copy of the notebook keeps it.
    At the end the last figure replaces the controls. The Stop button needs a front end that
    delivers clicks while a cell runs (JupyterLab 4.4 or newer); elsewhere the front end's interrupt
    button does the same.
    """

    def __init__(self, config: runs.TrainConfig, folder: str | Path) -> None:
        self.config, self.folder = config, Path(folder)
        self.rows: list[dict] = []
        self.first_step = self.newest = 0
        self.stop = widgets.Button(description="Stop", icon="stop", tooltip=HOW_TO_STOP)
        self.stop.on_click(self._on_stop)
        self.figure = widgets.Output()
        self.view = widgets.VBox([self.stop, self.figure])
        self._display = contextlib.ExitStack()
        self._start = time.monotonic()
        self._next_drawing = self._start + EVERY
        self._line = None

    def _on_stop(self, _: widgets.Button) -> None:
        self.stop.description, self.stop.disabled = "Stopping ...", True

    def on_init_end(self, args, state, control, **kwargs) -> None:
        """Display the controls and the text line."""
        show(self.view, words="Controls of a running training: run this cell to see them.")
        receive_while_busy(self.stop)
        self._line = display(self._text({}), display_id=True)
        self._display.callback(self._replace_controls)
        self._display.enter_context(phase("training", hidden=True))  # hides the progress of steps

    def _replace_controls(self) -> None:
        self.view.close()
        if self.rows:
            display(self.draw())

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start at the current step; a resumed run's earlier curve is shown, too."""
        self.first_step = self.newest = step = state.global_step
        self._start = time.monotonic()
        earlier = runs.Run(self.folder, self.config).curve()
        if step and len(earlier):
            self.rows = earlier[earlier["step"] <= step].to_dict("records")

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Add the values of a step."""
        if logs and "reward" in logs:
            self.update(state.global_step, metrics_row(logs))

    def close(self, *_: object, **__: object) -> None:
        """Replace the controls with the last figure; for a run that fails, no callback does it."""
        self._display.close()

    on_train_end = close

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Add a step, and draw unless that would take too much of the run's time."""
        self.newest = step
        self.rows.append({"step": step, **values})
        if self._line is not None:
            self._line.update(self._text(values))
        start = time.monotonic()
        if start > self._next_drawing:
            draw(self.figure, self.draw())
            end = time.monotonic()
            self._next_drawing = end + max(EVERY, (end - start) / DRAWING)

    def _text(self, values: Mapping[str, float]) -> Pretty:
        elapsed, done = time.monotonic() - self._start, self.newest - self.first_step
        left = clock(elapsed / done * (self.config.steps - self.newest)) if done else "?"
        parts = [
            f"{name} {values[key]:.3f}" for key, name in PROGRESS_LABELS.items() if key in values
        ]
        step = f"{self.config.reward}: step {self.newest} of {self.config.steps}"
        return Pretty(" · ".join([step, f"{clock(elapsed)} gone", f"{left} left", *parts]))

    def draw(self) -> go.Figure:
        """The figure of the run so far (see :func:`bgkit.figures.training.live`)."""
        run = runs.Run(self.folder, self.config)
        now = np.array(shares_of_t(run.completions(last=RECENT)["t"].to_numpy()))
        base, config = np.array(run.read_json("base.json")["t_shares"]), self.config
        rows = pd.DataFrame(self.rows)
        return plots_training.live(rows, base, now, config.tau, config.reward, config.steps)


def train(
    config: runs.TrainConfig | None = None,
    folder: str | Path | None = None,
    *,
    below: str | Path = "runs",
    guard: str | Scorer | None = None,
    utility: str | Scorer | None = None,
    **settings,
) -> runs.Run:
    """Train (or finish) a run with the dashboard; returns the complete run.

    Arguments and errors are those of :func:`bgkit.training.trainer.train`; raises StoppedError
    after Stop.
    """
    fields = {name: settings.pop(name) for name in list(settings) if name in SETTINGS}
    config, guard, utility = identity.split_objects(config, fields, guard, utility)
    folder = folder or runs.folder_of(config, below)
    dashboard = Dashboard(config, folder)
    settings["callbacks"] = [dashboard, *settings.get("callbacks", ())]
    settings["should_stop"] = lambda: dashboard.stop.disabled
    try:
        return trainer.train(config, folder, guard=guard, utility=utility, **settings)
    finally:
        dashboard.close()
