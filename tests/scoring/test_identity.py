"""A run goes on with the guard, utility and policy that it was made with, and with no others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL
from safetensors.torch import load_file, save_file

from bgkit import runs
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import evaluate as evaluation_
from bgkit.scoring import guards as guards_
from bgkit.scoring import identity
from bgkit.stress import contenders
from bgkit.testbed import store
from bgkit.training import model_card
from bgkit.training import trainer as training

CONFIG = runs.make_config({**SMALL, "steps": 2, "eval_every": 0, "test_prompts": 6})
ON_CPU = {"device": "cpu", "threads": 1}


class Share:
    """Scores a response by the share of a letter in it, shifted, as guard or as reward model."""

    def __init__(self, letter: str = "e", name: str = "letters", shift: float = 0.0) -> None:
        self.letter, self.name, self.shift = letter, name, shift

    def score(self, prompts, responses) -> np.ndarray:
        shares = [r.count(self.letter) / max(1, len(r)) for r in responses]
        return np.array(shares, np.float32) + np.float32(self.shift)


class Unable(Share):
    """Scores those calls only that ``able`` says, and each by other shifts if it is ``moody``."""

    def __init__(self, *able: bool, moody: float = 0.0) -> None:
        super().__init__()
        self.able, self.moody = list(able), moody

    def score(self, prompts, responses) -> np.ndarray:
        if not (self.able and self.able.pop(0)):
            raise KeyError(responses[0])
        self.shift += self.moody
        return super().score(prompts, responses)


class Aside(Share):
    """Scores the fixed texts as Share does, and others by another letter."""

    def score(self, prompts, responses) -> np.ndarray:
        self.letter = "e" if [*zip(prompts, responses, strict=True)] == identity.PAIRS else "a"
        return super().score(prompts, responses)


OWN = {"guard": Share(), "utility": Share("a", "vowel")}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The folder of a run with objects that was stopped after its first step."""
    folder = tmp_path_factory.mktemp("own") / "stopped"
    with pytest.raises(StoppedError):
        training.train(CONFIG, folder, should_stop=lambda: True, **OWN, **ON_CPU)
    return folder


@pytest.fixture(scope="module")
def own_run(stopped: Path) -> runs.Run:
    """The same run, complete."""
    folder = shutil.copytree(stopped, stopped.parent / "run")
    return training.train(CONFIG, folder, **OWN, **ON_CPU)


def begun(folder: Path, config: runs.TrainConfig, **told) -> None:
    """A run folder as it is when base was measured."""
    run = runs.open_run(folder, config, told)
    runs.write_json(run.folder / "base.json", {})


def test_config_rows_card_and_record_have_the_objects_names_and_it_gets_the_result(
    own_run: runs.Run,
) -> None:
    result, told = own_run.read_json("result.json"), own_run.read_json("config.json")
    labels = {(row["guard"], row["utility"]) for row in result["rows"] + result["paired"]}
    assert labels == {("letters", "vowel")}
    assert (told["config"]["guard"], own_run.config.utility) == ("object:letters", "object:vowel")
    expected = Share().score(*zip(*identity.PAIRS, strict=True))
    np.testing.assert_allclose(told[identity.RECORD]["guard"]["scores"], expected, rtol=1e-5)
    assert "the guard `letters`" in model_card.card(own_run)
    near = Share(shift=0.001)  # as another device computes it
    again = training.train(CONFIG, own_run.folder, **{**OWN, "guard": near}, **ON_CPU)
    assert again.read_json("result.json") == result


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"guard": Share("o")}, "guard letters is not the one .* it gives .* and gave"),
        (
            {"guard": Aside()},
            "guard letters is not the one .* other scores to responses",
        ),
        ({"guard": Unable()}, "guard letters is not the one .* it cannot score"),
        ({"guard": None}, "object:letters there, default here.*as guard="),
        ({"guard": "weak"}, "another config .guard: object:letters there, weak here"),
        ({"utility": Share("o", "vowel")}, "utility vowel is not the one"),
        ({"trainer": {"epsilon": 0.3}}, r"arguments of the trainer \(\{\} there, .*epsilon"),
    ],
)
def test_another_object_neither_goes_on_nor_gets_the_result(own_run, stopped, other, words) -> None:
    before = (own_run.folder / "result.json").read_bytes()
    for folder in (stopped, own_run.folder):
        with pytest.raises(BgkitError, match=words):
            training.train(CONFIG, folder, **{**OWN, **other}, **ON_CPU)
    assert (own_run.folder / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("group", "usual", "other"), [("guard", "default", "weak"), ("utility", "mild", "aligned")]
)
def test_a_model_whose_folder_was_changed_does_not_go_on(group, usual, other, tmp_path) -> None:
    folder, kept = tmp_path / "run", tmp_path / "kept"
    embedded = store.testbed_folder() / group
    shutil.copytree(embedded / usual, kept)
    config = replace(CONFIG, **{group: str(kept)})
    before = identity.fingerprint(guards_.load_scorer(group, usual, "cpu"))
    begun(folder, config, **{identity.RECORD: {group: before}})
    shutil.copytree(embedded / other, kept, dirs_exist_ok=True)
    for _ in range(2):  # unfinished, and complete
        with pytest.raises(BgkitError, match="not the one of the same name that the run"):
            training.train(config, folder, check=False, **ON_CPU)
        runs.write_json(folder / "result.json", {})
    shutil.copytree(embedded / usual, kept, dirs_exist_ok=True)
    assert training.train(config, folder, **ON_CPU).complete


