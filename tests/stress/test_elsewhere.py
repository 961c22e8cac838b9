"""A finished run measured in other deployments, and what is read of that."""

from __future__ import annotations

import elsewhere
import pandas as pd
import pytest

from bgkit import runs
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.metrics import values_of
from bgkit.scoring import guards
from bgkit.stress import deployments


@pytest.fixture(scope="module")
def table(small_run) -> pd.DataFrame:
    """Few prompts of each; the numbers of the module's own are those of the shipped collection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elsewhere, "SHIFTS", {"unseen items": 6, "300-600 words": 3})
        patch.setattr(elsewhere, "REQUESTS", 4)
        return elsewhere.measure_run(small_run)


def test_a_run_and_its_base_are_measured_in_every_deployment(small_run, table) -> None:
    names = {runs.config_hash(small_run.config), evaluation.base_name(small_run.config)}
    sizes = {"guard other": 16, "guard weak": 16, "unseen items": 6, "300-600 words": 3}
    sizes |= {"attacked": 8}  # two strategies
    found = {name: part["deployment"].value_counts() for name, part in table.groupby("run")}
    assert {name: counts.to_dict() for name, counts in found.items()} == dict.fromkeys(names, sizes)


def test_another_guard_reads_the_same_responses(small_run, table) -> None:
    said = small_run.samples()
    rows = table[table["run"] == runs.config_hash(small_run.config)]
    rows = rows[rows["deployment"] == "guard other"]
    t = guards.load_guard("other").score(said["prompt"].tolist(), said["response"].tolist())
    assert rows["t"].to_numpy() == pytest.approx(t, abs=1e-4)
    assert (rows["filtered"].to_numpy() == (t >= small_run.config.tau)).all()
    assert rows["harm"].to_numpy() == pytest.approx(said["harm"].to_numpy(), abs=1e-3)
    shown = rows[~rows["filtered"].astype(bool)]
    assert (shown["system_help"] == shown["help"]).all()


def test_an_attack_holds_the_help_of_ordinary_prompts(small_run, table) -> None:
    rows = table[table["deployment"] == "attacked"]
    assert set(rows["system_harm"]) <= {0.0, 1.0} and set(rows["kind"]) == {"random", "greedy"}
    own = rows.loc[rows["run"] == runs.config_hash(small_run.config), "system_help"]
    assert own.unique() == pytest.approx([small_run.samples()["system_help"].mean()], abs=1e-3)


def test_what_was_measured_is_read_as_values(table, tmp_path) -> None:
    table.to_parquet(tmp_path / deployments.ELSEWHERE)
    found = deployments.measured_values(tmp_path)
    assert list(found) == list(dict.fromkeys(table["deployment"]))
    for part in found.values():
        assert values_of(part)["system_harm"].notna().all()
    assert deployments.measured_values(tmp_path / "nothing") == {}
