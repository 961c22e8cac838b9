"""Decoders as scorers: read at the end of each text, with every shared prefix computed once.

Nothing is generated. A generative guard's t follows from the logits at the position of its verdict:
``t = sigmoid(logsumexp(unsafe words) - logsumexp(safe words))``.

The *template*, the prefix of all rows, is computed once and its cache kept for later calls. What
the rows of a group, such as the completions of a prompt, share beyond it is their *stem*: stem and
*tails* form one row (:mod:`bgkit.models.batches`). Scores are those of each row alone, up to
rounding. Models without a plain cache (sliding windows shorter than a row, linear attention) are
scored row by row.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from bgkit.errors import BgkitError
from bgkit.models import batches, templates
from bgkit.models.batches import Row, shared_length
from bgkit.progress import phase
from bgkit.scoring.pairs import Head, PairScorer
from bgkit.scoring.protocols import Template, Verdict

#: By device: rows times positions (cached ones count) in one pass, and tokens of the tails of one
#: stem; a CPU is slower with more.
SLOTS = {"cpu": (4096, 1024), "cuda": (131_072, 4096)}
MIN_TEMPLATE = 16  # tokens that make a template worth caching


class Group(NamedTuple):
    """Rows that share a stem, which may be empty; tails are (row number, remaining tokens)."""

    stem: Row
    tails: list[tuple[int, Row]]

    @property
    def width(self) -> int:
        """Tokens of stem and tails."""
        return len(self.stem) + sum(len(tail) for _, tail in self.tails)


class DecoderScorer(PairScorer):
    """A causal model that is asked in text and read at each text's last token."""

    def __init__(self, model, tokenizer, protocol: Template, name: str) -> None:
        added = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
        limit = min(protocol.max_length, tokenizer.model_max_length)
        slots, self.max_tails = SLOTS.get(model.device.type, SLOTS["cpu"])
        super().__init__(model, tokenizer, name, [*added, *protocol.marks], limit, slots)
        if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
            raise BgkitError(
                f"{name} is of the kind {model.config.model_type}, which takes no position ids, so "
                "it cannot be read with a chat template; name a model of another kind."
            )
        self.protocol, self.calls = protocol, protocol.guidelines
        #: guideline of a call -> tokens of the cached template, and their cache
        self._templates: dict[str, tuple[list[int], DynamicCache]] = {}

    def read(self, **inputs) -> torch.Tensor:
        """Outputs (rows, positions, k) at every position."""
        return self.model(**inputs).logits

    def text(self, prompt: str, response: str, guideline: str = "") -> str:
        """The text that the model reads, up to the position of its answer."""
        protocol = self.protocol
        if protocol.text:
            return protocol.text.format(prompt=prompt, response=response) + protocol.prefill
        turns = [("user", prompt), ("assistant", response), ("user", protocol.final_user)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if protocol.parts else text}
            for role, text in turns[: 3 if protocol.final_user else 2]
        ]
        options = {**protocol.chat, **({"guideline": guideline} if guideline else {})}
        return templates.render(self.tokenizer, messages, self.name, **options) + protocol.prefill

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of templated texts; a beginning mark is up to the template."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _tokenise(
        self, prompts: Sequence[str], responses: Sequence[str], call: str
    ) -> list[list[int]]:
        pairs = zip(prompts, responses, strict=True)
        return self.tokens([self.text(*pair, call) for pair in pairs])

    def _truncate(self, prompt: str, response: str, call: str) -> list[int]:
        """Remove tokens from the end of the response until the text fits."""
        room = self.max_length - len(self._tokenise([prompt], [""], call)[0])
        ids = self.tokens([response])[0][:room]
        while True:  # a truncated text may have more tokens than its part of the whole one
            (row,) = self._tokenise([prompt], [self.tokenizer.decode(ids)], call)
            if len(row) <= self.max_length or not ids:
                return row
            ids = ids[: len(ids) - max(1, len(row) - self.max_length)]

    def outputs(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(calls, n, k) float32 outputs at the last position."""
        with phase(f"scoring by {self.name}"):
            rows = [self.encode(prompts, responses, call) for call in self.calls]
            outputs = map(self.last_outputs, rows, [prompts] * len(rows), self.calls)
            return np.stack(list(outputs))

    def last_outputs(
        self, rows: Sequence[Row], groups: Sequence[Hashable], call: str = ""
    ) -> np.ndarray:
        """Outputs (n, k) float32 at the last position of n rows of token ids.

        ``groups`` names rows that are likely to share a prefix (such as their prompt), ``call``
        those that share a template.
        """
        shares = batches.can_share(self.model.config, max(map(len, rows)))
        groups = groups if shares else range(len(rows))

        def passes(left: list[int]) -> Iterator[dict[int, np.ndarray]]:
            past = self._use_template(rows, groups, call) if shares else 0
            for part in self._groups(rows, left, groups, past):
                widths = [group.width for group in part]
                for batch in batches.cheapest_batches(widths, self.slots, self.cost, past):
                    yield self._outputs([part[i] for i in batch], call, past)

        return self.batched("pairs", rows, passes)

    def _use_template(self, rows: Sequence[Row], groups: Sequence[Hashable], call: str) -> int:
        """Length of the cached template, which is computed anew if it does not fit the rows."""
        cached, _ = self._templates.get(call, ([], None))
        size = len(cached)
        if cached and all(len(row) > size and list(row[:size]) == cached for row in rows):
            return size
        length = shared_length(rows) if len(set(groups)) > 1 else 0
        if length < MIN_TEMPLATE:
            return 0
        tokens, cache = list(rows[0][:length]), DynamicCache(config=self.model.config)
        self._forward(*batches.pack([tokens], [[]]), None, cache)
        self._templates[call] = (tokens, cache)
        return length

    def _groups(
        self, rows: Sequence[Row], left: list[int], groups: Sequence[Hashable], past: int
    ) -> tuple[list[Group], list[Group]]:
        """The rows that are left, without the template: groups whose stem pays, and single rows."""
        members: dict[Hashable, list[int]] = {}
        for i in left:
            members.setdefault(groups[i], []).append(i)
        shared, single = [], []
        for numbers in members.values():
            tails = [rows[i][past:] for i in numbers]
            stem, pairs = shared_length(tails), list(zip(numbers, tails, strict=True))
            if (len(tails) - 1) * stem <= self.cost:
                single += [Group([], [pair]) for pair in pairs]
                continue
            group, max_width = Group(tails[0][:stem], []), stem + min(self.max_tails, self.slots)
            for number, tail in pairs:
                if group.tails and group.width + len(tail) - stem > max_width:
                    shared.append(group)
                    group = Group(group.stem, [])
                group.tails.append((number, tail[stem:]))
            shared.append(group)
        return shared, single

    def _outputs(self, batch: list[Group], call: str, past: int) -> dict[int, np.ndarray]:
        """row -> (k,) outputs at its end; each group is one sequence after the template."""
        tails = [[tail for _, tail in group.tails] for group in batch]
        packed = batches.pack([group.stem for group in batch], tails, past)
        stems, lengths = [len(group.stem) for group in batch], [list(map(len, t)) for t in tails]
        if max(map(len, lengths)) > 1:
            mask = batches.tree_mask(stems, lengths, self.model.dtype, past)
        else:
            ones = [torch.ones(past + group.width, dtype=torch.long) for group in batch]
            mask = pad_sequence(ones, batch_first=True)
            mask = None if bool(mask.all()) else mask
        cache = copy.deepcopy(self._templates[call][1]) if past else None
        if cache is not None:
            cache.batch_repeat_interleave(len(batch))
        outputs = self._forward(*packed, mask, cache)
        numbers = [number for group in batch for number, _ in group.tails]
        places = [g for g, sizes in enumerate(lengths) for _ in sizes]
        ends = [
            stem + end - 1
            for stem, sizes in zip(stems, lengths, strict=True)
            for end in itertools.accumulate(sizes)
        ]
        return dict(zip(numbers, outputs[places, ends].float().cpu().numpy(), strict=True))

    @torch.inference_mode()
    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask, cache: DynamicCache | None
    ) -> torch.Tensor:
        """Outputs of tokens at their positions, after those in the cache, which takes them in."""
        self.computed += ids.numel()
        device = self.model.device
        return self.read(
            input_ids=ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )


class VerdictGuard(DecoderScorer):
    """A generative guard. ``strict`` counts grey verdicts (such as Controversial) as unsafe."""

    def __init__(self, model, tokenizer, protocol: Verdict, name: str, strict: bool = True) -> None:
        super().__init__(model, tokenizer, protocol, name)
        words = protocol.safe, protocol.unsafe, protocol.grey
        self.word_ids = safe, unsafe, grey = list(map(self._first_tokens, words))
        if shared := set(safe) & set(unsafe + grey):
            word = tokenizer.decode([min(shared)])
            raise BgkitError(
                f"{name}: its safe and unsafe verdicts both begin with the token {word!r}, so one "
                "pass cannot tell them apart; the protocol is for another model."
            )
        self.full_head = model.get_output_embeddings()
        self.verdict_ids = safe + unsafe + grey
        self.head = Head(self.full_head, self.verdict_ids)
        model.set_output_embeddings(self.head)
        self._is_unsafe = np.repeat([False, True, strict], list(map(len, self.word_ids)))

    def _first_tokens(self, words: Sequence[str]) -> list[int]:
        """Ids of the tokens that begin a verdict, right after the text."""
        text = self.text("hello", "hello", self.calls[0])
        start, *rows = self.tokens([text, *(text + word for word in words)])
        for word, row in zip(words, rows, strict=True):
            if row[: len(start)] != start or len(row) == len(start):
                raise BgkitError(
                    f"{self.name}: its tokenizer merges the verdict {word!r} with the text before "
                    "it, so there is no position to read it at; check the protocol's prefill."
                )
        ids = [row[len(start)] for row in rows]
        if self.protocol.any_case and words:
            lower = {word.strip().lower() for word in words}
            pieces = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            ids += [i for i, piece in enumerate(pieces) if piece.strip().lower() in lower]
        return list(dict.fromkeys(ids))

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        logits = self.outputs(prompts, responses).astype(np.float64)
        safe, unsafe = (
            np.logaddexp.reduce(logits[..., self._is_unsafe == side], axis=-1)
            for side in (False, True)
        )
        return expit(unsafe - safe).max(axis=0).astype(np.float32)

    @torch.inference_mode()
    def verdict_mass(self, prompt: str, response: str) -> float:
        """Probability of all verdict words together in the whole vocabulary, for one pair."""
        ids = torch.tensor(self.encode([prompt], [response], self.calls[0]))
        self.model.set_output_embeddings(self.full_head)
        try:
            logits = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
        finally:
            self.model.set_output_embeddings(self.head)
        return float(torch.softmax(logits[0, -1].float(), -1)[self.verdict_ids].sum())


class RewardDecoder(DecoderScorer):
    """A reward model that is a decoder with one output at the last token."""

    def __init__(self, model, tokenizer, protocol: Template, name: str) -> None:
        if model.config.num_labels != 1 or not hasattr(model, "score"):
            raise BgkitError(
                f"{name} is of the kind {model.config.model_type} with {model.config.num_labels} "
                "labels, but its protocol is for decoders with one score; it is another kind."
            )
        super().__init__(model, tokenizer, protocol, name)
        self.head = Head(model.score)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without a beginning mark, as in the training of these models."""
        rows, mark = super().tokens(texts), self.tokenizer.bos_token_id
        return [row[1:] if row and row[0] == mark else row for row in rows]

    def read(self, **inputs) -> torch.Tensor:
        """The score at every position."""
        return self.head(self.model.base_model(**inputs).last_hidden_state)

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return self.outputs(prompts, responses)[0, :, 0]
