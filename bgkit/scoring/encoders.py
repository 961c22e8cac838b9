"""Sequence classifiers as scorers, in batches of like length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from bgkit.errors import BgkitError
from bgkit.models.batches import OUT_OF_MEMORY, cheapest_batches, pass_cost
from bgkit.models.templates import special_strings
from bgkit.scoring.labels import meaning, unsafe_column
from bgkit.scoring.pairs import Head, PairScorer, places_of
from bgkit.scoring.protocols import Encoder
from bgkit.scoring.scorer import check_room

#: Padded tokens in one forward pass, by device; a CPU is slower with more.
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65_536}
UNKNOWN = 1_000_000  # a tokenizer's length beyond this one means that it knows none
LONGEST_DECODER = 16_384  # of decoders whose tokenizer knows none


def probability(logits: torch.Tensor, index: int) -> torch.Tensor:
    """Softmax of (n, labels) logits at the label ``index``, exact near 0 and 1."""
    others = [i for i in range(logits.shape[1]) if i != index]
    return torch.sigmoid(logits[:, index] - torch.logsumexp(logits[:, others], dim=1))


#: How (n, labels) logits become (n,) scores of the label ``index``.
READS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "softmax": probability,
    "sigmoid": lambda logits, index: torch.sigmoid(logits[:, index]),
    "raw": lambda logits, index: logits[:, index],
}


def with_labels(protocol: Encoder, config: object, name: str) -> Encoder:
    """A protocol with the place of the label that a classifier's own config calls unsafe.

    Heads for several labels at once (``problem_type``) are read by sigmoid; a single logit, too,
    where its label or the user says that it means unsafe. Raises BgkitError for another number of
    labels than the protocol's, and where it can not be told which one means unsafe.
    """
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]  # as its logits lie
    problem = getattr(config, "problem_type", None)
    place = name.split(" ", 1)[-1].removeprefix(f"unsafe:{protocol.unsafe}=")
    several = len(labels) > 1
    if protocol.labels == len(labels):
        return protocol
    if protocol.labels:
        raise BgkitError(
            f"{name} has {len(labels)} labels, but {protocol.labels} are needed; it is another "
            "kind of model."
        )
    if not protocol.unsafe and (problem == "regression" or not (several or meaning(labels[0]))):
        raise BgkitError(
            f"{name} has {len(labels)} labels whose outputs are not known to be a probability's "
            "logits (a reward model's are not); if they are, name the unsafe one: "
            f"unsafe:{labels[0]}={place}."
        )
    index = 0
    if several or protocol.unsafe:
        index = unsafe_column(labels, protocol.unsafe or None, f"unsafe:{{}}={place}")
    alone = problem == "multi_label_classification" or not several
    return replace(protocol, index=index, read="sigmoid" if alone else "softmax")


class EncoderScorer(PairScorer):
    """Scores pairs, or responses alone, with a sequence classification model.

    Decoders are read by their head, in float32, at each row's last token; they need no padding
    token. ``label`` names what is read as unsafe; empty for a reward model.
    """

    def __init__(self, model, tokenizer, protocol: Encoder, name: str) -> None:
        super().__init__(model, tokenizer, name, special_strings(tokenizer))
        config = model.config.get_text_config()
        self.protocol = protocol = with_labels(protocol, model.config, name)
        self.label = "" if protocol.read == "raw" else str(model.config.id2label[protocol.index])
        decodes = hasattr(model, "score") and not config.is_encoder_decoder
        self.head = Head(model.score) if decodes else None
        known = tokenizer.model_max_length
        if known > UNKNOWN:
            known = LONGEST_DECODER if decodes else protocol.max_length
        self.max_length = min(known, places_of(model) or known)
        self._cost = pass_cost(model)
        taken = inspect.signature((model.base_model if decodes else model).forward).parameters
        unused = {"token_type_ids"} if getattr(config, "type_vocab_size", 2) < 2 else set()
        self._inputs = taken.keys() - unused
        pad = tokenizer.pad_token_id
        self._pad = 0 if pad is None or pad >= config.vocab_size else pad  # any: it is masked
        self.slots = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])

    def _tokens(self, prompts: Sequence[str], responses: Sequence[str], **options) -> list[dict]:
        """One unpadded encoding per pair (or response)."""
        texts = (prompts, responses) if self.protocol.pair else (responses,)
        encoded = self.tokenizer(*texts, verbose=False, return_attention_mask=True, **options)
        columns = {name: rows for name, rows in encoded.items() if name in self._inputs}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[dict]:
        """Encodings without padding, the response cut where the pair is too long.

        Raises BgkitError for a prompt that leaves no room for a response.
        """
        clean = self._clean(prompts), self._clean(responses)
        rows = self._tokens(*clean)
        for i, row in enumerate(rows):
            if len(row["input_ids"]) > self.max_length:
                check_room(self, [prompts[i]])
                side = "only_second" if self.protocol.pair else True
                options = {"truncation": side, "max_length": self.max_length}
                (rows[i],) = self._tokens([clean[0][i]], [clean[1][i]], **options)
                self.cut.add(hash((prompts[i], responses[i])))
        return rows

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt with an empty response."""
        rows = self._tokens(self._clean(prompts), [""] * len(prompts))
        return [len(row["input_ids"]) for row in rows]

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        rows = self.encode(prompts, responses)
        longest = max(len(row["input_ids"]) for row in rows)
        return self.batched(f"scoring by {self.name}", len(rows), longest, partial(self._of, rows))

    def _of(self, rows: list[dict], left: list[int]) -> Iterator[dict[int, np.float32]]:
        """row -> score, of the rows that are left, batch by batch."""
        lengths = [max(1, len(rows[i]["input_ids"])) for i in left]
        try:
            slots = self.slots if len(rows) == 1 or self.pads else 1
            for batch in cheapest_batches(lengths, slots, self._cost):
                chosen = [left[i] for i in batch]
                yield dict(zip(chosen, self._forward([rows[i] for i in chosen]), strict=True))
        except OUT_OF_MEMORY:
            raise
        except (RuntimeError, IndexError, ValueError) as error:  # of the model's own code
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BgkitError(
                f"{self.name} could not score a text: {reason}. Do its tokenizer and its "
                "model belong together?"
            ) from error

    @cached_property
    def pads(self) -> bool:
        """Whether padding leaves the model's outputs as they are; else rows go through it alone.

        XLNet reads the last place, ConvBERT and FNet mix places, padding or not: found by trying.
        """
        rows = self._tokens(["a"] * 2, ["b", "b c d e f g h " * 4])
        rows = [{key: row[key][: self.max_length] for key in row} for row in rows]
        try:
            alone, together = self._logits(rows[:1]), self._logits(rows)[:1]
        except (ValueError, RuntimeError):  # "Cannot handle batch sizes > 1"
            return False
        near = 2e-5 if self.model.dtype == torch.float32 else 0.1  # bfloat16 has three digits
        return torch.allclose(alone, together, rtol=near, atol=near)

    def _forward(self, rows: list[dict]) -> np.ndarray:
        self.computed += len(rows) * max(len(row["input_ids"]) for row in rows)
        return READS[self.protocol.read](self._logits(rows), self.protocol.index).cpu().numpy()

    @torch.inference_mode()
    def _logits(self, rows: list[dict]) -> torch.Tensor:
        """(n, labels) float32 logits of encodings, padded on the right whatever the tokenizer."""
        inputs = {
            name: pad_sequence(
                [torch.tensor(row[name], dtype=torch.long) for row in rows],
                batch_first=True,
                padding_value=self._pad if name == "input_ids" else 0,
            ).to(self.model.device)
            for name in rows[0]
        }
        if self.head is None:
            return self.model(**inputs).logits.float()
        hidden = self.model.base_model(**inputs).last_hidden_state
        last = [len(row["input_ids"]) - 1 for row in rows]
        return self.head(hidden[list(range(len(rows))), last])
