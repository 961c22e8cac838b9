"""What a decoder says after each of many token rows, with every shared prefix computed once.

GRPO scores groups of completions that answer the same prompt: a guard's template, the prompt, and
a long context are the same tokens over and over. Three stages use that:

1. the *template*, the prefix of all rows, is computed once and kept for later calls;
2. the *stem* of a group, what its rows share beyond the template, is computed once per group;
3. each row's *tail* is computed on the key-value cache of its stem. The tails of a group stand one
   after the other in one sequence, and a mask lets each see its stem and itself only, so that the
   cache is never copied and nothing is padded within a group.

Batches of groups are those that cost least (:func:`bgkit.models.batches.cheapest_batches`). The
result is that of scoring each row alone, up to rounding. Models whose cache is not a plain one
(sliding windows shorter than a row, linear attention) are scored row by row instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from bgkit.models.batches import OUT_OF_MEMORY, cheapest_batches, halved
from bgkit.models.prefixes import Row, can_share, shared_length, tree_mask
from bgkit.progress import phase

#: Rows times positions (cached ones count) in one pass, by device; a CPU is slower with more.
SLOTS = {"cpu": 4096, "cuda": 131_072}
PACKED = {"cpu": 1024, "cuda": 4096}  # tokens of a group's tails in one pass
TEMPLATE_PAYS = 16  # tokens of a template worth keeping

Tail = tuple[int, Row]  # a row's number, and what it has beyond its stem


class Group(NamedTuple):
    """Rows that share a stem, maybe an empty one."""

    stem: list[int]
    tails: list[Tail]


@dataclass
class Decoder:
    """A causal model that is read at each row's last position.

    ``forward(input_ids, attention_mask, position_ids, cache)`` returns float32 outputs (rows,
    positions, k). ``cost`` is what a pass costs beyond its tokens, in tokens. ``slots`` bounds
    rows times positions of a pass (cached ones count); it is halved when memory runs out, and
    stays so. ``computed`` counts the tokens that went through the model, padding included.
    """

    forward: Callable[..., torch.Tensor]
    config: object
    device: torch.device
    name: str
    cost: int = 48
    slots: int = 0
    computed: int = 0
    _template: tuple[list[int], DynamicCache | None] = field(default=([], None), repr=False)

    def __post_init__(self) -> None:
        self.slots = self.slots or SLOTS.get(self.device.type, SLOTS["cpu"])

    def last(self, rows: Sequence[Row], groups: Sequence[Hashable] | None = None) -> np.ndarray:
        """Outputs (n, k) float32 at the last position of n rows of token ids.

        ``groups`` names rows that are likely to share a prefix (such as their prompt); None: none
        do. Raises BgkitError if memory does not hold a single row.
        """
        if not rows:
            return np.zeros((0, 0), dtype=np.float32)
        longest = max(map(len, rows))
        if groups is not None and not can_share(self.config, longest):
            groups = None
        found: dict[int, np.ndarray] = {}
        with phase("pairs", len(rows)) as shown:
            while len(found) < len(rows):
                try:
                    template = self._use_template(rows, groups) if groups is not None else 0
                    for batch in self._batches(rows, groups, template, set(found)):
                        for outputs in self._score(batch, template):
                            found |= outputs
                            shown.done = len(found)
                except OUT_OF_MEMORY:
                    self.slots = halved(self.slots, self.name, longest, self.device)
        return np.stack([found[i] for i in range(len(rows))]).astype(np.float32)

    def _use_template(self, rows: Sequence[Row], groups: Sequence[Hashable]) -> int:
        """Length of the kept template; finds and computes it where the kept one does not fit."""
        kept, _ = self._template
        short = min(map(len, rows))
        if kept and short > len(kept) and all(list(row[: len(kept)]) == kept for row in rows):
            return len(kept)
        length = shared_length(rows) if len(set(groups)) > 1 else 0
        if length < TEMPLATE_PAYS:
            return 0
        tokens = list(rows[0][:length])
        empty = DynamicCache(config=self.config)
        _, cache = self._pass([tokens], empty, [torch.arange(length)], None)
        self._template = (tokens, cache)
        return length

    def _batches(
        self,
        rows: Sequence[Row],
        groups: Sequence[Hashable] | None,
        template: int,
        done: set[int],
    ) -> Iterator[list[Group]]:
        """The cheapest batches: of groups for whose stem a pass pays, then of single rows."""
        members: dict[Hashable, list[int]] = {}
        for i in range(len(rows)):
            if i not in done:
                members.setdefault(i if groups is None else groups[i], []).append(i)
        with_stem, single = [], []
        for numbers in members.values():
            tails = [rows[i][template:] for i in numbers]
            stem = shared_length(tails) if len(tails) > 1 else 0
            if (len(tails) - 1) * stem > self.cost:
                cut = [(i, tail[stem:]) for i, tail in zip(numbers, tails, strict=True)]
                cut.sort(key=lambda numbered: -len(numbered[1]))
                with_stem.append(Group(list(tails[0][:stem]), cut))
            else:
                single += [Group([], [pair]) for pair in zip(numbers, tails, strict=True)]
        for alike in (with_stem, single):
            widths = [len(g.stem) + sum(len(tail) for _, tail in g.tails) for g in alike]
            for batch in cheapest_batches(widths, self.slots, self.cost, template):
                yield [alike[i] for i in batch]

    def _score(self, batch: list[Group], template: int) -> Iterator[dict[int, np.ndarray]]:
        """Outputs of a batch's rows, the longest tails of each group first."""
        cache = _rows_of(self._template[1], [0] * len(batch)) if template else None
        mask = torch.ones(len(batch), template, dtype=torch.long)
        if batch[0].stem:
            stems = [group.stem for group in batch]
            starts = [torch.arange(template, template + len(stem)) for stem in stems]
            cache = cache or DynamicCache(config=self.config)
            mask = torch.cat([mask, _mask(stems)], dim=1)
            _, cache = self._pass(stems, cache, starts, None if bool(mask.all()) else mask)
        lengths = [template + len(group.stem) for group in batch]
        past, queues = max(lengths), [list(group.tails) for group in batch]
        while any(queues):
            waiting = [g for g, queue in enumerate(queues) if queue]
            longest = max(len(queues[g][0][1]) for g in waiting)
            waiting = waiting[: max(1, self.slots // (past + longest))]  # with room for a tail
            room = self.slots // len(waiting) - past
            room = min(room, PACKED.get(self.device.type, PACKED["cpu"]))
            parts = {}
            for g in waiting:
                ends = np.cumsum([len(tail) for _, tail in queues[g]])
                count = max(1, int((ends <= room).sum()))
                parts[g], queues[g] = queues[g][:count], queues[g][count:]
            yield self._tails(parts, cache, mask, lengths)

    def _tails(
        self,
        parts: dict[int, list[Tail]],
        cache: DynamicCache | None,
        past: torch.Tensor,
        past_lengths: list[int],
    ) -> dict[int, np.ndarray]:
        """row -> (k,) outputs at the end of tails; those of a group are one sequence.

        ``past`` (groups, positions) is 1 where a group has something in the cache.
        """
        tails = [[tail for _, tail in part] for part in parts.values()]
        lengths = [list(map(len, part)) for part in tails]
        rows = [[token for tail in part for token in tail] for part in tails]
        past = past[list(parts)]
        if cache is not None:
            cache = _rows_of(cache, list(parts))
        starts = [
            torch.cat([past_lengths[g] + torch.arange(n) for n in group])
            for g, group in zip(parts, lengths, strict=True)
        ]
        mask = torch.cat([past, _mask(rows)], dim=1)
        if max(map(len, tails)) > 1:
            dtype = cache.layers[0].keys.dtype
            mask = tree_mask(past, lengths, max(map(len, rows)), dtype)
        elif bool(mask.all()):
            mask = None
        outputs, _ = self._pass(rows, cache, starts, mask)
        ends = [(g, end - 1) for g, group in enumerate(lengths) for end in np.cumsum(group)]
        at, places = torch.tensor(ends, device=self.device).T
        values = outputs[at, places].float().cpu().numpy()
        numbers = [i for part in parts.values() for i, _ in part]
        return dict(zip(numbers, values, strict=True))

    @torch.inference_mode()
    def _pass(
        self,
        rows: list[list[int]],
        cache: DynamicCache | None,
        positions: list[torch.Tensor],
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, DynamicCache | None]:
        """Compute rows at their positions on a cache of earlier ones."""
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        self.computed += ids.numel()
        outputs = self.forward(
            ids.to(self.device),
            None if mask is None else mask.to(self.device),
            pad_sequence(positions, batch_first=True).to(self.device),
            cache,
        )
        return outputs, cache


def _mask(rows: Sequence[Row]) -> torch.Tensor:
    """(rows, longest) of ones up to each row's length."""
    return pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)


def _rows_of(cache: DynamicCache, rows: list[int]) -> DynamicCache:
    """A cache of the given rows of another, which stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        if layer.keys.shape[0] == 1:  # one row for all: no copy
            layer.keys = layer.keys.expand(len(rows), -1, -1, -1)
            layer.values = layer.values.expand(len(rows), -1, -1, -1)
        elif rows != list(range(layer.keys.shape[0])):
            layer.batch_select_indices(torch.tensor(rows, device=layer.keys.device))
    return chosen
