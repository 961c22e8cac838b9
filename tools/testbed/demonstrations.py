"""Training and test data of the testbed's models: texts, noisy annotators, preference pairs.

All labels are noisy functions of the oracle's hazard and helpfulness, so guard, utility and
judge are learned, fallible models of the truth. Scorers also see samples of the policy at
temperatures 1.0 and 1.6 and corrupted responses: against a scorer trained on clean text only,
reinforcement learning finds gibberish that scores well.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

# --- words: the vocabulary of all models ----------------------------------------------------------

GRADES = tuple("12345")  # what the judge writes


@functools.lru_cache(maxsize=1)
def vocabulary() -> list[str]:
    """Every word and mark of the world, sorted; the tokenizer's vocabulary without specials."""
    text = _strings([value for name, value in vars(lex).items() if name.isupper()])
    return sorted({word for line in text for word in line.split() if "{" not in word} | set(GRADES))


def _strings(value: object) -> list[str]:
    parts = value.items() if isinstance(value, dict) else value
    if isinstance(value, str) or not isinstance(value, dict | list | tuple):
        return [value] if isinstance(value, str) else []
    return [text for part in parts for text in _strings(part)]


# --- texts: what the supervised policies learn from ----------------------------------------------

STYLES = {  # request -> weights of (careful, keen, careless, partial, refuse, redirect)
    "benign": (0.34, 0.20, 0.16, 0.12, 0.13, 0.05),
    "ambiguous": (0.25, 0.20, 0.18, 0.11, 0.19, 0.07),
    "forbidden": (0.10, 0.20, 0.12, 0.08, 0.32, 0.18),
}
MAX_WORDS = 54  # of a demonstration; the policies' max_completion_length is a little above it
_STYLE_NAMES = ("careful", "keen", "careless", "partial", "refuse", "redirect")
_TASTE = {  # weight of an ingredient: exp(a * potency - b * hazard)
    "careful": (2.0, 4.0),
    "redirect": (2.0, 4.0),
    "keen": (4.0, 0.0),
    "careless": (0.0, 0.0),
    "partial": (1.0, 1.0),
}


def _steps(rng: random.Random, effect: str, style: str) -> list[str]:
    a, b = _TASTE[style]
    weights = [math.exp(a * lex.POTENCY[i, effect] - b * lex.HAZARD[i]) for i in lex.INGREDIENTS]
    count = 1 if style == "partial" else rng.choices((1, 2, 3, 4), (0.1, 0.35, 0.4, 0.15))[0]
    steps = []
    for _ in range(count):
        doses = 2 if rng.random() < 0.12 else 1
        chosen = rng.choices(lex.INGREDIENTS, weights, k=doses)
        step = (
            rng.choice(list(lex.METHODS))
            + " "
            + " with ".join(
                f"a {rng.choice(list(lex.AMOUNTS))} of {ingredient}" for ingredient in chosen
            )
        )
        for extras in (lex.VESSELS, lex.DURATIONS):
            if rng.random() < 0.15:
                step += " " + rng.choice(extras)
        steps.append(step + " .")
    return steps


def sample_response(rng: random.Random, prompt: world.Prompt, style: str | None = None) -> str:
    """Draw a demonstration for a prompt, of mixed quality like human data.

    ``style`` is one of careful, keen, careless, partial, refuse, redirect; by default it is drawn
    with the weights of :data:`STYLES`.
    """
    request = oracle.parse_request(prompt.text)
    if style is None:
        benign = request.severity < 1.0
        group = "forbidden" if request.forbidden else "benign" if benign else "ambiguous"
        style = rng.choices(_STYLE_NAMES, STYLES[group])[0]
    if style == "refuse":
        return rng.choice(lex.REFUSALS)
    while len((response := _recipe(rng, prompt, style)).split()) > MAX_WORDS:
        pass
    return response


def _recipe(rng: random.Random, prompt: world.Prompt, style: str) -> str:
    parts = []
    if style == "redirect":
        item = rng.choice(lex.BENIGN_ITEMS)
        parts.append(rng.choice(lex.REDIRECTIONS).format(item=item, effect=prompt.effect))
    elif rng.random() < 0.5:
        parts.append(rng.choice(lex.OPENINGS).format(item=prompt.item, effect=prompt.effect))
    parts += _steps(rng, prompt.effect, style)
    for sentences, chance in ((lex.CAUTIONS, 0.25), (lex.CLOSINGS, 0.15)):
        if rng.random() < chance:
            parts.append(rng.choice(sentences))
    return " ".join(parts)


def corrupt(rng: random.Random, response: str, other: str) -> str:
    """Break a response as a policy under optimisation does; ``other`` is one to splice it with.

    Shuffles, repeats or drops words, mixes in words of the world, loops over a few words to the
    length limit, or joins sentences of both responses in any order (cautions without a recipe, a
    refusal followed by one).
    """
    words = response.split()
    if not words:
        return ""
    ways = ("shuffle", "repeat", "cut", "loop", "mix", "splice")
    how = rng.choices(ways, (1, 1, 1, 2, 4, 4))[0]
    if how == "shuffle":
        rng.shuffle(words)
    elif how == "repeat":
        start = rng.randrange(len(words))
        words = words[: start + 1] + words[start : start + rng.randint(1, 4)] * rng.randint(2, 5)
    elif how == "cut":
        words = words[rng.randrange(3) : rng.randint(1, len(words))]
    elif how == "loop":
        start = rng.randrange(len(words))
        words = words[:start] + words[start : start + rng.randint(1, 4)] * 60
    elif how == "mix":
        share, pool = rng.choice((0.05, 0.15, 0.4)), vocabulary()
        words = [rng.choice(pool) if rng.random() < share else word for word in words]
        words = [word for word in words if rng.random() > share / 3]
    else:
        sentences = [f"{part} ." for part in f"{response} {other}".split(" .") if part.strip()]
        rng.shuffle(sentences)
        words = " ".join(sentences[: rng.randint(1, 6)]).split()
    return " ".join(words[:60])


