"""Policies: load a generator, wrap it with LoRA, sample from it, measure its log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bgkit import devices
from bgkit.errors import BgkitError
from bgkit.hub import resolve
from bgkit.loading import LOADING_ERRORS, load_model
from bgkit.scoring import batches_by_length, neutralise

PROMPT_TOKENS_PER_BATCH = 24_000  # padded prompt and completion tokens sampled at once
LOGITS_PER_BATCH = 2**28  # values of (tokens, vocabulary) in one batch; 1 GB for a float32 copy


def load_policy(
    name: str = "small", adapter: Path | None = None, device: str = "auto", precision: str = "auto"
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a policy (testbed scale tiny, small or large, a folder, a hub name) and its tokenizer.

    ``adapter`` is a run's ``adapter/`` folder: a LoRA adapter to put on top, or, after full
    fine-tuning, the complete model. Raises BgkitError for an unknown name, a damaged file, or a
    model without chat template.
    """
    place = devices.pick_device(device)
    dtype = devices.pick_dtype(place, precision)
    folder = resolve("policy", name)
    is_lora = adapter is not None and (Path(adapter) / "adapter_config.json").is_file()
    model, tokenizer = load_model(
        AutoModelForCausalLM,
        adapter if adapter is not None and not is_lora else folder,
        f"the policy {name}",
        device=place,
        dtype=dtype,
        padding_side="left",
    )
    if tokenizer.chat_template is None:
        raise BgkitError(
            f"The policy {name} in {folder} has no chat template; use an instruction-tuned model, "
            "or save a chat_template.jinja beside its tokenizer."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if is_lora:
        try:
            model = PeftModel.from_pretrained(model, adapter).eval()
        except LOADING_ERRORS as error:
            raise BgkitError(f"Could not load the adapter {adapter}: {error}") from error
    return model, tokenizer


def lora_config(rank: int, alpha: int) -> LoraConfig | None:
    """LoRA on all linear layers, without dropout; None (full fine-tuning) for rank 0."""
    if rank == 0:
        return None
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def as_chat(prompt: str, specials: Sequence[str] = ()) -> list[dict[str, str]]:
    """A prompt as a user's message, with special-token strings broken up.

    >>> as_chat("hello")
    [{'role': 'user', 'content': 'hello'}]
    """
    return [{"role": "user", "content": neutralise(prompt, specials)}]


def special_strings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Special-token strings that must not occur inside a message."""
    return [token for token in tokenizer.all_special_tokens if len(token) > 1]


@dataclass
class Completions:
    """Sampled completions: texts, and token ids of prompts and completions (end token included)."""

    texts: list[str]
    prompt_ids: list[list[int]]
    ids: list[list[int]]


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    specials = special_strings(tokenizer)
    texts = tokenizer.apply_chat_template(
        [as_chat(prompt, specials) for prompt in prompts],
        tokenize=False,
        add_generation_prompt=True,
    )
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_completion_length: int = 60,
    temperature: float = 1.0,
    seed: int = 0,
) -> Completions:
    """Sample one completion per prompt; the same seed and prompts give the same completions.

    ``temperature`` 0 decodes greedily. The global random state is left as it was.
    """
    if not prompts:
        return Completions([], [], [])
    prompt_ids = _prompt_ids(tokenizer, prompts)
    ids: list[list[int]] = [[] for _ in prompts]
    sampling = {"do_sample": False} if temperature == 0 else {"do_sample": True, "top_k": 0}
    if temperature:
        sampling |= {"temperature": temperature, "top_p": 1.0}
    was_training = model.training
    model.eval()
    cuda = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        lengths = [len(row) + max_completion_length for row in prompt_ids]
        for number, batch in enumerate(batches_by_length(lengths, PROMPT_TOKENS_PER_BATCH)):
            torch.manual_seed(seed * 100_003 + number)
            inputs = tokenizer.pad(
                {"input_ids": [prompt_ids[i] for i in batch]},
                padding_side="left",
                return_tensors="pt",
            ).to(model.device)
            tokens = model.generate(
                **inputs,
                **sampling,
                max_new_tokens=max_completion_length,
                pad_token_id=tokenizer.pad_token_id,
                use_cache=True,
            )
            new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
            for i, row in zip(batch, new, strict=True):
                ids[i] = _until_end(row, model.generation_config.eos_token_id, tokenizer)
    model.train(was_training)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return Completions([text.strip() for text in texts], prompt_ids, ids)


def _until_end(row: list[int], ends: int | list[int] | None, tokenizer) -> list[int]:
    """The tokens up to and including the first end token."""
    ends = ends if ends is not None else tokenizer.eos_token_id
    stop = {ends} if isinstance(ends, int) else set(ends)
    for position, token in enumerate(row):
        if token in stop:
            return row[: position + 1]
    return row


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel | PeftModel, completions: Completions, temperature: float = 1.0
) -> np.ndarray:
    """log p(completion | prompt) in nats (n,) at a sampling temperature, end token included."""
    rows = [p + c for p, c in zip(completions.prompt_ids, completions.ids, strict=True)]
    out = np.zeros(len(rows), dtype=np.float64)
    model.eval()
    budget = min(PROMPT_TOKENS_PER_BATCH, LOGITS_PER_BATCH // model.config.vocab_size)
    for batch in batches_by_length([len(row) for row in rows], budget):
        longest = max(len(rows[i]) for i in batch)
        keep = max(len(completions.ids[i]) for i in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for j, i in enumerate(batch):  # left padding: completions end at the last position
            ids[j, longest - len(rows[i]) :] = torch.tensor(rows[i])
            mask[j, longest - len(rows[i]) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        ids, mask, positions = (x.to(model.device) for x in (ids, mask, positions))
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=keep + 1
        ).logits[:, :-1]
        logp = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
        chosen = logp.gather(2, ids[:, -keep:, None])[:, :, 0].cpu()
        for j, i in enumerate(batch):
            count = len(completions.ids[i])
            out[i] = chosen[j, keep - count :].sum().item() if count else 0.0
    return out
