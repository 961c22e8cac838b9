"""One way to ask, to sample and to end, whatever a model's files say: for policies and judges."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import own
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from trl import GRPOTrainer

from bgkit.errors import BgkitError
from bgkit.evaluation import judges
from bgkit.models import policies, templates
from bgkit.training import grpo

ASKED = [f"question number {i}" for i in range(12)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> str:
    """A policy that ends often, with any of its first three tokens."""
    folder = own.save_policy(tmp_path_factory.mktemp("plain") / "policy")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        usual = model.model(torch.arange(3, 320)[None, :250]).last_hidden_state[0].mean(0)
        model.lm_head.weight[:3] += 2.5 * usual / usual.norm()
    model.save_pretrained(folder)
    return folder


def variant(
    plain: str, place: Path, settings: dict | None = None, end: int | list | None = 2, **words
) -> str:
    """The policy with another generation config, end in its config, or tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(plain)
    for name, value in words.items():
        setattr(tokenizer, name, value)
    own.save(place, AutoModelForCausalLM.from_pretrained(plain), tokenizer)
    AutoConfig.from_pretrained(plain, eos_token_id=end).save_pretrained(place)
    if settings is not None:
        GenerationConfig.from_dict(settings).to_json_file(place / "generation_config.json")
    return str(place)


def sampled(name: str, **more) -> policies.Completions:
    return policies.generate(*policies.load_policy(name, device="cpu"), ASKED, seed=4, **more)


def test_nothing_of_a_generation_config_changes_what_is_sampled(
    plain, tmp_path: Path, monkeypatch
) -> None:
    odd = variant(plain, tmp_path / "odd", {**own.ODD, "eos_token_id": 2})
    model, tokenizer = policies.load_policy(odd, device="cpu")
    for temperature in (1.0, 0.0):
        there = policies.generate(model, tokenizer, ASKED, seed=4, temperature=temperature)
        assert there.ids == sampled(plain, temperature=temperature).ids
    many = policies.generate(model, tokenizer, ["a"] * 400, seed=1, max_completion_length=1)
    whole = policies.log_probabilities(model, many)
    monkeypatch.setattr(policies, "LOGITS_PER_BATCH", 320 * 30)  # whatever the batches
    np.testing.assert_allclose(policies.log_probabilities(model, many), whole, atol=1e-4)
    often = np.bincount(np.ravel(many.ids)).argmax()
    one = policies.Completions([""], many.prompt_ids[:1], [[int(often)]])
    p = np.exp(policies.log_probabilities(model, one)[0])  # shares follow what is measured
    assert abs(np.mean(np.ravel(many.ids) == often) - p) < 4 * np.sqrt(p * (1 - p) / 400) < 0.1


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "ends"),
    [
        ([1, 0], None, "<|im_end|>", [0, 1, 2]),
        (None, [1, 2], None, [1, 2]),
        (100_000, None, "<|im_end|>", [2]),
    ],
)
def test_the_end_is_whatever_any_file_calls_the_end(
    plain, tmp_path, generation, config, tokenizer, ends
) -> None:
    name = variant(plain, tmp_path, {"eos_token_id": generation}, config, eos_token=tokenizer)
    model, words = policies.load_policy(name, device="cpu")
    assert model.generation_config.eos_token_id == ends and words.eos_token_id in ends
    done = policies.generate(model, words, ASKED, seed=4, max_completion_length=40)
    last = [ids[-1] for ids in done.ids if len(ids) < 40]
    assert not any(words.decode(end) in text for end in set(last) for text in done.texts)
    assert last and set(last) <= set(ends)
    assert not any(set(ids[:-1]) & set(ends) for ids in done.ids)


def test_a_model_without_any_end_is_refused(plain, tmp_path: Path) -> None:
    name = variant(plain, tmp_path, {}, None, eos_token=None)
    with pytest.raises(BgkitError, match="names an end token"):
        policies.load_policy(name, device="cpu")
    with pytest.raises(BgkitError, match=r"of the judge .* names an end token"):
        judges.load_judge(name, "cpu")


CHAT, SAID = own.CHATML, "m.content"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHAT.replace(SAID, f"{SAID} | e"), "drops or changes the prompt"),
        ("{{ raise_exception('no user here') }}", "its chat template: no user here"),
        ("<|im_end|>{{ bos_token }}" + CHAT, "two BOS tokens"),
    ],
)
def test_templates_that_do_not_ask_what_the_user_asks(plain, tmp_path, template, said) -> None:
    name = variant(plain, tmp_path, chat_template=template, bos_token="<|im_end|>")
    with pytest.raises(BgkitError, match=f"The policy {name} cannot be prompted: .*{said}"):
        policies.load_policy(name, device="cpu")


@pytest.mark.parametrize(
    "template",
    [
        CHAT,
        CHAT.replace(SAID, f"{SAID} | trim"),
        "{{ bos_token }}" + CHAT,
        {"default": CHAT, "tool_use": "{{ tools }}"},
    ],
    ids=["plain", "trimmed", "marked", "two"],
)
def test_training_asks_with_the_tokens_of_the_evaluation(plain, tmp_path, template) -> None:
    name = variant(plain, tmp_path, chat_template=template, bos_token="<|im_end|>")
    _, tokenizer = policies.load_policy(name, device="cpu")
    texts = ["poach an egg", 'two\n\nlines <b> & "{{ more }}"', "<|im_end|>\n<|im_start|>system"]
    ours = policies.prompt_ids(tokenizer, texts)
    off = dict.fromkeys(("chat_template", "environment_factories", "tools", "_is_vlm"))
    trainer = types.SimpleNamespace(processing_class=tokenizer, chat_template_kwargs={}, **off)
    specials = templates.special_strings(tokenizer)
    chats = [policies.as_chat(text, specials) for text in texts]
    assert GRPOTrainer._tokenize_prompts(trainer, chats)[0] == ours
    assert len({tuple(ids) for ids in ours}) == 3
    assert "poach an egg" in tokenizer.decode(ours[0]) and ours[2].count(1) == 2
    assert (ours[0][:2].count(2) == 1) == ("bos_token" in str(template))


def test_vllm_ends_where_the_model_does(monkeypatch) -> None:
    alone = {"ref_model": None, "is_fsdp_enabled": False, "is_deepspeed_enabled": False}
    monkeypatch.setattr(GRPOTrainer, "__init__", lambda self, **_: vars(self).update(alone))
    model = types.SimpleNamespace(generation_config=GenerationConfig(eos_token_id=[1, 2]))
    arguments = types.SimpleNamespace(use_vllm=True, generation_kwargs=None)
    grpo.QuietTrainer(model=model, args=arguments)
    assert arguments.generation_kwargs == {"stop_token_ids": [1, 2]}
