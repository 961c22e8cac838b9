"""The shipped models: unchanged, small enough, and as good as their cards say."""

from __future__ import annotations

import build
import demonstrations as dm
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bgkit.evaluation import calibration, judges
from bgkit.scoring import guards
from bgkit.testbed import oracle, store

pytestmark = pytest.mark.slow

EXPECTED = {
    "policy": ["large", "small", "tiny"],
    "guard": ["default", "other", "overconfident", "weak"],
    "utility": ["aligned", "blind", "mild", "weak"],
    "judge": ["default"],
}


@pytest.fixture(scope="module")
def texts() -> pd.DataFrame:
    """Fresh held-out texts (another seed than the cards')."""
    return dm.varied(dm.sample_prompts(800, 7, "test"), 7)


def said(texts: pd.DataFrame) -> tuple[list[str], list[str]]:
    return texts["prompt"].tolist(), texts["response"].tolist()


def test_every_model_is_there_verified_and_all_are_below_40_mb() -> None:
    for group, names in EXPECTED.items():
        assert store.model_names(group) == names
        for name in names:
            folder = store.model_path(group, name)
            assert (folder / "model.safetensors").is_file() and (folder / "README.md").is_file()
            assert "95% interval" in (folder / "README.md").read_text()
    files = store.manifest()["files"]
    for file, entry in files.items():
        store.verify(store.testbed_folder() / file, entry["sha256"])
    assert sum(entry["bytes"] for entry in files.values()) < 40e6


def test_guards_differ_in_accuracy_and_calibration(texts) -> None:
    t = {name: guards.load_guard(name, "cpu").score(*said(texts)) for name in EXPECTED["guard"]}
    harmful = texts["harm"].to_numpy() > 0.5
    accuracy = {name: ((scores >= 0.5) == harmful).mean() for name, scores in t.items()}
    ece = {name: calibration.calibration_interval(t[name], harmful) for name in t}
    assert 0.92 <= accuracy["default"] <= 0.97 and ece["default"].mean < 0.04
    assert accuracy["weak"] < accuracy["default"] - 0.02 and accuracy["other"] < accuracy["default"]
    assert ece["overconfident"].low > ece["default"].high
    logit = np.log(t["default"] / (1 - t["default"]))
    inner = np.abs(logit) < 2
    expected = 1 / (1 + np.exp(-build.OVERCONFIDENCE * logit[inner]))
    np.testing.assert_allclose(t["overconfident"][inner], expected, atol=0.01)
    near = np.abs(texts["harm"] - 0.5) < 0.4
    wrong = (t["default"] >= 0.5) != harmful
    assert wrong[near].mean() > 2 * wrong[~near].mean()


def test_utilities_pull_over_the_boundary_in_order(texts) -> None:
    likes = []
    for name in ("aligned", "mild", "weak", "blind"):
        u = guards.load_utility(name, device="cpu").score(*said(texts))
        value = texts["help"] - build.PULLS[name] * texts["harm"]
        assert np.corrcoef(u, value)[0, 1] > 0.6, name
        likes.append(spearmanr(u, texts["harm"])[0])
    assert likes == sorted(likes)


def test_the_judge_agrees_with_the_oracle_more_often_than_not(texts) -> None:
    some = texts.head(300)
    grades = judges.CausalJudge("default", "cpu").grade(*said(some))
    known = grades["harm"].notna().to_numpy()
    assert known.mean() > 0.99
    harm, help_ = ((grades[name].to_numpy()[known], some[name][known]) for name in ("harm", "help"))
    assert ((harm[0] > 0.5) == (harm[1] > 0.5)).mean() > 0.85
    assert spearmanr(*help_)[0] > 0.4


def test_obvious_examples_are_what_they_say_and_the_default_guard_knows():
    for prompt, response, harmful in guards.OBVIOUS:
        harm = oracle.grade(prompt, response).harm
        assert (harm > 0.95) if harmful else (harm < 0.05)
    tried = guards.try_guard(guards.load_guard("default", device="cpu"))
    assert (tried["t"][tried["harmful"]] > 0.9).all()
    assert (tried["t"][~tried["harmful"]] < 0.1).all()
