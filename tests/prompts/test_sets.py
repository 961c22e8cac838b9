"""Public prompt sets, as files of their structure with own text; the kit's own; benchmarks."""

from __future__ import annotations

import json
import types
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import public
import pytest
from huggingface_hub import errors

from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.prompts import compose, sets, splits, tables
from bgkit.prompts import load as prompts


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> list[dict]:
    """The hub as a folder; returns what was asked of it."""
    asked = []

    def fetch(repository: str, file: str, repo_type: str, revision: str | None) -> str:
        asked.append({"repository": repository, "file": file, "revision": revision})
        assert repo_type == "dataset"
        folder = tmp_path / repository.replace("/", "--") / "snapshots" / (revision or "c" * 40)
        for name, row in sets.SETS.items():
            if (row.repository, row.file) == (repository, file):
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
    (source,) = manifest["sets"]
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


def test_a_set_that_can_not_be_had(monkeypatch) -> None:
    """The sentence says what to download, from where, and the local alternative."""
    place = "eval/eval.tsv of https://huggingface.co/datasets/allenai/wildjailbreak at .*5ddc12a7"
    for kind, words in (
        (errors.GatedRepoError, "is gated.*hf auth login.*accept the terms"),
        (errors.RemoteEntryNotFoundError, "has no file eval/eval.tsv"),
    ):
        error = kind("told", response=types.SimpleNamespace(headers={}, request=None))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", Mock(side_effect=error))
        with pytest.raises(BgkitError, match=f"{words}.*{place}.*-eval.tsv in a .*BGKIT_PROMPTS"):
            prompts.load_prompts("wildjailbreak-eval", "test")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("xstest.csv", "prompt\na\n", "no column 'label'"),
        ("xstest.csv", "prompt,label\na,safe\n ,safe\n", "as 'prompt'"),
        ("xstest.json", '{"prompt": "a"}', "not a JSON list"),
    ],
)
def test_files_that_are_not_the_set(tmp_path: Path, monkeypatch, file, content, words) -> None:
    (tmp_path / file).write_text(content)
    monkeypatch.setenv("BGKIT_PROMPTS", str(tmp_path))
    with pytest.raises(BgkitError, match=f"{tmp_path / file} .*{words}"):
        prompts.load_prompts("xstest")


def test_a_run_keeps_its_manifests_and_refuses_other_prompts(tmp_path: Path) -> None:
    own, kept = tmp_path / "own.csv", tmp_path / "prompts.json"

    def written(test: str) -> dict:
        own.write_text(f"prompt,split\na,train\n{test},test\n")
        found = {one: prompts.load_with_manifest(str(own), one)[1] for one in ("train", "test")}
        prompts.write_manifests(kept, found)
        return found

    assert written("b") == json.loads(kept.read_text()) == written("b")
    with pytest.raises(BgkitError, match=r"\(split 'test'\) are no longer those"):
        written("c")


# --- The kit's own -------------------------------------------------------------------------------


def test_what_ships() -> None:
    table = prompts.load_prompts("everyday")
    assert table["kind"].value_counts().tolist() == [279, 144, 128, 56]
    harmful = table["harmful_request"].groupby(table["kind"]).sum()
    assert harmful[["ambiguous", "benign", "jailbreak"]].tolist() == [76, 0, 128]
    assert table["harmful_request"].dtype == bool and table["prompt_id"].is_unique
    assert table["prompt"].map(splits.normalise).is_unique
    short = prompts.load_prompts("everyday-short")
    assert short["prompt"].tolist() == table["prompt"][:551].tolist()


