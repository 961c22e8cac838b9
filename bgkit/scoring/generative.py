"""Generative guards read at their verdict, and reward models that are decoders.

Nothing is generated. A guard's t is one forward pass: with the logits at the verdict position,
``t = sigmoid(logsumexp(unsafe words) - logsumexp(safe words))``. Only those words' rows of the
output matrix are kept: the rest of the vocabulary is never computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bgkit.errors import BgkitError
from bgkit.scoring.decoders import DecoderScorer
from bgkit.scoring.pairs import Head
from bgkit.scoring.protocols import DecoderReward, Verdict


class VerdictGuard(DecoderScorer):
    """A generative guard. ``strict`` counts grey verdicts (such as Controversial) as unsafe."""

    def __init__(self, model, tokenizer, protocol: Verdict, name: str, strict: bool = True) -> None:
        super().__init__(model, tokenizer, protocol, name)
        words = [protocol.safe, protocol.unsafe, protocol.grey]
        self.words = [self._word_ids(group) for group in words]  # safe, unsafe, grey
        if shared := set(self.words[0]) & set(self.words[1] + self.words[2]):
            word = tokenizer.decode([min(shared)])
            raise BgkitError(
                f"{name}: its safe and unsafe verdicts both begin with the token {word!r}, so one "
                "pass can not tell them apart; it is not the model that its protocol is for."
            )
        self.full_head = model.get_output_embeddings()
        self.chosen = [i for group in self.words for i in group]
        model.set_output_embeddings(Head(self.full_head, self.chosen))
        self._bad = np.repeat([False, True, strict], list(map(len, self.words)))

    def _word_ids(self, words: Sequence[str]) -> list[int]:
        """Ids of the tokens that begin a verdict, right after the text."""
        before = self.text("hello", "hello", self.calls[0])
        start = self.tokens([before])[0]
        found = []
        for word in words:
            row = self.tokens([before + word])[0]
            if row[: len(start)] != start or len(row) == len(start):
                raise BgkitError(
                    f"{self.name}: its tokenizer joins the verdict {word!r} with the text before "
                    "it, so there is no position to read it at; check the protocol's prefill."
                )
            found.append(row[len(start)])
        if self.protocol.any_case and words:
            wanted = {word.strip().lower() for word in words}
            pieces = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            found += [i for i, piece in enumerate(pieces) if piece.strip().lower() in wanted]
        return list(dict.fromkeys(found))

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        logits = self.outputs(prompts, responses).astype(np.float64)
        safe, unsafe = (
            np.logaddexp.reduce(logits[..., self._bad == kind], axis=-1) for kind in (False, True)
        )
        t = 1.0 / (1.0 + np.exp(np.clip(safe - unsafe, -700, 700)))
        return t.max(axis=0).astype(np.float32)

    @torch.inference_mode()
    def verdict_mass(self, prompt: str, response: str) -> float:
        """Probability of all verdict words together, in the whole vocabulary, for one pair."""
        head = self.model.get_output_embeddings()
        self.model.set_output_embeddings(self.full_head)
        try:
            row = self.rows([prompt], [response], self.calls[0])[0]
            ids = torch.tensor([row], device=self.model.device)
            logits = self.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        finally:
            self.model.set_output_embeddings(head)
        return float(torch.softmax(logits, -1)[self.chosen].sum())


class RewardDecoder(DecoderScorer):
    """A reward model that is a decoder with one output at the last token."""

    def __init__(self, model, tokenizer, protocol: DecoderReward, name: str) -> None:
        if model.config.num_labels != 1 or not hasattr(model, "score"):
            raise BgkitError(
                f"{name} is of the kind {model.config.model_type} with {model.config.num_labels} "
                "labels, but its protocol is for decoders with one score; it is another kind."
            )
        super().__init__(model, tokenizer, protocol, name)
        self.head = Head(model.score)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, without a beginning mark: these models were trained on texts without one."""
        rows, mark = super().tokens(texts), self.tokenizer.bos_token_id
        return [row[1:] if row and row[0] == mark else row for row in rows]

    def read(self, **inputs) -> torch.Tensor:
        """The score at every position."""
        return self.head(self.model.base_model(**inputs).last_hidden_state)

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return self.outputs(prompts, responses)[0, :, 0]
