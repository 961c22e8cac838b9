"""Policies: load a generator, wrap it with LoRA, sample from it, measure its log-probabilities."""

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
from bgkit.models.loading import load_model, with_adapter
from bgkit.models.sampling import sampling
from bgkit.models.templates import neutralise, special_strings
from bgkit.progress import phase

PROMPT_TOKENS_PER_BATCH = 24_000  # padded prompt and completion tokens sampled at once
LARGE = 20_000_000  # parameters of a model that a CPU samples in smaller batches
LARGE_TOKENS_PER_BATCH = 6_000
ASKED = {"add_generation_prompt": True}  # of a chat template
LOGITS_PER_BATCH = 2**28  # values of (tokens, vocabulary) in one batch; 1 GB for a float32 copy


def load_policy(
    name: str | Path = "small",
    adapter: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    group: str = "policy",
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a policy (testbed scale tiny, small or large, a folder, a hub name) and its tokenizer.

    A policy that is a PEFT adapter is merged into its base (:mod:`bgkit.models.loading`), and the
    model's ``made_of`` names both. ``adapter`` is a run's ``adapter/`` folder: a LoRA adapter to
    put on top, or, after full fine-tuning, the complete model. ``group`` "judge" loads a local
    judge. Raises BgkitError for an unknown name, a damaged file, and a model whose chat template is
    missing or does not keep what the user says.
    """
    place, title = devices.pick_device(device), f"the {group} {name}"
    is_lora = adapter is not None and (Path(adapter) / "adapter_config.json").is_file()
    whole = adapter is not None and not is_lora
    layers = {name: Path(adapter)} if whole else hub.layers(group, name)
    folders = list(layers.values())
    model, tokenizer = load_model(
        AutoModelForCausalLM,
        folders,
        title,
        device=place,
        dtype=devices.pick_dtype(place, precision),
        padding_side="left",
    )
    model.made_of = list(layers) if len(layers) > 1 else []
    _check_template(tokenizer, title)
    settle(model, tokenizer, title)
    return (with_adapter(model, Path(adapter)) if is_lora else model), tokenizer


def _check_template(tokenizer: PreTrainedTokenizerBase, title: str) -> None:
    """Raise BgkitError for a chat template that is missing or mangles what the user says."""
    try:
        found = templates.faults(
            lambda text: templates.render(tokenizer, as_chat(text), title, **ASKED),
            lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
            tokenizer.bos_token_id,
        )
    except BgkitError as error:
        found = [str(error).rstrip(".?")]
    if found:
        raise BgkitError(
            f"{title[0].upper() + title[1:]} can not be asked: {'; '.join(found)}. Mend the chat "
            "template beside its tokenizer, or name an instruction-tuned model."
        )


def settle(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, title: str) -> None:
    """Make model and tokenizer agree on the end tokens, and drop all other sampling settings.

    Any token that generation config, config or tokenizer name as their end ends a completion, here
    and in TRL. Nothing else of a generation config is kept: with its penalties and cuts another
    distribution would be sampled than the one that is trained and measured. Raises BgkitError
    without an end token, and for a tokenizer with more tokens than the model.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    named = (model.generation_config, model.config.get_text_config(), tokenizer)
    given = [token for one in named for token in np.ravel(getattr(one, "eos_token_id", None))]
    ends = sorted({int(token) for token in given if token is not None and 0 <= token < rows})
    if not ends:
        raise BgkitError(
            f"Neither the tokenizer nor the generation_config.json of {title} names an end token "
            "(eos_token), so that no completion would end; add it there."
        )
    if max(prompt_ids(tokenizer, ["hello"])[0]) >= rows:
        raise BgkitError(
            f"The tokenizer of {title} has tokens that the model (with {rows}) does not know; it "
            "is the tokenizer of another model."
        )
    if tokenizer.eos_token_id not in ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.response_template = tokenizer.response_schema = None  # TRL would cut texts by them
    marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "pad")}
    marks["eos_token_id"] = ends
    model.config.get_text_config().update(marks)  # as the trainer wants it
    model.generation_config = GenerationConfig(do_sample=True, top_k=0, **marks)


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model inside a PEFT wrapper, its adapters in place; any other as it is."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def lora_config(rank: int, alpha: int) -> LoraConfig | None:
    """LoRA on all linear layers, without dropout; None (full fine-tuning) for rank 0."""
    modules = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, **modules) if rank else None


