"""Sequence classifiers as scorers: equal pairs once, the rest in batches of like length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from bgkit.errors import BgkitError
from bgkit.models.batches import cheapest_batches, pass_cost
from bgkit.models.templates import neutralise
from bgkit.progress import Phase, phase
from bgkit.scoring.generative import VerdictHead
from bgkit.scoring.labels import meaning, unsafe_columns
from bgkit.scoring.protocols import Encoder

#: Padded tokens in one forward pass, by device; a CPU is slower with more.
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65_536}
UNKNOWN = 1_000_000  # a tokenizer's length beyond this one means that it knows none
LONGEST_DECODER = 16_384  # of decoders whose tokenizer knows none
#: Decoders that look for padding to find the last token, and have another head than ``score``.
READ_LAST = ("ctrl", "modernbert-decoder")


def probability(logits: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
    """Sum of softmax(logits) over the labels of ``index``, exact near 0 and 1."""
    others = [i for i in range(logits.shape[1]) if i not in index]
    chosen, rest = (torch.logsumexp(logits[:, part], dim=1) for part in (list(index), others))
    return torch.sigmoid(chosen - rest)


#: How (n, labels) logits become (n,) scores; ``index`` are the labels that are read.
READS: dict[str, Callable[[torch.Tensor, Sequence[int]], torch.Tensor]] = {
    "softmax": probability,
    "sigmoid": lambda logits, index: torch.sigmoid(logits[:, list(index)].amax(dim=1)),
    "complement": lambda logits, index: torch.sigmoid(-logits[:, index[0]]),
    "raw": lambda logits, index: logits[:, index[0]],
}


def labels_of(config: object) -> list[str]:
    """A classifier's labels, in the order of its logits."""
    return [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)]


def with_labels(protocol: Encoder, config: object, name: str) -> Encoder:
    """A protocol with the places of the labels that a classifier's own config calls unsafe.

    Heads for several labels at once (``problem_type``) are read by sigmoid, a single logit, too,
    where its config or the user says what it is. Raises BgkitError for another number of labels
    than the protocol's, and where it can not be told which one means unsafe.
    """
    labels, problem = labels_of(config), getattr(config, "problem_type", None)
    told = [None if label.startswith("LABEL_") else meaning(label) for label in labels]
    place = name.split(" ", 1)[-1].split("=")[-1]
    if protocol.labels not in (0, len(labels)):
        raise BgkitError(
            f"{name} has {len(labels)} labels, but {protocol.labels} are needed; it is another "
            "kind of model."
        )
    if protocol.labels:
        if protocol.read != "raw" and told[protocol.index[0]] is False:
            raise BgkitError(
                f"{name} calls the label that its protocol reads {labels[protocol.index[0]]!r}, "
                f"which means safe; name the unsafe one, as in unsafe:LABEL={place}."
            )
        return protocol
    if problem == "regression" or (
        len(labels) == 1 and problem is None and told[0] is None and not protocol.unsafe
    ):
        raise BgkitError(
            f"{name} has {len(labels)} labels whose outputs are not known to be a probability's "
            "logits (a reward model's are not); if they are, set problem_type in its config.json"
            + ("." if problem else f", or name the label: unsafe:{labels[0]}={place}.")
        )
    several = problem == "multi_label_classification" or len(labels) == 1
    if len(labels) == 1 and not protocol.unsafe:
        return replace(protocol, index=(0,), read="complement" if told[0] is False else "sigmoid")
    index = unsafe_columns(labels, protocol.unsafe or None, f"unsafe:{{}}={place}")
    return replace(protocol, index=tuple(index), read="sigmoid" if several else "softmax")


def places_of(model: torch.nn.Module) -> int:
    """Tokens that a model has positions for; 0 where it does not say.

    RoBERTa and its kin count positions from behind their padding id: they lose its place, too.
    """
    config = model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", 0)
    lost = (
        part.padding_idx + 1
        for name, part in model.named_modules()
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None
    )
    return max(0, most - max(lost, default=0))


