"""Prompt tables: files that users bring, the split that follows from a text, the testbed's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import public
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.prompts import splits
from bgkit.prompts.load import TRAIN_SHARES, load_prompts
from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def write(request, tmp_path) -> Callable[[list[dict]], str]:
    """Write rows in one of the three formats and return the file's path."""
    return lambda rows: public.write_rows(rows, tmp_path / f"own.{request.param}")


@pytest.fixture
def own(tmp_path) -> Callable[..., str]:
    """Write a file as it is given and return its path."""

    def write(content: str | bytes, name: str = "own.csv") -> str:
        (path := tmp_path / name).write_bytes(getattr(content, "encode", lambda: content)())
        return str(path)

    return write


# --- Files -----------------------------------------------------------------------------------


def test_a_file_keeps_the_columns_it_has_and_their_order_and_drops_others(write, tmp_path):
    text = 'a, "b"; ünïcode 🔥\nsecond line'
    rows = [
        {"note": 1, "harmful_request": True, "prompt": "one", "kind": 3, "prompt_id": "b"},
        {"note": 2, "harmful_request": None, "prompt": text, "kind": None, "prompt_id": None},
    ]
    table = load_prompts(write(rows))
    assert list(table) == ["prompt_id", "kind", "prompt", "harmful_request"]
    assert table["prompt"].tolist() == ["one", text]
    assert table["prompt_id"][0] == "b" and "own" in table["prompt_id"][1]
    assert table["kind"][1] == "unknown" and table["kind"][0].startswith("3")
    assert table["harmful_request"].tolist() == [True, False]
    kinds = pd.Categorical(["k", "k"])  # is a name as any other
    table.assign(kind=kinds).to_parquet(tmp_path / "asked.parquet")
    assert load_prompts(str(tmp_path / "asked.parquet"))["kind"].tolist() == ["k", "k"]


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("own.csv", "prompt\n007\n1e5\nNone\n", ["007", "1e5", "None"]),
        ("own.ndjson", '\n{"prompt": "one"}\r\n\n  \n{"prompt": "two"}', ["one", "two"]),
        ("own.jsonl", '{"prompt": "first\u2028second\x85"}', ["first\u2028second\x85"]),
    ],
)
def test_cells_of_a_csv_file_are_text_and_lines_end_in_one_way(own, name, content, prompts):
    table = load_prompts(own(content, name))
    assert table["prompt"].tolist() == prompts and set(table["kind"]) == {"unknown"}
    assert list(table) == ["prompt_id", "kind", "prompt"] and table["prompt_id"].is_unique


@pytest.mark.parametrize(
    ("name", "content", "hints"),
    [
        ("own.csv", "\n\n", ["holds no rows"]),
        ("own.csv", "text,label\na,b\n", ["no column 'prompt'", "text, label"]),
        ("own.csv", "prompt\none\ntwo,three\n", ["cannot be read: ", "line 3", "double quotes"]),
        ("own.csv", "\nprompt;kind\none, two;x\n", ["';'", "save it with commas"]),
        ("own.csv", '"a;b"\none\n', ["no column 'prompt'", "a;b"]),
        ("own.tsv", "prompt;kind\none;x\n", ["';'", "save it with tabs"]),
        ("own.jsonl", '{"prompt": "one"}\n{"prompt": 2}', ["Row 2 "]),
        ("own.jsonl", '{"prompt": "one"}\n\n{"prompt": "two"\n', ["line 3", '{"prompt": "..."}']),
        ("own.jsonl", '{"prompt": "one"}\n[1, 2]', ["line 2 is not a JSON object"]),
        ("own.jsonl", b'prompt\n{"prompt": "caf\xe9"}\n', ["save it as UTF-8"]),
        ("own.parquet", "PAR1 this is none PAR1", ["cannot be read: "]),
        ("own.xlsx", "prompt\none\n", [".csv, .jsonl or .parquet"]),
    ],
)
def test_files_that_can_not_be_used_are_refused_with_one_sentence(own, name, content, hints):
    path = own(content, name)
    with pytest.raises(BgkitError) as caught:
        load_prompts(path)
    message = str(caught.value)
    assert all(hint in message for hint in [path, *hints]) and "\n" not in message


def test_a_prompt_counts_once_in_a_split_and_the_rest_is_told(write, capsys) -> None:
    texts = ["6/3", "two", "6*3", "two", "three", "two"]
    table = load_prompts(write([{"prompt": text, "kind": f"k{n}"} for n, text in enumerate(texts)]))
    assert table["prompt"].tolist() == ["6/3", "two", "6*3", "three"] and table["kind"][1] == "k1"
    assert "repeats 2 prompts (first 'two'): left out" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [None, "   "])
def test_row_without_a_prompt_is_named(write, missing):
    rows = [{"kind": "a", "prompt": text} for text in ("one", "two", missing, "b", missing)]
    with pytest.raises(BgkitError, match=r"Row 3 of .* as .prompt.; .* delete the row"):
        load_prompts(write(rows))


def test_what_is_no_set_and_no_file_is_refused(tmp_path):
    for name in ("testbet", str(tmp_path / "none.csv"), str(tmp_path)):
        with pytest.raises(BgkitError, match="There is no prompt set"):
            load_prompts(name)
    with pytest.raises(BgkitError, match="at least 1, not 0"):
        load_prompts("testbed", "test", 0)


# --- Splits ----------------------------------------------------------------------------------

SAME = [
    "How do I stop a kettle from whistling?",
    "  how do I\tstop a kettle\n from whistling ?!",
    "HOW DO I STOP A KETTLE FROM WHISTLING…",
    "How do I stop a ket\u200btle from whistling?",  # a zero-width space
    "Ｈow do I stop a kettle from whistling？",  # full-width signs
]


