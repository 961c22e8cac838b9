"""What a decoder says after each of many token rows, with every shared prefix computed once.

GRPO scores groups of completions that answer the same prompt: a guard's template, the prompt, and
a long context are the same tokens over and over. Three stages use that:

1. the *template*, the prefix of all rows, is computed once and kept for later calls;
2. the *stem* of a group, what its rows share beyond the template, is computed once per group;
3. each row's *tail* is computed on the key-value cache of its stem.

Rows are padded on the right within each stage, and padding is masked, so that the result is that
of scoring each row alone, up to rounding. Models whose cache is not a plain one (sliding windows
shorter than a row, linear attention) are scored row by row, in batches of like length, instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from bgkit.errors import BgkitError

SLOTS = {"cpu": 16_384, "cuda": 131_072}  # cached and computed positions in one forward pass
STEM_PAYS = 48  # tokens that a group must save before its stem gets a pass of its own
TEMPLATE_PAYS = 16  # tokens of a template worth keeping

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)

Row = Sequence[int]
#: Maps token ids, mask, positions and a cache to outputs (rows, positions, k) in float32.
Forward = Callable[..., torch.Tensor]


def shared_length(rows: Sequence[Row]) -> int:
    """Number of leading tokens that all rows share; each row keeps one of its own at least.

    >>> shared_length([[1, 2, 3], [1, 2, 4, 5]]), shared_length([[1, 2], [1, 2]])
    (2, 1)
    """
    first, last = min(rows), max(rows)  # in lexical order the extremes differ first
    most = min(map(len, rows)) - 1
    for i in range(most):
        if first[i] != last[i]:
            return i
    return max(0, most)


@dataclass
class Group:
    """Rows that share a stem: ``members`` are their numbers, ``stem`` the tokens, maybe none."""

    members: list[int]
    stem: list[int]


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
    ``slots`` bounds rows times positions of a pass (cached ones count); it is halved when memory
    runs out, and stays so. ``computed`` counts the tokens that went through the model, padding
    included.
    """

    forward: Forward
    config: object
    device: torch.device
    name: str
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
        shares = groups is not None and self._can_share(max(map(len, rows)))
        template = self._use_template(rows, groups) if shares else 0
        found: dict[int, np.ndarray] = {}
        whole = self._group(rows, groups if shares else None, template)
        for batch in self._batches(whole, template):
            self._score(batch, rows, template, found)
        return np.stack([found[i] for i in range(len(rows))]).astype(np.float32)

    def _can_share(self, longest: int) -> bool:
        """Whether the model's cache holds every position of rows of this length, and only that."""
        layers = DynamicCache(config=self.config).layers
        window = getattr(self.config.get_text_config(), "sliding_window", None)
        plain = all(type(layer) is DynamicLayer for layer in layers)
        return plain or (
            bool(window) and longest <= window and all(isinstance(x, DynamicLayer) for x in layers)
        )

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
        _, cache = self._pass([tokens], DynamicCache(config=self.config), [0], None)
        self._template = (tokens, cache)
        return length

    def _group(
        self, rows: Sequence[Row], groups: Sequence[Hashable] | None, template: int
    ) -> list[Group]:
        """Groups whose stem pays, then all other rows as one group without a stem."""
        members: dict[Hashable, list[int]] = {}
        for i in range(len(rows)):
            members.setdefault(groups[i] if groups is not None else i, []).append(i)
        found, single = [], []
        for numbers in members.values():
            tails = [rows[i][template:] for i in numbers]
            stem = shared_length(tails) if len(tails) > 1 else 0
            if (len(tails) - 1) * stem >= STEM_PAYS:
                found.append(Group(numbers, list(tails[0][:stem])))
            else:
                single += numbers
        found.sort(key=lambda group: -len(group.stem))
        return found + ([Group(single, [])] if single else [])

    def _batches(self, groups: Sequence[Group], template: int) -> Iterator[list[Group]]:
        """Groups whose stems are computed together, within ``slots``."""
        batch: list[Group] = []
        for group in groups:
            width = template + len(batch[0].stem if batch else group.stem)
            full = (len(batch) + 1) * width > self.slots
            if batch and (full or not group.stem):
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _score(
        self,
        batch: list[Group],
        rows: Sequence[Row],
        template: int,
        found: dict[int, np.ndarray],
    ) -> None:
        """Score the rows of a batch into ``found``, the longest tails first."""
        try:
            known = self._stems(batch, template)
        except OUT_OF_MEMORY:
            self._halve(len(batch), template + len(batch[0].stem))
            for smaller in self._batches(batch, template):
                self._score(smaller, rows, template, found)
            return
        width = template + len(batch[0].stem)
        queue = [
            (i, g, rows[i][template + len(group.stem) :])
            for g, group in enumerate(batch)
            for i in group.members
        ]
        queue.sort(key=lambda entry: -len(entry[2]))
        while queue:
            wide = width + len(queue[0][2])
            part = queue[: max(1, self.slots // wide)]
            try:
                values = self._tails(part, known)
            except OUT_OF_MEMORY:
                self._halve(len(part), wide)
                continue
            found |= dict(zip([i for i, _, _ in part], values, strict=True))
            queue = queue[len(part) :]

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
        if not batch[0].stem:
            cache = self._template[1] if template else None
            return Known(cache, _mask([template]) if template else None, [template])
        stems, past = [group.stem for group in batch], [template] * len(batch)
        mask = _mask(past) if template else torch.zeros(len(batch), 0, dtype=torch.long)
        cache = DynamicCache(config=self.config)
        if template:
            cache = _select(self._template[1], [0] * len(batch))
        _, cache = self._pass(stems, cache, past, mask)
        mask = torch.cat([mask, _mask(list(map(len, stems)))], dim=1)
        return Known(cache, mask, [template + len(stem) for stem in stems])

    def _tails(self, part: list[tuple[int, int, Row]], known: Known) -> np.ndarray:
        """(rows, k) outputs at the end of tails, each on the cache of its group."""
        owners, tails = [g for _, g, _ in part], [list(tail) for _, _, tail in part]
        cache, mask = known.cache, known.mask
        if cache is not None:
            owners = [0] * len(part) if len(known.lengths) == 1 else owners
            cache, mask = _select(cache, owners), mask[owners]
        starts = [known.lengths[g] for g in owners] if cache is not None else [0] * len(part)
        outputs, _ = self._pass(tails, cache, starts, mask)
        ends = torch.tensor([len(tail) - 1 for tail in tails], device=self.device)
        rows = torch.arange(len(tails), device=self.device)
        return outputs[rows, ends].float().cpu().numpy()

    @torch.inference_mode()
    def _pass(
        self,
        rows: list[list[int]],
        cache: DynamicCache | None,
        starts: list[int],
        past_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, DynamicCache | None]:
        """Compute rows, whose first positions are ``starts``, on a cache of earlier ones."""
        lengths = list(map(len, rows))
        mask = _mask(lengths)
        ids = torch.zeros_like(mask)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        positions = torch.tensor(starts)[:, None] + torch.arange(ids.shape[1])
        if past_mask is not None:
            mask = torch.cat([past_mask, mask], dim=1)
        padded = not bool(mask.all())  # without padding attention needs no mask
        self.computed += ids.numel()
        outputs = self.forward(
            ids.to(self.device),
            mask.to(self.device) if padded else None,
            positions.to(self.device),
            cache,
        )
        return outputs, cache


def _mask(lengths: list[int], width: int | None = None) -> torch.Tensor:
    """(rows, width) of ones up to each length; ``width`` is the longest one unless given."""
    places = torch.arange(max(lengths) if width is None else width)
    return (places < torch.tensor(lengths)[:, None]).long()


def _select(cache: DynamicCache, rows: list[int]) -> DynamicCache:
    """A cache of the given rows of another, which stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        if layer.keys.shape[0] == 1:  # one row for all: no copy
            layer.keys = layer.keys.expand(len(rows), -1, -1, -1)
            layer.values = layer.values.expand(len(rows), -1, -1, -1)
        else:
            layer.batch_select_indices(torch.tensor(rows, device=layer.keys.device))
    return chosen