class EncoderScorer:
    """Scores pairs, or responses alone, with a sequence classification model.

    Decoders are read by their head, in float32, at each row's last token; they need no padding
    token. ``truncated`` counts responses that were cut to the model's maximum length (only
    responses are ever cut), ``cut`` holds their pairs' hashes. ``budget`` bounds the padded tokens
    of a forward pass; it is halved when memory runs out, and stays so. ``computed`` counts tokens
    that went through the model, padding included. ``label`` names what is read as unsafe.
    """

    def __init__(self, model, tokenizer, protocol: Encoder, name: str) -> None:
        config = model.config.get_text_config()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.protocol = protocol = with_labels(protocol, model.config, name)
        chosen = ", ".join(labels_of(model.config)[i] for i in protocol.index)
        self.label = f"not {chosen}" if protocol.read == "complement" else chosen
        decodes = hasattr(model, "score") and not config.is_encoder_decoder
        self.head = VerdictHead(model.score) if decodes else None
        if config.model_type in READ_LAST:
            model.config.pad_token_id = -1
        self.truncated = self.computed = 0
        self.cut: set[int] = set()
        known = tokenizer.model_max_length
        if known > UNKNOWN:
            known = LONGEST_DECODER if decodes else protocol.max_length
        self.max_length = min(known, places_of(model) or known)
        self.budget = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])
        self._cost = pass_cost(model)
        self._specials = [s for s in tokenizer.all_special_tokens if len(s) > 1]
        taken = inspect.signature((model.base_model if decodes else model).forward).parameters
        kinds = getattr(config, "type_vocab_size", 2)
        self._inputs = [
            key
            for key in tokenizer.model_input_names
            if key in taken and key != "attention_mask" and (key != "token_type_ids" or kinds > 1)
        ]
        self._masked = "attention_mask" in taken
        pads = (config.pad_token_id, tokenizer.pad_token_id, 0)
        self._pad = next(i for i in pads if i is not None and 0 <= i < config.vocab_size)

    def _tokens(self, prompts: list[str], responses: list[str], **options) -> list[dict]:
        """One unpadded encoding per pair (or response)."""
        texts = (prompts, responses) if self.protocol.pair else (responses,)
        encoded = self.tokenizer(*texts, verbose=False, **options)
        names = [key for key in self._inputs if key in encoded]
        columns = [encoded[key] for key in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[dict]:
        """Encodings without padding, the response cut where the pair is too long.

        Raises BgkitError for a prompt that leaves no room for a response (:meth:`has_room`).
        """
        clean = [
            [neutralise(text, self._specials) for text in side] for side in (prompts, responses)
        ]
        rows = self._tokens(*clean)
        for i, row in enumerate(rows):
            if len(row["input_ids"]) > self.max_length:
                rows[i] = self._cut(clean[0][i], clean[1][i])
                self.cut.add(hash((prompts[i], responses[i])))
        return rows

    def _without_response(self, prompt: str) -> int:
        return len(self._tokens([neutralise(prompt, self._specials)], [""])[0]["input_ids"])

    def has_room(self, prompt: str) -> bool:
        """Whether a prompt leaves room for a response."""
        return self._without_response(prompt) < self.max_length

    def _cut(self, prompt: str, response: str) -> dict:
        if (fixed := self._without_response(prompt)) >= self.max_length:
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
        scores = np.empty(len(unique), dtype=np.float32)
        with phase(f"scoring by {self.name}", len(unique)) as shown:
            rows = self.encode([p for p, _ in unique], [r for _, r in unique])
            self._score(rows, np.arange(len(rows)), scores, shown)
        place = {pair: i for i, pair in enumerate(unique)}
        return scores[[place[pair] for pair in pairs]]

    def _score(
        self, rows: list[dict], numbers: np.ndarray, scores: np.ndarray, shown: Phase
    ) -> None:
        """Fill ``scores`` for some rows; with half the budget where memory runs out."""
        lengths = [len(rows[i]["input_ids"]) for i in numbers]
        budget = self.budget if len(rows) == 1 or self.pads else 1
        for batch in cheapest_batches(lengths, budget, self._cost):
            chosen = numbers[batch]
            try:
                scores[chosen] = self._forward([rows[i] for i in chosen])
                shown.advance(len(chosen))
                continue
            except (torch.OutOfMemoryError, MemoryError):
                longest = max(lengths[i] for i in batch)
            except (RuntimeError, IndexError, ValueError) as error:  # of the model's own code
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise BgkitError(
                    f"{self.name} could not score a text of {max(lengths[i] for i in batch)} "
                    f"tokens: {reason}. Do its tokenizer and its model belong together?"
                ) from error
            if len(chosen) == 1:
                raise BgkitError(
                    f"{self.name} has no memory for one text of {longest} tokens on "
                    f"{self.model.device}; free memory, or score on another device."
                )
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            self.budget = max(1, min(self.budget, longest * len(chosen)) // 2)
            self._score(rows, chosen, scores, shown)

    @cached_property
    def pads(self) -> bool:
        """Whether padding leaves the model's outputs as they are; else rows go through it alone.

        XLNet reads the last place, FNet and others mix all of them: found by trying.
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
            key: pad_sequence(
                [torch.tensor(row[key]) for row in rows],
                batch_first=True,
                padding_value=self._pad if key == "input_ids" else 0,
            ).to(self.model.device)
            for key in rows[0]
        }
        lengths = [len(row["input_ids"]) for row in rows]
        if self._masked:
            ones = [torch.ones(length, dtype=torch.long) for length in lengths]
            inputs["attention_mask"] = pad_sequence(ones, batch_first=True).to(self.model.device)
        if self.head is None:
            return self.model(**inputs).logits.float()
        hidden = self.model.base_model(**inputs).last_hidden_state
        last = torch.tensor(lengths, device=hidden.device) - 1
        return self.head(hidden[torch.arange(len(rows), device=hidden.device), last])
