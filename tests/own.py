"""Tiny random models of real architectures, saved as a user's own folders would be."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

TEXTS = ["how do I poach an egg ?", "slide it into simmering water .", "sorry , I can not help ."]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DECODER = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "max_position_embeddings": 4096,
}
ENCODER = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
}
DEBERTA = {
    **ENCODER,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}


def decoder(kind: str, **changes) -> PretrainedConfig:
    """Configuration of a tiny Qwen2 or Llama."""
    return {"qwen2": Qwen2Config, "llama": LlamaConfig}[kind](**{**DECODER, **changes})


def encoder(kind: str, labels: int) -> PretrainedConfig:
    """Configuration of a tiny DeBERTa (version 2 and 3) or ModernBERT classifier."""
    if kind == "deberta":
        return DebertaV2Config(**DEBERTA, num_labels=labels, pad_token_id=0)
    ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    return ModernBertConfig(**ENCODER, num_labels=labels, cls_token_id=1, sep_token_id=2, **ends)


def _bytes(specials: list[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    return core


def save_policy(folder: Path) -> str:
    """A Qwen2 chat model with ChatML, of random weights."""
    core = _bytes(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(decoder("qwen2", eos_token_id=2, bos_token_id=None))
    return _save(folder, model, tokenizer)


def save_adapter(folder: Path, base: str, **changes) -> str:
    """A LoRA adapter (and a tokenizer) that changes what the policy in a folder says."""
    config = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": "all-linear", **changes}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return _save(folder, model, AutoTokenizer.from_pretrained(base))


def save_classifier(folder: Path, labels: int, config=None, scale=0.0, **changes) -> str:
    """A DeBERTa that reads "[CLS] prompt [SEP] response [SEP]", of random weights.

    Or a model of ``config``, whose weights are random by ``scale`` more; ``changes`` are the
    tokenizer's.
    """
    core = _bytes(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", **changes}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", **names)
    torch.manual_seed(labels)
    config = config or encoder("deberta", labels)
    model = AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():
        weight.data += scale * torch.randn_like(weight)
    return _save(folder, model, tokenizer)


def _save(folder: Path, model, tokenizer) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
