"""The shipped English labels and fits hold what their card says. No package is needed."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

import bgkit
from bgkit.data import data_folder, sha256
from bgkit.errors import BgkitError
from bgkit.fitting import fit, labelled
from bgkit.prompts import splits
from bgkit.training import presets

FOLDER = data_folder() / "english"
CARD = (FOLDER / "README.md").read_text("utf-8")
FITS = ("guard", "utility", "auditor/harm", "auditor/help")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_json(FOLDER / "labelled.jsonl", lines=True)


def test_every_response_has_a_prompt_of_the_project_labels_a_split_and_a_fold(table) -> None:
    own = set(bgkit.load_prompts("everyday-short")["prompt"])
    further = pd.read_json(FOLDER / "prompts.jsonl", lines=True)["prompt"]
    assert not own & set(further) and set(table["prompt"]) == own | set(further)
    assert table["harmful"].isin([True, False]).all() and table["helpful"].isin([0, 1, 2]).all()
    assert not (table["harmful"] & ~table["harmful_request"]).any()
    assert not table.duplicated(["prompt", "response"]).any()
    by_hash = table["prompt"].map(splits.split_of).where(table["round"] < 20, "train")
    assert (table["split"] == by_hash).all()
    assert ((table["split"] == "test") == (table["fold"] == "")).all()
    folds = table[table["fold"] != ""].groupby("prompt")["fold"]
    assert (folds.nunique() == 1).all()  # guard and auditor share no prompt to fit on
    rows = labelled.read_labelled(FOLDER / "labelled.jsonl", "harmful", None, {"fold": "auditor"})
    labelled.check_classes(rows)


def test_the_card_tells_counts_and_agreement(table) -> None:
    twice = table.dropna(subset=["harmful_again"])
    first, again = twice["harmful"].astype(bool), twice["harmful_again"].astype(bool)
    same = (first == again).mean()
    chance = first.mean() * again.mean() + (1 - first.mean()) * (1 - again.mean())
    kappa = (same - chance) / (1 - chance)
    assert f"{len(table):,} responses" in CARD
    assert f"{len(twice)} responses to requests" in CARD
    assert f"kappa {kappa:.2f}, {int((first == again).sum())} of {len(twice)} the same" in CARD


@pytest.mark.parametrize("name", FITS)
def test_a_shipped_fit_is_of_these_rows_and_complete(name: str, table) -> None:
    told = json.loads((FOLDER / name / "fit.json").read_text("utf-8"))
    other = "guard" if name.startswith("auditor") else "auditor"
    used = table[table["fold"] != other]
    assert told["counts"]["train"] == (used["split"] == "train").sum()
    assert told["counts"]["test"] == (used["split"] == "test").sum()
    for file, digest in told["sha256"].items():
        assert sha256(FOLDER / name / file) == digest
    adapter = json.loads((FOLDER / name / "adapter_config.json").read_text("utf-8"))
    assert adapter["base_model_name_or_path"] == "minilm"
    first = fit.results(told)
    value = "auc" if "auc" in first.index else "accuracy"
    mean, low, high = first.loc[value, ["mean", "low", "high"]]
    assert f"{mean:.2f} [{low:.2f}, {high:.2f}]" in CARD


def test_the_shipped_run_is_that_of_notebook_06_complete_and_without_weights() -> None:
    config = replace(presets.choose("english-cpu"), reward="boundary", strength=4.0, eval_every=0)
    run = presets.shipped_run(config)
    assert run is not None and run.complete and run.result["graded_by"] == ["english"]
    assert len(run.curve()) == run.config.steps
    held_out = set(bgkit.load_prompts("everyday-short", "test")["prompt"])
    for policy in ("base", "trained"):
        samples = run.samples(policy)
        assert len(samples) == run.config.test_prompts and set(samples["prompt"]) <= held_out
        assert samples[["t", "u", "harm", "help"]].notna().all(axis=None)
    assert not [path for path in run.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    assert presets.shipped_run(replace(config, seed=9)) is None
    with pytest.raises(BgkitError, match="compound-1 has no adapter"):
        bgkit.evaluate(run.folder.parent / "compound-1")


def test_the_blind_labels_are_of_what_the_shipped_runs_said() -> None:
    blind = pd.read_json(FOLDER / "blind.jsonl", lines=True)
    assert blind["harmful"].isin([True, False]).all() and blind["helpful"].isin([0, 1, 2]).all()
    runs = data_folder() / "runs" / "english"
    for (policy, seed), rows in blind.groupby(["policy", "seed"]):
        folder = runs / f"{'boundary' if policy == 'base' else policy}-{seed}"
        said = bgkit.load_run(folder).samples("base" if policy == "base" else "trained")
        of_these = said.iloc[rows["prompt_id"].to_numpy()]
        assert of_these["response"].tolist() == rows["response"].tolist() and len(rows) == 80
        assert of_these["filtered"].tolist() == rows["filtered"].tolist()
    same = blind.groupby(["prompt", "response"])[["harmful", "helpful"]].nunique()
    assert (same == 1).all(axis=None)  # a text has one label, whoever said it
