"""Policies: load a language model, add LoRA, sample completions, compute log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.models import devices, hub, templates
from bgkit.models.batches import batches_by_length
from bgkit.models.loading import add_adapter, load_model
from bgkit.models.sampling import fast_sampling
from bgkit.models.templates import neutralise, special_strings
from bgkit.progress import phase

PROMPT_TOKENS_PER_BATCH = 24_000  # padded prompt and completion tokens per batch
LARGE = 20_000_000  # parameters above which a CPU samples in smaller batches
LARGE_TOKENS_PER_BATCH = 6_000
CHAT_OPTIONS = {"add_generation_prompt": True}  # of a chat template
LOGITS_PER_BATCH = 2**28  # tokens times vocabulary per batch; 1 GB in float32


def load_policy(
    name: str | Path = "small",
    adapter: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    group: str = "policy",
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a policy (testbed size tiny, small or large, a folder, a hub name) and its tokenizer.

    A policy that is a PEFT adapter is merged into its base (:mod:`bgkit.models.loading`), and the
    model's ``made_of`` names both. ``adapter`` is a run's ``adapter/`` folder: a LoRA adapter to
    add on top, or, after full fine-tuning, the complete model. ``group`` "judge" loads a local
    judge. Raises BgkitError for an unknown name, a damaged file, and a model whose chat template is
    missing or changes the user's text.
    """
    torch_device, title = devices.pick_device(device), f"the {group} {name}"
    is_lora = adapter is not None and (Path(adapter) / "adapter_config.json").is_file()
    is_full = adapter is not None and not is_lora
    layers = {name: Path(adapter)} if is_full else hub.layers(group, name)
    base = next(iter(layers.values()))
    if (base / "adapter").is_dir() and (base / "base.json").is_file():
        raise BgkitError(f"{name} is the folder of a run; give its policy, {base / 'adapter'}.")
    model, tokenizer = load_model(
        AutoModelForCausalLM,
        list(layers.values()),
        title,
        device=torch_device,
        dtype=devices.pick_dtype(torch_device, precision),
        padding_side="left",
    )
    model.made_of = list(layers) if len(layers) > 1 else []
    _check_template(tokenizer, title)
    align_tokenizer(model, tokenizer, title)
    return (add_adapter(model, Path(adapter)) if is_lora else model), tokenizer


def _check_template(tokenizer: PreTrainedTokenizerBase, title: str) -> None:
    """Raise BgkitError for a chat template that is missing or changes the user's text."""
    try:
        faults = templates.faults(
            lambda text: templates.render(tokenizer, as_chat(text), title, **CHAT_OPTIONS),
            lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
            tokenizer.bos_token_id,
        )
    except BgkitError as error:
        faults = [str(error).rstrip(".?")]
    if faults:
        raise BgkitError(
            f"{title[0].upper() + title[1:]} cannot be prompted: {'; '.join(faults)}. Fix the chat "
            "template of its tokenizer, or name an instruction-tuned model."
        )


