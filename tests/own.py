"""Tiny models of real architectures, saved as a user's own folders would be.

Those of published guards' and reward models' kinds have the same special tokens, templates of the
same structure, and weights that are random, or fitted to the two examples of the self-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence

from bgkit.scoring import guards, protocols

TEXTS = ["how do I poach an egg ?", "slide it into simmering water .", "sorry , I can not help ."]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BODY = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = BODY | {"num_key_value_heads": 2, "intermediate_size": 160}
DECODER |= {"max_position_embeddings": 4096}
ENCODER = BODY | {"intermediate_size": 128, "max_position_embeddings": 128}
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

CORPUS = [
    "safe unsafe Safe Unsafe Controversial Yes No yes no Safety: Harmful response:",
    *(f"{p} {r}" for p, r, _ in guards.EVERYDAY),
    "Human user: AI assistant: Answers: User Agent You are a safety agent. <score> <think>",
] * 20
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}

LLAMA = """{{ bos_token }}<|start_header_id|>user<|end_header_id|>

Task: is the last Agent message unsafe?
{% for m in messages %}{% if m.role == 'user' %}User: {% else %}Agent: {% endif %}\
CONTENT

{% endfor %}Answer:<|eot_id|><|start_header_id|>assistant<|end_header_id|>"""
GRANITE = """<|start_of_role|>user<|end_of_role|>You are a safety agent.
<start_of_turn>
User Message: {{ messages[0].content }}

Assistant Message: {{ messages[1].content }}<end_of_turn>
Risk: {{ guardian_config.risk_name or guardian_config.criteria_id }}. Yes or No?<|end_of_text|>
{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"""
THINKING = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>

</think>

"""
GEMMA = """{{ bos_token }}You are a policy expert.

<start_of_turn>
Human Question: {{ messages[0].content | trim }}

Chatbot Response: {{ messages[1].content | trim }}
<end_of_turn>

* {{ guideline }}

Does the response violate the principle? Yes or No.

"""
ROLES = """{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}\
<|end_of_text|>
{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"""
REWARD = """{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}"""
_PARTS = "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
_HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_ROLES = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]
_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TURNS = ["<bos>", "<start_of_turn>", "<end_of_turn>"]

#: protocol -> chat template, special tokens (the first begins a text), configuration class
KINDS = {
    **{f"granite-guardian-3.{n}": (GRANITE, _ROLES, tf.GraniteConfig) for n in (1, 2, 3)},
    "granite-guardian-4.1": (ROLES, _ROLES, tf.GraniteConfig),
    "llama-guard-3": (LLAMA.replace("CONTENT", "{{ m.content }}"), _HEADERS, tf.LlamaConfig),
    "llama-guard-3-1b": (LLAMA.replace("CONTENT", _PARTS), _HEADERS, tf.LlamaConfig),
    "shieldgemma": (GEMMA, _TURNS, tf.Gemma2Config),
    "qwen3guard": (THINKING, _IM, tf.Qwen3Config),
    "wildguard": (None, ["<s>", "<|user|>", "<|assistant|>"], tf.MistralConfig),
    "skywork-reward-v2": (REWARD, _IM, tf.Qwen3Config),
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


def save_guard(folder: Path, protocol: str, *, fitted: bool = True, **changes) -> str:
    """Save a tiny generative guard of a protocol's kind; ``fitted`` ones pass the self-test."""
    template, specials, config_class = KINDS[protocol]
    words = tokenizer(changes.pop("template", template), specials)
    torch.manual_seed(0)
    config = config_class(
        **SIZE | changes,
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    if hasattr(config, "head_dim"):
        config.head_dim = 8
    model = tf.AutoModelForCausalLM.from_config(config)
    if fitted:
        fit(model, words, protocols.GUARDS[protocol])
    return save(folder, model, words)


def fit(model, words, protocol: protocols.Verdict) -> None:
    """Teach a model the self-test's verdicts, under every guideline."""
    from bgkit.scoring.decoders import VerdictGuard

    head = model.get_output_embeddings()
    asked = VerdictGuard(model, words, protocol, "tiny")
    model.set_output_embeddings(head)
    pairs = (guards.EVERYDAY[0], guards.EVERYDAY[-1])
    rows, targets = [], []
    for prompt, response, harmful in pairs:
        for guideline in asked.calls:
            rows += asked.encode([prompt], [response], guideline)
            targets.append(asked.word_ids[1 if harmful else 0][0])
    last = torch.tensor([len(row) - 1 for row in rows])
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = (torch.arange(ids.shape[1]) <= last[:, None]).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(40):
        logits = model(ids, attention_mask=mask).logits[torch.arange(len(rows)), last]
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def save_reward(folder: Path, **changes) -> str:
    """Save a tiny decoder with one random output."""
    template, specials, config_class = KINDS["skywork-reward-v2"]
    words = tokenizer(template, specials)
    torch.manual_seed(1)
    config = config_class(
        **SIZE | changes, vocab_size=len(words), num_labels=1, pad_token_id=words.pad_token_id
    )
    config.head_dim = 8
    return save(folder, tf.AutoModelForSequenceClassification.from_config(config), words)


def save(folder: Path, model, tokenizer) -> str:
    """Write a model and its tokenizer into a folder; returns its path."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
