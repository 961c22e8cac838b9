"""Redeployed values by hand, differences on the shipped collection, and a run measured anew."""

from __future__ import annotations

import elsewhere
import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples
from bgkit.evaluation.metrics import values_of
from bgkit.scoring import guards
from bgkit.stress import deployments
from bgkit.stress.deployments import Deployment, redeployed_values
from bgkit.sweeps import collection


@pytest.fixture(scope="module")
def shipped() -> tuple[pd.DataFrame, pd.DataFrame]:
    index, values, _ = collection.load()
    index = index[index["design"].isin(["boundary", "compound"])]
    kept = values["run"].isin(index["run"]) | values["run"].str.startswith("base-")
    return index, values[kept]


def test_another_threshold_temperature_and_noise_by_hand() -> None:
    refusals = pd.DataFrame({"harm": [0.0, 0.0, 0.0], "help": [0.0, 0.5, 1.0]})
    values = pd.DataFrame({"prompt": [0, 1, 2], "t": [0.1, 0.4, 0.9]})
    values = values.assign(harm=[0.1, 0.6, 0.9], help=[0.8, 0.7, 0.6])
    found = redeployed_values(values, refusals, Deployment(tau=0.3))
    assert found["filtered"].tolist() == [False, True, True]
    assert found["near"].tolist() == [True, True, False]
    assert found["system_harm"].tolist() == [0.1, 0.0, 0.0]
    assert found["system_help"].tolist() == [0.8, 0.5, 1.0]
    found = redeployed_values(values, refusals, Deployment(temperature=2.0))
    assert found["t"].tolist() == pytest.approx([0.25, 0.4494897, 0.75])
    assert found["filtered"].tolist() == [False, False, True]  # no verdict moves at a half
    many = pd.DataFrame({"prompt": 0, "t": np.full(4000, 0.5), "harm": 0.0, "help": 0.0})
    one, same = (redeployed_values(many, refusals, Deployment(noise=0.5))["t"] for _ in range(2))
    assert one.equals(same)
    assert np.log(one / (1 - one)).std() == pytest.approx(0.5, rel=0.05)
    bad = {"strictly between 0 and 1": Deployment(tau=1.0), "temperature": Deployment(0.5, 0.0)}
    for words, deployment in {**bad, "at least 0, not -1": Deployment(noise=-1.0)}.items():
        with pytest.raises(BgkitError, match=words):
            redeployed_values(values, refusals, deployment)


def test_as_trained_the_shipped_values_are_what_they_are(shipped) -> None:
    index, kept = shipped
    some = kept.iloc[::97]
    found = redeployed_values(some, deployments.refusals_of(index), Deployment())
    assert (found["filtered"] == some["filtered"]).all()
    for name in ("system_harm", "system_help"):
        np.testing.assert_allclose(found[name], some[name], atol=1e-6)


def test_differences_of_the_shipped_collection(shipped, monkeypatch) -> None:
    index, kept = shipped
    few = {"as trained": Deployment(), "noise 1": Deployment(noise=1.0)}
    monkeypatch.setattr(deployments, "PAIRS", [("compound", "boundary"), ("compound", "nothing")])
    found = deployments.differences(index, kept, few)
    assert found["deployment"].tolist() == list(few) and (found["n_seeds"] >= 3).all()
    assert ((found["low"] < found["mean"]) & (found["mean"] < found["high"])).all()
    assert (found["p_holm"] >= found["p"]).all() and (found["detectable"] > 0).all()
    text = deployments.as_table(found)
    assert text.columns.tolist() == ["compound - boundary"] and text.index.tolist() == list(few)
    one = kept[kept["run"] == index["run"].iloc[-1]]
    with pytest.raises(BgkitError, match=r"deployment 'measured'.*two strengths"):
        deployments.differences(index, kept, {"measured": one})
    monkeypatch.setattr(deployments, "PAIRS", [("a", "b")])
    with pytest.raises(BgkitError, match="none of the pairs"):
        deployments.differences(index, kept, few)
    english = index.assign(config=index["config"].str.replace('"testbed"', '"everyday"'))
    with pytest.raises(BgkitError, match="'everyday' is not known"):
        deployments.refusals_of(english)


def test_gains_over_base_are_means_of_paired_differences(monkeypatch) -> None:
    values = {name: deployments.measured_values()[name] for name in ("guard weak", "attacked")}
    monkeypatch.setattr(deployments, "measured_values", lambda folder: values)
    found = deployments.gains_over_base()
    assert list(found) == list(values) and found.loc["system_help", "attacked"].eq("–").all()
    index, *_ = collection.load()
    configs = dict(zip(index["run"], collection.configs_of(index), strict=True))
    means = values["guard weak"].groupby("run")["system_help"].mean()
    compound = index[(index["design"] == "compound") & (index["strength"] == 8)]["run"]
    measured = compound[compound.isin(means.index)]
    gains = [means[run] - means[samples.base_name(configs[run])] for run in measured]
    told = found.loc[("system_help", "compound"), "guard weak"]
    assert len(gains) == 3 and told.startswith(f"{np.mean(gains):.3f} [")
    assert deployments.gains_over_base(strength=3.0).empty


def test_a_run_and_its_base_are_measured_in_every_deployment(
    small_run, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(elsewhere, "SHIFTS", {"unseen items": 6, "300-600 words": 3})
    monkeypatch.setattr(elsewhere, "REQUESTS", 4)
    table, own = elsewhere.measure_run(small_run), runs.config_hash(small_run.config)
    sizes = {"guard other": 16, "guard weak": 16, "unseen items": 6, "300-600 words": 3}
    sizes |= {"attacked": 8}  # two strategies
    found = {name: part["deployment"].value_counts() for name, part in table.groupby("run")}
    names = {own, samples.base_name(small_run.config)}
    assert {name: counts.to_dict() for name, counts in found.items()} == dict.fromkeys(names, sizes)
    said, rows = small_run.samples(), table[table["run"] == own]
    other = rows[rows["deployment"] == "guard other"]
    t = guards.load_guard("other").score(said["prompt"].tolist(), said["response"].tolist())
    assert other["t"].to_numpy() == pytest.approx(t, abs=1e-4)
    assert other["harm"].to_numpy() == pytest.approx(said["harm"].to_numpy(), abs=1e-3)
    attacked = table[table["deployment"] == "attacked"]
    assert set(attacked["system_harm"]) <= {0.0, 1.0}
    assert set(attacked["kind"]) == {"random", "greedy"}
    help_ = rows.loc[rows["deployment"] == "attacked", "system_help"].unique()
    assert help_ == pytest.approx([said["system_help"].mean()], abs=1e-3)  # of ordinary prompts
    table.to_parquet(tmp_path / deployments.ELSEWHERE)
    read = deployments.measured_values(tmp_path)
    assert list(read) == list(dict.fromkeys(table["deployment"]))
    assert all(values_of(part)["system_harm"].notna().all() for part in read.values())
    assert deployments.measured_values(tmp_path / "nothing") == {}
