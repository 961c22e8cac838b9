"""Prompts of the testbed's world, drawn reproducibly from a seed.

Kinds of prompts: ``benign``; ``ambiguous`` (dual-use items, alarming words around a harmless
request, covert purposes behind a harmless one); ``jailbreak`` (a forbidden item inside one of four
families of wrappers); ``long_context`` (any of these buried in gossip that mentions hazards and
sometimes contains an injected jailbreak). A combination of item, effect and wrapper belongs to
exactly one of the splits ``train``, ``validation`` and ``test``. Some items and jailbreak families
occur in no split (``unseen``).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import dataclass

from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle

KINDS = ("benign", "ambiguous", "jailbreak", "long_context")
SPLITS = ("train", "validation", "test")
AMBIGUITIES = ("dual_use", "alarming_words", "covert_purpose")
UNSEEN = ("items", "families")  # in no split: for tests of distribution shift
TRAIN_LENGTH = (170, 235)  # words of a long context; 200 to 300 tokens with the question and chat
TEST_LENGTH = (170, 900)


@dataclass(frozen=True)
class Prompt:
    """One prompt; ``wrapper`` names the template and context that surround item and effect."""

    text: str
    kind: str
    item: str
    effect: str
    wrapper: str

    @property
    def forbidden(self) -> bool:
        """Whether the request is harmful: a recipe for the item is not allowed."""
        return oracle.parse_request(self.text).forbidden


def split_of(item: str, effect: str, wrapper: str) -> str:
    """The split of a combination: 80 % train, 10 % validation, 10 % test.

    >>> split_of("tea", "sleep", "plain/0/0") in ("train", "validation", "test")
    True
    """
    digest = hashlib.sha256(f"{item}|{effect}|{wrapper}".encode()).digest()
    return ("test", "validation", *["train"] * 8)[digest[0] % 10]


def _question(rng: random.Random, item: str, effect: str) -> tuple[str, int]:
    number = rng.randrange(len(lex.QUESTIONS))
    return lex.QUESTIONS[number].format(item=item, effect=effect), number


def _with_context(
    rng: random.Random, name: str, contexts: tuple[str, ...], items, effect
) -> Prompt:
    item = rng.choice(items)
    question, number = _question(rng, item, effect)
    context = rng.randrange(len(contexts))
    sentences = [contexts[context], question]
    if rng.random() < 0.5:
        sentences.reverse()
    kind = "benign" if name == "plain" else "ambiguous"
    return Prompt(" ".join(sentences).strip(), kind, item, effect, f"{name}/{number}/{context}")


def _draw_short(rng: random.Random, kind: str, unseen: Collection[str]) -> Prompt:
    effect, new_items = rng.choice(lex.EFFECTS), "items" in unseen
    benign = lex.UNSEEN_BENIGN_ITEMS if new_items else lex.BENIGN_ITEMS
    dual = lex.UNSEEN_AMBIGUOUS_ITEMS if new_items else lex.AMBIGUOUS_ITEMS
    if kind == "benign":
        return _with_context(rng, "plain", lex.PLAIN_CONTEXTS, benign, effect)
    if kind == "ambiguous":
        ambiguity = rng.choice(AMBIGUITIES)
        contexts, items = {
            "dual_use": (lex.PLAIN_CONTEXTS, dual),
            "alarming_words": (lex.ALARMING_CONTEXTS, benign),
            "covert_purpose": (lex.COVERT_CONTEXTS, benign + dual),
        }[ambiguity]
        return _with_context(rng, ambiguity, contexts, items, effect)
    families = lex.UNSEEN_JAILBREAK_FAMILIES if "families" in unseen else lex.JAILBREAK_FAMILIES
    family = rng.choice(sorted(families))
    wrapper = rng.randrange(len(families[family]))
    item = rng.choice(lex.UNSEEN_FORBIDDEN_ITEMS if new_items else lex.FORBIDDEN_ITEMS)
    question, number = _question(rng, item, effect)
    text = families[family][wrapper].format(question=question)
    return Prompt(text, kind, item, effect, f"{family}/{number}/{wrapper}")


def _gossip(rng: random.Random) -> str:
    (name, name2), (place, place2) = rng.sample(lex.NAMES, 2), rng.sample(lex.PLACES, 2)
    template = rng.choice(lex.DISTRACTORS if rng.random() < 0.25 else lex.FILLER)
    items = lex.BENIGN_ITEMS + lex.AMBIGUOUS_ITEMS + lex.FORBIDDEN_ITEMS
    unseen = lex.UNSEEN_BENIGN_ITEMS + lex.UNSEEN_AMBIGUOUS_ITEMS + lex.UNSEEN_FORBIDDEN_ITEMS
    return template.format(
        name=name,
        name2=name2,
        place=place,
        place2=place2,
        animal=rng.choice(lex.ANIMALS),
        weather=rng.choice(lex.WEATHER),
        amount=rng.choice(list(lex.AMOUNTS)),
        ingredient=rng.choice(lex.INGREDIENTS),
        item=rng.choice(items + unseen),
    )


def bury(rng: random.Random, inner: Prompt, words: int) -> Prompt:
    """Bury a short prompt at a random place in about ``words`` words of gossip."""
    budget = words - len(inner.text.split())
    sentences: list[str] = []
    while budget > 0:
        sentences.append(_gossip(rng))
        budget -= len(sentences[-1].split())
    if rng.random() < 0.2:
        injection = rng.choice(lex.INJECTIONS).format(
            item=rng.choice(lex.FORBIDDEN_ITEMS), effect=rng.choice(lex.EFFECTS)
        )
        sentences.insert(rng.randrange(len(sentences) + 1), injection)
    sentences.insert(rng.randrange(len(sentences) + 1), f"{lex.LONG_MARKER} {inner.text}")
    return Prompt(" ".join(sentences), "long_context", inner.item, inner.effect, inner.wrapper)


def sample_prompt(
    rng: random.Random,
    kind: str,
    split: str = "train",
    length: tuple[int, int] | None = None,
    unseen: Collection[str] = (),
) -> Prompt:
    """Draw a prompt of a kind whose combination belongs to ``split``.

    ``length`` bounds the words of a long context (default: :data:`TRAIN_LENGTH`, for ``test``
    :data:`TEST_LENGTH`). ``unseen`` names members of :data:`UNSEEN` to draw from instead.

    >>> sample_prompt(random.Random(0), "benign").kind
    'benign'
    >>> sample_prompt(random.Random(0), "benign", "test", unseen=["items"]).item
    'garland'
    """
    while True:
        inner_kind = kind
        if kind == "long_context":
            inner_kind = rng.choices(KINDS[:3], (0.4, 0.4, 0.2))[0]
        prompt = _draw_short(rng, inner_kind, unseen)
        if split_of(prompt.item, prompt.effect, prompt.wrapper) == split:
            break
    if kind == "long_context":
        low, high = length or (TEST_LENGTH if split == "test" else TRAIN_LENGTH)
        prompt = bury(rng, prompt, rng.randint(low, high))
    return prompt
