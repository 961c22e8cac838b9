"""The training dashboard: what it shows, its Stop button, and a run that goes on afterwards."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL

from bgkit import runs
from bgkit.errors import StoppedError
from bgkit.figures import training as plots_training
from bgkit.widgets import dashboard


def test_the_figure_shows_the_curve_and_both_margins() -> None:
    curve = pd.DataFrame({"step": [1, 2], "reward": [0.1, 0.3], "kl": [0.0, 0.2]})
    base, now = np.array([0.5, 0.25, 0.25]), np.array([1.0, 0.0, 0.0])
    fig = plots_training.live(curve, base, now, 0.5, "boundary", steps=10)
    (bars,) = fig.select_traces({"type": "bar"})
    np.testing.assert_allclose(np.square(bars.y), now)
    assert "now 100.0%, base 50.0%" in bars.hovertext[0]
    mean, step = fig.select_traces({"type": "scatter", "xaxis": "x"})
    assert list(mean.y) == [0.1, 0.2] and list(step.y) == [0.1, 0.3]
    assert fig.layout.xaxis.range == (0, 10)


def test_the_line_tells_the_time_that_is_left(tmp_path, monkeypatch) -> None:
    board = dashboard.Dashboard(runs.make_config({"steps": 40}), tmp_path)
    board.first_step, board.newest, board._start = 10, 20, 100.0  # resumed at step 10
    monkeypatch.setattr(dashboard.time, "monotonic", lambda: 190.0)
    line = board._text({"reward": 0.25, "kl": 1.5}).data
    told = "boundary: step 20 of 40 · 01:30 gone · 03:00 left · reward 0.250 · KL/token 1.500"
    assert line == told


@pytest.mark.parametrize(("cost", "steps"), [(0.01, [3, 6, 9]), (0.1, [3, 9]), (0.2, [3])])
def test_drawing_takes_a_small_share_of_a_run(tmp_path, monkeypatch, cost, steps) -> None:
    now, drawn = [0.0], []
    monkeypatch.setattr(dashboard.time, "monotonic", lambda: now[0])
    board = dashboard.Dashboard(runs.make_config({"steps": 10}), tmp_path)

    def draw(*_) -> None:
        drawn.append(board.newest)
        now[0] += cost

    monkeypatch.setattr(dashboard, "draw", draw)
    monkeypatch.setattr(board, "draw", lambda: None)
    for step in range(1, 11):
        now[0] = float(step)
        board.update(step, {})
    assert drawn == steps


@pytest.mark.slow
def test_a_run_shows_itself_stops_when_asked_and_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dashboard, "EVERY", 0.0)
    config = runs.make_config({**SMALL, "steps": 4, "eval_every": 0, "test_prompts": 4})
    seen = []

    class Pressed(dashboard.Dashboard):
        """Its Stop button is clicked in the second step."""

        def update(self, step, values):
            super().update(step, values)
            seen.append(self)
            if step == 2 and len(seen) == 2:
                self.stop.click()

    monkeypatch.setattr(dashboard, "Dashboard", Pressed)
    with pytest.raises(StoppedError, match="Stopped after step 3 of 4"):
        dashboard.train(config, tmp_path / "run", device="cpu", threads=1)
    first = seen[0]
    assert first.stop.disabled and [row["step"] for row in first.rows] == [1, 2, 3]
    assert "boundary: step 3 of 4" in first._text({}).data

    run = dashboard.train(config, tmp_path / "run", device="cpu", threads=1)
    assert run.complete
    assert [row["step"] for row in seen[-1].rows] == [1, 2, 3, 4]
    assert seen[-1].first_step == 3
    assert len(run.read_json("base.json")["t_shares"]) == 20


def test_the_stop_button_forgets_the_shell_that_the_cell_keeps_busy(tmp_path) -> None:
    """ipykernel 7.4 would send its clicks there, and they would wait for the end of the run."""
    board = dashboard.Dashboard(runs.make_config(SMALL), tmp_path)
    board.stop.comm._reply_subshell_id = None
    board.on_init_end(None, None, None)
    assert not hasattr(board.stop.comm, "_reply_subshell_id")
    board.close()
