"""Tokenizers, architectures and the supervised training loop of the testbed's models.

All are ordinary transformers models, so the embedded models pass through the same
loading code as real ones. Training is deliberately a small loop over pre-tokenised batches and
not a Trainer: building all models must take only minutes on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import demonstrations as dm
import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PAD, END, UNKNOWN, USER, ASSISTANT = (
    "<|pad|>",
    "<|end|>",
    "<|unknown|>",
    "<|user|>",
    "<|assistant|>",
)
MAX_LENGTH = 1280
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|> {{ message['content'] }} <|end|>"
    "{% else %}<|user|> {{ message['content'] }} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

#: name -> (hidden size, layers, feed-forward size, heads)
SHAPES = {
    "tiny": (80, 2, 224, 4),
    "small": (128, 3, 352, 4),
    "large": (256, 4, 640, 8),
    "scorer": (128, 2, 320, 4),
    "judge": (128, 3, 320, 4),
}


def build_tokenizer(pairs: bool = False) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of the world's vocabulary.

    With ``pairs`` it encodes ``tokenizer(prompt, response)`` as the scorers read it (the response
    first, so that its positions do not depend on the prompt's length); without, it adds nothing
    and leaves the framing to the chat template.
    """
    specials = [PAD, END, UNKNOWN, USER, ASSISTANT]
    vocabulary = {word: i for i, word in enumerate(specials + dm.vocabulary())}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    if pairs:
        core.post_processor = processors.TemplateProcessing(
            single=f"{USER} $A {END}",
            pair=f"{ASSISTANT} $B {USER} $A:1 {END}:1",
            special_tokens=[(token, vocabulary[token]) for token in (USER, ASSISTANT, END)],
        )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=None if pairs else CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        padding_side="right" if pairs else "left",
        clean_up_tokenization_spaces=False,
        model_input_names=inputs if pairs else [inputs[0], inputs[2]],
    )


def _settings(shape: str) -> dict[str, int | float]:
    """Settings of the configuration of a shape of :data:`SHAPES`, for both architectures."""
    hidden, layers, feed_forward, heads = SHAPES[shape]
    return {
        "vocab_size": math.ceil(len(build_tokenizer()) / 8) * 8,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "max_position_embeddings": MAX_LENGTH,
        "pad_token_id": 0,
        "initializer_range": 0.05,
    }


def new_causal_lm(shape: str, seed: int) -> PreTrainedModel:
    """Random-weight Llama of a shape of :data:`SHAPES`."""
    tokens = {"eos_token_id": 1, "bos_token_id": None}
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_settings(shape), tie_word_embeddings=True, **tokens))


def new_scorer(labels: int, seed: int) -> PreTrainedModel:
    """Random-weight BERT sequence classifier with ``labels`` outputs and no dropout."""
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(**_settings("scorer"), num_labels=labels, **dropout)
    )


def new_head(reader: PreTrainedModel, labels: int, seed: int) -> PreTrainedModel:
    """A scorer with a fresh head on a copy of another scorer's encoder and pooler."""
    model = new_scorer(labels, seed)
    model.bert.load_state_dict(reader.bert.state_dict())
    return model


