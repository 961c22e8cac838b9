"""What all models that score pairs of prompt and response have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from bgkit.errors import BgkitError
from bgkit.models.batches import OUT_OF_MEMORY
from bgkit.models.templates import neutralise
from bgkit.progress import phase


class Head(torch.nn.Module):
    """An output layer in float32, or the rows of it that belong to some words.

    bfloat16 would round a logit of 20 to steps of 0.125.
    """

    def __init__(self, layer: torch.nn.Module, rows: Sequence[int] | None = None) -> None:
        super().__init__()
        chosen = slice(None) if rows is None else torch.tensor(rows, device=layer.weight.device)
        bias = getattr(layer, "bias", None)
        self.register_buffer("weight", layer.weight.detach()[chosen].float())
        self.register_buffer("bias", None if bias is None else bias.detach()[chosen].float())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of the words."""
        return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)


def places_of(model: torch.nn.Module) -> int:
    """Tokens that a model has positions for; 0 where it does not say."""
    config = model.config.get_text_config()
    places = [getattr(config, k, 0) or 0 for k in ("max_position_embeddings", "max_seq_len")]
    return min((most for most in places if most > 0), default=0)


class PairScorer:
    """A transformers model as a scorer: each different pair is computed once.

    Responses (only they) are cut to ``max_length`` tokens; ``cut`` holds the hashes of their pairs.
    ``specials`` are strings that are broken up inside a text. ``computed`` counts the tokens that
    went through the model, padding included. ``slots`` bounds those of one pass; it is halved when
    memory runs out, and stays so. Of each kind are ``lengths(prompts)``, the tokens of each prompt
    with an empty response, and ``_scores``, which is given pairs that are all different.
    """

    slots: int

    def __init__(self, model, tokenizer, name: str, specials: Sequence[str]) -> None:
        self.model, self.tokenizer, self.name, self.specials = model, tokenizer, name, specials
        self.cut: set[int] = set()
        self.computed = 0

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 scores.

        Raises BgkitError for a prompt that leaves no room for a response, and where memory does
        not hold a single text.
        """
        pairs = list(zip(prompts, responses, strict=True))
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        place = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        return self._scores(*zip(*place, strict=True))[[place[pair] for pair in pairs]]

    def batched(
        self,
        title: str,
        count: int,
        longest: int,
        passes: Callable[[list[int]], Iterable[dict[int, np.ndarray]]],
    ) -> np.ndarray:
        """Float32 outputs of ``count`` rows, the ``longest`` of so many tokens, in their order.

        ``passes`` gives those of the rows that are left, by row; it is asked again where memory ran
        out. Raises BgkitError if memory does not hold a single row.
        """
        found: dict[int, np.ndarray] = {}
        device = self.model.device
        with phase(title, count) as shown:
            while len(found) < count:
                try:
                    for outputs in passes([i for i in range(count) if i not in found]):
                        found |= outputs
                        shown.done = len(found)
                except OUT_OF_MEMORY as error:
                    if self.slots <= 1:
                        raise BgkitError(
                            f"{self.name} has no memory for one text of {longest} tokens on "
                            f"{device}; shorten the prompts, free memory, or load it in 8 bits."
                        ) from error
                    self.slots //= 2
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
        return np.stack([found[i] for i in range(count)]).astype(np.float32)

    def _clean(self, texts: Sequence[str]) -> list[str]:
        return [neutralise(text, self.specials) for text in texts]
