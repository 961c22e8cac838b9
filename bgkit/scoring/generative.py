"""Decoders as scorers: generative guards read at their verdict, reward models at their last token.

Nothing is generated. A guard's t is one forward pass: with the logits at the verdict position,
``t = sigmoid(logsumexp(unsafe words) - logsumexp(safe words))``. Only those words' rows of the
output matrix are kept: the rest of the vocabulary is never computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bgkit.errors import BgkitError
from bgkit.models import templates
from bgkit.scoring.decoders import Decoder
from bgkit.scoring.pairs import Head, PairScorer
from bgkit.scoring.protocols import DecoderReward, Template, Verdict


class DecoderScorer(PairScorer):
    """What guards and reward models that are decoders share: text in, last outputs out."""

    def __init__(self, model, tokenizer, protocol: Template, name: str) -> None:
        added = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
        super().__init__(model, tokenizer, name, [*added, *protocol.marks])
        self.protocol, self.calls = protocol, protocol.guidelines
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 30)
        self.max_length = min(protocol.max_length, positions, tokenizer.model_max_length)
        # one per call of the template, for each keeps its own template's cache
        self.decoders = [Decoder(model, self._read, name) for _ in self.calls]

    @property
    def computed(self) -> int:
        """Tokens that went through the model so far, padding included."""
        return sum(decoder.computed for decoder in self.decoders)

    def _read(self, **inputs) -> torch.Tensor:
        """Outputs (rows, positions, k) in float32 at every position."""
        return self.model(**inputs).logits

    def text(self, prompt: str, response: str, guideline: str = "") -> str:
        """The text that the model reads, up to the position of its answer."""
        asked = self.protocol
        if asked.text:
            return asked.text.format(prompt=prompt, response=response) + asked.prefill
        said = [("user", prompt), ("assistant", response), ("user", asked.final_user)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if asked.parts else text}
            for role, text in said[: 3 if asked.final_user else 2]
        ]
        options = {**asked.chat, **({"guideline": guideline} if guideline else {})}
        return templates.render(self.tokenizer, messages, self.name, **options) + asked.prefill

    def rows(
        self, prompts: Sequence[str], responses: Sequence[str], guideline: str = ""
    ) -> list[list[int]]:
        """Token ids of each pair's text, the response cut where the text is too long."""
        clean = self._clean(prompts), self._clean(responses)
        rows = self.tokens([self.text(p, r, guideline) for p, r in zip(*clean, strict=True)])
        for i, row in enumerate(rows):
            if len(row) > self.max_length:
                rows[i] = self._cut(clean[0][i], clean[1][i], guideline)
                self.cut.add(hash((prompts[i], responses[i])))
        return rows

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of templated texts. The template holds the beginning mark: none is added."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _cut(self, prompt: str, response: str, guideline: str) -> list[int]:
        """Shorten the response until the text fits; its characters go from the end."""
        room = self.max_length - len(self.tokens([self.text(prompt, "", guideline)])[0])
        if room <= 0:
            raise self._no_room(self.max_length - room)
        ids = self.tokens([response])[0][:room]
        while True:  # a cut text may have more tokens than its part of the whole one
            row = self.tokens([self.text(prompt, self.tokenizer.decode(ids), guideline)])[0]
            if len(row) <= self.max_length or not ids:
                return row
            ids = ids[: len(ids) - max(1, len(row) - self.max_length)]

    def outputs(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(calls, n, k) float32 outputs at the last position."""
        found = [
            decoder.last(self.rows(prompts, responses, guideline), prompts)
            for decoder, guideline in zip(self.decoders, self.calls, strict=True)
        ]
        return np.stack(found)


class VerdictGuard(DecoderScorer):
    """A generative guard. ``strict`` counts grey verdicts (such as Controversial) as unsafe."""

    def __init__(self, model, tokenizer, protocol: Verdict, name: str, strict: bool = True) -> None:
        super().__init__(model, tokenizer, protocol, name)
        words = [protocol.safe, protocol.unsafe, protocol.grey]
        self.words = [self._word_ids(group) for group in words]  # safe, unsafe, grey
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

    def _read(self, **inputs) -> torch.Tensor:
        return self.head(self.model.base_model(**inputs).last_hidden_state)

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return self.outputs(prompts, responses)[0, :, 0]
