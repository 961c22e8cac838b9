"""Tiny models of real architectures with random weights, saved as a user's own folders would be.

Those of published guards' and reward models' kinds have the same special tokens as these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = ["how do I poach an egg ?", "slide it into simmering water .", "sorry , I can not help ."]
#: Texts in which verdict words are frequent enough to be tokens.
CORPUS = [
    "safe unsafe Safe Unsafe Controversial Yes No yes no Safety: Harmful response:",
    "Human user: AI assistant: Answers: User Agent You are a safety agent. <score> <think>",
    *TEXTS,
] * 20
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
DECODER = SIZE | {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 160}
ENCODER = {**DECODER, "intermediate_size": 128, "max_position_embeddings": 128}
del ENCODER["num_key_value_heads"]
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
#: Whatever a generation config may hold, and a run must not follow.
ODD = {"repetition_penalty": 1.3, "top_k": 3, "top_p": 0.5, "temperature": 0.2, "do_sample": True}
ODD |= {"min_new_tokens": 5, "no_repeat_ngram_size": 2, "suppress_tokens": [40, 41], "num_beams": 2}
ODD |= {"max_length": 9, "num_return_sequences": 2, "cache_implementation": "static"}


def turns(begin: str, middle: str, end: str, content: str = "m.content") -> str:
    """A chat template: a guideline, if any, and every message between a family's marks."""
    return (
        "{{ guideline }}{{ guardian_config }}{% for m in messages %}"
        f"{begin}{{{{ m.role }}}}{middle}\n{{{{ {content} }}}}{end}\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{begin}assistant{middle}\n{{% endif %}}"
    )


_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_ROLES = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]
_HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_TURNS = ["<bos>", "<start_of_turn>", "<end_of_turn>"]
_TEXT = "m.content[0].text"  # where a message has parts; of a plain string it is nothing

CHATML = turns("<|im_start|>", "", "<|im_end|>")
GRANITE = turns("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
LLAMA, LLAMA_OF_PARTS = (
    "{{ bos_token }}" + turns("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", content)
    for content in ("m.content", _TEXT)
)
GEMMA = "{{ bos_token }}" + turns("<start_of_turn>", "", "<end_of_turn>", "m.content | trim")
MARKS = ("bos", "eos", "pad")
#: protocol -> chat template, special tokens (the first begins a text), configuration class
KINDS = {
    **{f"granite-guardian-{n}": (GRANITE, _ROLES, tf.GraniteConfig) for n in (3.1, 3.2, 3.3, 4.1)},
    "llama-guard-3": (LLAMA, _HEADERS, tf.LlamaConfig),
    "llama-guard-3-1b": (LLAMA_OF_PARTS, _HEADERS, tf.LlamaConfig),
    "shieldgemma": (GEMMA, _TURNS, tf.Gemma2Config),
    "qwen3guard": (CHATML, _IM, tf.Qwen3Config),
    "wildguard": (None, ["<s>", "<|user|>", "<|assistant|>"], tf.MistralConfig),
    "skywork-reward-v2": ("{{ bos_token }}" + CHATML, _IM, tf.Qwen3Config),
}


def decoder(kind: str, **changes) -> tf.PretrainedConfig:
    """Configuration of a tiny Qwen2 or Llama."""
    return {"qwen2": tf.Qwen2Config, "llama": tf.LlamaConfig}[kind](**{**DECODER, **changes})


def encoder(kind: str, labels: int) -> tf.PretrainedConfig:
    """Configuration of a tiny DeBERTa (version 2 and 3) or ModernBERT classifier."""
    if kind == "deberta":
        return tf.DebertaV2Config(**DEBERTA, num_labels=labels, pad_token_id=0)
    ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    return tf.ModernBertConfig(**ENCODER, num_labels=labels, cls_token_id=1, sep_token_id=2, **ends)


def _bytes(texts: list[str], size: int, specials: Sequence[str] = ()) -> Tokenizer:
    """A byte-level BPE of texts, in which special tokens come first."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return core


def save_policy(folder: Path) -> str:
    """A Qwen2 chat model with ChatML, of random weights."""
    core = _bytes(TEXTS, 300, _IM)
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(decoder("qwen2", eos_token_id=2, bos_token_id=None))
    return save(folder, model, tokenizer)


def save_adapter(folder: Path, base: str, **changes) -> str:
    """A LoRA adapter (and a tokenizer) that changes what the policy in a folder says."""
    config = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": "all-linear", **changes}
    model = get_peft_model(tf.AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return save(folder, model, tf.AutoTokenizer.from_pretrained(base))


def save_classifier(folder: Path, labels: int, config=None, scale=0.0, **changes) -> str:
    """A DeBERTa that reads "[CLS] prompt [SEP] response [SEP]", of random weights.

    Or a model of ``config``, whose weights are random by ``scale`` more; ``changes`` are the
    tokenizer's.
    """
    core = _bytes(TEXTS, 300, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"))
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", **changes}
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", **names)
    torch.manual_seed(labels)
    config = config or encoder("deberta", labels)
    model = tf.AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():
        weight.data += scale * torch.randn_like(weight)
    return save(folder, model, tokenizer)


def tokenizer(template: str | None, specials: list[str]) -> tf.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows the verdict words."""
    core = _bytes(CORPUS, 700)
    made = tf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=specials[0],
        eos_token=specials[-1],
        pad_token=specials[-1],  # many decoders pad with their end token
        additional_special_tokens=specials[1:-1],
        model_max_length=4096,
    )
    made.chat_template = template
    return made


def save_guard(folder: Path, protocol: str, template: str = "", **changes) -> str:
    """Save a tiny model of a protocol's kind; ``changes`` are its config's."""
    usual, specials, config_class = KINDS[protocol]
    words = tokenizer(template or usual, specials)
    size = SIZE | {"vocab_size": len(words), "head_dim": 8, "num_labels": 1} | changes
    marks = {f"{mark}_token_id": getattr(words, f"{mark}_token_id") for mark in MARKS}
    of_reward = protocol == "skywork-reward-v2"
    kind = tf.AutoModelForSequenceClassification if of_reward else tf.AutoModelForCausalLM
    torch.manual_seed(0)
    return save(folder, kind.from_config(config_class(**size, **marks)), words)


def save(folder: Path, model, tokenizer) -> str:
    """Write a model and its tokenizer into a folder; returns its path."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