def as_chat(prompt: str, specials: Sequence[str] = ()) -> list[dict[str, str]]:
    """A prompt as a user's message, with special-token strings broken up.

    >>> as_chat("hello")
    [{'role': 'user', 'content': 'hello'}]
    """
    return [{"role": "user", "content": neutralise(prompt, specials)}]


@dataclass
class Completions:
    """Sampled completions: texts, and token ids of prompts and completions (end token included).

    ``cut_off`` says of each one whether the greatest length came before an end token.
    """

    texts: list[str]
    prompt_ids: list[list[int]]
    ids: list[list[int]]
    cut_off: list[bool] = field(default_factory=list)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts; the template holds the beginning mark, so that none is added."""
    specials, title = special_strings(tokenizer), f"The model in {tokenizer.name_or_path}"
    chats = [as_chat(prompt, specials) for prompt in prompts]
    texts = templates.render(tokenizer, chats, title, **ASKED)
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

    Model and tokenizer are those of :func:`load_policy`. ``temperature`` 0 decodes greedily. The
    global random state is left as it was.
    """
    checks.kind("a whole number", max_completion_length=max_completion_length, seed=seed)
    checks.positive(max_completion_length=max_completion_length, temperature=temperature or 1.0)
    if not prompts:
        return Completions([], [], [])
    asked = prompt_ids(tokenizer, prompts)
    ids: list[list[int]] = [[] for _ in prompts]
    ends = model.generation_config.eos_token_id
    how = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    how |= {"max_new_tokens": max_completion_length, "eos_token_id": list(ends), "use_cache": True}
    how["pad_token_id"] = tokenizer.pad_token_id
    was_training = model.training
    model.eval()
    cuda = [model.device] if model.device.type == "cuda" else []
    # of a large model on a CPU fewer: more are hardly faster, and a batch that is cut short is lost
    large = model.device.type == "cpu" and model.num_parameters() > LARGE
    budget = LARGE_TOKENS_PER_BATCH if large else PROMPT_TOKENS_PER_BATCH
    with torch.random.fork_rng(devices=cuda), phase("sampling", len(prompts)) as shown:
        lengths = [len(row) + max_completion_length for row in asked]
        for number, batch in enumerate(batches_by_length(lengths, budget)):
            torch.manual_seed(seed * 100_003 + number)
            rows = {"input_ids": [asked[i] for i in batch]}
            inputs = tokenizer.pad(rows, padding_side="left", return_tensors="pt")
            with sampling(plain_model(model)):
                tokens = model.generate(**inputs.to(model.device), **how)
            new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
            for i, row in zip(batch, new, strict=True):
                last = next((at for at, token in enumerate(row) if token in ends), len(row))
                ids[i] = row[: last + 1]
            shown.done = sum(map(bool, ids))
    model.train(was_training)
    cut_off = [not row or row[-1] not in ends for row in ids]
    return Completions(texts_of(tokenizer, ends, ids), asked, ids, cut_off)


def texts_of(
    tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], ids: Sequence[list[int]]
) -> list[str]:
    """What completions say, without their end token, whether or not it counts as special."""
    said = [row[:-1] if row and row[-1] in ends else row for row in ids]
    return [text.strip() for text in tokenizer.batch_decode(said, skip_special_tokens=True)]


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel | PeftModel, completions: Completions, temperature: float = 1.0
) -> np.ndarray:
    """log p(completion | prompt) in nats (n,) at a sampling temperature, end token included."""
    rows = [p + c for p, c in zip(completions.prompt_ids, completions.ids, strict=True)]
    out = np.zeros(len(rows), dtype=np.float64)
    model.eval()
    words = model.config.get_text_config().vocab_size
    budget = min(PROMPT_TOKENS_PER_BATCH, LOGITS_PER_BATCH // words)
    batches = batches_by_length([len(row) for row in rows], budget)
    with phase("log-probabilities", len(rows)) as shown:
        for batch in batches:
            keep = max(len(completions.ids[i]) for i in batch)
            given = [torch.tensor(rows[i]) for i in batch]
            left = {"batch_first": True, "padding_side": "left"}  # completions end in one place
            ids = pad_sequence(given, **left)
            mask = pad_sequence(list(map(torch.ones_like, given)), **left)
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
            shown.advance(len(batch))
    return out
