"""The shipped reference results: complete, in the promised form, and made by this code."""

from __future__ import annotations

import json
import math
import re

import pandas as pd
import pytest

from bgkit import runs
from bgkit.errors import StoppedError
from bgkit.evaluation import intervals, settings
from bgkit.evaluation.metrics import RATES
from bgkit.sweeps import ablations, claims, comparison, reference
from bgkit.testbed import store
from bgkit.training import trainer as training

METRICS = (
    "filter_rate near_boundary false_positive false_negative raw_harm raw_help system_harm "
    "system_help kl"
).split()
COLUMNS = "design utility scale guard tau kind metric mean low high n_seeds".split()


@pytest.fixture(scope="module")
def result() -> dict:
    path = store.data_folder() / "reference" / "main.json"
    if not path.is_file():
        pytest.skip("the reference results are not shipped yet: `make reproduce` makes them")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def rows(result) -> pd.DataFrame:
    return pd.DataFrame(result["rows"])


def test_it_says_how_it_was_made(result: dict) -> None:
    assert "reproduce" in result["command"] and "--seeds" in result["command"]
    assert {"processor", "cores"} <= set(result["machine"])
    assert {"torch", "trl", "transformers", "git"} <= set(result["versions"])
    assert runs.make_config(result["config"])


def test_it_covers_designs_utilities_kinds_and_metrics(rows: pd.DataFrame) -> None:
    assert list(rows.columns) == COLUMNS
    kinds = ["all", "benign", "ambiguous", "jailbreak", "long_context"]
    wanted = pd.MultiIndex.from_product(
        [["base", *comparison.DESIGNS], comparison.UTILITIES, kinds, METRICS]
    )
    found = pd.MultiIndex.from_frame(rows[["design", "utility", "kind", "metric"]])
    assert found.is_unique and set(found) == set(wanted)
    assert (rows["scale"] == "small").all() and (rows["n_seeds"] >= 3).all()


def test_intervals_hold_their_means_and_stay_in_range(rows: pd.DataFrame) -> None:
    assert (rows["low"] <= rows["mean"]).all() and (rows["mean"] <= rows["high"]).all()
    rates = rows[rows["metric"] != "kl"]
    assert rates[["mean", "low", "high"]].stack().between(0, 1).all()


def test_base_depends_on_no_utility_and_has_no_divergence(rows: pd.DataFrame) -> None:
    base = rows[rows["design"] == "base"]
    spread = base.groupby(["kind", "metric"])["mean"].agg(lambda means: means.max() - means.min())
    assert spread.max() < 1e-12
    assert (base[base["metric"] == "kl"]["mean"] == 0).all()


def test_seeds_are_joined_by_hand() -> None:
    labels = {"design": "x", "utility": "u", "scale": "s", "guard": "g", "tau": 0.5, "kind": "all"}
    rows = [
        {**labels, "metric": "raw_help", "mean": mean, "low": 0, "high": 1, "n": 9, "seed": seed}
        for seed, mean in enumerate((0.2, 0.3, 0.4))
    ]
    (row,) = comparison.reference_rows(rows + rows[:1])
    assert row["mean"] == pytest.approx(0.3) and row["n_seeds"] == 3
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert row["low"] == pytest.approx(0.3 - half) and row["high"] == pytest.approx(0.3 + half)


# --- the shipped ablation --------------------------------------------------------------------


@pytest.fixture(scope="module")
def ablation() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return reference.load()


def test_the_ablation_is_small_and_says_how_it_was_made() -> None:
    folder = reference.ablation_path()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000_000
    about = json.loads((folder / "about.json").read_text())
    assert all("bgkit sweep notebooks/03_train_policy.ipynb" in c for c in about["commands"])
    assert about["commands"] and about["machines"]
    assert {"torch", "trl", "transformers", "git"} <= set(about["versions"])


