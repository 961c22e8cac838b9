"""Prompts unlike those of training: one axis at a time, and nothing else changed."""

from __future__ import annotations

import hashlib
import itertools
import random

import pandas as pd
import pytest

from bgkit.stress.prompts import SHIFTS, shifted_prompts
from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

pytestmark = pytest.mark.slow  # trainings, kernels or browsers in nearly every test

UNSEEN_ITEMS = {*lex.UNSEEN_BENIGN_ITEMS, *lex.UNSEEN_AMBIGUOUS_ITEMS, *lex.UNSEEN_FORBIDDEN_ITEMS}


def is_of(families: dict[str, tuple[str, ...]], prompt: str) -> bool:
    texts = itertools.chain(*families.values())
    return any(text.replace(" {question}", "") in prompt for text in texts)


@pytest.fixture(scope="module")
def parts() -> dict[str, pd.DataFrame]:
    return dict(iter(shifted_prompts(90, seed=3).groupby("shift")))


def test_what_seeds_and_splits_drew_before_they_draw_now() -> None:
    """40 prompts of each split; the digest was taken before ``unseen`` was there."""
    drawn = hashlib.sha256()
    for split in world.SPLITS:
        rng = random.Random(f"draws/{split}")
        for i in range(40):
            drawn.update(world.sample_prompt(rng, world.KINDS[i % 4], split).text.encode())
    assert drawn.hexdigest()[:16] == "2cce1305fd8dc266"


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_changes_what_it_says_and_nothing_else(name: str, parts) -> None:
    rows, shift = parts[name], SHIFTS[name]
    items = {oracle.parse_request(prompt).item for prompt in rows["prompt"]}
    new = "items" in shift.get("unseen", ())
    assert items <= UNSEEN_ITEMS if new else not items & UNSEEN_ITEMS
    unseen = "families" in shift.get("unseen", ())
    for prompt in rows.loc[rows["kind"] == "jailbreak", "prompt"]:
        assert is_of(lex.UNSEEN_JAILBREAK_FAMILIES, prompt) == unseen
        assert is_of(lex.JAILBREAK_FAMILIES, prompt) != unseen
    assert all(rows["prompt"].str.contains(lex.LONG_MARKER) == ("words" in shift))


@pytest.mark.parametrize("name", [name for name in SHIFTS if "words" in SHIFTS[name]])
def test_long_contexts_bury_the_requests_of_test_in_their_range_of_words(name: str, parts) -> None:
    low, high = SHIFTS[name]["words"]
    for text, request in zip(parts[name]["prompt"], parts["test"]["prompt"], strict=True):
        assert f"{lex.LONG_MARKER} {request}" in text
        # a last sentence, an injection and the marker go over the draw
        assert low <= len(text.split()) <= high + 70


def test_unseen_jailbreaks_leave_the_other_kinds_as_in_test(parts) -> None:
    one, other = (
        part.loc[part["kind"] != "jailbreak", "prompt"].tolist()
        for part in (parts["test"], parts["unseen jailbreaks"])
    )
    assert one == other and len(one) == 60


def test_a_shift_does_not_depend_on_the_others_or_on_the_number(parts) -> None:
    few = shifted_prompts(6, seed=3, shifts=["300-600 words"])
    whole = parts["300-600 words"].head(6).reset_index(drop=True)
    pd.testing.assert_frame_equal(few, whole)
