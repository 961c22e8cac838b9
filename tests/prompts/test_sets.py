"""Public prompt sets: the table, and loading files of the published structure (own text)."""

from __future__ import annotations

import json
import types
from pathlib import Path

import huggingface_hub
import pandas as pd
import public
import pytest
from huggingface_hub import errors

from bgkit.errors import BgkitError
from bgkit.prompts import compose as benchmarks
from bgkit.prompts import load as prompts
from bgkit.prompts import sets, splits, tables


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> list[dict]:
    """The hub as a folder; returns what was asked of it."""
    asked = []

    def fetch(repository: str, file: str, repo_type: str, revision: str | None) -> str:
        asked.append({"repository": repository, "file": file, "revision": revision})
        assert repo_type == "dataset"
        folder = tmp_path / repository.replace("/", "--") / "snapshots" / (revision or "c" * 40)
        if not (folder / file).exists():
            name = next(
                n for n, r in sets.SETS.items() if (r.repository, r.file) == (repository, file)
            )
            public.write(name, folder / file)
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return asked


@pytest.mark.parametrize("name", sets.SETS)
def test_a_set_is_loaded_at_its_revision(hub, name: str) -> None:
    row = sets.SETS[name]
    table, manifest = prompts.load_with_manifest(name)
    assert hub[-1] == {"repository": row.repository, "file": row.file, "revision": row.revision}
    assert len(table) == public.KEPT[name] and set(table["kind"]) == {row.kind}
    assert table["prompt_id"].is_unique and not table["prompt"].str.strip().eq("").any()
    assert ("harmful_request" in table) == (row.harmful is not None)
    assert row.licence in sets.describe(name) and row.citation in sets.describe(name)
    parts = [prompts.load_prompts(name, split)["prompt_id"] for split in splits.SHARES]
    assert sorted(pd.concat(parts)) == sorted(table["prompt_id"])
    source = manifest["sets"][0]
    assert source["revision"] == (row.revision or "c" * 40)  # the one that was fetched
    assert source["pinned"] == (row.revision is not None) and source["licence"] == row.licence


def test_columns_are_mapped(hub) -> None:
    table = prompts.load_prompts("xstest")
    assert table["harmful_request"].tolist() == [False, True] * (len(table) // 2)
    assert table["category"][1].startswith("contrast_")
    assert prompts.load_prompts("jbb-harmful")["harmful_request"].all()
    assert not prompts.load_prompts("jbb-benign")["harmful_request"].any()
    wild = prompts.load_prompts("wildjailbreak")
    assert wild["category"].unique().tolist() == ["adversarial_harmful", "adversarial_benign"]
    assert wild["harmful_request"].tolist() == wild["category"].eq("adversarial_harmful").tolist()
    assert "a tab\tand a\nline" in wild["prompt"][0]
    context = prompts.load_prompts("harmbench-contextual")["prompt"][0]
    assert context.startswith("A note about") and context.endswith("?") and "\n\n" in context


@pytest.mark.parametrize("ending", tables.READERS)
def test_a_local_file_replaces_the_hub(hub, tmp_path: Path, monkeypatch, ending: str) -> None:
    public.write("xstest", tmp_path / f"xstest{ending}")
    monkeypatch.setenv("BGKIT_PROMPTS", str(tmp_path))
    table, manifest = prompts.load_with_manifest("xstest")
    assert not hub and len(table) == public.KEPT["xstest"]
    assert manifest["sets"][0]["origin"] == "local file" and not manifest["sets"][0]["pinned"]
    assert manifest["sets"][0]["revision"].startswith("sha256:")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (errors.GatedRepoError, ["is gated", "hf auth login", "accept the terms"]),
        (errors.OfflineModeIsEnabled, ["the hub cannot be reached"]),
        (errors.RemoteEntryNotFoundError, ["has no file eval/eval.tsv"]),
    ],
)
def test_a_set_that_can_not_be_had(monkeypatch, kind, words) -> None:
    """The sentence says what to download, from where, and the local alternative."""
    answer = types.SimpleNamespace(headers={}, request=None)
    remote = issubclass(kind, errors.HfHubHTTPError)
    error = kind("told", response=answer) if remote else kind("told")

    def fetch(*args, **settings):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(BgkitError) as caught:
        prompts.load_prompts("wildjailbreak-eval", "test")
    message = str(caught.value)
    page = "https://huggingface.co/datasets/allenai/wildjailbreak"
    for word in [*words, "eval/eval.tsv", page, "5ddc12a7894f", "BGKIT_PROMPTS", "eval.tsv in a"]:
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("xstest.csv", "text,label\na,safe\n", ["no column 'prompt'", "text, label"]),
        ("xstest.csv", "prompt\na\n", ["no column 'label'"]),
        ("xstest.csv", "prompt,label\na,safe\n ,safe\n", ["Row 2 ", "as 'prompt'"]),
        ("xstest.json", '{"prompt": "a"}', ["not a JSON list"]),
    ],
)
def test_files_that_are_not_the_set(tmp_path: Path, monkeypatch, file, content, words) -> None:
    (tmp_path / file).write_text(content)
    monkeypatch.setenv("BGKIT_PROMPTS", str(tmp_path))
    with pytest.raises(BgkitError) as caught:
        prompts.load_prompts("xstest")
    assert all(word in str(caught.value) for word in [*words, str(tmp_path / file)])


