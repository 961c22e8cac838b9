"""Prompts unlike those of training: one axis at a time, and nothing else changed."""

from __future__ import annotations

import hashlib
import itertools
import random

import numpy as np
import pandas as pd
import pytest

from bgkit.evaluation.metrics import summary
from bgkit.stress import contenders
from bgkit.stress.prompts import SHIFTS, shifted_prompts
from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test

#: sha256 (16 digits) of 40 prompts of each split, taken before ``unseen`` was there.
DRAWS = {
    "train": "780d23365556c833",
    "validation": "221ff3014c6f6e39",
    "test": "9f040689e5481193",
    "shift": "8eb161b11fde9fd1",
}
UNSEEN_ITEMS = {
    *(lex.UNSEEN_BENIGN_ITEMS + lex.UNSEEN_AMBIGUOUS_ITEMS),
    *lex.UNSEEN_FORBIDDEN_ITEMS,
}


def is_of(families: dict[str, tuple[str, ...]], prompt: str) -> bool:
    texts = itertools.chain(*families.values())
    return any(text.replace(" {question}", "") in prompt for text in texts)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return shifted_prompts(90, seed=3)


@pytest.mark.parametrize("split", world.SPLITS)
def test_what_seeds_and_splits_drew_before_they_draw_now(split: str) -> None:
    rng = random.Random(f"draws/{split}")
    drawn = [world.sample_prompt(rng, world.KINDS[i % 4], split).text for i in range(40)]
    assert hashlib.sha256("\n".join(drawn).encode()).hexdigest()[:16] == DRAWS[split]


def test_every_shift_changes_what_it_says_and_nothing_else(table: pd.DataFrame) -> None:
    for name, rows in table.groupby("shift"):
        shift = SHIFTS[name]
        items = {oracle.parse_request(prompt).item for prompt in rows["prompt"]}
        new = "items" in shift.get("unseen", ())
        assert items <= UNSEEN_ITEMS if new else not items & UNSEEN_ITEMS, name
        jailbreaks = rows.loc[rows["kind"] == "jailbreak", "prompt"]
        unseen = "families" in shift.get("unseen", ())
        assert all(is_of(lex.UNSEEN_JAILBREAK_FAMILIES, p) == unseen for p in jailbreaks), name
        assert all(is_of(lex.JAILBREAK_FAMILIES, p) != unseen for p in jailbreaks), name
        assert all(rows["prompt"].str.contains(lex.LONG_MARKER) == ("words" in shift)), name


def test_long_contexts_bury_the_requests_of_test_in_their_range_of_words(table) -> None:
    parts = {name: part["prompt"].tolist() for name, part in table.groupby("shift")}
    for name, shift in SHIFTS.items():
        if "words" not in shift:
            continue
        low, high = shift["words"]
        for text, request in zip(parts[name], parts["test"], strict=True):
            assert f"{lex.LONG_MARKER} {request}" in text, name
            # a last sentence, an injection and the marker go over the draw
            assert low <= len(text.split()) <= high + 70, name


def test_unseen_jailbreaks_leave_the_other_kinds_as_in_test(table: pd.DataFrame) -> None:
    one, other = (
        table[(table["shift"] == name) & (table["kind"] != "jailbreak")]["prompt"].tolist()
        for name in ("test", "unseen jailbreaks")
    )
    assert one == other and len(one) == 60


def test_a_shift_does_not_depend_on_the_others_or_on_the_number(table: pd.DataFrame) -> None:
    few = shifted_prompts(6, seed=3, shifts=["300-600 words"])
    whole = table[table["shift"] == "300-600 words"].head(6).reset_index(drop=True)
    pd.testing.assert_frame_equal(few, whole)


def test_two_runs_answer_the_same_shifted_prompts(small_run, weak_run) -> None:
    found = contenders.contenders_of([small_run, weak_run])
    table = shifted_prompts(6, shifts=["test", "unseen both", "300-600 words"])
    samples = contenders.respond(found, table)
    assert samples.groupby(["design", "shift"]).size().eq(6).all()
    for _, rows in samples.groupby(["design", "seed"]):
        assert rows["prompt"].tolist() == table["prompt"].tolist()
    truth = [oracle.grade(row.prompt, row.response).harm for row in samples.itertuples()]
    np.testing.assert_allclose(samples["harm"], truth)
    means = summary(samples, ["design", "shift"], ["system_harm", "filter_rate"])
    assert means.groupby("metric").size().eq(9).all() and (means["n"] == 6).all()
    assert means["mean"].between(0, 1).all()
