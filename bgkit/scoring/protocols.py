"""How published guards and reward models are asked, and where they answer.

A protocol is an entry of ``data/protocols.yaml``; adding a model means adding one. What could not
be confirmed without the weights is what the self-test at load
(:func:`bgkit.scoring.guards.self_test`) is for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.testbed.store import read_data


@dataclass(frozen=True)
class Template:
    """What is asked of a decoder: text to the position where it answers, by its reward head.

    ``text`` is a raw template with {prompt} and {response}; empty: the tokenizer's chat template
    on [user, assistant], called with ``chat`` as keywords. ``prefill`` is appended. ``parts``
    passes message contents as lists of text parts, ``final_user`` adds a message. Each of
    ``guidelines`` is one call of the template, and the largest score counts. ``marks`` are further
    strings that must not come from a user or a policy. ``models`` on the hub follow the protocol.
    """

    text: str = ""
    chat: Mapping = field(default_factory=dict)
    prefill: str = ""
    parts: bool = False
    final_user: str = ""
    guidelines: tuple[str, ...] = ("",)
    marks: tuple[str, ...] = ()
    max_length: int = 8192
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict(Template):
    """A generative guard, and the words that stand for the verdict in the next token.

    ``grey`` words count as unsafe where the guard is asked strictly, and as safe where loosely.
    ``any_case`` takes every token that reads like a word in any case and spacing.
    """

    safe: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    grey: tuple[str, ...] = ()
    any_case: bool = False


@dataclass(frozen=True)
class Encoder:
    """A sequence classifier read from its logits.

    ``pair`` passes ``tokenizer(prompt, response)``, else the response alone. ``index`` is the place
    of the label that is read: by softmax over all, by sigmoid of its own logit, or raw (reward
    models). ``labels`` 0 takes any number of them and finds the place by their words or, with
    ``unsafe``, by name (:func:`bgkit.scoring.encoders.with_labels`).
    """

    labels: int = 0
    index: int = 1
    read: str = "softmax"
    pair: bool = True
    unsafe: str = ""
    max_length: int = 512
    models: tuple[str, ...] = ()


_KINDS = {"verdict": Verdict, "encoder": Encoder, "decoder": Template}


def _protocol(kind: str, **fields) -> Template | Encoder:
    return _KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


#: name -> protocol
GUARDS, UTILITIES = (
    {name: _protocol(**entry) for name, entry in table.items()}
    for table in map(read_data("protocols.yaml").get, ("guards", "utilities"))
)
#: A score without a probability.
REWARD = Encoder(labels=1, index=0, read="raw")


def find(group: str, name: str | os.PathLike) -> tuple[Template | Encoder, str]:
    """The protocol of a guard or utility, and where the model is.

    ``name`` is a hub name that the table lists (a revision may stand behind it), or
    ``protocol=place``; for guards, moreover, ``unsafe:LABEL=place``. Any other name is that of a
    sequence classifier, and so is a path, which begins with ``/``, ``.`` or ``~``. Raises
    BgkitError for an unknown protocol.

    >>> find("guard", "Qwen/Qwen3Guard-Gen-4B")[0].prefill
    'Safety:'
    >>> find("guard", "llama-guard-3=/models/guard")[1], find("guard", "default")[0].read
    ('/models/guard', 'softmax')
    >>> find("guard", "unsafe:toxic=/models/mine")[0].unsafe
    'toxic'
    """
    checks.require_type("a name or a path", model=name)
    name = os.fspath(name)
    table, usual = (GUARDS, Encoder()) if group == "guard" else (UTILITIES, REWARD)
    protocol, named, place = name.partition("=")
    if not named or name.startswith(("/", ".", "~")):
        repository = name.split("@")[0]
        return next((p for p in table.values() if repository in p.models), usual), name
    if group == "guard" and protocol.startswith("unsafe:"):
        return Encoder(unsafe=protocol.removeprefix("unsafe:")), place
    if protocol not in table:
        raise BgkitError(
            f"There is no protocol {protocol!r} (in {name!r}); known: {', '.join(table)}."
        )
    return table[protocol], place
