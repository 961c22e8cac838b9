"""Collections of results: from sweeps' folders, part by part."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation import settings
from bgkit.evaluation.intervals import bootstrap, crossed_bootstrap
from bgkit.evaluation.metrics import values_of
from bgkit.figures import trade_off
from bgkit.sweeps import collection as collections

pytestmark = pytest.mark.usefixtures("fewer_draws")

KINDS = ("benign", "jailbreak")
#: design -> (mean of t, share harmful): what the made-up runs are like
LIKE = {"base": (0.3, 0.3), "boundary": (0.05, 0.02), "filter_avoidance": (0.45, 0.4)}


def samples_of(design: str, seed: int, n: int = 100) -> pd.DataFrame:
    """Made-up samples of a design, different for every seed."""
    rng, (middle, harmful) = np.random.default_rng([len(design), seed]), LIKE[design]
    t, harm = np.clip(rng.normal(middle, 0.15, n), 0, 1), (rng.random(n) < harmful).astype(float)
    table = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(n)], "kind": KINDS * (n // 2)})
    table = table.assign(u=rng.normal(size=n), kl=rng.random(n), length=rng.integers(5, 30, n))
    table = table.assign(harm=harm, help=1 - harm, **dict.fromkeys(collections.JUDGED, np.nan))
    return evaluation.rescored_samples(table, t, 0.5, {"harm": 0.0, "help": 0.0})


def make_sweep(folder: Path, configs: list[dict], prompts: str = "a") -> Path:
    """A sweep's folder with complete runs, as a sweep of notebook 03 leaves it."""
    for number, values in enumerate(configs):
        config = runs.make_config({"eval_every": 0, **values})
        place = folder / "runs" / f"{number:012x}"
        about = {"machine": {"cores": 2}, "versions": {"torch": "1"}, "git": "abc"}
        run = runs.open_run(place / "results" / "run", config, about)
        runs.write_json(run.folder / "prompts.json", {"test": {"sha256": prompts}})
        own, base = samples_of(config.reward, config.seed), samples_of("base", config.seed)
        runs.write_parquet(run.folder / "samples.parquet", own)
        runs.write_parquet(run.folder / "base_samples.parquet", base)
        curve = pd.DataFrame({"step": [1, 2, 3], "seconds": [0.5, 1.0, 1.5]})
        curve = curve.assign(**dict.fromkeys(collections.CURVES, float(config.seed)))
        runs.write_parquet(run.folder / "metrics.parquet", curve)
        run.finish({"seconds": 5.0, "rows": []})
    return folder


def grid(**axes: list) -> list[dict]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


BOTH = grid(reward=["boundary", "filter_avoidance"], utility=["mild", "blind"], seed=[0, 1])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("sweep"), BOTH)


@pytest.fixture(scope="module")
def collection(sweep: Path) -> Path:
    collections.collect([sweep], sweep / "collection")
    return sweep / "collection"


def test_a_collection_has_every_run_and_base_once_with_the_values_of_the_samples(
    collection: Path,
) -> None:
    index, values, curves = collections.load(collection)
    assert len(index) == len(BOTH) and set(curves["run"]) == set(index["run"])
    bases = {name for name in values["run"].unique() if name.startswith("base-")}
    assert len(bases) == 4  # two utilities, two seeds
    assert len(values) == (len(BOTH) + 4) * 100
    assert index["seconds"].eq(5.0).all() and set(index["machine"]) == {'{"cores": 2}'}
    assert index["training_seconds"].eq(3.0).all()
    assert set(curves["design"]) == {"boundary", "filter_avoidance"}
    (name, *_) = index.loc[(index["design"] == "boundary") & (index["seed"] == 1), "run"]
    told = values_of(values[values["run"] == name].reset_index(drop=True))
    truth = values_of(samples_of("boundary", 1))
    exact = ["filter_rate", "near_boundary", "false_positive", "false_negative", "length"]
    pd.testing.assert_frame_equal(told[exact], truth[exact])
    np.testing.assert_allclose(told["kl"], truth["kl"], atol=6e-3)


def test_the_table_has_means_over_seeds_and_prompts_and_base_everywhere(collection: Path) -> None:
    table = collections.load_table(collection)
    where = {"utility": "mild", "design": "boundary", "kind": "jailbreak", "seed": "all"}
    row = settings.select(table, "system_harm", where=where).iloc[0]
    stack = [samples_of("boundary", seed).query("kind == 'jailbreak'") for seed in (0, 1)]
    values = np.stack([part[["system_harm"]].to_numpy() for part in stack])
    (truth,), (alone,) = crossed_bootstrap(values), bootstrap(values[0])
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(tuple(truth), abs=0.05)
    assert row["interval"] == "both" and row["n_seeds"] == 2
    single = settings.select(table, "system_harm", where={**where, "seed": "0"}).iloc[0]
    assert single["interval"] == "prompts" and single["mean"] == pytest.approx(alone.mean)
    base = table[(table["design"] == "base") & (table["kind"] == "all")]
    assert set(base["utility"]) == {"mild", "blind"} and set(base["seed"]) == {"0", "1", "all"}
    assert "over seeds and prompts" in trade_off(table, "utility").layout.title.subtitle.text


