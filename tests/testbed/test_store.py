"""The embedded models' manifest: what was shipped is what is loaded, or an error says so."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import build
import pytest

from bgkit.errors import BgkitError
from bgkit.testbed import store

FILES = {
    "policy/small/model.safetensors": b"\x00weights" * 1000,
    "policy/small/config.json": b'{"layers": 2}',
    "policy/tiny/model.safetensors": b"few weights",
    "guard/default/model.safetensors": b"guard weights",
    "utility/mild/model.safetensors": b"",
    "cards.md": b"# Cards",
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A small testbed with a manifest, which the kit is told to use."""
    folder = tmp_path / "testbed"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    store.write_manifest(folder, {"version": 3, "seed": 7})
    monkeypatch.setenv("BGKIT_TESTBED", str(folder))
    return folder


def rewrite(root: Path, text: str) -> None:
    """Replace the manifest, as an editor or a broken download would."""
    path = root / "manifest.json"
    before = path.stat().st_mtime_ns
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_manifest_lists_every_file_with_digest_and_size_and_the_facts(root):
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["version"], manifest["seed"]) == (3, 7)
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in FILES.items()
    }
    assert store.manifest() == store.manifest(root) == manifest


def test_writing_the_manifest_again_changes_nothing(root):
    before = (root / "manifest.json").read_bytes()
    store.write_manifest(root, {"version": 3, "seed": 7})
    assert (root / "manifest.json").read_bytes() == before


def test_folder_is_the_one_of_the_environment_or_the_kits_own(root, monkeypatch):
    assert store.testbed_folder() == root
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("BGKIT_TESTBED")
        else:
            monkeypatch.setenv("BGKIT_TESTBED", value)
        assert store.testbed_folder() == store.data_folder() / "testbed"


def test_models_are_listed_by_group(root):
    assert store.model_names("policy") == ["small", "tiny"]
    assert store.model_names("guard") == ["default"]
    assert store.model_names("judge") == []


def test_whole_model_has_a_path(root):
    assert store.model_path("policy", "small") == root / "policy/small"
    assert store.model_path("utility", "mild") == root / "utility/mild"


def test_unknown_name_lists_the_choices(root):
    with pytest.raises(BgkitError, match="no embedded policy 'large'; choose one of small, tiny"):
        store.model_path("policy", "large")


@pytest.mark.parametrize("change", ["flipped", "longer", "shorter", "emptied"])
def test_changed_file_is_refused_by_name(root, change):
    path = root / "policy/small/model.safetensors"
    content = path.read_bytes()
    changed = {
        "flipped": content[:500] + bytes([content[500] ^ 1]) + content[501:],
        "longer": content + b"\n",
        "shorter": content[:-1],
        "emptied": b"",
    }[change]
    path.write_bytes(changed)
    with pytest.raises(BgkitError, match="damaged or was changed") as caught:
        store.model_path("policy", "small")
    message = str(caught.value)
    assert str(path) in message and "rebuild" in message
    assert hashlib.sha256(changed).hexdigest()[:12] in message
    assert hashlib.sha256(content).hexdigest()[:12] in message


def test_damage_to_one_model_leaves_the_others_usable(root):
    (root / "policy/small/config.json").write_bytes(b"{}")
    with pytest.raises(BgkitError):
        store.model_path("policy", "small")
    assert store.model_path("policy", "tiny").is_dir()
    assert store.model_path("guard", "default").is_dir()


def test_missing_file_is_refused_by_name(root):
    (root / "policy/small/config.json").unlink()
    with pytest.raises(BgkitError, match=r"config\.json can not be read: No such file"):
        store.model_path("policy", "small")


def test_added_file_is_refused_by_name(root):
    (root / "policy" / "small" / "adapter_config.json").write_text("{}")
    with pytest.raises(BgkitError, match=r"adapter_config\.json.*remove it"):
        store.model_path("policy", "small")
    assert store.model_path("policy", "tiny").is_dir()


def test_no_manifest_says_how_to_get_one(root):
    (root / "manifest.json").unlink()
    for call in (store.manifest, lambda: store.model_path("policy", "small")):
        with pytest.raises(BgkitError, match="bgkit testbed build") as caught:
            call()
        assert str(root) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"files": {"policy/small', "<html>404</html>"])
def test_broken_manifest_is_refused_every_time(root, text):
    assert store.model_names("policy")  # an older, good one was read before
    rewrite(root, text)
    for _ in range(2):
        with pytest.raises(BgkitError, match="not valid JSON") as caught:
            store.model_path("policy", "small")
        assert str(root / "manifest.json") in str(caught.value)


@pytest.mark.parametrize("text", ["{}", "[]", '{"files": ["policy/small/config.json"]}'])
def test_manifest_of_another_shape_is_refused(root, text):
    rewrite(root, text)
    with pytest.raises(BgkitError, match=r"manifest\.json"):
        store.model_path("policy", "small")


def test_manifest_is_read_again_once_it_changes(root):
    assert store.model_names("judge") == []
    (root / "judge/default").mkdir(parents=True)
    (root / "judge/default/model.safetensors").write_bytes(b"judge")
    before = (root / "manifest.json").stat().st_mtime_ns
    store.write_manifest(root, {})
    os.utime(root / "manifest.json", ns=(before + 10**9, before + 10**9))
    assert store.model_names("judge") == ["default"]
    assert store.model_path("judge", "default").is_dir()


@pytest.mark.parametrize("there", [True, False])
def test_models_stay_where_new_ones_can_not_be_moved(root, monkeypatch, there):
    new = root.with_name("new")
    if there:
        new.mkdir()
    old = sorted(root.rglob("*"))
    moved = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: _interrupted() if a == new else moved(a, b))
    with pytest.raises(KeyboardInterrupt):
        build._put_in_place(new, root)
    assert sorted(root.rglob("*")) == old and not root.with_name("new-old").exists()


def _interrupted():
    raise KeyboardInterrupt


def test_new_models_take_the_place_of_old_ones_and_of_nothing_else(root, tmp_path):
    new = tmp_path / "new"
    (new / "guard").mkdir(parents=True)
    build._put_in_place(new, root)
    assert [path.name for path in root.rglob("*")] == ["guard"] and not new.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(BgkitError, match="mine holds files, but no testbed"):
        build.build(tmp_path / "mine")


def test_digest_of_a_file_is_its_sha256(tmp_path):
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)
    assert store.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    store.verify(tmp_path / "file", hashlib.sha256(content).hexdigest())
    with pytest.raises(BgkitError, match="damaged"):
        store.verify(tmp_path / "file", "0" * 64)
