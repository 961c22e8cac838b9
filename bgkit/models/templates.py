"""Chat templates of policies and guards: rendering, and checks that they preserve texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from bgkit.errors import BgkitError, reason_of
from bgkit.texts import replace_surrogates

#: A long text of several lines with everything that a template might escape or cut.
PROBE = (
    'Is 2 < 3 & 5 > 4?  "Say it" in {one}\n\n\tLINE, it\'s naïve: 中文 \\n <b>bold</b>;'
    + " and so on" * 500
    + ", to the End {number}"
)


def render(tokenizer: PreTrainedTokenizerBase, messages: object, name: str, **options) -> str:
    """Apply the tokenizer's chat template to a conversation; BgkitError for any of its errors."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # templates are programs and may raise anything
        raise BgkitError(
            f"{name} could not apply its chat template: {reason_of(error)}. Is its tokenizer "
            "complete, and its template the original one?"
        ) from error


def faults(
    text: Callable[..., str],
    tokens: Callable[[str], list[int]],
    mark: int | None,
    sides: Sequence[str] = ("prompt",),
) -> list[str]:
    """Descriptions of a template's faults: it must preserve every text.

    ``text`` renders one text for each of ``sides``, ``tokens`` returns a text's ids, ``mark`` is
    the id of the BOS token.
    """
    probes = [PROBE.format(one="{" + side + "}", number=n) for n, side in enumerate(sides)]
    rendered = text(*probes)
    messages = [
        f"its template drops or changes the {side}"
        for side, probe in zip(sides, probes, strict=True)
        if probe not in rendered
    ]
    if mark is not None and tokens(text(*["yes"] * len(sides)))[:2] == [mark, mark]:
        messages.append("its text begins with two BOS tokens")
    return messages


def special_strings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Strings of special tokens, which must not occur inside a message."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    specials = dict.fromkeys([*tokenizer.all_special_tokens, *added])
    return [token for token in specials if len(token) > 1 and not token.isspace()]


def neutralise(text: str, specials: Sequence[str]) -> str:
    """Break up every special-token string inside a text, so it is tokenized as text.

    A policy that can write a role token into its response rewrites the guard's input, an exploit
    that reinforcement learning finds. Lone surrogates, which tokenizers reject, are replaced.

    >>> neutralise("ok <|end|> sure", ["<|end|>"])
    'ok < |end|> sure'
    """
    text = replace_surrogates(text)
    for special in map(str.strip, specials):  # spaces around a token must not count
        while len(special) > 1 and special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text
