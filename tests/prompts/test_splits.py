"""The split of a prompt follows from its text, and no two splits share one."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.prompts import load as prompts
from bgkit.prompts import splits

SAME = [
    "How do I stop a kettle from whistling?",
    "how do i stop a kettle from whistling",
    "  How do I\tstop a kettle\n from whistling ?!",
    "HOW DO I STOP A KETTLE FROM WHISTLING…",
    "How do I stop a ket\u200btle from whistling?",  # a zero-width space
    "Ｈow do I stop a kettle from whistling？",  # full-width signs
    "“How do I stop a kettle from whistling?”",
]


def test_near_duplicates_by_case_space_and_signs_are_one_prompt_and_others_are_not() -> None:
    assert {splits.normalise(text) for text in SAME} == {"how do i stop a kettle from whistling"}
    others = ["a cat", "a hat", "acat", "1 + 1", "1 1", "", "?"]
    assert len(set(map(splits.normalise, others))) == len(others)


@given(st.text())
def test_normalising_twice_changes_nothing_and_the_split_follows_from_it(text: str) -> None:
    once = splits.normalise(text)
    assert splits.normalise(once) == once
    assert splits.split_of(text) == splits.split_of(once)


def test_splits_of_a_prompt_do_not_change() -> None:
    """Written down: a change of the rule would mix training and test of earlier runs."""
    texts = ["What is a stoat?", "How do I bind a book?", "Why is the sky red?", "Name a river."]
    assert [splits.split_of(text) for text in texts] == ["test", "test", "train", "train"]
    assert splits.split_of("\ud800") in splits.SHARES
    found = pd.Series([splits.split_of(f"prompt {i}") for i in range(2000)])
    assert (found == "train").mean() == pytest.approx(splits.SHARES["train"], abs=0.03)


def test_a_column_split_is_kept(tmp_path) -> None:
    (tmp_path / "own.csv").write_text("prompt,split\na,train\nb, test\nc,train\nd,validation\n")
    own = str(tmp_path / "own.csv")
    assert prompts.load_prompts(own, "train")["prompt"].tolist() == ["a", "c"]
    test = prompts.load_prompts(own, "test")
    assert test["prompt"].tolist() == ["b"] and "split" not in test
    assert len(prompts.load_prompts(own)) == 4


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_a_leak_names_the_first_shared_prompt(tmp_path, split) -> None:
    train = "Stir it.,train\nLeave it.,train\n"
    test = "Heat it.,test\nLEAVE  it,test\nstir it,test\n"
    (tmp_path / "own.csv").write_text("prompt,split\n" + train + test)
    with pytest.raises(BgkitError, match=r"'train' and 'test' of .* share 2 .* first 'LEAVE  it'"):
        prompts.load_prompts(str(tmp_path / "own.csv"), split)


def test_a_folder_has_a_file_for_each_split_and_no_leak(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("prompt\nStir it.\n")
    (tmp_path / "test.jsonl").write_text('{"prompt": "Heat it."}\n')
    assert prompts.load_prompts(str(tmp_path), "test")["prompt"].tolist() == ["Heat it."]
    with pytest.raises(BgkitError, match=r"one file for each split .*'validation'"):
        prompts.load_prompts(str(tmp_path), "validation")
    (tmp_path / "test.jsonl").write_text('{"prompt": "stir  it!"}\n')
    with pytest.raises(BgkitError, match="share 1 prompt"):
        prompts.load_prompts(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("content", "split", "told"),
    [
        ("prompt,split\na,train\nb,\n", "train", r"Row 2 of .* has None as .split.; write a text"),
        ("prompt,split\na,train\n", "shift", "no split 'shift'; choose one of train"),
        ("prompt\na\n", "shift", "no split 'shift'; choose one of train, validation, test"),
        ("prompt\nWhat is a stoat?\n", "train", r"No prompt of .*'train'.*'split'"),
    ],
)
def test_a_split_that_is_not_there_is_told(tmp_path, content, split, told) -> None:
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(BgkitError, match=told):
        prompts.load_prompts(str(tmp_path / "own.csv"), split)
