"""One reading of results: a run, runs, samples or samples by name; tables with paired marks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bgkit
from bgkit.errors import BgkitError
from bgkit.evaluation import results
from bgkit.figures import distributions, training
from bgkit.runs import Run, load_run

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test


def frame(help_: float, harm: float, n: int = 40, shift: float = 0.0) -> pd.DataFrame:
    """Samples whose means are known: half of them a little above the mean, half below."""
    wave = np.where(np.arange(n) % 2, 0.05, -0.05)
    columns = {"system_help": help_ + wave, "system_harm": harm - wave}
    told = {"prompt": [f"p{i}" for i in range(n)], "t": 0.2 + shift, "harm": 0.1, "help": 0.5}
    more = {"filtered": False, "near": False, "kind": "benign", "kl": 0.0, "u": 0.0, "length": 3}
    made = pd.DataFrame({**told, **more, **columns})
    judged = {f"judge_system_{name}": np.nan for name in ("harm", "help")}
    return made.assign(prompt_id=made["prompt"], **judged)


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
    assert distributions.tau_of(small_run) == 0.5 and distributions.tau_of(FRAMES, 0.3) == 0.3
    assert list(training.curves_of(small_run)) == ["boundary"]


def test_runs_that_differ_in_the_seed_are_one_design_and_others_are_named(
    small_run, weak_run, tmp_path: Path
) -> None:
    again = copied(small_run, tmp_path / "again", seed=1)
    frames = results.frames_of([small_run, again])
    assert list(frames) == ["base", "boundary"]
    assert {seed: len(part) for seed, part in frames["boundary"].groupby("seed")} == {0: 16, 1: 16}
    table = bgkit.table([small_run, again], ["system_help"])
    one = bgkit.table(small_run, ["system_help"])
    assert table.iloc[0, 1].split()[0] == one.iloc[0, 1].split()[0]  # equal seeds, equal means
    assert len(training.curves_of([small_run, again])) == 2
    named = list(results.frames_of([small_run, weak_run]))
    assert named[2] == "boundary" and "guard weak" in named[3]


def test_tables_and_mappings_are_taken_as_they_are() -> None:
    assert results.frames_of(FRAMES) == FRAMES
    whole = pd.concat([part.assign(design=name) for name, part in FRAMES.items()])
    assert {name: len(part) for name, part in results.frames_of(whole).items()} == dict.fromkeys(
        FRAMES, 40
    )
    assert list(results.frames_of(FRAMES["base"])) == ["responses"]
    rows = results.rows_of(FRAMES)
    assert results.rows_of(rows) is rows


def test_marks_say_better_and_worse_beyond_the_paired_interval() -> None:
    table = results.table(FRAMES, ["system_harm", "system_help"])
    assert list(table.columns) == list(FRAMES) and list(table.index) == [
        "system_harm",
        "system_help",
    ]
    assert table.loc["system_help", "better"].startswith("0.400 [")
    assert table.loc["system_help", "better"].endswith("*")
    assert table.loc["system_harm", "worse"].endswith("!")
    assert table.loc["system_harm", "better"].endswith("]")  # no difference, no mark
    gains = results.table(FRAMES, ["system_help"], differences=True)
    assert gains.loc["system_help", "better"] == "0.200 [0.200, 0.200] *"
    paired = results.paired_table(FRAMES).set_index(["design", "metric"])
    assert paired.loc[("better", "system_help"), "better"]
    assert not paired["better"][("worse", "system_harm")] and paired["worse"].sum() == 1


def test_what_can_not_be_put_side_by_side_is_refused(small_run, tmp_path: Path) -> None:
    with pytest.raises(BgkitError, match="no runs to show"):
        results.frames_of([])
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


def test_sample_takes_names_and_objects_and_knows_the_truth_of_the_testbed() -> None:
    by_name = bgkit.sample("tiny", n=6, guard="weak", seed=1, max_completion_length=8)
    guard, policy = bgkit.load_guard("weak"), bgkit.load_policy("tiny")
    prompts = bgkit.load_prompts(split="test", n=6, seed=1)
    given = bgkit.sample(policy, prompts, guard=guard, seed=1, max_completion_length=8)
    assert by_name["response"].tolist() == given["response"].tolist()
    assert by_name[["harm", "refusal_help"]].notna().all().all() and given["harm"].isna().all()
    judged = bgkit.sample(policy, prompts, guard=guard, judge="oracle", max_completion_length=8)
    assert judged["harm"].notna().all()


def test_runs_of_several_deployments_are_each_compared_with_their_own_base(
    small_run, weak_run
) -> None:
    frames = results.frames_of([small_run, weak_run])
    own = ["base of boundary", "base of boundary, guard weak, steps 2, eval_every 0"]
    assert list(frames) == [own[0], own[1], "boundary", own[1].removeprefix("base of ")]
    found = results.paired_table([small_run, weak_run], ["near_boundary"]).set_index("design")[
        "mean"
    ]
    for run, name in ((small_run, "boundary"), (weak_run, own[1].removeprefix("base of "))):
        assert found[name] == results.paired_table(run, ["near_boundary"])["mean"].item()
    with pytest.raises(BgkitError, match="several thresholds"):
        moved = replace(weak_run, config=replace(weak_run.config, tau=0.7))
        distributions.tau_of([small_run, moved])
    assert len(training.curves_of([small_run, weak_run])) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: results.table(run, ["harmfulness"]), "Unknown metric 'harmfulness'"),
        (lambda run: results.table(7), "A run, its folder, or several of them are needed, not 7"),
        (lambda run: run.samples("policy"), "'trained' and 'base', not 'policy'"),
        (lambda run: results.table({"a": FRAMES["base"].drop(columns="kl")}), "column.s. kl"),
    ],
)
def test_what_can_not_be_read_is_refused_in_a_sentence(call, said: str, small_run) -> None:
    with pytest.raises(BgkitError, match=said):
        call(small_run)
