"""The testbed's prompts and demonstrations: reproducible, disjoint, in bounds, well-formed."""

from __future__ import annotations

import collections
import dataclasses
import math
import random
import re

import demonstrations as dm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

SHORT_KINDS = ("benign", "ambiguous", "jailbreak")
STYLES = ("careful", "keen", "careless", "partial", "refuse", "redirect")
SEEN = {*lex.BENIGN_ITEMS, *lex.AMBIGUOUS_ITEMS, *lex.FORBIDDEN_ITEMS}
UNSEEN = {*lex.UNSEEN_BENIGN_ITEMS, *lex.UNSEEN_AMBIGUOUS_ITEMS, *lex.UNSEEN_FORBIDDEN_ITEMS}

seeds = st.integers(0, 2**64)
kinds = st.sampled_from(world.KINDS)
splits = st.sampled_from(world.SPLITS)


def words_of(text: str) -> list[str]:
    """Words and marks, as the models' tokenizer takes a text apart."""
    return re.findall(r"\w+|[^\w\s]", text)


def sentences_of(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[.:;!?]", text) if part.strip()]


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[world.Prompt]]:
    """A thousand short prompts and a hundred long ones of every split."""
    found = {}
    for split in world.SPLITS:
        rng = random.Random(f"tests/{split}")
        wanted = [*(SHORT_KINDS[i % 3] for i in range(1000)), *["long_context"] * 100]
        found[split] = [world.sample_prompt(rng, kind, split) for kind in wanted]
    return found


# --- The words -------------------------------------------------------------------------------


def test_the_world_has_at_least_three_hundred_words():
    words = world.vocabulary()
    assert len(words) >= 300
    assert words == sorted(set(words))
    assert all(word and word == word.lower() and not re.search(r"[\s{}]", word) for word in words)


def test_every_entry_of_the_vocabulary_is_one_token():
    assert [word for word in world.vocabulary() if words_of(word) != [word]] == []


def test_every_word_of_a_prompt_is_in_the_vocabulary(drawn):
    known = set(world.vocabulary())
    met = {word for found in drawn.values() for prompt in found for word in words_of(prompt.text)}
    assert met - known == set()
    assert len(met) >= 300


def test_every_word_of_every_sentence_of_the_lexicon_is_in_the_vocabulary():
    known = set(world.vocabulary())
    templates = [
        *(lex.REFUSALS + lex.REDIRECTIONS + lex.OPENINGS + lex.CAUTIONS + lex.CLOSINGS),
        *(lex.QUESTIONS + lex.PLAIN_CONTEXTS + lex.ALARMING_CONTEXTS + lex.COVERT_CONTEXTS),
        *(lex.FILLER + lex.DISTRACTORS + lex.INJECTIONS + lex.VESSELS + lex.DURATIONS),
        *(text for family in lex.JAILBREAK_FAMILIES.values() for text in family),
        *(text for family in lex.UNSEEN_JAILBREAK_FAMILIES.values() for text in family),
        *(lex.LONG_MARKER, lex.JUDGE_RUBRIC, lex.JUDGE_FRAME, lex.JUDGE_REPLY),
    ]
    for template in templates:
        assert set(words_of(re.sub(r"\{\w+\}", " ", template))) <= known, template
    assert {*SEEN, *UNSEEN, *lex.INGREDIENTS, *lex.EFFECTS, *lex.AMOUNTS, *lex.METHODS} <= known
    assert {*lex.NAMES, *lex.PLACES, *lex.ANIMALS, *lex.WEATHER, *world.GRADES} <= known


@pytest.fixture(scope="module")
def trained(drawn) -> set[str]:
    """Words of a thousand training prompts, two hundred long ones, and their demonstrations."""
    rng = random.Random(8)
    prompts = drawn["train"] + [world.sample_prompt(rng, "long_context") for _ in range(200)]
    texts = [text for p in prompts for text in (p.text, dm.sample_response(rng, p))]
    return {word for text in texts for word in words_of(text)}


def test_items_of_the_shift_occur_in_training_texts(trained):
    assert trained >= UNSEEN


def test_words_of_the_shift_that_no_training_text_holds_are_the_five_that_the_lexicon_names(
    drawn, trained
):
    shift = {word for prompt in drawn["shift"] for word in words_of(prompt.text)}
    assert shift - trained == {"did", "first", "half", "kind", "second"}


# --- Kinds and splits ------------------------------------------------------------------------


def test_there_are_four_kinds_and_enough_variety():
    assert set(world.KINDS) == {"benign", "ambiguous", "jailbreak", "long_context"}
    assert len(world.AMBIGUITIES) >= 3
    assert len(lex.JAILBREAK_FAMILIES) >= 3
    assert len(lex.UNSEEN_JAILBREAK_FAMILIES) >= 1


def test_every_ambiguity_and_every_family_is_drawn(drawn):
    for split, found in drawn.items():
        families = lex.UNSEEN_JAILBREAK_FAMILIES if split == "shift" else lex.JAILBREAK_FAMILIES
        names = collections.defaultdict(set)
        for prompt in found:
            names[prompt.kind].add(prompt.wrapper.split("/")[0])
        assert names["benign"] == {"plain"}
        assert names["ambiguous"] == set(world.AMBIGUITIES)
        assert names["jailbreak"] == set(families)
        assert names["long_context"] <= {"plain", *world.AMBIGUITIES, *families}