def align_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, title: str) -> None:
    """Make model and tokenizer agree on the end tokens, and drop all other sampling settings.

    Any end token of the generation config, config or tokenizer ends a completion, here and in TRL.
    Other settings of the generation config, such as penalties, are dropped: they would change the
    distribution that is trained and measured. Raises BgkitError without an end token, and for a
    tokenizer with more tokens than the model.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    sources = (model.generation_config, model.config.get_text_config(), tokenizer)
    tokens = [token for s in sources for token in np.ravel(getattr(s, "eos_token_id", None))]
    ends = sorted({int(token) for token in tokens if token is not None and 0 <= token < rows})
    if not ends:
        raise BgkitError(
            f"Neither the tokenizer nor the generation_config.json of {title} names an end token "
            "(eos_token), so no completion would end; add it there."
        )
    if max(prompt_ids(tokenizer, ["hello"])[0]) >= rows:
        raise BgkitError(
            f"The tokenizer of {title} has more tokens than the model ({rows}); it belongs to "
            "another model."
        )
    if tokenizer.eos_token_id not in ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.response_template = tokenizer.response_schema = None  # TRL would apply them
    marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "pad")}
    marks["eos_token_id"] = ends
    model.config.get_text_config().update(marks)  # read by the trainer
    model.generation_config = GenerationConfig(do_sample=True, top_k=0, **marks)


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model inside a PEFT wrapper, with its adapters; other models as they are."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def lora_config(rank: int, alpha: int) -> LoraConfig | None:
    """LoRA on all linear layers, without dropout; None (full fine-tuning) for rank 0."""
    modules = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, **modules) if rank else None


def as_chat(prompt: str, specials: Sequence[str] = ()) -> list[dict[str, str]]:
    """A prompt as a user message, with special-token strings broken up.

    >>> as_chat("hello")
    [{'role': 'user', 'content': 'hello'}]
    """
    return [{"role": "user", "content": neutralise(prompt, specials)}]


@dataclass
class Completions:
    """Sampled completions: texts, and token ids of prompts and completions (with end token).

    ``cut_off`` says whether each completion reached the maximum length without an end token.
    """

    texts: list[str]
    prompt_ids: list[list[int]]
    ids: list[list[int]]
    cut_off: list[bool] = field(default_factory=list)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts; the chat template supplies the BOS token, so none is added."""
    specials, title = special_strings(tokenizer), f"The model in {tokenizer.name_or_path}"
    chats = [as_chat(prompt, specials) for prompt in prompts]
    texts = templates.render(tokenizer, chats, title, **CHAT_OPTIONS)
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

    Model and tokenizer come from :func:`load_policy`. ``temperature`` 0 decodes greedily. The
    global random state is preserved.
    """
    checks.require_type("a whole number", max_completion_length=max_completion_length, seed=seed)
    checks.require_positive(
        max_completion_length=max_completion_length, temperature=temperature or 1.0
    )
    if not prompts:
        return Completions([], [], [])
    prompt_rows = prompt_ids(tokenizer, prompts)
    ids: list[list[int]] = [[] for _ in prompts]
    ends = model.generation_config.eos_token_id
    options = {"do_sample": bool(temperature), "max_new_tokens": max_completion_length}
    options |= {"temperature": temperature} if temperature else {}
    options |= {"eos_token_id": list(ends), "pad_token_id": tokenizer.pad_token_id}
    was_training = model.training
    model.eval()
    cuda = [model.device] if model.device.type == "cuda" else []
    # large models on a CPU: larger batches are hardly faster, and an interrupt loses a whole batch
    large = model.device.type == "cpu" and model.num_parameters() > LARGE
    budget = LARGE_TOKENS_PER_BATCH if large else PROMPT_TOKENS_PER_BATCH
    with torch.random.fork_rng(devices=cuda), phase("sampling", len(prompts)) as progress:
        lengths = [len(row) + max_completion_length for row in prompt_rows]
        for number, batch in enumerate(batches_by_length(lengths, budget)):
            torch.manual_seed(seed * 100_003 + number)
            rows = {"input_ids": [prompt_rows[i] for i in batch]}
            inputs = tokenizer.pad(rows, padding_side="left", return_tensors="pt")
            with fast_sampling(plain_model(model)):
                tokens = model.generate(**inputs.to(model.device), **options, use_cache=True)
            new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
            for i, row in zip(batch, new, strict=True):
                last = next((n for n, token in enumerate(row) if token in ends), len(row))
                ids[i] = row[: last + 1]
            progress.done = sum(map(bool, ids))
    model.train(was_training)
    cut_off = [not row or row[-1] not in ends for row in ids]
    return Completions(decode_completions(tokenizer, ends, ids), prompt_rows, ids, cut_off)


def decode_completions(
    tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], ids: Sequence[list[int]]
) -> list[str]:
    """Texts of completions, without their end tokens, even if these are not special tokens."""
    rows = [row[:-1] if row and row[-1] in ends else row for row in ids]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel | PeftModel, completions: Completions, temperature: float = 1.0
) -> np.ndarray:
    """log p(completion | prompt) in nats (n,) at a sampling temperature, with the end token."""
    rows = [p + c for p, c in zip(completions.prompt_ids, completions.ids, strict=True)]
    out = np.zeros(len(rows), dtype=np.float64)
    model.eval()
    vocabulary = model.config.get_text_config().vocab_size
    budget = min(PROMPT_TOKENS_PER_BATCH, LOGITS_PER_BATCH // vocabulary)
    batches = batches_by_length([len(row) for row in rows], budget)
    with phase("log-probabilities", len(rows)) as progress:
        for batch in batches:
            keep = max(len(completions.ids[i]) for i in batch)
            tensors = [torch.tensor(rows[i]) for i in batch]
            left = {"batch_first": True, "padding_side": "left"}  # aligns the completions' ends
            ids = pad_sequence(tensors, **left)
            mask = pad_sequence(list(map(torch.ones_like, tensors)), **left)
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
            progress.advance(len(batch))
    return out
