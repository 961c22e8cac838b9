"""The live table of a sweep: what it shows, that text stays text, that it stays when saved."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import noop
import pandas as pd
import pytest
from conftest import ROOT

from bgkit.sweeps import drive as sweeps
from bgkit.sweeps import notebooks
from bgkit.sweeps import run as sweep_runs
from bgkit.widgets import live_table as table_of
from bgkit.widgets.text import NO_MATH


@pytest.fixture
def planned(tmp_path: Path, monkeypatch) -> sweeps.Sweep:
    """A sweep of five runs: complete, failed, running, waiting, waiting."""
    monkeypatch.chdir(tmp_path)
    found = sweeps.plan(noop.notebook(tmp_path), {"SEED": range(5)}, tmp_path / "sweep a")
    one, two, three = found.jobs[:3]
    found.records[one.hash] |= {"state": "complete", "seconds": 75.0, "metrics": {"m": [1, 0, 2]}}
    found.records[two.hash] |= {"state": "failed", "seconds": 1.0, "error": "<img src=x> $x$"}
    record = {"state": "running", "hash": three.hash, "attempts": 1}
    record |= {"parameters": three.parameters, "started": "2026-01-01T00:00:00+00:00"}
    (three.folder / "results" / "run").mkdir(parents=True)
    (three.folder / "run.json").write_text(json.dumps(record))
    curve = pd.DataFrame({"step": [10, 20], "reward": [0.1, 0.25], "kl": [None, 2.0]})
    curve.to_parquet(three.folder / "results" / "run" / "metrics.parquet")
    return found


def test_it_shows_state_time_metric_and_a_link(planned: sweeps.Sweep) -> None:
    page = table_of.table(planned).data
    assert "5 runs: 1 running" not in page  # counted in the grid's order
    assert "1 complete, 1 failed, 1 running, 2 waiting" in page
    assert "step 20, reward 0.250, KL/token 2.000" in page and "1.000 [0.000, 2.000]" in page
    assert "<td>1:15</td>" in page and "gone</td>" in page
    hash_ = planned.jobs[0].hash
    assert f'href="sweep%20a/runs/{hash_}/executed.ipynb"' in page
    assert page.index("<td>running</td>") < page.index("<td>failed</td>")
    assert page.index("<td>waiting</td>") < page.index("<td>complete</td>")


def test_text_of_a_run_stays_text(planned: sweeps.Sweep) -> None:
    page = table_of.table(planned).data
    assert "<img" not in page and "&lt;img src=x&gt;" in page and NO_MATH in page


def test_time_left_is_by_what_is_complete(planned: sweeps.Sweep) -> None:
    assert planned.seconds_left() == 3 * 75
    assert "about 3:45" in table_of.table(planned).data
    planned.records[planned.jobs[0].hash]["state"] = "waiting"
    assert "time left unknown" in table_of.table(planned).data


def test_a_run_that_a_killed_sweep_left_is_not_running(planned: sweeps.Sweep) -> None:
    """Its record says so, but no attempt of this sweep has begun."""
    job = planned.jobs[2]
    record = sweep_runs.read_record(job.folder)
    (job.folder / "run.json").write_text(json.dumps({**record, "attempts": 0}))
    assert table_of.running(planned) == {}


def test_a_long_table_is_cut_and_counted(tmp_path: Path) -> None:
    found = sweeps.plan(noop.notebook(tmp_path), {"SEED": range(150)}, tmp_path / "sweep")
    page = table_of.table(found).data
    assert page.count("<td>waiting</td>") == 100 and "... and 50 more" in page


@pytest.mark.slow
def test_a_notebook_drives_a_sweep_and_keeps_its_table(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    inner = noop.notebook(tmp_path)
    code = "from bgkit.widgets.live_table import sweep\n"
    code += "index = sweep(BOOK, {'SEED': [0, 1], 'LEDGER': LEDGER}, FOLDER)\nlen(index)"
    parameters = 'BOOK = ""  # notebook\nLEDGER = ""  # file\nFOLDER = ""  # folder'
    outer = noop.write(tmp_path / "outer.ipynb", parameters, code)
    given = {"BOOK": str(inner), "LEDGER": str(tmp_path / "ledger"), "FOLDER": str(tmp_path / "s")}
    done = notebooks.run_notebook(outer, tmp_path / "done.ipynb", given)
    assert noop.ledger(tmp_path) == ["a 0", "a 1"]
    outputs = [o for c in nbformat.read(done, 4).cells for o in c.get("outputs", [])]
    (page,) = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    assert "2 runs: 2 complete" in page and "0.100 [0.000, 0.200]" in page
