"""Hub names: what is fetched, and a sentence for everything that can go wrong. Always offline."""

from __future__ import annotations

import shutil
import types
from pathlib import Path

import datasets
import huggingface_hub
import own
import pandas as pd
import pytest
from huggingface_hub import errors

from bgkit.errors import BgkitError
from bgkit.models import hub, policies
from bgkit.prompts import load as prompts
from bgkit.scoring import guards
from bgkit.training import shapes


def of_the_hub(kind: type[Exception]) -> Exception:
    """An error as the hub's client raises it."""
    if issubclass(kind, errors.HfHubHTTPError):
        return kind("told", response=types.SimpleNamespace(headers={}, request=None))
    return kind("told")


CASES = [
    (errors.GatedRepoError, "is gated: ask for access"),
    (errors.RepositoryNotFoundError, "neither a local folder nor on the hub"),
    (errors.OfflineModeIsEnabled, "the hub cannot be reached"),
    (OSError, r"could not be fetched from the hub: told\."),
]


def raising(error: Exception):
    def fetch(*args, **settings):
        raise error

    return fetch


@pytest.mark.parametrize(("kind", "message"), CASES)
def test_models_shapes_and_prompts_that_can_not_be_had(monkeypatch, kind, message) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(of_the_hub(kind)))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raising(of_the_hub(kind)))
    outer = datasets.exceptions.DatasetNotFoundError("told")
    outer.__cause__ = of_the_hub(kind)
    monkeypatch.setattr(datasets, "load_dataset", raising(outer))
    loads = (policies.load_policy, guards.load_guard, guards.load_utility, prompts.load_prompts)
    for load in loads:
        with pytest.raises(BgkitError, match=message) as caught:
            load("some/model")
        assert "some/model" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BgkitError, match=message):
        shapes.shape_of("policy", "some/model")


def test_only_safetensors_and_no_code_are_fetched(tmp_path: Path, monkeypatch) -> None:
    asked = {}

    def fetch(repository: str, **settings) -> str:
        asked.update(settings, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BgkitError, match="has no safetensors weights, and pickles and GGUF"):
        guards.load_guard("some/model@refs/pr/3")
    assert asked["repository"] == "some/model" and asked["revision"] == "refs/pr/3"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked["allow_patterns"])


def test_a_model_of_the_hub_is_loaded_from_what_was_fetched(tmp_path: Path, monkeypatch) -> None:
    folder = own.save_classifier(tmp_path / "snapshot", 2)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: folder)
    assert guards.load_guard("some/guard", device="cpu").score(["a"], ["b"]).shape == (1,)


def test_a_shape_of_the_hub_takes_the_config_only(tmp_path: Path, monkeypatch) -> None:
    folder, asked = own.save_policy(tmp_path / "policy"), {}

    def fetch(repository: str, **settings) -> str:
        asked.update(settings, repository=repository)
        shutil.copy(Path(folder) / "config.json", tmp_path / "config.json")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert shapes.shape_of("policy", "some/policy").hidden == 64
    assert asked["repository"] == "some/policy"
    assert asked["allow_patterns"] == ["config.json", "adapter_config.json"]


def test_prompts_of_the_hub_take_the_split_or_divide_the_only_one(monkeypatch) -> None:
    train = datasets.Dataset.from_dict({"prompt": ["a", "b"], "kind": ["x", "y"]})
    test = datasets.Dataset.from_dict({"prompt": ["c"]})
    asked = []

    def load(*where, **settings):
        asked.append((where, settings))
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load)
    parts = {"train": train, "test": test}
    assert prompts.load_prompts("some/set:hard@abc", "test")["prompt"].tolist() == ["c"]
    assert asked == [(("some/set", "hard"), {"revision": "abc"})]
    parts = {"train": train}
    table = prompts.load_prompts("some/set")
    assert table["kind"].tolist() == ["x", "y"] and table["prompt_id"][0] == "set/00000"
    divided = [prompts.load_prompts("some/set", split)["prompt"] for split in ("train", "test")]
    assert sorted(pd.concat(divided)) == ["a", "b"]  # by hash: no split shares a prompt
    parts = {"train": train, "test": datasets.Dataset.from_dict({"prompt": ["B."]})}
    with pytest.raises(BgkitError, match="'train' and 'test' of some/set share 1 prompt"):
        prompts.load_prompts("some/set", "train")


def test_a_folder_here_needs_no_slash_and_hides_no_embedded_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my-guard", "default"):
        (tmp_path / name).mkdir()
    assert hub.local_folder("guard", "my-guard") == Path("my-guard")
    assert hub.local_folder("guard", "default") is None
    for name in (str(tmp_path / "none"), "./none", "a/b/c"):
        with pytest.raises(BgkitError, match=r"There is no folder .* with a guard; check the path"):
            guards.load_guard(name)
