"""Models that come with packages, and GGUF files: found, checked, dequantised once, or refused."""

from __future__ import annotations

import shutil
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL

import bgkit
from bgkit.data import sha256
from bgkit.errors import BgkitError
from bgkit.models import hub, packaged, policies
from bgkit.models.packaged import PACKAGED, Packaged
from bgkit.testbed import store


@pytest.fixture
def there(tmp_path: Path, monkeypatch) -> Path:
    """A package with the tiny policy in it, under a name of its own; nothing on the hub."""
    weights = tmp_path / "site" / "own" / "model.safetensors"
    shutil.copytree(store.model_path("policy", "tiny"), weights.parent)
    kept = "own-package", "own/model.safetensors", sha256(weights)
    monkeypatch.setitem(PACKAGED, "own", Packaged(("policy",), "nobody/own@abc", *kept))
    known = metadata.distribution
    found = SimpleNamespace(version="1.2.3", locate_file=(tmp_path / "site").joinpath)
    monkeypatch.setattr(
        metadata, "distribution", lambda name: found if name == "own-package" else known(name)
    )
    return weights


def test_a_packaged_policy_is_loaded_by_its_name_as_a_policy_only(there: Path) -> None:
    ours, _ = policies.load_policy("own", device="cpu")
    known, _ = policies.load_policy("tiny", device="cpu")
    pairs = zip(ours.parameters(), known.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
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


@pytest.mark.parametrize("content", [b"GGUF", b"GGUF, and nothing behind it"])
def test_a_broken_gguf_file_is_one_sentence(content: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(BgkitError, match=r"Could not load model\.gguf"):
        policies.load_policy(str(tmp_path / "model.gguf"))
    assert not any((tmp_path / "cache" / "gguf").iterdir())


SMOLLM2 = "gguf", PACKAGED["smollm2-135m"].file.partition("/")[0]


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, SMOLLM2)), reason="needs the packages of `make english`")
def test_smollm2_answers() -> None:
    model, tokenizer = policies.load_policy("smollm2-135m", device="cpu")
    asked = ["Name the capital of France."]
    said = policies.generate(model, tokenizer, asked, max_completion_length=24)
    assert "Paris" in said.texts[0]
    assert model.num_parameters() == 134_515_008
