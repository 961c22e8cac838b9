"""Sequence classifiers as scorers, in batches of similar length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from bgkit.errors import BgkitError
from bgkit.models.batches import cheapest_batches
from bgkit.models.templates import special_strings
from bgkit.scoring.labels import means_unsafe, unsafe_column
from bgkit.scoring.pairs import Head, PairScorer
from bgkit.scoring.protocols import Encoder

#: Padded tokens in one forward pass, by device; a CPU is slower with more.
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65_536}
UNLIMITED = 1_000_000  # a tokenizer with a larger model_max_length has no limit of its own
DECODER_LENGTH = 16_384  # limit for decoders whose tokenizer has none


def probability(logits: torch.Tensor, index: int) -> torch.Tensor:
    """Softmax of (n, labels) logits at the label ``index``, accurate near 0 and 1."""
    others = [i for i in range(logits.shape[1]) if i != index]
    return torch.sigmoid(logits[:, index] - torch.logsumexp(logits[:, others], dim=1))


#: name -> function that turns (n, labels) logits into (n,) scores of the label ``index``.
READS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "softmax": probability,
    "sigmoid": lambda logits, index: torch.sigmoid(logits[:, index]),
    "raw": lambda logits, index: logits[:, index],
}


def find_unsafe_label(protocol: Encoder, config: object, name: str) -> Encoder:
    """The protocol with the index of the label that a classifier's own config calls unsafe.

    Multi-label heads (``problem_type``) are read by sigmoid; so is a single logit, if its label or
    the user says that it means unsafe. Raises BgkitError if the protocol needs another number of
    labels, and if it is unclear which label means unsafe.
    """
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]  # in the logits' order
    if protocol.labels == len(labels):
        return protocol
    if protocol.labels:
        raise BgkitError(
            f"{name} has {len(labels)} labels, but {protocol.labels} are needed; it is another "
            "kind of model."
        )
    problem = getattr(config, "problem_type", None)
    place = name.split(" ", 1)[-1].removeprefix(f"unsafe:{protocol.unsafe}=")
    several = len(labels) > 1
    if not protocol.unsafe and (problem == "regression" or not (several or means_unsafe(*labels))):
        raise BgkitError(
            f"{name} has {len(labels)} labels whose outputs are not known to be logits of a "
            "probability (a reward model's are not); if they are, name the unsafe label: "
            f"unsafe:{labels[0]}={place}."
        )
    index = 0
    if several or protocol.unsafe:
        index = unsafe_column(labels, protocol.unsafe or None, f"unsafe:{{}}={place}")
    sigmoid = problem == "multi_label_classification" or not several
    return replace(protocol, index=index, read="sigmoid" if sigmoid else "softmax")


class EncoderScorer(PairScorer):
    """Scores pairs, or responses alone, with a sequence classification model.

    The head of a decoder is applied in float32 at each row's last token, so no padding token is
    needed. ``label`` is the label read as unsafe; empty for a reward model.
    """

    def __init__(self, model, tokenizer, protocol: Encoder, name: str) -> None:
        config = model.config.get_text_config()
        self.protocol = protocol = find_unsafe_label(protocol, model.config, name)
        self.label = "" if protocol.read == "raw" else str(model.config.id2label[protocol.index])
        is_decoder = hasattr(model, "score") and not config.is_encoder_decoder
        limit = tokenizer.model_max_length
        if limit > UNLIMITED:
            limit = DECODER_LENGTH if is_decoder else protocol.max_length
        slots = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])
        super().__init__(model, tokenizer, name, special_strings(tokenizer), limit, slots)
        body = model.base_model if is_decoder else model
        unused = {"token_type_ids"} if getattr(config, "type_vocab_size", 2) < 2 else set()
        self._inputs = inspect.signature(body.forward).parameters.keys() - unused
        pad = tokenizer.pad_token_id
        self._pad = 0 if pad is None or pad >= config.vocab_size else pad  # masked anyway
        self.head = Head(model.score) if is_decoder else None

    @staticmethod
    def _length(row: dict) -> int:
        return len(row["input_ids"])

    def _tokenise(
        self, prompts: Sequence[str], responses: Sequence[str], call: str = "", **options
    ) -> list[dict]:
        texts = (prompts, responses) if self.protocol.pair else (responses,)
        encoded = self.tokenizer(*texts, verbose=False, return_attention_mask=True, **options)
        columns = {name: rows for name, rows in encoded.items() if name in self._inputs}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _truncate(self, prompt: str, response: str, call: str) -> dict:
        side = "only_second" if self.protocol.pair else True
        options = {"truncation": side, "max_length": self.max_length}
        return self._tokenise([prompt], [response], **options)[0]

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        rows = self.encode(prompts, responses)

        def passes(left: list[int]) -> Iterator[dict[int, np.float32]]:
            lengths = [max(1, self._length(rows[i])) for i in left]
            slots = self.slots if len(rows) == 1 or self.ignores_padding else 1
            for batch in cheapest_batches(lengths, slots, self.cost):
                numbers = [left[i] for i in batch]
                self.computed += len(batch) * max(lengths[i] for i in batch)
                logits = self._logits([rows[i] for i in numbers])
                scores = READS[self.protocol.read](logits, self.protocol.index).cpu().numpy()
                yield dict(zip(numbers, scores, strict=True))

        return self.batched(f"scoring by {self.name}", rows, passes)

    @cached_property
    def ignores_padding(self) -> bool:
        """Whether padding leaves the model's outputs unchanged; if not, rows are scored one by one.

        XLNet reads the last position; ConvBERT and FNet mix positions, padding included.
        """
        rows = self._tokenise(["a"] * 2, ["b", "b c d e f g h " * 4])
        rows = [{key: row[key][: self.max_length] for key in row} for row in rows]
        try:
            alone, together = self._logits(rows[:1]), self._logits(rows)[:1]
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError):  # "Cannot handle batch sizes > 1"
            return False
        tolerance = 2e-5 if self.model.dtype == torch.float32 else 0.1  # bfloat16 has three digits
        return torch.allclose(alone, together, rtol=tolerance, atol=tolerance)

    @torch.inference_mode()
    def _logits(self, rows: list[dict]) -> torch.Tensor:
        """(n, labels) float32 logits of encodings, always padded on the right."""
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
        last = [self._length(row) - 1 for row in rows]
        return self.head(hidden[list(range(len(rows))), last])
