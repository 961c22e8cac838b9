"""Rows of tokens that share a beginning, computed once: what scoring and training share.

A group is one *stem* and several *tails*. The tails stand one after the other in one sequence
behind the stem (or behind its cache); positions restart with each tail, and a mask lets a tail see
the stem and itself only. So nothing is copied, and nothing is padded within a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Row = Sequence[int]


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


def can_share(config: object, longest: int) -> bool:
    """Whether a model's cache holds every position of rows of this length, and only that.

    It does not where attention is linear, or slides over fewer positions than a row has.
    """
    layers = DynamicCache(config=config).layers
    window = getattr(config.get_text_config(), "sliding_window", None)
    plain = all(type(layer) is DynamicLayer for layer in layers)
    return plain or (
        bool(window) and longest <= window and all(isinstance(x, DynamicLayer) for x in layers)
    )


def tree_mask(
    past: torch.Tensor,
    lengths: Sequence[Sequence[int]],
    width: int,
    dtype: torch.dtype,
    stems: Sequence[int] = (),
) -> torch.Tensor:
    """(groups, 1, width, past + width) to add to attention: a tail sees its past and itself.

    ``past`` (groups, positions) is 1 where a group has a cached token, ``lengths`` of its tails.
    ``stems`` are the lengths of stems that stand in front of the tails, and that all of them see.

    >>> seen = tree_mask(torch.ones(1, 0), [[1, 2]], 4, torch.float32, stems=[1]) == 0
    >>> seen[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    which = torch.full((len(lengths), width), -1, device=past.device)
    seen_by_all = torch.zeros_like(which, dtype=torch.bool)
    for g, group in enumerate(lengths):
        stem = stems[g] if stems else 0
        whole = torch.tensor([stem, *group], device=past.device)
        which[g, : int(whole.sum())] = torch.repeat_interleave(whole)
        seen_by_all[g, :stem] = True
    same = (which[:, :, None] == which[:, None, :]) | seen_by_all[:, None]
    seen = torch.cat([past.bool()[:, None].expand(-1, width, -1), same.tril()], dim=2)
    mask = torch.zeros(seen.shape, dtype=dtype, device=past.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
