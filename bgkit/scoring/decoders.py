"""Decoders as scorers: read behind each text, with every shared prefix computed once.

Nothing is generated. A generative guard's t follows from the logits at the position of its verdict:
``t = sigmoid(logsumexp(unsafe words) - logsumexp(safe words))``.

The *template*, the prefix of all rows, is computed once and its cache kept for later calls. What
the rows of a group, such as the completions of a prompt, share beyond it is their *stem*: stem and
*tails* stand one after the other in one row (:mod:`bgkit.models.batches`). The result is that of
scoring each row alone, up to rounding. Models whose cache is not a plain one (sliding windows
shorter than a row, linear attention) are scored row by row instead.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from bgkit.errors import BgkitError
from bgkit.models import templates
from bgkit.models.batches import (
    Row,
    can_share,
    cheapest_batches,
    pass_cost,
    shared_length,
    tree_mask,
)
from bgkit.progress import phase
from bgkit.scoring.pairs import Head, PairScorer, places_of
from bgkit.scoring.protocols import Template, Verdict
from bgkit.scoring.scorer import check_room

#: By device: rows times positions (cached ones count) in one pass, and tokens of the tails behind
#: one stem; a CPU is slower with more.
SLOTS = {"cpu": (4096, 1024), "cuda": (131_072, 4096)}
TEMPLATE_PAYS = 16  # tokens of a template worth keeping


class Group(NamedTuple):
    """Rows that share a stem, maybe an empty one: numbers of the rows, and what else they have."""

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
        super().__init__(model, tokenizer, name, [*added, *protocol.marks])
        if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
            raise BgkitError(
                f"{name} is of the kind {model.config.model_type}, which takes no positions and "
                "can not be read with a chat template here; name a model of another kind."
            )
        self.protocol, self.calls = protocol, protocol.guidelines
        most = min(protocol.max_length, tokenizer.model_max_length)
        self.max_length = min(most, places_of(model) or most)
        self.cost = pass_cost(model)
        self.slots, self.packed = SLOTS.get(model.device.type, SLOTS["cpu"])
        #: guideline of a call -> tokens of the template that was kept, and their cache
        self._templates: dict[str, tuple[list[int], DynamicCache]] = {}

    def read(self, **inputs) -> torch.Tensor:
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
                check_room(self, [prompts[i]])
                rows[i] = self._cut(clean[0][i], clean[1][i], guideline)
                self.cut.add(hash((prompts[i], responses[i])))
        return rows

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of templated texts. The template holds the beginning mark: none is added."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _cut(self, prompt: str, response: str, guideline: str) -> list[int]:
        """Shorten the response until the text fits; its characters go from the end."""
        room = self.max_length - len(self.tokens([self.text(prompt, "", guideline)])[0])
        ids = self.tokens([response])[0][:room]
        while True:  # a cut text may have more tokens than its part of the whole one
            row = self.tokens([self.text(prompt, self.tokenizer.decode(ids), guideline)])[0]
            if len(row) <= self.max_length or not ids:
                return row
            ids = ids[: len(ids) - max(1, len(row) - self.max_length)]

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt with an empty response, by the longest of the templates."""
        clean = self._clean(prompts)
        rows = [self.tokens([self.text(p, "", each) for p in clean]) for each in self.calls]
        return [max(map(len, row)) for row in zip(*rows, strict=True)]

    def outputs(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(calls, n, k) float32 outputs at the last position."""
        with phase(f"scoring by {self.name}"):
            found = [
                self.last(self.rows(prompts, responses, guideline), prompts, guideline)
                for guideline in self.calls
            ]
        return np.stack(found)

    def last(self, rows: Sequence[Row], groups: Sequence[Hashable], call: str = "") -> np.ndarray:
        """Outputs (n, k) float32 at the last position of n rows of token ids.

        ``groups`` names rows that are likely to share a prefix (such as their prompt), ``call``
        those that have one template.
        """
        longest = max(map(len, rows))
        shares = can_share(self.model.config, longest)
        groups = groups if shares else range(len(rows))

        def passes(left: list[int]) -> Iterator[dict[int, np.ndarray]]:
            past = self._use_template(rows, groups, call) if shares else 0
            for alike in self._groups(rows, left, groups, past):
                widths = [group.width for group in alike]
                for batch in cheapest_batches(widths, self.slots, self.cost, past):
                    yield self._outputs([alike[i] for i in batch], call, past)

        return self.batched("pairs", len(rows), longest, passes)

    def _use_template(self, rows: Sequence[Row], groups: Sequence[Hashable], call: str) -> int:
        """Length of the kept template; finds and computes it where the kept one does not fit."""
        kept, _ = self._templates.get(call, ([], None))
        short = min(map(len, rows))
        if kept and short > len(kept) and all(list(row[: len(kept)]) == kept for row in rows):
            return len(kept)
        length = shared_length(rows) if len(set(groups)) > 1 else 0
        if length < TEMPLATE_PAYS:
            return 0
        tokens, cache = list(rows[0][:length]), DynamicCache(config=self.model.config)
        self._pass([tokens], [torch.arange(length)], None, cache)
        self._templates[call] = (tokens, cache)
        return length

    def _groups(
        self,
        rows: Sequence[Row],
        left: Sequence[int],
        groups: Sequence[Hashable],
        past: int,
    ) -> tuple[list[Group], list[Group]]:
        """The rows that are left behind the template: groups whose stem pays, and single rows."""
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
            group, widest = Group(tails[0][:stem], []), stem + min(self.packed, self.slots)
            for number, tail in pairs:
                if group.tails and group.width + len(tail) - stem > widest:
                    shared.append(group)
                    group = Group(group.stem, [])
                group.tails.append((number, tail[stem:]))
            shared.append(group)
        return shared, single

    def _outputs(self, batch: list[Group], call: str, past: int) -> dict[int, np.ndarray]:
        """row -> (k,) outputs at its end; a group is one sequence behind the template."""
        stems = [len(group.stem) for group in batch]
        lengths = [[len(tail) for _, tail in group.tails] for group in batch]
        rows = [[*group.stem, *itertools.chain(*(t for _, t in group.tails))] for group in batch]
        starts = [
            past + torch.cat([torch.arange(stem), *(stem + torch.arange(n) for n in group)])
            for stem, group in zip(stems, lengths, strict=True)
        ]
        if max(map(len, lengths)) > 1:
            mask = tree_mask(stems, lengths, self.model.dtype, past)
        else:
            ones = [torch.ones(past + len(row), dtype=torch.long) for row in rows]
            mask = pad_sequence(ones, batch_first=True)
            mask = None if bool(mask.all()) else mask
        cache = copy.deepcopy(self._templates[call][1]) if past else None
        if cache is not None:
            cache.batch_repeat_interleave(len(batch))
        outputs = self._pass(rows, starts, mask, cache)
        places = [
            (number, g, stem + end - 1)
            for g, (group, stem) in enumerate(zip(batch, stems, strict=True))
            for (number, _), end in zip(group.tails, np.cumsum(lengths[g]).tolist(), strict=True)
        ]
        numbers, at, ends = zip(*places, strict=True)
        return dict(zip(numbers, outputs[list(at), list(ends)].float().cpu().numpy(), strict=True))

    @torch.inference_mode()
    def _pass(
        self,
        rows: list[Row],
        positions: list[torch.Tensor],
        mask: torch.Tensor | None,
        cache: DynamicCache | None,
    ) -> torch.Tensor:
        """Compute rows at their positions on a cache of earlier ones, which grows."""
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        self.computed += ids.numel()
        device = self.model.device
        return self.read(
            input_ids=ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=pad_sequence(positions, batch_first=True).to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )


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
        self.head = Head(self.full_head, self.chosen)
        model.set_output_embeddings(self.head)
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
        """Probability of all verdict words in the whole vocabulary, for one pair."""
        ids = torch.tensor(self.rows([prompt], [response], self.calls[0]))
        self.model.set_output_embeddings(self.full_head)
        try:
            logits = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
        finally:
            self.model.set_output_embeddings(self.head)
        return float(torch.softmax(logits[0, -1].float(), -1)[self.chosen].sum())


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
        """Token ids, without a beginning mark: these models were trained on texts without one."""
        rows, mark = super().tokens(texts), self.tokenizer.bos_token_id
        return [row[1:] if row and row[0] == mark else row for row in rows]

    def read(self, **inputs) -> torch.Tensor:
        """The score at every position."""
        return self.head(self.model.base_model(**inputs).last_hidden_state)

    def _scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return self.outputs(prompts, responses)[0, :, 0]
