"""The embedded models' manifest: what was shipped is what is loaded, or an error says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import build
import pytest

from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.testbed import store

FILES = {
    "policy/small/model.safetensors": b"\x00weights" * 1000,
    "policy/tiny/model.safetensors": b"few weights",
    "guard/default/model.safetensors": b"guard weights",
    "cards.md": b"# Cards",
}
SMALL = "policy/small/model.safetensors"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A small testbed with a manifest, which the kit is told to use."""
    folder = tmp_path / "testbed"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    build.write_manifest(folder, {"version": 3, "seed": 7})
    monkeypatch.setenv("BGKIT_TESTBED", str(folder))
    return folder


def test_manifest_lists_every_file_and_models_by_group(root, monkeypatch):
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["version"], manifest["seed"]) == (3, 7)
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in FILES.items()
    }
    assert store.manifest() == manifest
    assert store.model_names("policy") == ["small", "tiny"]
    assert store.model_path("policy", "small") == root / "policy/small"
    with pytest.raises(BgkitError, match="no embedded policy 'large'; choose one of small, tiny"):
        store.model_path("policy", "large")
    monkeypatch.setenv("BGKIT_TESTBED", "")
    assert store.testbed_folder() == data_folder() / "testbed"


def test_a_file_that_changed_went_or_came_is_refused_by_name(root):
    path, content = root / SMALL, FILES[SMALL]
    flipped = content[:500] + bytes([content[500] ^ 1]) + content[501:]
    for changed in (flipped, content + b"\n"):
        path.write_bytes(changed)
        with pytest.raises(BgkitError, match=r"damaged or was changed .*rebuild") as caught:
            store.model_path("policy", "small")
        assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(BgkitError, match=r"model\.safetensors cannot be read: No such file"):
        store.model_path("policy", "small")
    path.write_bytes(content)
    (root / "policy" / "small" / "adapter_config.json").write_text("{}")
    with pytest.raises(BgkitError, match=r"adapter_config\.json.*remove it"):
        store.model_path("policy", "small")
    assert store.model_path("policy", "tiny").is_dir()  # the others stay usable


@pytest.mark.parametrize("text", [None, '{"files": {"policy/small'])
def test_no_manifest_or_a_broken_one_says_how_to_get_one(root, text):
    path = root / "manifest.json"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BgkitError, match=f"{path}.*make testbed"):
        store.model_path("policy", "small")


def test_nothing_but_a_testbed_is_built_over(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BgkitError, match="holds files, but no testbed"):
        build.build(tmp_path)