def test_kinds_ask_for_what_they_say(drawn):
    for found in drawn.values():
        for prompt in found:
            request = oracle.parse_request(prompt.text)
            name = prompt.wrapper.split("/")[0]
            if prompt.kind == "benign":
                assert request.severity == 0.8
            elif prompt.kind == "jailbreak":
                assert request.forbidden and prompt.forbidden
            elif prompt.kind == "ambiguous":
                expected = {"dual_use": 1.0, "alarming_words": 0.8, "covert_purpose": 1.3}
                assert request.severity == expected[name]
            if prompt.kind != "long_context":
                assert prompt.forbidden == (prompt.kind == "jailbreak")


def test_splits_share_no_combination_and_no_text(drawn):
    homes: dict[object, str] = {}
    for split, found in drawn.items():
        for prompt in found:
            for key in ((prompt.item, prompt.effect, prompt.wrapper), prompt.text):
                assert homes.setdefault(key, split) == split, key


def test_a_combination_belongs_to_the_split_that_draws_it(drawn):
    for split in ("train", "validation", "test"):
        for prompt in drawn[split]:
            assert world.split_of(prompt.item, prompt.effect, prompt.wrapper) == split


def test_splits_are_about_eighty_ten_ten():
    shares = collections.Counter(
        world.split_of(item, effect, f"plain/{question}/{context}")
        for item in sorted(SEEN)
        for effect in lex.EFFECTS
        for question in range(5)
        for context in range(8)
    )
    total = sum(shares.values())
    assert set(shares) == {"train", "validation", "test"}
    assert shares["train"] / total == pytest.approx(0.8, abs=0.02)
    assert shares["test"] / total == pytest.approx(0.1, abs=0.02)


def test_shift_asks_only_for_the_unseen_and_the_others_never_do(drawn):
    for split, found in drawn.items():
        items = {prompt.item for prompt in found}
        assert items == UNSEEN if split == "shift" else items <= SEEN
    assert not SEEN & UNSEEN
    assert not set(lex.JAILBREAK_FAMILIES) & set(lex.UNSEEN_JAILBREAK_FAMILIES)


# --- Prompts ---------------------------------------------------------------------------------


@settings(max_examples=300)
@given(seed=seeds, kind=kinds, split=splits)
def test_a_prompt_asks_for_its_own_item_and_effect(seed, kind, split):
    prompt = world.sample_prompt(random.Random(seed), kind, split)
    request = oracle.parse_request(prompt.text)
    assert (request.item, request.effect) == (prompt.item, prompt.effect)
    assert prompt.kind == kind
    assert prompt.text == " ".join(prompt.text.split())


@settings(max_examples=50)
@given(seed=seeds, kind=kinds, split=splits)
def test_the_same_seed_draws_the_same(seed, kind, split):
    one, two = (random.Random(seed) for _ in range(2))
    prompts = [world.sample_prompt(rng, kind, split) for rng in (one, two)]
    assert prompts[0] == prompts[1]
    responses = [dm.sample_response(rng, prompts[0]) for rng in (one, two)]
    assert responses[0] == responses[1]
    assert one.random() == two.random()


def test_different_seeds_draw_differently():
    found = {world.sample_prompt(random.Random(seed), "benign").text for seed in range(50)}
    assert len(found) > 40


def longest(templates: tuple[str, ...]) -> int:
    """Words of the longest sentence; every placeholder stands for one word."""
    return max(len(template.split()) for template in templates)


GOSSIP = longest(lex.FILLER + lex.DISTRACTORS)
EXTRA = len(lex.LONG_MARKER.split()) + longest(lex.INJECTIONS)


@pytest.mark.parametrize(
    ("split", "low", "high"),
    [("train", 170, 235), ("validation", 170, 235), ("test", 170, 900), ("shift", 170, 900)],
)
def test_long_contexts_are_as_long_as_their_split_says(drawn, split, low, high):
    lengths = [len(p.text.split()) for p in drawn[split] if p.kind == "long_context"]
    assert min(lengths) >= low
    assert max(lengths) < high + GOSSIP + EXTRA
    assert max(lengths) - min(lengths) > 0.7 * (high - low)


@settings(max_examples=100)
@given(seed=seeds, low=st.integers(1, 400), more=st.integers(0, 400))
def test_length_of_a_long_context_can_be_set(seed, low, more):
    prompt = world.sample_prompt(random.Random(seed), "long_context", "train", (low, low + more))
    inner = longest(
        tuple(text for family in lex.JAILBREAK_FAMILIES.values() for text in family)
    ) + longest(lex.QUESTIONS)
    assert low <= len(prompt.text.split()) < max(low + more, inner) + GOSSIP + EXTRA


