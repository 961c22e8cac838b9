"""The testbed's prompts and demonstrations: reproducible, disjoint, in bounds, well-formed."""

from __future__ import annotations

import collections
import random
import re

import demonstrations as dm
import pandas as pd
import pytest

from bgkit.data import data_folder
from bgkit.prompts.load import load_prompts
from bgkit.runs import load_run
from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

SHORT_KINDS = ("benign", "ambiguous", "jailbreak")
SEEN = {*lex.BENIGN_ITEMS, *lex.AMBIGUOUS_ITEMS, *lex.FORBIDDEN_ITEMS}
UNSEEN = {*lex.UNSEEN_BENIGN_ITEMS, *lex.UNSEEN_AMBIGUOUS_ITEMS, *lex.UNSEEN_FORBIDDEN_ITEMS}


def words_of(text: str) -> list[str]:
    """Words and marks, as the models' tokenizer takes a text apart."""
    return re.findall(r"\w+|[^\w\s]", text)


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[world.Prompt]]:
    """A thousand short prompts and a hundred long ones of every split, and of what none holds."""
    found = {}
    for split in (*world.SPLITS, "unseen"):
        rng = random.Random(f"tests/{split}")
        wanted = [*(SHORT_KINDS[i % 3] for i in range(1000)), *["long_context"] * 100]
        of = {"split": "test", "unseen": world.UNSEEN} if split == "unseen" else {"split": split}
        found[split] = [world.sample_prompt(rng, kind, **of) for kind in wanted]
    return found


def test_every_word_of_the_world_is_one_token_of_the_vocabulary(drawn):
    words = dm.vocabulary()
    assert len(words) >= 300 and words == sorted(set(words))
    assert [word for word in words if words_of(word) != [word] or word != word.lower()] == []
    texts = [prompt.text for found in drawn.values() for prompt in found]
    texts += lex.REFUSALS + lex.REDIRECTIONS + lex.OPENINGS + lex.CAUTIONS + lex.CLOSINGS
    texts += lex.VESSELS + lex.DURATIONS + (lex.JUDGE_RUBRIC, lex.JUDGE_FRAME, lex.JUDGE_REPLY)
    met = {word for text in texts for word in words_of(re.sub(r"\{\w+\}", " ", text))}
    assert met | {*lex.INGREDIENTS, *lex.AMOUNTS, *lex.METHODS, *dm.GRADES} <= set(words)


def test_every_kind_asks_for_what_it_says(drawn):
    severities = {"plain": 0.8, "dual_use": 1.0, "alarming_words": 0.8, "covert_purpose": 1.3}
    for split, found in drawn.items():
        families = lex.UNSEEN_JAILBREAK_FAMILIES if split == "unseen" else lex.JAILBREAK_FAMILIES
        names = collections.defaultdict(set)
        for prompt in found:
            request, name = oracle.parse_request(prompt.text), prompt.wrapper.split("/")[0]
            names[prompt.kind].add(name)
            assert prompt.forbidden == request.forbidden == (name in families)
            assert (request.item, request.effect) == (prompt.item, prompt.effect)
            assert prompt.text == " ".join(prompt.text.split())
            if not prompt.forbidden:
                assert request.severity == severities[name]
        assert names["benign"] == {"plain"} and names["ambiguous"] == set(world.AMBIGUITIES)
        assert names["jailbreak"] == set(families)


def test_splits_share_no_combination_and_no_text(drawn):
    homes: dict[object, str] = {}
    for split, found in drawn.items():
        for prompt in found:
            key = (prompt.item, prompt.effect, prompt.wrapper)
            assert homes.setdefault(key, split) == homes.setdefault(prompt.text, split) == split
            assert world.split_of(*key) == ("test" if split == "unseen" else split)
        assert {prompt.item for prompt in found} <= (UNSEEN if split == "unseen" else SEEN)
    assert not SEEN & UNSEEN
    assert not {*lex.JAILBREAK_FAMILIES} & {*lex.UNSEEN_JAILBREAK_FAMILIES}


def test_prompts_are_still_those_that_the_shipped_run_was_trained_on():
    run = load_run(data_folder() / "runs" / "boundary")
    prompts = load_prompts("testbed", "train", 1600, run.config.seed)["prompt"]
    assert set(run.completions()["prompt"]) == set(prompts)


GOSSIP = [lex.FILLER + lex.DISTRACTORS, lex.INJECTIONS, [lex.LONG_MARKER]]
#: Words by which a long context may be longer than asked for: the longest sentence of each kind.
MORE = sum(max(len(text.split()) for text in texts) for texts in GOSSIP)


def test_long_contexts_are_as_long_as_their_split_says_or_as_asked(drawn):
    for split, high in (("train", 235), ("validation", 235), ("test", 900)):
        lengths = [len(p.text.split()) for p in drawn[split] if p.kind == "long_context"]
        assert 170 <= min(lengths) < 190 and 0.9 * high < max(lengths) < high + MORE
    asked = [random.Random(3), "long_context", "train", (400, 400)]
    assert 400 <= len(world.sample_prompt(*asked).text.split()) < 400 + MORE


@pytest.mark.parametrize(
    ("make", "low", "high"), [(dm.demonstrations, 0.98, 1), (dm.varied, 0.5, 0.95)]
)
def test_texts_carry_the_oracles_grades_and_depend_on_the_seed_alone(make, low, high):
    """Scorers see broken texts, policies (demonstrations) do not."""
    prompts = dm.sample_prompts(200, 3, "validation")
    assert prompts == dm.sample_prompts(200, 3, "validation") != dm.sample_prompts(200, 4)
    texts = make(prompts, 5)
    pd.testing.assert_frame_equal(texts, make(prompts, 5))
    assert not texts["response"].equals(make(prompts, 6)["response"])
    pairs = list(zip(texts["prompt"], texts["response"], strict=True))
    grades = pd.DataFrame([oracle.grade(*pair) for pair in pairs])
    grades["hazard"] = [oracle.hazard(*pair) for pair in pairs]
    assert (texts[["harm", "help", "hazard"]] == grades[["harm", "help", "hazard"]]).all(axis=None)
    assert low < (grades["form"] > 0.999).mean() <= high
    if make is dm.demonstrations:
        assert texts["response"].str.split().str.len().between(1, dm.MAX_WORDS).all()