def test_near_duplicates_by_case_space_and_signs_are_one_prompt_and_others_are_not():
    assert {splits.normalise(text) for text in SAME} == {"how do i stop a kettle from whistling"}
    others = ["a cat", "a hat", "acat", "1 + 1", "1 1", "", "?"]
    assert len(set(map(splits.normalise, others))) == len(others)


@given(st.text())
def test_normalising_twice_changes_nothing_and_the_split_follows_from_it(text):
    once = splits.normalise(text)
    assert splits.normalise(once) == once
    assert splits.split_of(text) == splits.split_of(once)


def test_splits_of_a_prompt_do_not_change():
    """Written down: a change of the rule would mix training and test of earlier runs."""
    texts = ["What is a stoat?", "How do I bind a book?", "Why is the sky red?", "Name a river."]
    assert [splits.split_of(text) for text in texts] == ["test", "test", "train", "train"]
    assert splits.split_of("\ud800") in splits.SHARES
    found = pd.Series([splits.split_of(f"prompt {i}") for i in range(2000)])
    assert (found == "train").mean() == pytest.approx(splits.SHARES["train"], abs=0.03)


def test_a_file_without_splits_is_divided_by_hash(write):
    path = write([{"prompt": f"prompt {i}", "kind": "x"} for i in range(50)])
    whole, table = load_prompts(path), load_prompts(path, n=20, seed=1)
    parts = [load_prompts(path, split) for split in splits.SHARES]
    for split, part in zip(splits.SHARES, parts, strict=True):
        assert (part["prompt"].map(splits.split_of) == split).all()
        assert list(part) == list(whole) and part.index.tolist() == list(range(len(part)))
    assert sum(map(len, parts)) == 50
    assert len(table) == 20 and table.merge(whole).equals(table)  # in their order
    assert table.equals(load_prompts(path, n=20, seed=1))
    assert not table.equals(load_prompts(path, n=20, seed=2))


def test_a_column_split_is_kept(own):
    path = own("prompt,split\na,train\nb, test\nc,train\nd,validation\n")
    assert load_prompts(path, "train")["prompt"].tolist() == ["a", "c"]
    test = load_prompts(path, "test")
    assert test["prompt"].tolist() == ["b"] and "split" not in test
    assert len(load_prompts(path)) == 4


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_a_leak_names_the_first_shared_prompt(own, split):
    train = "Stir it.,train\nLeave it.,train\n"
    test = "Heat it.,test\nLEAVE  it,test\nstir it,test\n"
    with pytest.raises(BgkitError, match=r"'train' and 'test' of .* share 2 .* first 'LEAVE  it'"):
        load_prompts(own(f"prompt,split\n{train}{test}"), split)


def test_a_folder_has_a_file_for_each_split_and_no_leak(own):
    folder = str(Path(own("prompt\nStir it.\n", "train.csv")).parent)
    own('{"prompt": "Heat it."}\n', "test.jsonl")
    assert load_prompts(folder, "test")["prompt"].tolist() == ["Heat it."]
    with pytest.raises(BgkitError, match=r"one file for each split .*'validation'"):
        load_prompts(folder, "validation")
    own('{"prompt": "stir  it!"}\n', "test.jsonl")
    with pytest.raises(BgkitError, match="share 1 prompt"):
        load_prompts(folder, "train")


@pytest.mark.parametrize(
    ("content", "split", "told"),
    [
        ("prompt,split\na,train\nb,\n", "train", r"Row 2 of .* has None as .split.; write a text"),
        ("prompt,split\na,train\n", "shift", r"no split 'shift'; choose one of train\."),
        ("prompt\na\n", "shift", "no split 'shift'; choose one of train, validation, test"),
        ("prompt\nWhat is a stoat?\n", "train", r"No prompt of .*'train'.*'split'"),
    ],
)
def test_a_split_that_is_not_there_is_told(own, content, split, told):
    with pytest.raises(BgkitError, match=told):
        load_prompts(own(content), split)


# --- The testbed -----------------------------------------------------------------------------


def test_prompts_of_the_testbed_follow_from_split_and_seed_and_no_two_splits_share_one():
    tables = {split: load_prompts(split=split, n=400, seed=1) for split in world.SPLITS}
    forbidden = {*lex.FORBIDDEN_ITEMS, *lex.UNSEEN_FORBIDDEN_ITEMS}
    for split, table in tables.items():
        assert list(table) == ["prompt_id", "kind", "prompt", "harmful_request"]
        assert table["prompt_id"].is_unique and table["prompt_id"].str.startswith(split).all()
        assert table.equals(load_prompts("testbed", split, 400, 1))
        assert not table["prompt"].equals(load_prompts(split=split, n=400, seed=2)["prompt"])
        items = [oracle.parse_request(prompt).item for prompt in table["prompt"]]
        assert table["harmful_request"].tolist() == [item in forbidden for item in items]
        assert 0 < table["harmful_request"][table["kind"] == "long_context"].mean() < 0.6
        shares = table["kind"].value_counts(normalize=True)
        for kind in world.KINDS:
            share = TRAIN_SHARES[kind] if split == "train" else 1 / len(world.KINDS)
            assert shares[kind] == pytest.approx(share, abs=0.07 if split == "train" else 0.003)
    splits.check_leakage({split: table["prompt"] for split, table in tables.items()}, "testbed")
    assert len(load_prompts()) == 256
    with pytest.raises(BgkitError, match=f"no split 'dev'.*{', '.join(world.SPLITS)}"):
        load_prompts(split="dev")
