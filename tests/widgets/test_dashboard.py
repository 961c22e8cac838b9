"""The training dashboard: its line, its Stop button, and a run that goes on afterwards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from conftest import SMALL

from bgkit import runs
from bgkit.errors import StoppedError
from bgkit.widgets import dashboard


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The dashboard's time, which stands still until it is set."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(dashboard, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(dashboard.Dashboard, "draw", lambda board: board.newest)
    return clock


def test_the_line_tells_the_time_that_is_left(tmp_path, monkeypatch, clock) -> None:
    told = []
    line = SimpleNamespace(update=lambda text: told.append(text.data))
    monkeypatch.setattr(dashboard, "display", lambda *_, **__: line)
    monkeypatch.setattr(dashboard, "draw", lambda *_: None)
    board = dashboard.Dashboard(runs.make_config({"steps": 40}), tmp_path)
    board.on_init_end(None, None, None)
    clock.now = 100.0
    board.on_train_begin(None, SimpleNamespace(global_step=10), None)  # resumed
    clock.now = 190.0
    board.update(20, {"reward": 0.25, "kl": 1.5})
    board.close()
    wanted = "boundary: step 20 of 40 · 01:30 gone · 03:00 left · reward 0.250 · KL/token 1.500"
    assert told == [wanted]


@pytest.mark.parametrize(("cost", "steps"), [(0.01, [3, 6, 9]), (0.1, [3, 9])])
def test_drawing_takes_a_small_share_of_a_run(tmp_path, monkeypatch, clock, cost, steps) -> None:
    drawn = []

    def draw(_, step: int) -> None:
        drawn.append(step)
        clock.now += cost

    monkeypatch.setattr(dashboard, "draw", draw)
    board = dashboard.Dashboard(runs.make_config({"steps": 10}), tmp_path)
    for step in range(1, 11):
        clock.now = float(step)
        board.update(step, {})
    assert drawn == steps


@pytest.mark.slow
def test_a_run_shows_itself_stops_when_asked_and_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dashboard, "EVERY", 0.0)
    config = runs.make_config({**SMALL, "eval_every": 0, "test_prompts": 4})
    boards = []

    class Pressed(dashboard.Dashboard):
        """The Stop button of the first is clicked in its second step."""

        def __init__(self, *given) -> None:
            super().__init__(*given)
            boards.append(self)

        def update(self, step, values) -> None:
            super().update(step, values)
            if step == 2:
                boards[0].stop.click()

    monkeypatch.setattr(dashboard, "Dashboard", Pressed)
    with pytest.raises(StoppedError, match="Stopped after step 3 of 4"):
        dashboard.train(config, tmp_path / "run", device="cpu", threads=1)
    assert dashboard.train(config, tmp_path / "run", device="cpu", threads=1).complete
    stopped, resumed = boards
    assert stopped.stop.disabled and [row["step"] for row in stopped.rows] == [1, 2, 3]
    assert resumed.first_step == 3 and [row["step"] for row in resumed.rows] == [1, 2, 3, 4]


def test_the_stop_button_forgets_the_shell_that_the_cell_keeps_busy(tmp_path) -> None:
    """ipykernel 7.4 would send its clicks there, and they would wait for the end of the run."""
    board = dashboard.Dashboard(runs.make_config(SMALL), tmp_path)
    board.stop.comm._reply_subshell_id = None
    board.on_init_end(None, None, None)
    assert not hasattr(board.stop.comm, "_reply_subshell_id")
    board.close()
