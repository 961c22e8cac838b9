"""Claims: frontiers of a collection, differences beside base and at equal help, verdicts."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.metrics import METRICS
from bgkit.rewards import DESIGNS
from bgkit.sweeps import claims, collection

STRENGTHS = (1.0, 4.0, 16.0)


def made_up(
    designs: dict[str, float], strengths: tuple[float, ...] = STRENGTHS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Index and values of three seeds: help falls with the strength, harm is a share of help."""
    rng, n = np.random.default_rng(0), 200
    own = rng.normal(0, 0.1, n)  # what a prompt brings along
    configs, parts = [], []

    def add(name: str, help_: float, harm: float) -> None:
        means = np.array([[help_], [harm]])
        helps, harms = np.clip(means + own + rng.normal(0, 0.05, (2, n)), 0, 1)
        told = {"help": helps, "system_help": helps, "harm": harms, "system_harm": harms}
        told |= {"run": name, "prompt": range(n), "kind": ["benign", "x"] * (n // 2)}
        parts.append(pd.DataFrame({**told, "t": harms, "u": 0.0, "kl": help_ * 10, "length": 9}))

    for seed in range(3):
        for design, strength in itertools.product(designs, strengths):
            config = runs.make_config({"reward": design, "strength": strength, "seed": seed})
            help_ = 0.6 - 0.1 * np.log(strength) + rng.normal(0, 0.01)
            configs.append(config)
            add(runs.config_hash(config), help_, designs[design] * help_)
        add(evaluation.base_name(configs[-1]), 0.5, 0.4)
    told = [(runs.config_hash(config), json.dumps(asdict(config))) for config in configs]
    index = pd.DataFrame(told, columns=["run", "config"])
    index = pd.concat([index, collection.settings_of(index)], axis=1)
    return index, collection.as_samples(index, pd.concat(parts, ignore_index=True))


@pytest.fixture(scope="module")
def found() -> dict[str, claims.Frontier]:
    made = made_up({"boundary": 0.3, "filter_avoidance": 0.5})
    return claims.frontiers_of(*made, ("system_help", "system_harm", "kl", "near_boundary"))


def test_a_frontier_has_all_strengths_seeds_and_prompts(found) -> None:
    one = found["boundary"]
    assert one.strengths == STRENGTHS and one.seeds == (0, 1, 2)
    assert one.values.shape == (3, 3, 200, 4) and found["base"].values.shape == (1, 3, 200, 4)
    help_ = one.pair("system_harm", "system_help")[..., 1].mean((1, 2))
    assert (np.diff(help_) < 0).all()


def test_a_kind_of_prompt_is_kept_alone_and_one_strength_is_no_frontier(capsys) -> None:
    made = made_up({"boundary": 0.3})
    assert claims.frontiers_of(*made, ["kl"], "benign")["boundary"].values.shape[2] == 100
    with pytest.raises(BgkitError, match="no kind of prompt 'rude'; choose one of all, benign"):
        claims.check_all(*made, "rude")
    assert claims.check_all(*made_up({"boundary": 0.3}, strengths=(8.0,))).empty
    said = capsys.readouterr().out
    assert "No claim is checked" in said and "two strengths or more; sweep STRENGTH" in said


def test_claims_are_checked_at_equal_help_and_beside_base(found) -> None:
    asked = [
        claims.Claim("less harm", "system_harm", "boundary", "filter_avoidance", "lower"),
        claims.Claim("more harm", "system_harm", "boundary", "filter_avoidance", "higher"),
        claims.Claim("safer", "system_harm", "boundary", "base", "lower"),
        claims.Claim("not there", "system_harm", "compound", "base", "lower"),
    ]
    checked = claims.check(found, asked)
    verdicts = checked.groupby("says")["verdict"].agg(list).to_dict()
    assert verdicts == {
        "less harm": ["holds"] * 2,
        "more harm": ["fails"] * 2,
        "safer": ["holds"] * 3,
    }
    rows = checked.set_index(["says", "place"])["mean"]
    # help from 0.32 to 0.6 in the mean, and a fifth of it between the designs
    assert rows["less harm", "at equal help"] == pytest.approx(-0.2 * 0.46, abs=0.02)
    assert rows["safer", "strength 1"] == pytest.approx(0.3 * 0.6 - 0.4, abs=0.03)
    assert (checked["p_holm"] >= checked["p"]).all()
    table = claims.as_table(checked)
    assert list(table.columns) == list(checked["place"].unique())  # equal help, KL, strengths
    assert table.loc["safer", "at equal help"] == "–"
    counts = claims.claim_counts(checked)
    assert counts.loc["at equal help", ["holds", "fails", "open"]].tolist() == [1, 1, 0]
    assert counts.loc["beside base", "holds"] == 3
    assert counts.loc["at equal help", "seeds to settle"] == "–"  # none is open
    with pytest.raises(BgkitError, match="none of the designs"):
        claims.check(found, asked[-1:])


def test_a_design_without_a_strength_has_a_column_unless_it_was_run_at_several(found) -> None:
    asked = [claims.Claim("alone", "kl", "utility_only", "base", "lower")]
    several = claims.check({**found, "utility_only": found["boundary"]}, asked)
    assert several["place"].tolist() == [f"strength {s:g}" for s in found["boundary"].strengths]
    one = found["boundary"]._replace(strengths=(8.0,), values=found["boundary"].values[:1])
    assert claims.check({**found, "utility_only": one}, asked)["place"].item() == "without strength"
    own = [asked[0]._replace(design="gone.py:own")]
    assert claims.check({**found, "gone.py:own": one}, own)["place"].item() == "strength 8"


def test_the_claims_of_the_kit_name_metrics_and_designs_that_are_there() -> None:
    for claim in claims.CLAIMS:
        assert claim.metric in {*claims.COMPARED} & {*METRICS}
        assert claim.design in DESIGNS and claim.against in {*DESIGNS, "base"}
        assert claim.expected in ("lower", "higher")
