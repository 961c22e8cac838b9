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

pytestmark = pytest.mark.slow  # 630 prompts

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
    rows, shift, usual = parts[name], SHIFTS[name], parts["test"]
    items = {oracle.parse_request(prompt).item for prompt in rows["prompt"]}
    new = "items" in shift.get("unseen", ())
    assert items <= UNSEEN_ITEMS if new else not items & UNSEEN_ITEMS
    unseen = "families" in shift.get("unseen", ())
    for prompt in rows.loc[rows["kind"] == "jailbreak", "prompt"]:
        assert is_of(lex.UNSEEN_JAILBREAK_FAMILIES, prompt) == unseen
        assert is_of(lex.JAILBREAK_FAMILIES, prompt) != unseen
    assert all(rows["prompt"].str.contains(lex.LONG_MARKER) == ("words" in shift))
    if "words" in shift:
        low, high = shift["words"]
        for text, request in zip(rows["prompt"], usual["prompt"], strict=True):
            assert f"{lex.LONG_MARKER} {request}" in text
            # a last sentence, an injection and the marker go over the draw
            assert low <= len(text.split()) <= high + 70
    elif not new:  # jailbreaks alone may differ
        one, other = (part.loc[part["kind"] != "jailbreak", "prompt"] for part in (rows, usual))
        assert one.tolist() == other.tolist() and len(one) == 60


def test_a_shift_does_not_depend_on_the_others_or_on_the_number(parts) -> None:
    few = shifted_prompts(6, seed=3, shifts=["300-600 words"])
    whole = parts["300-600 words"].head(6).reset_index(drop=True)
    pd.testing.assert_frame_equal(few, whole)
