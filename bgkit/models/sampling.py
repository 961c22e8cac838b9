"""A faster ``generate``: shared prompts are computed once, finished rows leave the batch.

``generate`` of transformers computes a prompt once per completion, and every row until the last one
ends. Here each distinct prompt is computed once and its cache expanded, and finished rows are
dropped. Each row uses the same random numbers, so the tokens are the same up to rounding.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import DynamicCache, GenerationConfig

from bgkit.models.batches import can_share

#: Settings that are supported; with any other, transformers samples.
SUPPORTED = ("do_sample", "temperature", "max_new_tokens", "eos_token_id", "pad_token_id")
#: Settings that must be off -> the values that turn them off.
OFF = {
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
IGNORED = ("use_cache", "disable_compile")
DROP_SHARE = 8  # finished rows are dropped once they are 1/8 of the batch


@contextmanager
def fast_sampling(model: torch.nn.Module) -> Iterator[None]:
    """Replace ``generate`` of a causal model (without a PEFT wrapper) inside the block."""
    model.generate = functools.partial(_generate, model, model.generate)
    try:
        yield
    finally:
        del model.generate


def _generate(
    model: torch.nn.Module,
    original: Callable,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    generation_config: GenerationConfig | None = None,
    **options,
) -> torch.Tensor:
    config = generation_config or model.generation_config
    value = {name: options.get(name, getattr(config, name, None)) for name in (*SUPPORTED, *OFF)}
    width = input_ids.shape[1] + (value["max_new_tokens"] or 0)
    is_supported = (
        set(options) <= {*SUPPORTED, *OFF, *IGNORED}
        and all(value[name] in values for name, values in OFF.items())
        and value["max_new_tokens"]
        and can_share(model.config, width)
        and model.config._attn_implementation in ("sdpa", "eager")
        and "position_ids" in inspect.signature(model.forward).parameters
    )
    if not is_supported:
        if generation_config is not None:
            options["generation_config"] = generation_config
        return original(input_ids=input_ids, attention_mask=attention_mask, **options)
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
    """New tokens (n, steps), padded after an end token."""
    count, width, limit = *ids.shape, value["max_new_tokens"]
    logits, cache = _prefill(model, ids, mask)
    bias = torch.zeros(count, 1, 1, width + limit, dtype=logits.dtype, device=ids.device)
    bias[..., :width].masked_fill_(mask[:, None, None] == 0, torch.finfo(logits.dtype).min)
    positions, rows = mask.sum(1), torch.arange(count, device=ids.device)
    new = torch.full((count, limit), value["pad_token_id"], device=ids.device)
    ended = torch.zeros(count, dtype=torch.bool, device=ids.device)  # rows still in the batch
    for step in range(limit):
        token = _draw_tokens(logits, rows, count, value)
        new[rows[~ended], step] = token[~ended]
        ended |= torch.isin(token, ends)
        if step + 1 == limit or bool(ended.all()):
            break
        if int(ended.sum()) * DROP_SHARE >= len(rows):
            stay = (~ended).nonzero()[:, 0]
            cache.batch_select_indices(stay)
            rows, token, ended = rows[stay], token[stay], ended[stay]
        logits = model(
            input_ids=token[:, None],
            attention_mask=bias[rows, ..., : width + step + 1],
            position_ids=(positions[rows] + step)[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return new[:, : step + 1]


def _prefill(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, DynamicCache]:
    """Next-token logits (n, vocabulary) and the cache; equal prompts are computed once."""
    numbers: dict[tuple[int, ...], int] = {}
    number_of = [numbers.setdefault(tuple(row), len(numbers)) for row in ids.tolist()]
    first = torch.tensor([number_of.index(n) for n in numbers.values()], device=ids.device)
    distinct, cache = mask[first], DynamicCache(config=model.config)
    logits = model(
        input_ids=ids[first],
        attention_mask=distinct,
        position_ids=(distinct.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    index = torch.tensor(number_of, device=ids.device)
    if len(numbers) < len(number_of):
        cache.batch_select_indices(index)
    return logits[index], cache


def _draw_tokens(logits: torch.Tensor, rows: torch.Tensor, count: int, value: dict) -> torch.Tensor:
    """A token per row, the same that ``torch.multinomial`` would draw for all ``count`` rows."""
    scores = logits.float()
    if not value["do_sample"]:
        return scores.argmax(-1)
    scores = scores if value["temperature"] in (None, 1.0) else scores / value["temperature"]
    noise = torch.empty(count, scores.shape[-1], device=logits.device).exponential_()
    return (scores.softmax(-1) / noise[rows]).argmax(-1)
