"""Batches of token rows that waste little: by length, or the cheapest by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bgkit.errors import BgkitError

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


def halved(budget: int, name: str, tokens: int, device: torch.device) -> int:
    """Half of what a model may compute at once, after memory ran out.

    Raises BgkitError where nothing is left of it; ``tokens`` has the longest text.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if budget > 1:
        return budget // 2
    raise BgkitError(
        f"{name} has no memory for one text of {tokens} tokens on {device}; shorten the prompts, "
        "free memory, or load it in 8 bits."
    )


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


#: device -> tokens that a pass costs beyond its own, for reading the weights of the model (about
#: 2 FLOP/s over bytes/s) and, times layers over millions of weights, for launching its kernels
PASS_COSTS = {"cpu": (30, 30), "cuda": (300, 40_000)}


def pass_cost(model) -> int:
    """Tokens that a forward pass of a model costs beyond its own: what a larger batch may waste."""
    config = model.config.get_text_config()
    weights = max(1, model.num_parameters(exclude_embeddings=True)) / 1e6
    reading, launching = PASS_COSTS.get(model.device.type, PASS_COSTS["cpu"])
    return round(reading + launching * config.num_hidden_layers / weights)


def cheapest_batches(
    lengths: Sequence[int], budget: int, cost: int, past: int = 0
) -> list[np.ndarray]:
    """Indices, longest first, in the batches that take the least time, padding included.

    A batch costs its padded tokens and ``cost``; its rows times their longest length and ``past``
    stay within ``budget`` (at least one row). Found by dynamic programming over the sorted rows.

    >>> [batch.tolist() for batch in cheapest_batches([2, 9, 3, 9], budget=99, cost=4)]
    [[1, 3], [2, 0]]
    >>> [batch.tolist() for batch in cheapest_batches([2, 9, 3, 9], budget=99, cost=40)]
    [[1, 3, 2, 0]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    longest = np.asarray(lengths)[order]
    n, most = len(order), 1024
    best, start_of = np.zeros(n + 1), np.zeros(n + 1, dtype=int)
    for end in range(1, n + 1):
        starts = np.arange(max(0, end - most), end)
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
