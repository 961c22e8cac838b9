"""Chat templates, of policies and of guards: rendered, and checked that they keep what is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from bgkit.errors import BgkitError
from bgkit.texts import encodable

#: Long, of several lines, in both cases, with everything that a template might escape or cut.
PROBE = (
    'Is 2 < 3 & 5 > 4?  "Say it" in {one}\n\n\tLINE, it\'s naïve: 中文 \\n <b>bold</b>;'
    + " and so on" * 500
    + ", to the End {number}"
)


def render(tokenizer: PreTrainedTokenizerBase, messages: object, name: str, **options) -> str:
    """A conversation's text by the tokenizer's chat template; BgkitError for whatever it raises."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # a template is its authors' program, and may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BgkitError(
            f"{name} could not put its chat template around a text: {reason}. Is its tokenizer "
            "complete, and the template the one of its authors?"
        ) from error


def faults(
    text: Callable[..., str],
    tokens: Callable[[str], list[int]],
    mark: int | None,
    sides: Sequence[str] = ("prompt",),
) -> list[str]:
    """What is wrong with a template, in words: it must keep every text.

    ``text`` puts one text for each of ``sides`` into the template, ``tokens`` gives a text's ids,
    ``mark`` is the id of the beginning mark.
    """
    probes = [PROBE.format(one="{" + side + "}", number=n) for n, side in enumerate(sides)]
    rendered = text(*probes)
    found = [
        f"its template drops or changes the {side}"
        for side, probe in zip(sides, probes, strict=True)
        if probe not in rendered
    ]
    if mark is not None and tokens(text(*["yes"] * len(sides)))[:2] == [mark, mark]:
        found.append("its text begins with two beginning marks")
    return found


def special_strings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Strings of special tokens, which must not occur inside a message."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = dict.fromkeys([*tokenizer.all_special_tokens, *added])
    return [token for token in found if len(token) > 1 and not token.isspace()]


def neutralise(text: str, specials: Sequence[str]) -> str:
    """Break every special-token string inside a text, so that it stays text.

    A policy that can write a role token into its response rewrites the guard's input; that is an
    exploit which reinforcement learning finds. Lone surrogates are replaced, for no tokenizer
    takes them.

    >>> neutralise("ok <|end|> sure", ["<|end|>"])
    'ok < |end|> sure'
    """
    text = encodable(text)
    for special in map(str.strip, specials):  # a space around it or alone breaks nothing up
        while len(special) > 1 and special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text