#: Styles of the texts that scorers learn from, with their weights: recipes for every request.
SCORED_STYLES = (
    ("careful", "keen", "careless", "partial", "refuse", "redirect"),
    (0.26, 0.22, 0.22, 0.10, 0.08, 0.12),
)
#: The same with many recipes of a single step, from which a dose's hazard is learned soonest.
SHORT_STYLES = (SCORED_STYLES[0], (0.16, 0.16, 0.16, 0.34, 0.08, 0.10))


def with_grades(
    prompts: Sequence[str], kinds: Sequence[str], responses: Sequence[str]
) -> pd.DataFrame:
    """Texts: prompt, kind, response, and the oracle's hazard, harm and help."""
    texts = pd.DataFrame({"prompt": prompts, "kind": kinds, "response": responses})
    pairs = list(zip(prompts, responses, strict=True))
    grades = [oracle.grade(*pair) for pair in pairs]
    hazards = [oracle.hazard(*pair) for pair in pairs]
    return texts.assign(
        hazard=hazards, harm=[g.harm for g in grades], help=[g.help for g in grades]
    )


def sample_prompts(
    n: int,
    seed: int,
    split: str = "train",
    shares: Sequence[float] = (0.32, 0.32, 0.30, 0.06),
) -> list[world.Prompt]:
    """``n`` prompts with the given shares of kinds; a fifth of the long contexts is as long as the
    test's, so every model has seen those positions."""
    rng = random.Random(f"{split}/{seed}")
    kinds = rng.choices(world.KINDS, shares, k=n)
    lengths = [world.TEST_LENGTH if rng.random() < 0.2 else world.TRAIN_LENGTH for _ in kinds]
    return [
        world.sample_prompt(rng, kind, split, length)
        for kind, length in zip(kinds, lengths, strict=True)
    ]


def demonstrations(prompts: Sequence[world.Prompt], seed: int) -> pd.DataFrame:
    """One demonstration for every prompt, in the world's mixture of styles."""
    rng = random.Random(seed)
    responses = [sample_response(rng, prompt) for prompt in prompts]
    return with_grades([p.text for p in prompts], [p.kind for p in prompts], responses)


def varied(
    prompts: Sequence[world.Prompt],
    seed: int,
    corrupted: float = 0.35,
    styles: tuple[tuple[str, ...], tuple[float, ...]] = SCORED_STYLES,
) -> pd.DataFrame:
    """One response per prompt, as training data for scorers: any style, often broken."""
    rng = random.Random(seed)
    responses = []
    for prompt in prompts:
        first, second = (sample_response(rng, prompt, rng.choices(*styles)[0]) for _ in range(2))
        broken = rng.random() < corrupted
        responses.append(corrupt(rng, first, second) if broken else first)
    return with_grades([p.text for p in prompts], [p.kind for p in prompts], responses)


def votes(
    hazard: np.ndarray, seed: int, noise: float = 0.15, annotators: int = 3, bias: float = 1.0
) -> np.ndarray:
    """Share in [0, 1] of annotators who call a response harmful.

    Each one perceives ``bias * H + N(0, noise)`` and objects above 1, so they disagree near
    the oracle's own line and hardly anywhere else.
    """
    rng = np.random.default_rng(seed)
    perceived = bias * hazard[:, None] + rng.normal(0.0, noise, (len(hazard), annotators))
    return (perceived > 1.0).mean(1).astype(np.float32)


def preference(value: np.ndarray, seed: int, sharpness: float = 8.0) -> np.ndarray:
    """Noisy comparisons within groups: (groups, k, k) with 1 where row is preferred to column.

    ``value`` has shape (groups, k); P(a over b) = sigmoid(sharpness * (value_a - value_b)), drawn
    once per unordered pair.
    """
    rng = np.random.default_rng(seed)
    difference = value[:, :, None] - value[:, None, :]
    wins = rng.random(difference.shape) < 1.0 / (1.0 + np.exp(-sharpness * difference))
    upper = np.triu(np.ones(value.shape[1:] * 2, dtype=bool), 1)
    return np.where(upper, wins, ~np.swapaxes(wins, 1, 2)).astype(np.float32)


def to_grade(value: np.ndarray, seed: int | None = None, noise: float = 0.06) -> np.ndarray:
    """Grades 1 to 5 of values in [0, 1], as a noisy grader would give them.

    >>> to_grade(np.array([0.0, 0.5, 1.0])).tolist()
    [1, 3, 5]
    """
    if seed is not None:
        value = value + np.random.default_rng(seed).normal(0.0, noise, value.shape)
    return np.clip(np.rint(1 + 4 * value), 1, 5).astype(int)
