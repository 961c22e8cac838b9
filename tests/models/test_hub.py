"""Names of models: on the hub (always offline), in packages, in folders and GGUF files.

What is fetched, checked and dequantised, and a sentence for everything that can go wrong.
"""

from __future__ import annotations

import shutil
import types
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import datasets
import huggingface_hub
import own
import pandas as pd
import pytest
from conftest import SMALL
from huggingface_hub import errors

import bgkit
from bgkit.data import sha256
from bgkit.errors import BgkitError
from bgkit.models import hub, packaged, policies
from bgkit.models.packaged import PACKAGED, Packaged
from bgkit.prompts import load as prompts
from bgkit.scoring import guards
from bgkit.testbed import store
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


# --- Packages and GGUF files ---------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, monkeypatch) -> Path:
    """A package with the tiny policy in it, under a name of its own; nothing on the hub."""
    weights = tmp_path / "site" / "own" / "model.safetensors"
    shutil.copytree(store.model_path("policy", "tiny"), weights.parent)
    kept = "own-package", "own/model.safetensors", sha256(weights)
    monkeypatch.setitem(PACKAGED, "own", Packaged(("policy",), "nobody/own@abc", *kept))
    known = metadata.distribution
    found = types.SimpleNamespace(version="1.2.3", locate_file=(tmp_path / "site").joinpath)
    monkeypatch.setattr(
        metadata, "distribution", lambda name: found if name == "own-package" else known(name)
    )
    return weights


def test_a_packaged_policy_is_loaded_by_its_name_as_a_policy_only(there: Path) -> None:
    assert hub.resolve("policy", "own") == there.parent
    assert policies.load_policy("own", device="cpu")
    assert hub.model_source("own") == "own-package 1.2.3" and hub.model_source("tiny") is None
    with pytest.raises(BgkitError, match="no embedded guard 'own'"):
        hub.resolve("guard", "own")


@pytest.mark.slow
def test_a_run_keeps_where_its_policy_came_from(there: Path, tmp_path: Path) -> None:
    short = {**SMALL, "policy": "own", "steps": 1, "eval_every": 0, "test_prompts": 4}
    run = bgkit.train(folder=tmp_path / "run", device="cpu", threads=1, **short)
    for told in (run.read_json("config.json"), run.result):
        assert told["policy_from"] == "own-package 1.2.3"


def test_damaged_or_missing_files_and_packages_are_told_with_the_remedy(there, monkeypatch) -> None:
    there.write_bytes(there.read_bytes() + b" ")
    for _ in range(2):
        with pytest.raises(BgkitError, match=r"is missing or damaged .*make english"):
            hub.resolve("policy", "own")
        there.unlink(missing_ok=True)
    monkeypatch.setitem(PACKAGED, "own", PACKAGED["own"]._replace(package="not-installed-at-all"))
    with pytest.raises(BgkitError, match=r"own is not on this machine: `make english`"):
        policies.load_policy("own")


def test_a_gguf_file_is_dequantised_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "cache"))
    written = []

    def write(file: Path, folder: Path) -> None:
        written.append(file)
        for part in store.model_path("policy", "tiny").iterdir():
            shutil.copy(part, folder)

    monkeypatch.setattr(packaged, "_write_plain", write)
    file = tmp_path / "m" / "model.Q4_1.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF, made up")
    first = hub.resolve("policy", str(file))
    assert hub.resolve("policy", str(file.parent)) == first and written == [file]
    assert list(first.parent.iterdir()) == [first]  # no scratch is left
    with pytest.raises(BgkitError, match="supported only for policies"):
        hub.resolve("guard", str(file))
    (file.parent / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(BgkitError, match=r"several GGUF files \(model.Q4_1.gguf, other.gguf\)"):
        hub.resolve("policy", str(file.parent))


def test_a_broken_gguf_file_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF, and nothing behind it")
    with pytest.raises(BgkitError, match=r"Could not load model\.gguf"):
        policies.load_policy(str(tmp_path / "model.gguf"))
    assert not any((tmp_path / "cache" / "gguf").iterdir())