def test_every_setting_has_three_seeds_and_every_run_its_values(ablation) -> None:
    index, values, curves = ablation
    keys = [name for name in reference.settings_of(index) if name != "seed"]
    assert (index.groupby(keys)["seed"].nunique() >= 3).all()
    assert set(index["run"]) <= set(values["run"]) and set(curves["run"]) == set(index["run"])
    assert (values.groupby("run").size() == 800).all()
    assert (curves.groupby("run").size() == 100).all()


def test_intervals_of_single_runs_hold_their_mean_and_have_a_width(ablation) -> None:
    index = ablation[0]
    for metric in ("ece", *RATES[:4]):
        low, mean, high = (index[f"{metric}_{part}"] for part in ("low", "mean", "high"))
        assert ((low <= mean) & (mean <= high) & (low < high)).all(), metric


def test_the_table_is_that_of_the_values(ablation) -> None:
    index, values, _ = ablation
    one = index[(index["design"] == "compound") & (index["utility"] == "mild")]
    one = settings.at_defaults(one)
    place = reference.METRICS.index("system_harm")
    cube = reference.cube(values, one["run"].tolist())[..., [place]]
    (truth,) = intervals.crossed(cube)
    table = ablations.load_table()
    assert all(pd.api.types.is_numeric_dtype(table[name]) for name in ("tau", "beta", "lora_rank"))
    table = settings.at_defaults(table)
    where = {"design": "compound", "kind": "all", "seed": "all"}
    row = settings.select(table, "system_harm", where).iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(tuple(truth), abs=1e-3)


def test_the_tables_of_results_and_readme_are_the_shipped_ones() -> None:
    page = store.data_folder().parent / "docs" / "results.md"
    lines = re.findall(
        r"^\| (\S+) \| (base|`\w+`)(?: \+ guard)? \| (0\..*) \|$",
        page.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(lines) == 14
    table = settings.at_defaults(ablations.load_table(), free=["utility"])
    metrics = ("near_boundary", "false_negative", "system_harm", "system_help")
    shown = {name: settings.numbers(table, name, where={"kind": "all"}) for name in metrics}
    for utility, design, cells in lines:
        place = design.strip("`"), utility if utility in comparison.UTILITIES else "mild"
        assert cells.split(" | ")[:4] == [shown[name].loc[place] for name in metrics]
    readme = (store.data_folder().parent / "README.md").read_text(encoding="utf-8")
    short = [line for line in readme.splitlines() if re.match(r"\| (base|`\w+`).* \| 0\.", line)]
    whole = [
        f"| {design}{' + guard' * (design == 'base')} | {cells} |"
        for u, design, cells in lines
        if u in ("(any)", "(none)", "mild")
    ]
    assert len(short) == 5 and set(short) <= set(whole)


def test_every_claim_that_was_checked_is_explained(ablation) -> None:
    index, values, _ = ablation
    table = claims.readable(claims.check(index, values), claims.read_why())
    assert not table["why"].str.contains("not explained").any()


def test_a_run_of_the_ablation_begins_as_it_did(ablation, tmp_path) -> None:
    """The first steps of the quickest run, trained anew, are those of the shipped curve.

    One thread, two, and other instruction sets gave the same digits for 12 steps and more. Later
    another rounding is another policy, so that a whole run can be compared with nobody's. What is
    allowed for here are two of 64 completions that a rounding made others.
    """
    index, _, curves = ablation
    row = index.sort_values("training_seconds").iloc[0]
    config = runs.make_config(json.loads(row["config"]))
    assert runs.config_hash(config) == row["run"]
    steps = iter([False, False, True])
    with pytest.raises(StoppedError, match=r"step 3 of 100"):
        training.train(
            config, tmp_path / "run", device="cpu", threads=1, should_stop=lambda: next(steps)
        )
    found = runs.load_run(tmp_path / "run").curve()
    shipped = curves[curves["run"] == row["run"]].head(3)
    for metric in ("reward", "margin", "near_boundary", "filter_rate", "no_spread"):
        assert found[metric].tolist() == pytest.approx(shipped[metric].tolist(), abs=2 / 64), metric
    assert found["kl"].tolist() == pytest.approx(shipped["kl"].tolist(), rel=0.2, abs=1e-6)