def test_a_run_keeps_its_manifests_and_refuses_other_prompts(tmp_path: Path) -> None:
    own, kept = tmp_path / "own.csv", tmp_path / "prompts.json"
    for test in "bbc":
        own.write_text(f"prompt,split\na,train\n{test},test\n")
        asked = ("train", "test")
        found = {one: prompts.load_with_manifest(str(own), one, 4)[1] for one in asked}
        if test == "b":
            prompts.write_manifests(kept, found)
            assert json.loads(kept.read_text()) == found
    with pytest.raises(BgkitError, match=r"\(split 'test'\) are no longer those"):
        prompts.write_manifests(kept, found)


# --- Benchmarks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", benchmarks.BENCHMARKS)
def test_a_benchmark_is_reproducible_and_leaks_nothing(hub, name: str) -> None:
    parts = {split: prompts.load_with_manifest(name, split, 20, 3) for split in splits.SHARES}
    for split, (table, manifest) in parts.items():
        again, same = prompts.load_with_manifest(name, split, 20, 3)
        assert table.equals(again) and manifest == same
        assert json.loads(json.dumps(manifest)) == manifest
        assert manifest["prompts"] == len(table) == sum(one["taken"] for one in manifest["sets"])
        assert set(table["kind"]) == {name} and len(manifest["sha256"]) == 64
        assert table["prompt"].map(splits.normalise).is_unique
    texts = {split: table["prompt"] for split, (table, _) in parts.items()}
    splits.check_leakage(texts, name)
    recipe = benchmarks.BENCHMARKS[name]
    assert sum(recipe.shares.values()) == pytest.approx(1) and set(recipe.counts) == set(parts)
    assert len({manifest["sha256"] for _, manifest in parts.values()}) == 3
    assert (
        prompts.load_with_manifest(name, "train", 20, 4)[1]["sha256"] != parts["train"][1]["sha256"]
    )


def test_a_larger_benchmark_holds_the_smaller_one_and_each_prompt_once(
    hub, tmp_path: Path, monkeypatch
) -> None:
    small, large = (prompts.load_prompts("ambiguous", "train", n)["prompt"] for n in (10, 20))
    assert set(small) < set(large)
    pd.DataFrame(public.rows("xstest")[::-1]).to_csv(tmp_path / "xstest.csv", index=False)
    monkeypatch.setenv("BGKIT_PROMPTS", str(tmp_path))  # nor on the order of a file
    assert prompts.load_prompts("ambiguous", "train", 20)["prompt"].equals(large)
    table = prompts.load_prompts("ambiguous", None, 1000)
    shared = table[table["prompt"].map(splits.normalise) == splits.normalise(public.SHARED)]
    assert shared["set"].tolist() == ["xstest"]


# --- Several sets ------------------------------------------------------------------------------


def test_several_sets_are_mixed_and_a_prompt_of_two_counts_once(tmp_path) -> None:
    shared = prompts.load_prompts("everyday-short", "test", 3)["prompt"].tolist()
    own = pd.DataFrame({"prompt": [*shared, *(f"What is number {i}?" for i in range(60))]})
    own.to_json(tmp_path / "own.jsonl", orient="records", lines=True)
    name = f"everyday-short, {tmp_path / 'own.jsonl'}"
    table, manifest = prompts.load_with_manifest(name, "test")
    keys = table["prompt"].map(splits.normalise)
    assert keys.is_unique and set(map(splits.normalise, shared)) <= set(keys)
    assert table["set"].nunique() == 2 and len(manifest["sets"]) == 2
    some = prompts.load_prompts(name, "test", 9)
    assert some["set"].value_counts().tolist() == [5, 4]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("everyday,testbed", "cannot be mixed"),
        ("everyday,everyday", "each set may occur once"),
        ("everyday,nosuch", "no prompt set 'nosuch'"),
    ],
)
def test_sets_that_can_not_be_mixed(name: str, message: str) -> None:
    with pytest.raises(BgkitError, match=message):
        prompts.load_prompts(name, "test")


def test_a_mix_does_not_put_a_prompt_in_two_splits(tmp_path) -> None:
    (test,) = prompts.load_prompts("everyday-short", "test", 1)["prompt"]
    rows = [{"prompt": test, "split": "train"}, {"prompt": "Why?", "split": "test"}]
    pd.DataFrame(rows).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(BgkitError, match="share 1 prompt"):
        prompts.load_prompts(f"everyday-short,{tmp_path / 'own.csv'}", "test")
