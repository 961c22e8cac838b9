"""Batches of token rows with little padding, and shared prefixes that are computed once.

A group is one *stem* and several *tails*. The tails follow the stem (or its cache) in a single
sequence; positions restart with each tail, and a mask lets a tail attend only to the stem and to
itself. Nothing is copied, and nothing is padded within a group.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Row = Sequence[int]
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


def batches_by_length(lengths: Sequence[int], budget: int) -> list[np.ndarray]:
    """Indices, longest first, in batches of at most ``budget`` padded tokens (at least one row).

    >>> [batch.tolist() for batch in batches_by_length([2, 9, 3, 4], budget=9)]
    [[1], [3, 2], [0]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


#: device -> fixed cost of a forward pass in tokens: reading the weights (about 2 FLOP/s over
#: bytes/s) and, times layers over millions of weights, launching the kernels
PASS_COSTS = {"cpu": (30, 30), "cuda": (300, 40_000)}


def pass_cost(model) -> int:
    """Fixed cost of a model's forward pass in tokens: the padding that a larger batch may waste."""
    config = model.config.get_text_config()
    weights = max(1, model.num_parameters(exclude_embeddings=True)) / 1e6
    reading, launching = PASS_COSTS.get(model.device.type, PASS_COSTS["cpu"])
    return round(reading + launching * config.num_hidden_layers / weights)


def cheapest_batches(
    lengths: Sequence[int], budget: int, cost: int, past: int = 0
) -> list[np.ndarray]:
    """Indices, longest first, in the batches that take the least time with padding.

    A batch costs its padded tokens and ``cost``; its rows times their longest length and ``past``
    stay within ``budget`` (at least one row). Found by dynamic programming over the sorted rows.

    >>> [batch.tolist() for batch in cheapest_batches([2, 9, 3, 9], budget=99, cost=4)]
    [[1, 3], [2, 0]]
    >>> [batch.tolist() for batch in cheapest_batches([2, 9, 3, 9], budget=99, cost=40)]
    [[1, 3, 2, 0]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    longest = np.asarray(lengths)[order]
    n, max_rows = len(order), 1024
    best, start_of = np.zeros(n + 1), np.zeros(n + 1, dtype=int)
    for end in range(1, n + 1):
        starts = np.arange(max(0, end - max_rows), end)
        size = end - starts
        total = best[starts] + cost + size * longest[starts]
        total[(size > 1) & (size * (past + longest[starts]) > budget)] = np.inf
        start_of[end] = starts[total.argmin()]
        best[end] = total.min()
    batches, end = [], n
    while end:
        batches.append(order[start_of[end] : end])
        end = start_of[end]
    return batches[::-1]


def shared_length(rows: Sequence[Row]) -> int:
    """Number of leading tokens that all rows share; each row keeps at least one token.

    >>> shared_length([[1, 2, 3], [1, 2, 4, 5]]), shared_length([[1, 2], [1, 2]])
    (2, 1)
    """
    first, last = min(rows), max(rows)  # the lexical extremes differ first
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), max(0, limit))


def can_share(config: object, longest: int) -> bool:
    """Whether a model's cache holds every position of rows of this length.

    False for linear attention, and for a sliding window that is shorter than a row.
    """
    layers = DynamicCache(config=config).layers
    window = getattr(config.get_text_config(), "sliding_window", None)
    plain = all(type(layer) is DynamicLayer for layer in layers)
    return plain or (
        bool(window) and longest <= window and all(isinstance(x, DynamicLayer) for x in layers)
    )


def pack(
    stems: Sequence[Row], tails: Sequence[Sequence[Row]], past: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and positions (groups, width) of each group's stem and tails in one sequence.

    Positions follow ``past`` cached ones; both are padded with 0.

    >>> [values.tolist() for values in pack([[5]], [[[6, 7], [8]]])]
    [[[5, 6, 7, 8]], [[0, 1, 2, 1]]]
    """
    ids, positions = [], []
    for stem, group in zip(stems, tails, strict=True):
        ids.append(torch.tensor([*stem, *itertools.chain(*group)]))
        ends = (len(stem) + len(tail) for tail in group)
        restarts = (range(len(stem), end) for end in ends)
        positions.append(past + torch.tensor([*range(len(stem)), *itertools.chain(*restarts)]))
    return pad_sequence(ids, batch_first=True), pad_sequence(positions, batch_first=True)


def tree_mask(
    stems: Sequence[int], tails: Sequence[Sequence[int]], dtype: torch.dtype, past: int = 0
) -> torch.Tensor:
    """Additive attention mask (groups, 1, width, past + width): a tail sees its stem and itself.

    ``stems`` and ``tails`` are lengths by group; every token sees the ``past`` cached positions.

    >>> seen = tree_mask([1], [[1, 2]], torch.float32) == 0
    >>> seen[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    parts = [torch.tensor([stem, *group]) for stem, group in zip(stems, tails, strict=True)]
    part = [torch.repeat_interleave(lengths) for lengths in parts]  # 0: the stem
    part = pad_sequence(part, batch_first=True, padding_value=-1)
    same = (part[:, :, None] == part[:, None, :]) | (part == 0)[:, None]
    seen = torch.cat([torch.ones(*part.shape, past, dtype=torch.bool), same.tril()], dim=2)
    mask = torch.zeros(seen.shape, dtype=dtype)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
