"""Sequence classifiers as scorers: equal pairs once, the rest in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bgkit.errors import BgkitError
from bgkit.protocols import Encoder
from bgkit.scoring import cheapest_batches, neutralise, pass_cost

#: Padded tokens in one forward pass, by device; a CPU is slower with more.
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65_536}


def probability(logits: torch.Tensor, index: int) -> torch.Tensor:
    """softmax(logits)[:, index] for logits (n, labels), exact near 0 and 1."""
    others = [i for i in range(logits.shape[1]) if i != index]
    return torch.sigmoid(logits[:, index] - torch.logsumexp(logits[:, others], dim=1))


#: How (n, labels) logits become (n,) scores; ``index`` is the label that is read.
READS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "softmax": probability,
    "sigmoid": lambda logits, index: torch.sigmoid(logits[:, index]),
    "raw": lambda logits, index: logits[:, index],
}


class EncoderScorer:
    """Scores pairs, or responses alone, with a sequence classification model.

    ``truncated`` counts responses that were cut to the model's maximum length (only responses are
    ever cut). ``budget`` bounds the padded tokens of a forward pass; it is halved when memory runs
    out, and stays so. ``computed`` counts tokens that went through the model, padding included.
    """

    def __init__(self, model, tokenizer, protocol: Encoder, name: str) -> None:
        self.model, self.tokenizer, self.protocol, self.name = model, tokenizer, protocol, name
        self.truncated = self.computed = 0
        positions = getattr(model.config, "max_position_embeddings", protocol.max_length)
        self.max_length = min(tokenizer.model_max_length, positions)
        if tokenizer.model_max_length > 1_000_000:  # "unknown", as transformers writes it
            self.max_length = min(positions, protocol.max_length)
        self.budget = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])
        self._cost = pass_cost(model)
        self._specials = [s for s in tokenizer.all_special_tokens if len(s) > 1]

    def _tokens(self, prompts: list[str], responses: list[str], **options) -> list[dict]:
        """One unpadded encoding per pair (or response)."""
        texts = (prompts, responses) if self.protocol.pair else (responses,)
        encoded = self.tokenizer(*texts, **options)
        names = [key for key in self.tokenizer.model_input_names if key in encoded]
        columns = [encoded[key] for key in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[dict]:
        """Encodings, the response cut where the pair is too long."""
        clean = [
            [neutralise(text, self._specials) for text in side] for side in (prompts, responses)
        ]
        rows = self._tokens(*clean)
        for i, row in enumerate(rows):
            if len(row["input_ids"]) > self.max_length:
                rows[i] = self._cut(clean[0][i], clean[1][i])
        return rows

    def _cut(self, prompt: str, response: str) -> dict:
        fixed = len(self._tokens([prompt], [""])[0]["input_ids"])
        if fixed >= self.max_length:
            raise BgkitError(
                f"A prompt of {fixed} tokens leaves {self.name} (at most {self.max_length} tokens) "
                "no room for a response; shorten the prompt or use a model with a longer context."
            )
        self.truncated += 1
        side = "only_second" if self.protocol.pair else True
        return self._tokens([prompt], [response], truncation=side, max_length=self.max_length)[0]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 scores.

        Raises BgkitError if a prompt alone exceeds the model's length, or memory does not hold a
        single text.
        """
        pairs = list(zip(prompts, responses, strict=True))
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        unique = list(dict.fromkeys(pairs))
        rows = self._encode([p for p, _ in unique], [r for _, r in unique])
        scores = np.empty(len(unique), dtype=np.float32)
        self._score(rows, np.arange(len(rows)), scores)
        place = {pair: i for i, pair in enumerate(unique)}
        return scores[[place[pair] for pair in pairs]]

    def _score(self, rows: list[dict], numbers: np.ndarray, scores: np.ndarray) -> None:
        """Fill ``scores`` for some rows; with half the budget where memory runs out."""
        lengths = [len(rows[i]["input_ids"]) for i in numbers]
        for batch in cheapest_batches(lengths, self.budget, self._cost):
            chosen = numbers[batch]
            try:
                scores[chosen] = self._forward([rows[i] for i in chosen])
                continue
            except (torch.OutOfMemoryError, MemoryError):
                longest = max(lengths[i] for i in batch)
            if len(chosen) == 1:
                raise BgkitError(
                    f"{self.name} has no memory for one text of {longest} tokens on "
                    f"{self.model.device}; free memory, or score on another device."
                )
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            self.budget = max(1, min(self.budget, longest * len(chosen)) // 2)
            self._score(rows, chosen, scores)

    @torch.inference_mode()
    def _forward(self, rows: list[dict]) -> np.ndarray:
        inputs = self.tokenizer.pad(rows, return_tensors="pt").to(self.model.device)
        self.computed += inputs["input_ids"].numel()
        logits = self.model(**inputs).logits.float()
        return READS[self.protocol.read](logits, self.protocol.index).cpu().numpy()