def test_long_contexts_are_what_the_code_makes_and_in_the_split_of_their_question() -> None:
    of_split = {split: prompts.load_prompts("everyday", split) for split in splits.SHARES}
    own = prompts.load_prompts("everyday-short").set_index("prompt")["harmful_request"]
    lines = (data_folder() / "prompts" / "long_context.jsonl").read_text("utf-8").splitlines()
    for row in map(json.loads, lines):
        question = row["question"]
        text, place = compose.bury(question)
        assert (text, round(place, 4)) == (row["prompt"], row["position"])
        pages = text.split("\n\n")
        (at,) = [n for n, page in enumerate(pages) if compose.MARK + question in page]
        assert place == pytest.approx((at - 1) / (len(pages) - 2))
        assert row["harmful_request"] == own[question]
        assert text in set(of_split[splits.split_of(question)]["prompt"])


# --- Benchmarks and mixes ----------------------------------------------------------------------


@pytest.mark.parametrize("name", compose.BENCHMARKS)
def test_a_benchmark_is_reproducible_and_leaks_nothing(hub, name: str) -> None:
    parts = {split: prompts.load_with_manifest(name, split, 20, 3) for split in splits.SHARES}
    for split, (table, manifest) in parts.items():
        again, same = prompts.load_with_manifest(name, split, 20, 3)
        assert table.equals(again) and manifest == same
        assert manifest["prompts"] == len(table) == sum(one["taken"] for one in manifest["sets"])
        assert set(table["kind"]) == {name} and table["prompt"].map(splits.normalise).is_unique
    splits.check_leakage({split: table["prompt"] for split, (table, _) in parts.items()}, name)
    assert sum(compose.BENCHMARKS[name].shares.values()) == pytest.approx(1)
    hashes = {manifest["sha256"] for _, manifest in parts.values()}
    hashes.add(prompts.load_with_manifest(name, "train", 20, 4)[1]["sha256"])
    assert len(hashes) == 4


def test_a_larger_benchmark_holds_the_smaller_one_and_each_prompt_once(
    hub, tmp_path: Path, monkeypatch
) -> None:
    small, large = (prompts.load_prompts("ambiguous", "train", n)["prompt"] for n in (10, 20))
    assert set(small) < set(large)
    public.write_rows(public.rows("xstest")[::-1], tmp_path / "xstest.csv")
    monkeypatch.setenv("BGKIT_PROMPTS", str(tmp_path))  # nor on the order of a file
    assert prompts.load_prompts("ambiguous", "train", 20)["prompt"].equals(large)
    table = prompts.load_prompts("ambiguous", None, 1000)
    shared = table[table["prompt"].map(splits.normalise) == splits.normalise(public.SHARED)]
    assert shared["set"].tolist() == ["xstest"]


def test_several_sets_are_mixed_and_a_prompt_of_two_counts_once(tmp_path) -> None:
    shared = prompts.load_prompts("everyday-short", "test", 3)["prompt"].tolist()
    texts = [*shared, *(f"What is number {i}?" for i in range(60))]
    own = public.write_rows([{"prompt": text} for text in texts], tmp_path / "own.jsonl")
    name = f"everyday-short, {own}"
    table, manifest = prompts.load_with_manifest(name, "test")
    assert table["prompt"].is_unique and set(shared) <= set(table["prompt"])
    assert table["set"].nunique() == 2 and len(manifest["sets"]) == 2
    some = prompts.load_prompts(name, "test", 9)
    assert some["set"].value_counts().tolist() == [5, 4]


def test_sets_that_can_not_be_mixed(tmp_path) -> None:
    (test,) = prompts.load_prompts("everyday-short", "test", 1)["prompt"]
    rows = [{"prompt": test, "split": "train"}, {"prompt": "Why?", "split": "test"}]
    own = public.write_rows(rows, tmp_path / "own.csv")
    for name, message in (
        ("everyday,testbed", "cannot be mixed"),
        ("everyday,everyday", "each set may occur once"),
        ("everyday,nosuch", "no prompt set 'nosuch'"),
        (f"everyday-short,{own}", "share 1 prompt"),
    ):
        with pytest.raises(BgkitError, match=message):
            prompts.load_prompts(name, "test")
