"""Redeployed values by hand, and differences at equal help on the shipped collection."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import samples
from bgkit.stress import deployments
from bgkit.stress.deployments import Deployment, redeployed_values
from bgkit.sweeps import collection

REFUSALS = pd.DataFrame({"harm": [0.0, 0.0, 0.0], "help": [0.0, 0.5, 1.0]})


@pytest.fixture(scope="module")
def shipped() -> tuple[pd.DataFrame, pd.DataFrame]:
    index, values, _ = collection.load()
    index = index[index["design"].isin(["boundary", "compound"])]
    kept = values["run"].isin(index["run"]) | values["run"].str.startswith("base-")
    return index, values[kept]


def values() -> pd.DataFrame:
    frame = pd.DataFrame({"prompt": [0, 1, 2], "t": [0.1, 0.4, 0.9]})
    return frame.assign(harm=[0.1, 0.6, 0.9], help=[0.8, 0.7, 0.6])


def test_a_threshold_by_hand() -> None:
    found = redeployed_values(values(), REFUSALS, Deployment(tau=0.3))
    assert found["filtered"].tolist() == [False, True, True]
    assert found["near"].tolist() == [True, True, False]
    assert found["system_harm"].tolist() == [0.1, 0.0, 0.0]
    assert found["system_help"].tolist() == [0.8, 0.5, 1.0]


def test_a_temperature_moves_t_and_no_verdict_at_a_half() -> None:
    found = redeployed_values(values(), REFUSALS, Deployment(temperature=2.0))
    assert found["t"].tolist() == pytest.approx([0.25, 0.4494897, 0.75])
    assert found["filtered"].tolist() == [False, False, True]
    assert redeployed_values(values(), REFUSALS, Deployment(tau=0.3, temperature=4.0))[
        "filtered"
    ].all()


def test_noise_is_always_the_same_and_has_its_deviation() -> None:
    many = pd.DataFrame({"prompt": 0, "t": np.full(4000, 0.5), "harm": 0.0, "help": 0.0})
    one, same = (redeployed_values(many, REFUSALS, Deployment(noise=0.5))["t"] for _ in range(2))
    assert one.equals(same)
    assert np.log(one / (1 - one)).std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (Deployment(tau=1.0), "strictly between 0 and 1"),
        (Deployment(temperature=0.0), "temperature"),
        (Deployment(noise=-1.0), "at least 0, not -1"),
    ],
)
def test_bad_deployments_are_told_in_a_sentence(deployment: Deployment, words: str) -> None:
    with pytest.raises(BgkitError, match=words):
        redeployed_values(values(), REFUSALS, deployment)


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


def test_gains_over_base_are_means_of_paired_differences() -> None:
    found = deployments.gains_over_base()
    values = deployments.measured_values()
    assert list(found) == list(values) and found.loc["system_help", "attacked"].eq("–").all()
    index, *_ = collection.load()
    names = index[(index["design"] == "compound") & (index["strength"] == 8)].set_index("run")
    table = values["guard weak"]
    table = table[table["run"].isin(names.index) | table["run"].str.startswith("base-")]
    help_ = table.groupby("run")["system_help"].mean()
    seeds = names["seed"][names.index.isin(help_.index)]
    configs = dict(zip(index["run"], collection.configs_of(index), strict=True))
    gains = [help_[run] - help_[samples.base_name(configs[run])] for run in seeds.index]
    assert len(gains) == 3
    assert found.loc[("system_help", "compound"), "guard weak"].startswith(
        f"{np.mean(gains):.3f} ["
    )
    assert deployments.gains_over_base(strength=3.0).empty
