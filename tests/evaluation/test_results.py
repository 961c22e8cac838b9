"""Results as tables: a run, runs, samples or samples by name, with paired marks; and settings."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bgkit
from bgkit.errors import BgkitError
from bgkit.evaluation import results
from bgkit.evaluation import settings as settings_
from bgkit.figures import training
from bgkit.runs import Run, load_run


def frame(help_: float, harm: float, n: int = 40) -> pd.DataFrame:
    """Samples whose means are known: half of them a little above the mean, half below."""
    wave = np.where(np.arange(n) % 2, 0.05, -0.05)
    told = {"prompt_id": range(n), "prompt": [f"p{i}" for i in range(n)], "t": 0.2, "harm": 0.1}
    told |= {"help": 0.5, "filtered": False, "near": False, "kind": "benign", "kl": 0.0, "u": 0.0}
    told |= {"length": 3, "judge_system_harm": np.nan, "judge_system_help": np.nan}
    return pd.DataFrame({**told, "system_help": help_ + wave, "system_harm": harm - wave})


FRAMES = {"base": frame(0.2, 0.1), "better": frame(0.4, 0.1), "worse": frame(0.2, 0.3)}


def copied(run: Run, folder: Path, **changes: object) -> Run:
    """A copy of a run whose config says something else."""
    shutil.copytree(run.folder, folder)
    stored = json.loads((folder / "config.json").read_text())
    stored["config"] |= changes
    (folder / "config.json").write_text(json.dumps(stored))
    return load_run(folder)


def test_a_run_gives_base_and_itself_and_so_does_its_folder(small_run) -> None:
    for given in (small_run, [small_run], str(small_run.folder), [small_run.folder]):
        frames = results.frames_of(given)
        assert list(frames) == ["base", "boundary"]
        assert frames["boundary"]["response"].tolist() == small_run.samples()["response"].tolist()
        assert results.frames_and_tau(given)[1] == 0.5
    frame, tau = results.frame_and_tau(small_run.folder, 0.4)
    assert frame["response"].tolist() == frames["boundary"]["response"].tolist() and tau == 0.4
    assert results.frames_and_tau(FRAMES, 0.3) == (FRAMES, 0.3)
    for several in ([small_run, small_run], FRAMES):
        with pytest.raises(BgkitError, match="one policy, not"):
            results.frame_and_tau(several)
    assert list(training.curves_of(small_run)) == ["boundary"]
    # an iterator of runs is read once
    for read in (bgkit.table, bgkit.figures.margins, lambda runs: bgkit.widgets.nearest(runs).data):
        assert str(read(iter([small_run]))) == str(read([small_run]))


def test_runs_that_differ_in_the_seed_are_one_design(small_run, tmp_path: Path) -> None:
    again = copied(small_run, tmp_path / "again", seed=1)
    frames = results.frames_of([small_run, again])
    assert list(frames) == ["base", "boundary"]
    assert frames["boundary"]["seed"].value_counts().to_dict() == {0: 16, 1: 16}
    table = bgkit.table([small_run, again], ["system_help"])
    one = bgkit.table(small_run, ["system_help"])
    assert table.iloc[0, 1].split()[0] == one.iloc[0, 1].split()[0]  # equal seeds, equal means
    assert len(training.curves_of([small_run, again])) == 2


def test_tables_and_mappings_are_taken_as_they_are() -> None:
    assert results.frames_of(FRAMES) == FRAMES
    whole = pd.concat([part.assign(design=name) for name, part in FRAMES.items()])
    assert {n: len(f) for n, f in results.frames_of(whole).items()} == dict.fromkeys(FRAMES, 40)
    assert list(results.frames_of(FRAMES["base"])) == ["responses"]
    assert results.frame_and_tau({"one": FRAMES["base"]})[0] is FRAMES["base"]
    rows = results.rows_of(FRAMES)
    assert results.rows_of(rows) is rows


def test_marks_say_better_and_worse_beyond_the_paired_interval() -> None:
    table = results.table(FRAMES, ["system_harm", "system_help"])
    assert list(table.columns) == list(FRAMES)
    assert list(table.index) == ["system_harm", "system_help"]
    assert table.loc["system_help", "better"].startswith("0.400 [")
    assert table.loc["system_help", "better"].endswith("*")
    assert table.loc["system_harm", "worse"].endswith("!")
    assert table.loc["system_harm", "better"].endswith("]")  # no difference, no mark
    gains = results.table(FRAMES, ["system_help"], differences=True)
    assert gains.loc["system_help", "better"] == "0.200 [0.200, 0.200] *"
    paired = results.paired_table(FRAMES).set_index(["design", "metric"])
    assert paired.index[paired["better"]].tolist() == [("better", "system_help")]
    assert paired.index[paired["worse"]].tolist() == [("worse", "system_harm")]
    with pytest.raises(BgkitError, match="Unknown metric 'harmfulness'"):
        results.table(FRAMES, ["harmfulness"])


def test_a_result_is_a_table_too_and_differences_are_never_means(small_run) -> None:
    names, result = ["system_harm", "kl"], small_run.result
    means, differences = (results.table(small_run, names, differences=d) for d in (False, True))
    for given in (result, result["rows"]):
        unmarked = results.table(given, names)
        assert (means.replace(" [*!]", "", regex=True) == unmarked[means.columns]).all(axis=None)
    assert results.table(result, names, differences=True).equals(differences)
    assert results.table(small_run, "kl").loc["kl"].equals(means.loc["kl"])
    for rows, asked, fault in (("rows", True, "means"), ("paired", False, "differences")):
        with pytest.raises(BgkitError, match=f"These rows are {fault}"):
            results.table(result[rows], names, differences=asked)


def test_every_design_with_a_strength_names_it_where_they_differ(small_run, tmp_path) -> None:
    other = {"strength": 2.0, "seed": 1}
    runs = [small_run, copied(small_run, tmp_path / "weak", **other)]
    runs.append(copied(small_run, tmp_path / "plain", reward="guard_only", **other))
    names = ["boundary, strength 8", "boundary, strength 2", "guard_only"]
    assert results.design_names(runs) == names
    assert results.design_names(runs[::-1]) == names[::-1]
    runs.append(copied(small_run, tmp_path / "twin", reward="guard_only"))
    assert results.design_names(runs)[2:] == ["guard_only, strength 2", "guard_only, strength 8"]


def test_what_can_not_be_put_side_by_side_is_refused(small_run, tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match="no runs to show"):
        results.frames_of([])
    with pytest.raises(BgkitError, match="'responses' has no rows"):
        results.table(FRAMES["base"][:0])
    with pytest.raises(BgkitError, match="is the folder of a run; give its policy, "):
        bgkit.load_policy(small_run.folder)
    with pytest.raises(BgkitError, match="several of them are needed, not a table"):
        training.curves_of(FRAMES["base"])
    other, twin = copied(small_run, tmp_path / "other", seed=2), tmp_path / "twin"
    with pytest.raises(BgkitError, match=f"{small_run.folder} and {twin} have the same config"):
        results.frames_of([small_run, other, copied(small_run, twin)])
    for name in ("samples.parquet", "base_samples.parquet"):
        table = pd.read_parquet(other.folder / name).iloc[::-1]
        table.to_parquet(other.folder / name)
    with pytest.raises(BgkitError, match="evaluated on other prompts"):
        results.frames_of([small_run, other])
    (other.folder / "samples.parquet").unlink()
    with pytest.raises(BgkitError, match=r"has no samples\.parquet"):
        other.samples()
    with pytest.raises(BgkitError, match="'trained' and 'base', not 'policy'"):
        small_run.samples("policy")


@pytest.mark.slow
def test_sample_takes_names_and_objects_and_knows_the_truth_of_the_testbed() -> None:
    by_name = bgkit.sample("tiny", n=6, guard="weak", seed=1, max_completion_length=8)
    guard, policy = bgkit.load_guard("weak"), bgkit.load_policy("tiny")
    prompts = bgkit.load_prompts(split="test", n=6, seed=1)
    given = bgkit.sample(policy, prompts, guard=guard, seed=1, max_completion_length=8)
    assert by_name["response"].tolist() == given["response"].tolist()
    assert by_name[["harm", "refusal_help"]].notna().all().all() and given["harm"].isna().all()
    judged = bgkit.sample(policy, prompts, guard=guard, judge="oracle", max_completion_length=8)
    assert judged["harm"].notna().all()
    assert len(bgkit.sample(policy, prompts, n=2, guard=guard, max_completion_length=8)) == 2


def test_runs_of_several_deployments_are_each_compared_with_their_own_base(
    small_run, weak_run
) -> None:
    runs = {"boundary": small_run, "boundary, guard weak, steps 2, eval_every 0": weak_run}
    frames = results.frames_of(runs.values())
    assert list(frames) == [*(f"base of {name}" for name in runs), *runs]
    found = results.paired_table(runs.values(), ["near_boundary"]).set_index("design")["mean"]
    for name, run in runs.items():
        assert found[name] == results.paired_table(run, ["near_boundary"])["mean"].item()
    assert len(training.curves_of(runs.values())) == 2
    moved = replace(weak_run, config=replace(weak_run.config, tau=0.7))
    with pytest.raises(BgkitError, match="several thresholds"):
        results.frames_and_tau([small_run, moved])


def test_a_design_of_one_seed_is_compared_with_base_of_that_seed() -> None:
    both = pd.concat([FRAMES["base"].assign(seed=0), frame(0.3, 0.2).assign(seed=1)])
    whole = results.paired_table({"base": both, "better": FRAMES["better"].assign(seed=0)})
    assert whole.equals(results.paired_table(FRAMES)[lambda rows: rows["design"] == "better"])


# --- A long table of settings ------------------------------------------------------------------

DESIGNS = ["base", "filter_avoidance", "boundary", "compound"]
UTILITIES = ["aligned", "mild", "weak", "blind"]
VALUES = (DESIGNS, UTILITIES, ("all", "benign"), ("system_help", "system_harm", "kl"))


@pytest.fixture
def table() -> pd.DataFrame:
    """Means count the settings in thousandths, intervals are +-0.02; sorted from a wrong order."""
    names = ["design", "utility", "kind", "metric"]
    rows = pd.DataFrame(itertools.product(*VALUES), columns=names)
    means = rows.assign(mean=rows.index / 1000, low=rows.index / 1000 - 0.02)
    means = means.assign(high=means["low"] + 0.04, scale="small", guard="default", tau=0.5)
    return settings_.sort_rows(means[::-1].assign(seed="all"))


def test_unknown_names_are_answered_with_the_known_ones_in_order(table: pd.DataFrame) -> None:
    for arguments, words in [
        (["joy"], "no metric 'joy'; choose one of system_help"),
        (["kl", (), {"size": 1}], "no column 'size'; choose one"),
        (["kl", ["design", "utility"], {"tau": 1}], "no tau 1; choose one of 0.5"),
        (["kl", ["shape"]], "no column 'shape'"),
        (["kl", ["design"]], "several values of utility (aligned"),
    ]:
        with pytest.raises(BgkitError, match=re.escape(words)):
            settings_.select(table, *arguments)
    held = settings_.select(table, "kl", ["design"], {"utility": "mild"})
    assert set(held["kind"]) == {"all"} and list(held["design"]) == DESIGNS
    numbers = pd.DataFrame({"seed": ["10", "all", "2"], "tau": [0.7, 0.05, 0.5]})
    assert settings_.values_of(numbers, "seed") == ["all", "2", "10"]
    assert settings_.values_of(numbers, "tau") == [0.05, 0.5, 0.7]


def test_numbers_tell_every_interval_and_what_was_not_measured(table: pd.DataFrame) -> None:
    found = settings_.metric_table(table, "system_help")
    assert list(found.index) == DESIGNS and list(found.columns) == UTILITIES
    assert found.loc["base", "mild"] == "0.006 [-0.014, 0.026]"
    by_design = settings_.metric_table(table, "system_help", "design", where={"utility": "mild"})
    assert by_design.loc["system_help", "base"] == found.loc["base", "mild"]
    part = table[(table["design"] != "boundary") | (table["utility"] != "weak")]
    assert settings_.metric_table(part, "system_help").loc["boundary", "weak"] == "–"
    with pytest.raises(BgkitError, match="was not measured for design boundary, utility weak"):
        settings_.select(part, "kl", where={"design": "boundary", "utility": "weak"})
    for kind in ("all", "benign"):
        found = settings_.overview(table, ["system_harm", "kl"], "utility", {"kind": kind})
        alone = settings_.metric_table(table, "kl", where={"kind": kind})
        assert list(found.columns) == ["system_harm", "kl"]
        assert found.loc[("mild", "boundary"), "kl"] == alone.loc["boundary", "mild"]
