"""How published guards and reward models are prompted, and where their answer is read.

A protocol is an entry of ``data/protocols.yaml``; to add a model, add an entry. The self-test at
load (:func:`bgkit.scoring.guards.self_test`) checks what cannot be confirmed without the weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bgkit import checks
from bgkit.data import read_data
from bgkit.errors import BgkitError


@dataclass(frozen=True)
class Template:
    """The text that a decoder reads, up to the position where its reward head answers.

    ``text`` is a raw template with {prompt} and {response}; if empty, the tokenizer's chat template
    is applied to [user, assistant], with the keywords ``chat``. ``prefill`` is appended. ``parts``
    passes message contents as lists of text parts, ``final_user`` adds a message. The template is
    filled once for each of ``guidelines``, and the largest score counts. ``marks`` are further
    strings that must not come from a user or a policy. ``models`` are names on the hub.
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
    """A generative guard whose verdict is one of some words in the next token.

    ``grey`` words count as unsafe in strict mode and as safe otherwise. ``any_case`` adds every
    token that equals a word up to case and spaces.
    """

    safe: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    grey: tuple[str, ...] = ()
    any_case: bool = False


@dataclass(frozen=True)
class Encoder:
    """A sequence classifier read from its logits.

    ``pair`` passes ``tokenizer(prompt, response)``, otherwise the response alone. ``index`` is the
    label that is ``read``: by softmax over all, by sigmoid of its own logit, or raw (reward
    models). ``labels`` is their number; if 0, any, and the index is found from their words or, with
    ``unsafe``, by name (:func:`bgkit.scoring.encoders.find_unsafe_label`).
    """

    labels: int = 0
    index: int = 1
    read: str = "softmax"
    pair: bool = True
    unsafe: str = ""
    max_length: int = 512
    models: tuple[str, ...] = ()


def _protocol(kind: str, **fields) -> Template | Encoder:
    protocol = {"verdict": Verdict, "encoder": Encoder, "decoder": Template}[kind]
    return protocol(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


#: name -> protocol
GUARDS, UTILITIES = (
    {name: _protocol(**entry) for name, entry in table.items()}
    for table in map(read_data("protocols.yaml").get, ("guards", "utilities"))
)
#: A reward model: one score, which is no probability.
REWARD = Encoder(labels=1, index=0, read="raw")


def find(group: str, name: str | os.PathLike) -> tuple[Template | Encoder, str]:
    """The protocol of a guard or utility (``group``), and the model's folder or hub name.

    ``name`` is a hub name from the table, with or without a revision, or ``PROTOCOL=FOLDER``; for
    guards also ``unsafe:LABEL=FOLDER``. Any other name, and any path that begins with ``/``, ``.``
    or ``~``, is taken for a sequence classifier. Raises BgkitError for an unknown protocol.

    >>> find("guard", "Qwen/Qwen3Guard-Gen-4B")[0].prefill
    'Safety:'
    >>> find("guard", "llama-guard-3=/models/guard")[1], find("guard", "default")[0].read
    ('/models/guard', 'softmax')
    >>> find("guard", "unsafe:toxic=/models/mine")[0].unsafe
    'toxic'
    """
    checks.require_type("a name or a path", model=name)
    name = os.fspath(name)
    table, default = (GUARDS, Encoder()) if group == "guard" else (UTILITIES, REWARD)
    protocol, separator, place = name.partition("=")
    if not separator or name.startswith(("/", ".", "~")):
        repository = name.split("@")[0]
        return next((p for p in table.values() if repository in p.models), default), name
    if group == "guard" and protocol.startswith("unsafe:"):
        return Encoder(unsafe=protocol.removeprefix("unsafe:")), place
    if protocol not in table:
        raise BgkitError(
            f"There is no protocol {protocol!r} (in {name!r}); known: {', '.join(table)}."
        )
    return table[protocol], place