@pytest.mark.slow
def test_evaluation_asks_for_the_object_or_takes_another_guard(own_run) -> None:
    for given, words in (
        ({}, r"guard 'letters' of this run is a Python object.*guard=\.\.\..*--guard NAME"),
        ({"guard": Share("o")}, "guard letters is not the one"),
    ):
        with pytest.raises(BgkitError, match=words):
            evaluation_.evaluate([own_run.folder], device="cpu", **given)
    own = {(r["design"], r["metric"]): r["mean"] for r in own_run.read_json("result.json")["rows"]}
    for given, label in (({"guard": "weak"}, "weak"), ({"guard": OWN["guard"]}, "letters")):
        found = evaluation_.evaluate([own_run.folder], device="cpu", **given)
        assert {(row["guard"], row["utility"]) for row in found["rows"]} == {(label, "vowel")}
        again = {(row["design"], row["metric"]): row["mean"] for row in found["rows"]}
    assert again["boundary", "filter_rate"] == own["boundary", "filter_rate"]


def test_samples_of_base_are_those_of_the_guard_that_is_given(tmp_path: Path, own_run) -> None:
    base = pd.read_parquet(own_run.folder / "base_samples.parquet")
    for changes, guard, words in (
        ({}, None, "scored by its guard default"),
        ({"tau": 0.05}, Share(), "filtered at its tau of 0.05"),
        ({"test_prompts": 5}, Share(), "not of the config's 5 test prompts"),
    ):
        config = replace(CONFIG, **changes)
        with pytest.raises(BgkitError, match=words):
            training.train(config, tmp_path / "a", guard=guard, base_samples=base, **ON_CPU)


def test_of_an_object_that_changes_its_mind_only_the_name_is_known() -> None:
    assert identity.fingerprint(Unable(True, True)) is not None
    assert identity.fingerprint(Unable(True, True, moody=0.1)) is None
    for able in ((), (True, False), (False, True)):
        assert identity.fingerprint(Unable(*able)) is None
    config = identity.name_objects(CONFIG, lambda prompts, responses: [0.5] * len(prompts))
    assert config.guard == "object:<lambda>"
    assert identity.name_objects(CONFIG, Share(name="a\n\x1bb ")).guard == "object:a ⟨U+001B⟩b"
    with pytest.raises(BgkitError, match="'guard_bits' is for a guard that the config names"):
        identity.name_objects(replace(CONFIG, guard_bits=8), Share())


def test_scores_that_hardly_vary_are_those_of_the_same_utility() -> None:
    constant = Share("z", shift=5.7)
    samples = pd.DataFrame({"prompt": "a", "response": ["b"] * 8, "u": np.float32(5.7)})
    record = identity.fingerprint(constant)
    assert identity.is_scored_by(samples, constant, "utility", record)
    assert not identity.is_scored_by(samples, Share("b", shift=5.7), "utility", record)
    assert not identity.is_scored_by(samples, Unable(), "utility", record)
    assert identity.is_scored_by(samples[:0], constant) and identity.is_scored_by(samples, constant)


def test_stress_tests_follow_the_same_rule(own_run, tmp_path: Path) -> None:
    base, trained = contenders.contenders_of([own_run])
    assert contenders.guard_for(base, given=lambda p, r: [0.5]).score(["q"], ["a"]) == [0.5]
    with pytest.raises(BgkitError, match="'letters' of this run is a Python object"):
        contenders.guard_for(trained)
    changed, told = replace(CONFIG, guard="default"), {"guard": identity.fingerprint(Share())}
    begun(tmp_path / "named", changed, **{identity.RECORD: told})
    other = contenders.Contender("b", 0, changed, runs.load_run(tmp_path / "named"))
    with pytest.raises(BgkitError, match="guard default is not the one"):
        contenders.guard_for(other)


@pytest.mark.slow
def test_another_policy_of_the_same_name_does_not_go_on(tmp_path: Path) -> None:
    """Neither in training, nor in an evaluation, nor in what other runs left of base."""
    policy, kept = tmp_path / "tiny", tmp_path / "bases"
    shutil.copytree(store.model_path("policy", "tiny"), policy)
    config = replace(CONFIG, policy=str(policy))
    with pytest.raises(StoppedError):
        training.train(config, tmp_path / "stopped", should_stop=lambda: True, **ON_CPU)
    done = training.train(config, tmp_path / "done", base_samples=kept, **ON_CPU)
    before = pd.read_parquet(done.folder / "base_samples.parquet")
    weights = load_file(policy / "model.safetensors")
    weights = {name: 0.9 * value for name, value in weights.items()}
    save_file(weights, policy / "model.safetensors", {"format": "pt"})
    for call in (
        lambda: training.train(config, tmp_path / "stopped", **ON_CPU),
        lambda: training.train(config, done.folder, **ON_CPU),
        lambda: evaluation_.evaluate([done.folder], device="cpu"),
        lambda: evaluation_.policy_of(done.config, done, "cpu"),
    ):
        with pytest.raises(BgkitError, match=r"The policy .* is not the one of the same name"):
            call()
    other = training.train(config, tmp_path / "other", base_samples=kept, **ON_CPU)
    fresh = pd.read_parquet(other.folder / "base_samples.parquet")
    assert fresh["response"].tolist() != before["response"].tolist()
