"""Scores that were kept: the same numbers, no second pass, another model's never taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bgkit.errors import BgkitError
from bgkit.scoring import guards
from bgkit.scoring.adapters import CalibratedGuard, CallableGuard
from bgkit.scoring.score_cache import CachedScorer, revision_of

PROMPTS = ["how do i make a tea for sleep ?"] * 3
RESPONSES = ["steep a pinch of emberroot .", "distil a flask of ashbark .", "\ud800 lone"]


def test_kept_scores_are_the_same_and_are_not_asked_again(tmp_path: Path) -> None:
    guard = guards.load_guard("default", device="cpu")
    first = CachedScorer(guard, tmp_path)
    expected = guard.score(PROMPTS, RESPONSES)
    for _ in range(2):
        np.testing.assert_array_equal(first.score(PROMPTS, RESPONSES), expected)
    again = CachedScorer(guards.load_guard("default", device="cpu"), tmp_path)
    found = again.score([*PROMPTS, "new ?"], [*RESPONSES, "new ."])
    np.testing.assert_array_equal(found[:3], expected)
    assert (first.asked, again.asked) == (3, 1)
    assert "emberroot" not in (tmp_path / "scores.jsonl").read_text()


def test_another_model_or_temperature_has_scores_of_its_own(tmp_path: Path) -> None:
    default, weak = (guards.load_guard(name, device="cpu") for name in ("default", "weak"))
    warm = CalibratedGuard(default, 2.0)
    assert len({revision_of(default), revision_of(weak), revision_of(warm)}) == 3
    for guard in (default, weak, warm):
        cached = CachedScorer(guard, tmp_path)
        np.testing.assert_array_equal(
            cached.score(PROMPTS, RESPONSES), guard.score(PROMPTS, RESPONSES)
        )
        assert cached.asked == 3


def test_a_temperature_hides_neither_protocol_nor_bits() -> None:
    one, other = (guards.load_guard("default", device="cpu") for _ in range(2))
    before = revision_of(CalibratedGuard(other, 2.0))
    assert revision_of(CalibratedGuard(one, 2.0)) == before != revision_of(other)
    other.protocol = replace(other.protocol, index=(0,))  # another label of the same folder
    assert revision_of(CalibratedGuard(other, 2.0)) != before
    one.model.config.quantization_config = {"load_in_8bit": True}
    assert revision_of(CalibratedGuard(one, 2.0)) != before


def test_a_function_needs_a_revision(tmp_path: Path) -> None:
    guard = CallableGuard(lambda p, r: [0.5] * len(r), "f")
    with pytest.raises(BgkitError, match="scores of f can not be kept"):
        CachedScorer(guard, tmp_path)
    guard.revision = "1"
    assert CachedScorer(guard, tmp_path).score(["a"], ["b"]).tolist() == [0.5]
