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

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from bgkit.errors import BgkitError
from bgkit.models.batches import cheapest_batches
from bgkit.models.prefixes import Row, can_share, shared_length, tree_mask
from bgkit.progress import phase

#: Rows times positions (cached ones count) in one pass, by device; a CPU is slower with more.
SLOTS = {"cpu": 4096, "cuda": 131_072}
PACKED = {"cpu": 1024, "cuda": 4096}  # tokens of a group's tails in one pass
TEMPLATE_PAYS = 16  # tokens of a template worth keeping

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)

#: Maps token ids, mask, positions and a cache to outputs (rows, positions, k) in float32.
Forward = Callable[..., torch.Tensor]


Tail = tuple[int, Row]  # a row's number, and what it has beyond its stem


@dataclass
class Group:
    """Rows that share a stem, maybe an empty one."""

    stem: list[int]
    tails: list[Tail]

    @property
    def width(self) -> int:
        """Tokens to compute."""
        return len(self.stem) + sum(len(tail) for _, tail in self.tails)


@dataclass
class Known:
    """What was computed of each group: cache, mask (groups, positions), lengths without padding."""

    cache: DynamicCache | None
    mask: torch.Tensor | None
    lengths: list[int]


@dataclass
class Decoder:
    """A causal model that is read at each row's last position.

    ``forward(input_ids, attention_mask, position_ids, cache)`` returns (rows, positions, k).
    ``cost`` is what a pass costs beyond its tokens, in tokens. ``slots`` bounds rows times
    positions of a pass (cached ones count); it is halved when memory runs out, and stays so.
    ``computed`` counts the tokens that went through the model, padding included.
    """

    forward: Forward
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
        shares = groups is not None and can_share(self.config, max(map(len, rows)))
        template = self._use_template(rows, groups) if shares else 0
        found: dict[int, np.ndarray] = {}
        whole = self._group(rows, groups if shares else None, template)
        with phase("", len(rows)) as shown:
            for batch in self._batches(whole, template):
                self._score(batch, template, found)
                shown.done = len(found)
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

    def _group(
        self, rows: Sequence[Row], groups: Sequence[Hashable] | None, template: int
    ) -> list[Group]:
        """Rows by group where a pass for their stem pays; each other row is a group of its own."""
        members: dict[Hashable, list[int]] = {}
        for i in range(len(rows)):
            members.setdefault(groups[i] if groups is not None else i, []).append(i)
        found = []
        for numbers in members.values():
            tails = [rows[i][template:] for i in numbers]
            stem = shared_length(tails) if len(tails) > 1 else 0
            cut = [(i, tail[stem:]) for i, tail in zip(numbers, tails, strict=True)]
            if (len(tails) - 1) * stem > self.cost:
                found.append(Group(list(tails[0][:stem]), sorted(cut, key=lambda t: -len(t[1]))))
            else:
                found += [Group([], [(i, rows[i][template:])]) for i in numbers]
        return found

    def _batches(self, groups: Sequence[Group], template: int) -> Iterator[list[Group]]:
        """The cheapest batches of groups with a stem, then of those without."""
        for kind in (True, False):
            alike = [group for group in groups if bool(group.stem) == kind]
            widths = [group.width for group in alike]
            for batch in cheapest_batches(widths, self.slots, self.cost, template):
                yield [alike[i] for i in batch]

    def _score(self, batch: list[Group], template: int, found: dict[int, np.ndarray]) -> None:
        """Score the rows of a batch into ``found``, the longest tails of each group first."""
        try:
            known = self._stems(batch, template)
        except OUT_OF_MEMORY:
            self._halve(len(batch), template + max(len(group.stem) for group in batch))
            for smaller in self._batches(batch, template):
                self._score(smaller, template, found)
            return
        past, queues = max(known.lengths), [list(group.tails) for group in batch]
        while any(queues):
            parts = self._next_parts(queues, past)
            try:
                found |= self._tails(parts, known)
            except OUT_OF_MEMORY:
                size = sum(len(tails) for tails in parts.values())
                width = max(sum(len(tail) for _, tail in tails) for tails in parts.values())
                self._halve(len(parts) if len(parts) > 1 else size, past + width)
                continue
            for g, tails in parts.items():
                del queues[g][: len(tails)]

    def _next_parts(self, queues: list[list[Tail]], past: int) -> dict[int, list[Tail]]:
        """The next tails of groups, within ``slots``: of as many groups as have room for one."""
        waiting = [g for g, queue in enumerate(queues) if queue]
        longest = max(len(queues[g][0][1]) for g in waiting)
        waiting = waiting[: max(1, self.slots // (past + longest))]
        room = self.slots // len(waiting) - past
        room = min(room, PACKED.get(self.device.type, PACKED["cpu"]))
        parts = {}
        for g in waiting:
            ends = np.cumsum([len(tail) for _, tail in queues[g]])
            parts[g] = queues[g][: max(1, int((ends <= room).sum()))]
        return parts

    def _halve(self, count: int, width: int) -> None:
        """Allow half of what did not fit, ``count`` rows of ``width``; one row can not be less."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if count == 1:
            raise BgkitError(
                f"{self.name} has no memory for one text of {width} tokens on {self.device}; "
                "shorten the prompts, free memory, or load it in 8 bits."
            )
        self.slots = max(1, min(self.slots, count * width) // 2)

    def _stems(self, batch: list[Group], template: int) -> Known:
        """The cache of a batch's stems on the template's, a row per group."""
        cache = _rows_of(self._template[1], [0] * len(batch)) if template else None
        mask = torch.ones(len(batch), template, dtype=torch.long)
        if batch[0].stem:
            stems = [group.stem for group in batch]
            starts = [torch.arange(template, template + len(stem)) for stem in stems]
            cache = cache or DynamicCache(config=self.config)
            mask = torch.cat([mask, _mask(stems)], dim=1)
            _, cache = self._pass(stems, cache, starts, None if bool(mask.all()) else mask)
        return Known(cache, mask, [template + len(group.stem) for group in batch])

    def _tails(self, parts: dict[int, list[Tail]], known: Known) -> dict[int, np.ndarray]:
        """row -> (k,) outputs at the end of tails; those of a group are one sequence."""
        tails = [[tail for _, tail in part] for part in parts.values()]
        lengths = [list(map(len, part)) for part in tails]
        rows = [[token for tail in part for token in tail] for part in tails]
        cache, past = known.cache, known.mask[list(parts)]
        if cache is not None:
            cache = _rows_of(cache, list(parts))
        starts = [
            torch.cat([known.lengths[g] + torch.arange(n) for n in group])
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
