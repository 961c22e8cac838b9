"""Sampling completions as transformers does, without computing twice or for rows that have ended.

``generate`` forwards a prompt once for each of its completions, and every row until the last one
ends. Here each different prompt is computed once and its cache expanded, and rows that have ended
leave the batch. The same random numbers are drawn for the same rows, so that the same tokens come
out, up to rounding.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import DynamicCache, GenerationConfig

from bgkit.models.batches import can_share

#: What is read of a generation config; with anything else set, transformers samples.
READ = ("do_sample", "temperature", "max_new_tokens", "eos_token_id", "pad_token_id")
#: Settings that must say nothing, and what says nothing.
PLAIN = {
    "top_k": (0,),  # None is 50
    "top_p": (None, 1.0),
    "min_p": (None,),
    "typical_p": (None, 1.0),
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "min_new_tokens": (None, 0),
    "cache_implementation": (None,),
}
IGNORED = ("use_cache", "disable_compile", "generation_config")
LEAVE = 8  # rows leave when an eighth of the batch has ended


@contextmanager
def sampling(model: torch.nn.Module) -> Iterator[None]:
    """Let a causal model's ``generate`` be the one of this module (a plain model, no wrapper)."""
    model.generate = functools.partial(_generate, model, model.generate)
    try:
        yield
    finally:
        del model.generate


def _generate(
    model: torch.nn.Module,
    plain: Callable,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    generation_config: GenerationConfig | None = None,
    **options,
) -> torch.Tensor:
    config = generation_config or model.generation_config
    value = {name: options.get(name, getattr(config, name, None)) for name in (*READ, *PLAIN)}
    width = input_ids.shape[1] + (value["max_new_tokens"] or 0)
    takes = (
        set(options) <= {*READ, *PLAIN, *IGNORED}
        and all(value[name] in usual for name, usual in PLAIN.items())
        and value["max_new_tokens"]
        and can_share(model.config, width)
        and model.config._attn_implementation in ("sdpa", "eager")
        and "position_ids" in inspect.signature(model.forward).parameters
    )
    if not takes:
        given = {} if generation_config is None else {"generation_config": generation_config}
        return plain(input_ids=input_ids, attention_mask=attention_mask, **given, **options)
    ends = torch.tensor(value["eos_token_id"], device=input_ids.device).flatten()
    new = _sample(model, input_ids, attention_mask, value, ends)
    return torch.cat([input_ids, new], dim=1)


@torch.no_grad()
def _sample(
    model: torch.nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    value: dict,
    ends: torch.Tensor,
) -> torch.Tensor:
    """New tokens (n, steps), padding behind an end token."""
    count, width, most = *ids.shape, value["max_new_tokens"]
    logits, cache = _prefilled(model, ids, mask)
    seen = torch.zeros(count, 1, 1, width + most, dtype=logits.dtype, device=ids.device)
    seen[..., :width].masked_fill_(mask[:, None, None] == 0, torch.finfo(logits.dtype).min)
    positions, rows = mask.sum(1), torch.arange(count, device=ids.device)
    new = torch.full((count, most), value["pad_token_id"], device=ids.device)
    ended = torch.zeros(count, dtype=torch.bool, device=ids.device)  # of the rows in the batch
    for step in range(most):
        token = _drawn(logits, rows, count, value)
        new[rows[~ended], step] = token[~ended]
        ended |= torch.isin(token, ends)
        if step + 1 == most or bool(ended.all()):
            break
        if int(ended.sum()) * LEAVE >= len(rows):
            stay = (~ended).nonzero()[:, 0]
            cache.batch_select_indices(stay)
            rows, token, ended = rows[stay], token[stay], ended[stay]
        logits = model(
            input_ids=token[:, None],
            attention_mask=seen[rows, ..., : width + step + 1],
            position_ids=(positions[rows] + step)[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return new[:, : step + 1]


def _prefilled(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, DynamicCache]:
    """Logits behind each prompt (n, words), and the cache of all; equal ones are computed once."""
    asked: dict[tuple[int, ...], int] = {}
    which = [asked.setdefault(tuple(row), len(asked)) for row in ids.tolist()]
    first = torch.tensor([which.index(n) for n in asked.values()], device=ids.device)
    there, cache = mask[first], DynamicCache(config=model.config)
    logits = model(
        input_ids=ids[first],
        attention_mask=there,
        position_ids=(there.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    every = torch.tensor(which, device=ids.device)
    if len(asked) < len(which):
        cache.batch_select_indices(every)
    return logits[every], cache


def _drawn(logits: torch.Tensor, rows: torch.Tensor, count: int, value: dict) -> torch.Tensor:
    """A token for each row of the batch: what ``torch.multinomial`` of all ``count`` would draw."""
    scores = logits.float()
    if not value["do_sample"]:
        return scores.argmax(-1)
    scores = scores if value["temperature"] in (None, 1.0) else scores / value["temperature"]
    chance = torch.empty(count, scores.shape[-1], device=logits.device).exponential_()
    return (scores.softmax(-1) / chance[rows]).argmax(-1)
