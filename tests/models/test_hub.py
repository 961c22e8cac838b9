"""Hub names: what is fetched, and a sentence for everything that can go wrong. Always offline."""

from __future__ import annotations

import types
from pathlib import Path
from unittest.mock import Mock

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


@pytest.fixture
def fetch(monkeypatch) -> Mock:
    """The hub's download of a model, which returns the folder that it is given."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch := Mock())
    return fetch


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "is gated: ask for access"),
        (errors.RepositoryNotFoundError, "neither a local folder nor on the hub"),
        (errors.OfflineModeIsEnabled, "the hub cannot be reached"),
        (OSError, r"could not be fetched from the hub: told\."),
    ],
)
def test_models_shapes_and_prompts_that_can_not_be_had(fetch, monkeypatch, kind, message) -> None:
    answer = {"response": types.SimpleNamespace(headers={}, request=None)}
    error = kind("told", **answer if issubclass(kind, errors.HfHubHTTPError) else {})
    fetch.side_effect, outer = error, datasets.exceptions.DatasetNotFoundError("told")
    outer.__cause__ = error
    monkeypatch.setattr(datasets, "load_dataset", Mock(side_effect=outer))
    loads = (policies.load_policy, guards.load_guard, guards.load_utility, prompts.load_prompts)
    for load in (*loads, lambda name: shapes.shape_of("policy", name)):
        with pytest.raises(BgkitError, match=f"some/model .*{message}") as caught:
            load("some/model")
        assert "\n" not in str(caught.value)


def test_a_model_is_loaded_from_its_safetensors_and_no_other_weights_or_code_are_fetched(
    tmp_path: Path, fetch
) -> None:
    fetch.return_value = own.save_classifier(tmp_path / "snapshot", 2)
    guard = guards.load_guard("some/guard@refs/pr/3", device="cpu")
    assert guard.score(["a"], ["b"]).shape == (1,)
    (repository,), asked = fetch.call_args
    assert (repository, asked["revision"]) == ("some/guard", "refs/pr/3")
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked["allow_patterns"])
    fetch.return_value = str(tmp_path)
    with pytest.raises(BgkitError, match="has no safetensors weights, and pickles and GGUF"):
        guards.load_guard("some/guard")


def test_a_shape_of_the_hub_takes_the_config_only(tmp_path: Path, fetch) -> None:
    fetch.return_value = own.save_policy(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert shapes.shape_of("policy", "some/policy").hidden == 64
    (repository,), asked = fetch.call_args
    assert repository == "some/policy"
    assert asked["allow_patterns"] == ["config.json", "adapter_config.json"]


def test_prompts_of_the_hub_take_the_split_or_divide_the_only_one(monkeypatch) -> None:
    train = datasets.Dataset.from_dict({"prompt": ["a", "b"], "kind": ["x", "y"]})
    test = datasets.Dataset.from_dict({"prompt": ["c"]})
    monkeypatch.setattr(datasets, "load_dataset", load := Mock())
    load.return_value = {"train": train, "test": test}
    assert prompts.load_prompts("some/set:hard@abc", "test")["prompt"].tolist() == ["c"]
    load.assert_called_once_with("some/set", "hard", revision="abc")
    load.return_value = {"train": train}
    table = prompts.load_prompts("some/set")
    assert table["kind"].tolist() == ["x", "y"] and table["prompt_id"][0] == "set/00000"
    divided = [prompts.load_prompts("some/set", split)["prompt"] for split in ("train", "test")]
    assert sorted(pd.concat(divided)) == ["a", "b"]  # by hash: no split shares a prompt


def test_a_folder_here_needs_no_slash_and_hides_no_embedded_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my-guard", "default"):
        (tmp_path / name).mkdir()
    assert hub.local_folder("guard", "my-guard") == Path("my-guard")
    assert hub.local_folder("guard", "default") is None
    for name in (str(tmp_path / "none"), "./none", "a/b/c"):
        with pytest.raises(BgkitError, match=r"There is no folder .* with a guard; check the path"):
            guards.load_guard(name)