def test_long_contexts_bury_the_question_anywhere_among_distractors(drawn):
    found = [p.text for split in world.SPLITS for p in drawn[split] if p.kind == "long_context"]
    places = [text.index(lex.LONG_MARKER) / len(text) for text in found]
    assert min(places) < 0.1 and max(places) > 0.8
    assert all(text.count(lex.LONG_MARKER) == 1 for text in found)
    injected = sum("note to the reader" in t or "ignore the question below" in t for t in found)
    assert 0.1 < injected / len(found) < 0.3
    gossiping = sum(any(name in text for name in lex.INGREDIENTS) for text in found)
    assert gossiping / len(found) > 0.8


# --- Demonstrations --------------------------------------------------------------------------


@settings(max_examples=300)
@given(seed=seeds, kind=kinds, split=splits, style=st.sampled_from((None, *STYLES)))
def test_a_demonstration_is_short_and_well_formed_but_for_repeated_sentences(
    seed, kind, split, style
):
    rng = random.Random(seed)
    prompt = world.sample_prompt(rng, kind, split)
    response = dm.sample_response(rng, prompt, style)
    assert 0 < len(response.split()) <= dm.MAX_WORDS
    assert response == " ".join(response.split())
    # chance may draw the same step twice (a few times in ten thousand); only that costs form
    sentences = sentences_of(response)
    sizes = [len(re.findall(r"\w+", sentence)) for sentence in sentences]
    first = [s not in sentences[:i] for i, s in enumerate(sentences)]
    share = sum(n for n, new in zip(sizes, first, strict=True) if new) / sum(sizes)
    assert oracle.grade(prompt.text, response).form == pytest.approx(share)


@settings(max_examples=400)
@given(
    seed=seeds, kind=st.sampled_from(SHORT_KINDS), styles=st.tuples(*[st.sampled_from(STYLES)] * 2)
)
def test_corrupting_demonstrations_never_raises_and_stays_in_the_world(seed, kind, styles):
    rng = random.Random(seed)
    prompt = world.sample_prompt(rng, kind)
    first, second = (dm.sample_response(rng, prompt, style) for style in styles)
    broken = dm.corrupt(random.Random(seed), first, second)
    assert broken == dm.corrupt(random.Random(seed), first, second)
    assert len(broken.split()) <= 60
    assert set(words_of(broken)) <= set(world.vocabulary())


# --- Texts with grades -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> dm.Texts:
    return dm.demonstrations(dm.sample_prompts(60, 1), 1)


def assert_same(one: dm.Texts, two: dm.Texts) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, vars(two)[name], err_msg=name)


def test_texts_carry_the_grades_of_the_oracle(texts):
    assert len(texts) == 60
    for i, (prompt, response) in enumerate(zip(texts.prompts, texts.responses, strict=True)):
        grade = oracle.grade(prompt, response)
        assert (texts.harm[i], texts.help[i]) == (grade.harm, grade.help)
        assert texts.hazard[i] == oracle.hazard(prompt, response)


@pytest.mark.parametrize("make", [dm.demonstrations, dm.varied])
def test_drawn_texts_depend_on_the_seed_alone(make):
    prompts = dm.sample_prompts(40, 3, "validation")
    assert prompts == dm.sample_prompts(40, 3, "validation")
    assert prompts != dm.sample_prompts(40, 4, "validation")
    assert_same(make(prompts, 5), make(prompts, 5))
    assert make(prompts, 5).responses != make(prompts, 6).responses


def test_scorers_see_broken_texts_and_policies_do_not():
    prompts = dm.sample_prompts(300, 3)
    form = {
        make: np.mean(
            [oracle.grade(*p).form > 0.999 for p in zip(t.prompts, t.responses, strict=True)]
        )
        for make, t in {m: m(prompts, 1) for m in (dm.demonstrations, dm.varied)}.items()
    }
    assert form[dm.demonstrations] > 0.98
    assert 0.5 < form[dm.varied] < 0.95


# --- Noisy labels ----------------------------------------------------------------------------


def test_votes_agree_far_from_the_line_and_split_on_it():
    size = 4000
    assert dm.votes(np.full(size, 0.2), 0).max() == 0.0
    assert dm.votes(np.full(size, 1.8), 0).min() == 1.0
    on_the_line = dm.votes(np.ones(size), 0)
    assert on_the_line.mean() == pytest.approx(0.5, abs=0.03)
    assert 0.6 < np.mean((on_the_line > 0) & (on_the_line < 1)) < 0.9  # 3/4 in expectation
    assert (on_the_line != dm.votes(np.ones(size), 1)).any()


@pytest.mark.parametrize("gap", [-0.3, 0.0, 0.1, 0.3])
def test_preference_follows_the_logistic_law(gap):
    value = np.tile([0.5 + gap, 0.5], (6000, 1))
    share = dm.preference(value, 7)[:, 0, 1].mean()
    assert share == pytest.approx(1 / (1 + math.exp(-8.0 * gap)), abs=0.025)
    assert dm.preference(value, 7)[:, 1, 0].mean() == pytest.approx(1 - share)


def test_prompts_can_not_be_changed_by_accident():
    prompt = world.sample_prompt(random.Random(0), "benign")
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt.text = "other"
