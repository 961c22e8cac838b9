"""What all models that score pairs of prompt and response have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bgkit.errors import BgkitError, reason_of
from bgkit.models.batches import OUT_OF_MEMORY, pass_cost
from bgkit.models.templates import neutralise
from bgkit.progress import phase
from bgkit.scoring.scorer import check_prompts


class Head(torch.nn.Module):
    """An output layer in float32, or only its rows for some tokens.

    bfloat16 would round a logit of 20 to steps of 0.125.
    """

    def __init__(self, layer: torch.nn.Module, rows: Sequence[int] | None = None) -> None:
        super().__init__()
        rows = slice(None) if rows is None else torch.tensor(rows, device=layer.weight.device)
        bias = getattr(layer, "bias", None)
        self.register_buffer("weight", layer.weight.detach()[rows].float())
        self.register_buffer("bias", None if bias is None else bias.detach()[rows].float())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)


def max_positions(model: torch.nn.Module) -> float:
    """Number of token positions of a model; infinite where its config does not say."""
    config = model.config.get_text_config()
    limits = [getattr(config, key, 0) or 0 for key in ("max_position_embeddings", "max_seq_len")]
    return min((limit for limit in limits if limit > 0), default=math.inf)


class PairScorer:
    """A transformers model as a scorer; each distinct pair is computed once.

    A pair has at most ``max_length`` tokens; longer responses are truncated, prompts never.
    ``truncated`` holds the hashes of such pairs. The strings in ``specials`` are broken up inside
    a text. ``calls`` are the guidelines that a pair is scored with. ``computed`` counts the tokens
    that went through the model, padding included, and a pass costs as much as ``cost`` of them.
    ``slots`` limits those of a pass; it is halved for good when memory runs out. A subclass has
    ``_tokenise``, ``_truncate`` (of one pair) and ``_scores`` (of distinct pairs).
    """

    calls: Sequence[str] = ("",)

    def __init__(
        self, model, tokenizer, name: str, specials: Sequence[str], max_length: int, slots: int
    ) -> None:
        self.model, self.tokenizer, self.name, self.specials = model, tokenizer, name, specials
        self.max_length, self.slots = min(max_length, max_positions(model)), slots
        self.cost = pass_cost(model)
        self.truncated: set[int] = set()
        self.computed = 0

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 scores.

        Raises BgkitError for a prompt that leaves no room for a response, and if memory does not
        hold a single text.
        """
        pairs = list(zip(prompts, responses, strict=True))
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        place = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        return self._scores(*zip(*place, strict=True))[[place[pair] for pair in pairs]]

    def encode(self, prompts: Sequence[str], responses: Sequence[str], call: str = "") -> list:
        """Encodings of pairs without padding, the response truncated where a pair is too long.

        Raises BgkitError for a prompt that leaves no room for a response.
        """
        texts = self._clean(prompts), self._clean(responses)
        rows = self._tokenise(*texts, call)
        for i, (row, *pair) in enumerate(zip(rows, *texts, strict=True)):
            if self._length(row) > self.max_length:
                check_prompts(self, [prompts[i]])
                rows[i] = self._truncate(*pair, call)
                self.truncated.add(hash((prompts[i], responses[i])))
        return rows

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt with an empty response, by the longest of the calls."""
        texts = self._clean(prompts), [""] * len(prompts)
        rows = (map(self._length, self._tokenise(*texts, call)) for call in self.calls)
        return [max(lengths) for lengths in zip(*rows, strict=True)]

    def batched(self, title: str, rows: Sequence, passes: Callable) -> np.ndarray:
        """Float32 outputs of encoded rows, in their order.

        ``passes(left)`` takes the numbers of the rows that are left and yields {row: outputs}; it
        is called again when memory ran out. Raises BgkitError if memory does not hold one row, and
        for errors of the model's own code.
        """
        results: dict[int, np.ndarray] = {}
        with phase(title, len(rows)) as progress:
            while len(results) < len(rows):
                try:
                    for outputs in passes([i for i in range(len(rows)) if i not in results]):
                        results |= outputs
                        progress.done = len(results)
                except OUT_OF_MEMORY as error:
                    if self.slots <= 1:
                        longest = max(map(self._length, rows))
                        raise BgkitError(
                            f"{self.name} has no memory for one text of {longest} tokens on "
                            f"{self.model.device}; shorten the prompts, free memory, or load it in "
                            "8 bits."
                        ) from error
                    self.slots //= 2
                    torch.cuda.empty_cache()  # does nothing without a GPU
                except (RuntimeError, IndexError, ValueError) as error:
                    raise BgkitError(
                        f"{self.name} could not score a text: {reason_of(error)}. Do its tokenizer "
                        "and its model belong together?"
                    ) from error
        return np.stack([results[i] for i in range(len(rows))]).astype(np.float32)

    _length = staticmethod(len)

    def _clean(self, texts: Sequence[str]) -> list[str]:
        return [neutralise(text, self.specials) for text in texts]