def token_batches(
    lengths: Sequence[int], tokens: int, rng: np.random.Generator, noise: float = 0.1
) -> Iterator[np.ndarray]:
    """Indices in batches of like length with at most ``tokens`` padded tokens, in random order."""
    lengths = np.asarray(lengths)
    order = np.argsort(lengths * (1 + noise * rng.random(len(lengths))), kind="stable")
    batches, start = [], 0
    while start < len(order):
        stop = start + 1
        longest = lengths[order[start]]
        while stop < len(order):
            longest = max(longest, lengths[order[stop]])
            if longest * (stop - start + 1) > tokens:
                break
            stop += 1
        batches.append(order[start:stop])
        start = stop
    for i in rng.permutation(len(batches)):
        yield batches[i]


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Right-pad rows of ids to a (rows, longest) tensor of int64."""
    out = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def fit(
    model: torch.nn.Module,
    batches: Callable[[int], Iterator[np.ndarray]],
    loss: Callable[[np.ndarray], torch.Tensor],
    *,
    epochs: int,
    lr: float,
) -> float:
    """Minimise ``loss(batch)`` with AdamW, linear warm-up over 5% and cosine decay.

    ``batches(epoch)`` yields index arrays. Returns the mean loss of the last tenth of the steps.
    """
    plan = [batch for epoch in range(epochs) for batch in batches(epoch)]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98), foreach=True
    )
    warm = max(1, len(plan) // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / len(plan))),
    )
    model.train()
    history = []
    for batch in plan:
        value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        history.append(value.item())
    model.eval()
    return float(np.mean(history[-max(1, len(history) // 10) :]))


def encode_pairs(prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[list, list]]:
    """(input ids, token type ids) of every prompt and response, tokenised in one batch."""
    encoded = build_tokenizer(pairs=True)(list(prompts), list(responses))
    return list(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True))


def logits(model: PreTrainedModel, rows: Sequence[tuple[list, list]]) -> torch.Tensor:
    """Outputs (rows, labels) of a scorer for encoded pairs."""
    ids = pad([row[0] for row in rows], 0)
    types = pad([row[1] for row in rows], 0)
    return model(input_ids=ids, token_type_ids=types, attention_mask=(ids != 0).long()).logits


def outputs(model: PreTrainedModel, rows: Sequence[tuple[list, list]]) -> np.ndarray:
    """Outputs (rows, labels) of a scorer in evaluation mode, in the order of the rows."""
    out = np.zeros((len(rows), model.config.num_labels), dtype=np.float32)
    model.eval()
    with torch.inference_mode():
        lengths = [len(row[0]) for row in rows]
        for batch in token_batches(lengths, 16_000, np.random.default_rng(0)):
            out[batch] = logits(model, [rows[i] for i in batch]).numpy()
    return out


def fit_scorer(
    model: PreTrainedModel,
    rows: Sequence[tuple[list, list]],
    loss: Callable[[torch.Tensor, np.ndarray], torch.Tensor],
    *,
    epochs: int,
    lr: float,
    tokens: int,
    seed: int,
) -> float:
    """Train a scorer; ``loss(outputs, batch)`` compares its outputs with the labels of a batch."""
    lengths = [len(row[0]) for row in rows]
    return fit(
        model,
        lambda epoch: token_batches(lengths, tokens, np.random.default_rng([seed, epoch])),
        lambda batch: loss(logits(model, [rows[i] for i in batch]), batch),
        epochs=epochs,
        lr=lr,
    )


def fit_causal_lm(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]],
    *,
    epochs: int,
    lr: float,
    tokens: int,
    seed: int,
) -> float:
    """Supervised fine-tuning: cross-entropy on the completion's tokens only."""
    rows = [p + c for p, c in zip(prompts, completions, strict=True)]
    labels = [[-100] * len(p) + c for p, c in zip(prompts, completions, strict=True)]
    padding = model.config.pad_token_id
    lengths = [len(row) for row in rows]

    def batches(epoch: int) -> Iterator[np.ndarray]:
        return token_batches(lengths, tokens, np.random.default_rng([seed, epoch]))

    def loss(batch: np.ndarray) -> torch.Tensor:
        ids = pad([rows[i] for i in batch], padding)
        target = pad([labels[i] for i in batch], -100)
        hidden = model.model(
            input_ids=ids, attention_mask=(ids != padding).long()
        ).last_hidden_state
        keep = target[:, 1:] != -100  # the head runs on the completion's tokens only
        logits = model.lm_head(hidden[:, :-1][keep])
        return torch.nn.functional.cross_entropy(logits, target[:, 1:][keep])

    return fit(model, batches, loss, epochs=epochs, lr=lr)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save as half-precision safetensors (half the download; loading restores float32)."""
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