@pytest.mark.slow
def test_parts_collected_in_turn_and_their_run_folders_give_the_same_table(
    tmp_path, sweep: Path, collection: Path
) -> None:
    part, out = make_sweep(tmp_path / "a", BOTH[:3]), tmp_path / "parts"
    sizes = [collections.collect([folder], out) for folder in (part, sweep, part)]
    assert sizes == [3, len(BOTH), len(BOTH)]  # at last nothing new
    runs_of, kept, parts = map(collections.load_table, (sweep, collection, out))
    pd.testing.assert_frame_equal(parts, kept)
    ends = ["mean", "low", "high"]  # but for the digits that a collection keeps
    pd.testing.assert_frame_equal(runs_of.drop(columns=ends), kept.drop(columns=ends))
    # so short a list has wide intervals, which digits of u (two) move most
    np.testing.assert_allclose(runs_of[ends], kept[ends], atol=0.02)


def test_rows_at_the_defaults_of_a_training_but_for_what_is_free() -> None:
    rows = [["mild", 8.0, 0.5], ["mild", 4.0, 0.5], ["blind", 8.0, 0.5], ["mild", 8.0, 0.3]]
    table = pd.DataFrame(rows, columns=["utility", "strength", "tau"])
    assert settings.default_rows(table, ["strength"]).to_numpy().tolist() == rows[:2]
    utilities = settings.default_rows(table, ["utility"])
    assert utilities.to_numpy().tolist() == [["mild", 0.5], ["blind", 0.5]]  # no strength
    with pytest.raises(BgkitError, match="no column 'colour'"):
        settings.default_rows(table, free=["colour"])


def test_mean_curves_join_seeds_and_tell_the_lowest_and_the_highest_run() -> None:
    curves = pd.DataFrame({"run": [*"aaabbb"], "step": [1, 2, 3] * 2, "kl": [1, 3, 0, 5, 9, 0]})
    found = collections.mean_curves(curves.assign(design="boundary"), window=2)["boundary"]
    told = [{"step": 2, "kl": 4.5, "kl_low": 2.0, "kl_high": 7.0}]
    told += [{"step": 4, "kl": 0.0, "kl_low": 0.0, "kl_high": 0.0}]
    assert found.to_dict("records") == told


def test_sources_stand_in_one_table_once(tmp_path, sweep: Path, collection: Path) -> None:
    other = make_sweep(tmp_path, grid(reward=["boundary"], tau=[0.3], beta=[0.1, 0.2]))
    table = collections.load_table(collection, other)
    assert settings.values_of(table, "tau") == [0.3, 0.5]
    assert set(table["beta"]) == {0.1, 0.2, "not told"}
    assert settings.settings_of(table) == [*settings.AXES, "strength", "beta"]
    with pytest.raises(BgkitError, match=r"hold the same result twice \(design b"):
        collections.load_table(collection, sweep)
    with pytest.raises(BgkitError, match="Two runs have the config"):
        collections.gather(2 * collections.find_runs(other))


def test_a_shipped_run_is_a_source_though_its_prompts_are_not_told() -> None:
    folder = data_folder() / "runs" / "english" / "boundary-0"
    where = {"design": "boundary", "kind": "all"}
    row = settings.select(collections.load_table(folder), "length", where=where)
    mean = runs.load_run(folder).samples()["length"].mean()
    assert row["mean"].unique() == pytest.approx([mean])


def test_what_is_no_source_is_refused(tmp_path) -> None:
    def refused(call, *arguments) -> str:
        with pytest.raises(BgkitError) as caught:
            call(*arguments)
        assert not (tmp_path / "c").exists()  # nothing half-written
        return str(caught.value)

    assert "There is no folder" in refused(collections.load_table, tmp_path / "none")
    assert "no run and no sweep" in refused(collections.load_table, tmp_path)
    assert "has no samples.parquet" in refused(collections.load_table, data_folder() / "runs")
    assert "no run and no sweep" in refused(collections.load, tmp_path)
    one, other = (make_sweep(tmp_path / p, [BOTH[n]], prompts=p) for n, p in enumerate("ab"))
    assert "different prompts" in refused(collections.collect, [one, other], tmp_path / "c")
    assert "different prompts" in refused(collections.load, one, other)
    (place,) = one.glob("runs/*/results/run")
    (place / "result.json").unlink()
    assert "no complete run" in refused(collections.collect, [one], tmp_path / "c")
    assert "is incomplete" in refused(collections.load_table, one)
    config = json.loads((place / "config.json").read_text())
    config["config"]["colour_of_reward"] = "red"
    (place / "config.json").write_text(json.dumps(config))
    assert "'colour_of_reward'" in refused(collections.load_table, one)
