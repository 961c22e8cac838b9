"""Collections of results: from sweeps' folders, part by part."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.evaluation.intervals import bootstrap, crossed_bootstrap
from bgkit.evaluation.metrics import summarise, values_of
from bgkit.figures import trade_off
from bgkit.stress import contenders
from bgkit.sweeps import collection as collections
from bgkit.testbed import store

KINDS = ("benign", "jailbreak")
#: design -> (mean of t, share harmful): what the made-up runs are like
LIKE = {"base": (0.3, 0.3), "boundary": (0.05, 0.02), "filter_avoidance": (0.45, 0.4)}


def samples_of(design: str, seed: int, n: int = 100, tau: float = 0.5) -> pd.DataFrame:
    """Made-up samples of a design, different for every seed."""
    rng, (middle, harmful) = np.random.default_rng([len(design), seed]), LIKE[design]
    t, harm = np.clip(rng.normal(middle, 0.15, n), 0, 1), (rng.random(n) < harmful).astype(float)
    table = pd.DataFrame({"prompt": [f"prompt {i}" for i in range(n)], "t": t, "harm": harm})
    table = table.assign(
        u=rng.normal(size=n), help=1 - harm, kl=rng.random(n), kind=KINDS * (n // 2)
    )
    table = table.assign(length=rng.integers(5, 30, n), filtered=t >= tau, near=abs(t - tau) < 0.3)
    table[["judge_system_harm", "judge_system_help"]] = np.nan
    return table.assign(system_harm=harm * (t < tau), system_help=(1 - harm) * (t < tau))


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
        run.finish({"seconds": 5.0, "rows": summarise(own, {"design": "x"})})
    return folder


def grid(**axes: list) -> list[dict]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


BOTH = grid(reward=["boundary", "filter_avoidance"], utility=["mild", "blind"], seed=[0, 1])


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    out = folder / "collection"
    collections.collect([make_sweep(folder / "s", BOTH)], out)
    return out


def test_a_collection_has_every_run_and_base_once(collection: Path) -> None:
    index, values, curves = collections.load(collection)
    assert len(index) == len(BOTH) and set(curves["run"]) == set(index["run"])
    bases = {name for name in values["run"].unique() if name.startswith("base-")}
    assert len(bases) == 4  # two utilities, two seeds
    assert len(values) == (len(BOTH) + 4) * 100
    assert index["seconds"].eq(5.0).all() and set(index["machine"]) == {'{"cores": 2}'}
    assert index["training_seconds"].eq(3.0).all()


def test_values_are_those_of_the_samples(collection: Path) -> None:
    index, values, _ = collections.load(collection)
    row = index[(index["design"] == "boundary") & (index["seed"] == 1)].iloc[0]
    kept = values[values["run"] == row["run"]].reset_index(drop=True)
    told = values_of(kept)
    truth = values_of(samples_of("boundary", 1))
    exact = ["filter_rate", "near_boundary", "false_positive", "false_negative", "length"]
    pd.testing.assert_frame_equal(told[exact], truth[exact])
    np.testing.assert_allclose(told["kl"], truth["kl"], atol=6e-3)


def test_the_table_has_means_over_seeds_and_prompts(collection: Path) -> None:
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


def test_base_is_there_with_every_utility(collection: Path) -> None:
    table = collections.load_table(collection)
    base = table[(table["design"] == "base") & (table["kind"] == "all")]
    assert set(base["utility"]) == {"mild", "blind"} and set(base["seed"]) == {"0", "1", "all"}
    figure = trade_off(table, "utility")
    assert "over seeds and prompts" in figure.layout.title.subtitle.text


@pytest.mark.slow
def test_a_sweep_is_collected_part_by_part_and_nothing_twice(tmp_path, collection: Path) -> None:
    out = tmp_path / "parts"
    collections.collect([make_sweep(tmp_path / "a", BOTH[:3])], out)
    collections.collect([make_sweep(tmp_path / "b", BOTH)], out)
    assert collections.collect([tmp_path / "a"], out) == len(BOTH)  # nothing new
    parts, whole = collections.load_table(out), collections.load_table(collection)
    pd.testing.assert_frame_equal(parts, whole)


@pytest.mark.slow
def test_one_setting_at_a_time_is_what_is_left_at_defaults(tmp_path) -> None:
    out = tmp_path / "c"
    configs = [*BOTH, *grid(reward=["boundary"], tau=[0.3], seed=[0, 1])]
    configs += grid(reward=["boundary"], strength=[4.0], seed=[0, 1])
    collections.collect([make_sweep(tmp_path / "s", configs)], out)
    table = collections.load_table(out)
    weights = settings.default_rows(table, free=["strength"])
    assert set(weights["strength"]) == {8.0, 4.0} and set(weights["tau"]) == {0.5}
    assert set(weights["utility"]) == {"mild"}
    utilities = settings.default_rows(table, free=["utility"])
    assert "strength" not in utilities and set(utilities["utility"]) == {"mild", "blind"}
    with pytest.raises(BgkitError, match="no column 'colour'"):
        settings.default_rows(table, free=["colour"])


def test_mean_curves_join_seeds(collection: Path) -> None:
    curves = collections.mean_curves(collections.load(collection)[2])
    assert set(curves) == {"boundary", "filter_avoidance"}
    assert curves["boundary"]["kl"].tolist() == [0.5] * 3
    wide = collections.mean_curves(collections.load(collection)[2], window=2)
    assert wide["boundary"]["step"].tolist() == [2, 4]  # steps 1 and 2, and 3


def test_mean_curves_tell_the_lowest_and_the_highest_run() -> None:
    curves = pd.DataFrame({"run": [*"aabb"], "step": [1, 2, 1, 2], "kl": [1, 3, 5, 9]})
    found = collections.mean_curves(curves.assign(design="boundary"), window=2)["boundary"]
    assert found.to_dict("records") == [{"step": 2, "kl": 4.5, "kl_low": 2.0, "kl_high": 7.0}]


# --- run folders -------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_folders_give_the_table_of_their_collection(tmp_path, collection: Path) -> None:
    """But for the digits that a collection keeps; each seed, and all of them."""
    folder = make_sweep(tmp_path / "s", BOTH)
    runs_of, kept = collections.load_table(folder), collections.load_table(collection)
    ends = ["mean", "low", "high"]
    pd.testing.assert_frame_equal(runs_of.drop(columns=ends), kept.drop(columns=ends))
    # so short a list has wide intervals, which digits of u (two) move most
    np.testing.assert_allclose(runs_of[ends], kept[ends], atol=0.02)


def test_sources_stand_in_one_table_once(tmp_path, collection: Path) -> None:
    other = make_sweep(tmp_path / "s", grid(reward=["boundary"], tau=[0.3], beta=[0.1, 0.2]))
    table = collections.load_table(collection, other)
    assert settings.values_of(table, "tau") == [0.3, 0.5]
    assert set(table["beta"]) == {0.1, 0.2, "not told"}
    assert settings.settings_of(table) == [*settings.AXES, "strength", "beta"]
    doubled = refused(collections.load_table, collection, make_sweep(tmp_path / "t", BOTH[:1]))
    assert "hold the same result twice (design b" in doubled
    place = other / "runs"
    assert "Two runs have the config" in refused(
        collections.gather, 2 * collections.find_runs(place.parent)
    )


def test_a_shipped_run_is_a_source_though_its_prompts_are_not_told(tmp_path) -> None:
    english = store.data_folder() / "runs" / "english"
    table = collections.load_table(english / "boundary-0")
    row = settings.select(table, "length", where={"design": "boundary", "kind": "all"})
    samples = runs.load_run(english / "boundary-0").samples()
    assert row["mean"].unique() == pytest.approx([samples["length"].mean()])
    assert collections.collect([english / "boundary-0"], tmp_path / "c") == 1
    assert collections.collect([english / "boundary-1"], tmp_path / "c") == 2


def test_what_is_no_source_is_refused(tmp_path, monkeypatch) -> None:
    assert "There is no folder" in refused(collections.load_table, tmp_path / "none")
    assert "holds no run" in refused(collections.load_table, tmp_path)
    assert "has no samples.parquet" in refused(collections.load_table, contenders.shipped_runs()[0])
    folder = make_sweep(tmp_path / "s", BOTH[:1])
    (path,) = folder.glob("runs/*/results/run/config.json")
    config = json.loads(path.read_text())
    config["config"]["colour_of_reward"] = "red"
    path.write_text(json.dumps(config))
    assert "'colour_of_reward'" in refused(collections.load_table, folder)
    monkeypatch.setattr(collections, "shipped", lambda: tmp_path / "ablation")
    assert "There is no folder" in refused(collections.load_table)


# --- bad input -------------------------------------------------------------------------------


def refused(call, *arguments) -> str:
    with pytest.raises(BgkitError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


def test_what_can_not_be_collected_is_refused(tmp_path) -> None:
    assert "no sweep" in refused(collections.collect, [tmp_path], tmp_path / "c")
    half = make_sweep(tmp_path / "half", BOTH[:1])
    next(half.glob("runs/*/results/run/result.json")).unlink()
    assert "no complete run" in refused(collections.collect, [half], tmp_path / "c")
    assert "is incomplete" in refused(collections.load_table, half)
    sweeps = [make_sweep(tmp_path / "a", BOTH[:1])]
    sweeps += [make_sweep(tmp_path / "b", BOTH[1:2], prompts="b")]
    assert "different prompts" in refused(collections.collect, sweeps, tmp_path / "c")
    assert not (tmp_path / "c").exists()  # nothing half-written
    assert "no index.parquet" in refused(collections.load, tmp_path)
