"""Prompts computed once give TRL's log-probabilities and gradients, on models of several kinds."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import own
import pytest
import torch
import transformers as tf
from conftest import SMALL
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from trl import GRPOConfig

from bgkit import runs
from bgkit.models import policies
from bgkit.models.sampling import fast_sampling
from bgkit.training import shared_prompts
from bgkit.training import trainer as training
from bgkit.training.grpo import QuietTrainer
from bgkit.training.shared_prompts import SharedPrompts

WORDS = 300
KINDS = {
    "llama": tf.LlamaConfig,
    "qwen2": tf.Qwen2Config,
    "gemma2": functools.partial(tf.Gemma2Config, head_dim=8, query_pre_attn_scalar=8),
    "gpt_neox": tf.GPTNeoXConfig,
}


def trainer_of(folder: Path, kind: str, rank: int = 0, **more) -> QuietTrainer:
    """A trainer of a random model, with LoRA or without."""
    torch.manual_seed(0)
    words = own.tokenizer(own.CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    sizes = {**own.SIZE, "max_position_embeddings": 512, "vocab_size": len(words)}
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
    config = KINDS[kind](**sizes, **ends, **more)
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    batch = {"per_device_train_batch_size": 2, "num_generations": 2}
    return QuietTrainer(
        tf.AutoModelForCausalLM.from_pretrained(folder),
        GRPOConfig(str(folder), report_to="none", use_cpu=True, bf16=False, beta=0.1, **batch),
        sharing=SharedPrompts("auto"),
        reward_funcs=lambda completions, **more: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["hello"] * 2}),
        processing_class=words,
        peft_config=policies.lora_config(rank, 2 * rank),
    )


@pytest.fixture(scope="module", params=[*((kind, 0) for kind in KINDS), ("llama", 4)], ids=str)
def trainer(request, tmp_path_factory) -> QuietTrainer:
    return trainer_of(tmp_path_factory.mktemp("model"), *request.param)


def batch_of(prompts: list[int], completions: list[list[int]], seed: int) -> tuple:
    """A padded batch as TRL makes it: prompts on the left, completions (cut off or not) behind."""
    random = torch.Generator().manual_seed(seed)
    left, keep = max(prompts), max(1, *(max(each) for each in completions))
    rows = [(p, c) for p, lengths in enumerate(completions) for c in lengths]
    order = torch.randperm(len(rows), generator=random).tolist()  # TRL shuffles them
    words = [torch.randint(2, WORDS, (size,), generator=random) for size in prompts]
    ids = torch.zeros(len(rows), left + keep, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, number in enumerate(order):
        p, size = rows[number]
        ids[place, left - prompts[p] : left] = words[p]
        ids[place, left : left + size] = torch.randint(2, WORDS, (size,), generator=random)
        mask[place, left - prompts[p] : left + size] = 1
    return ids, mask, keep


def found(trainer: QuietTrainer, way: str, batch: tuple) -> tuple:
    """Log-probabilities, entropies and gradients, one way."""
    ids, mask, keep = batch
    trainer.sharing = SharedPrompts(way)
    trainer.model.zero_grad()
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, mask, keep, compute_entropy=True
    )
    there = mask[:, -keep:]
    weights = torch.linspace(-1, 1, logps.numel()).view_as(logps)
    (logps * there * weights).sum().backward()
    grads = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    return logps.detach() * there, entropies.detach() * there, grads, trainer.sharing


@contextlib.contextmanager
def counting(trainer: QuietTrainer) -> Iterator[list[int]]:
    """The tokens of each pass through the policy."""
    model = policies.plain_model(trainer.accelerator.unwrap_model(trainer.model))
    seen: list[int] = []

    def count(module, arguments, more) -> None:
        seen.append((arguments[0] if arguments else more["input_ids"]).numel())

    hook = model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    yield seen
    hook.remove()


@settings(max_examples=6)
@given(
    groups=st.lists(
        st.tuples(st.integers(1, 40), st.lists(st.integers(0, 12), min_size=1, max_size=4)),
        min_size=1,
        max_size=3,
    ),
    slots=st.sampled_from([shared_prompts.SLOTS["cpu"], 60]),
    seed=st.integers(0, 1000),
)
def test_both_ways_agree(trainer, groups, slots: int, seed: int) -> None:
    batch = batch_of(*map(list, zip(*groups, strict=True)), seed)
    with pytest.MonkeyPatch.context() as patch, counting(trainer) as seen:
        patch.setitem(shared_prompts.SLOTS, "cpu", slots)
        shared, plain = (found(trainer, way, batch) for way in ("auto", "off"))
    for one, other in zip(shared[:2], plain[:2], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    scale = plain[2].abs().max() + 1e-8
    assert ((shared[2] - plain[2]).abs().max() / scale) < 1e-4
    assert shared[3].status == "on" and plain[3].status == "off: asked for"
    if sum(length > 0 for length in groups[0][1]) > 1:
        assert len(seen) > 2  # it was no plain pass that agreed with itself


def test_each_prompt_goes_through_the_model_once(trainer) -> None:
    with counting(trainer) as seen:
        found(trainer, "auto", batch_of([30, 20], [[5, 5, 5], [4, 4]], 0))
    row = 30 + 3 * 4  # of the widest group: plain, shared to be compared, and then both groups
    assert seen == [3 * 35, row, 2 * row]


@pytest.mark.parametrize(
    "option", [{"eos_token_id": 1}, {"temperature": 0.7}, {"do_sample": False}], ids=str
)
def test_sampling_computes_prompts_once_drops_what_has_ended_and_draws_the_same(
    trainer, option: dict
) -> None:
    """With many words as end tokens, rows end at every step."""
    ids, mask, _ = batch_of([7, 5, 9], [[1] * 6] * 3, 3)
    model = policies.plain_model(trainer.accelerator.unwrap_model(trainer.model))
    options = {"do_sample": True, "pad_token_id": 0, "top_k": 0, "max_new_tokens": 12}
    options |= {"eos_token_id": list(range(1, 60)), **option}
    inputs, drawn = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}, []
    with counting(trainer) as seen:
        for context in (contextlib.nullcontext(), fast_sampling(model)):
            torch.manual_seed(5)
            with context:
                drawn.append(model.generate(**inputs, **options))
    assert torch.equal(*drawn) and "generate" not in vars(model)
    assert seen[0] == 18 * 9 and 3 * 9 in seen
    assert "temperature" not in option or min(seen) < 18
    with counting(trainer) as seen, fast_sampling(model):
        model.generate(**inputs, **options | {"top_k": 5})
    assert 3 * 9 not in seen  # other settings are left to transformers


def test_models_that_can_not_go_trls_way(tmp_path: Path, capsys) -> None:
    window = {"sliding_window": 8, "layer_types": ["sliding_attention"] * 2}
    short = trainer_of(tmp_path, "gemma2", **window)
    batch = batch_of([30], [[5, 5]], 0)
    shared, plain = (found(short, way, batch) for way in ("auto", "off"))
    assert torch.equal(shared[0], plain[0])
    assert shared[3].status == "off: the model's attention does not see the whole row"
    assert "Each prompt is computed once per completion" in capsys.readouterr().out


def test_a_kernel_that_ignores_the_mask_is_found_out(tmp_path: Path) -> None:
    deaf = trainer_of(tmp_path, "llama")
    forward = deaf.model.model.forward

    def ignoring(*arguments, attention_mask=None, **more):
        kept = attention_mask if attention_mask is None or attention_mask.dim() == 2 else None
        return forward(*arguments, attention_mask=kept, **more)

    deaf.model.model.forward = ignoring
    batch = batch_of([10], [[6, 6, 6]], 0)
    shared, plain = (found(deaf, way, batch) for way in ("auto", "off"))
    assert torch.equal(shared[0], plain[0]) and shared[3].status.startswith("off: rows of shared")


def test_micro_batches_hold_whole_groups_and_every_completion_once() -> None:
    same = {"total": torch.tensor(7), "no": None}
    first = {"prompt_ids": torch.tensor([[1], [2], [1]]), "x": torch.tensor([0, 1, 2]), **same}
    second = {"prompt_ids": torch.tensor([[2], [2], [1]]), "x": torch.tensor([3, 4, 5]), **same}
    found = shared_prompts.regroup([{**first, "names": [*"abc"]}, {**second, "names": [*"def"]}])
    assert [batch["x"].tolist() for batch in found] == [[0, 2, 5], [1, 3, 4]]
    assert [batch["names"] for batch in found] == [["a", "c", "f"], ["b", "d", "e"]]
    assert all(batch["total"] == 7 and batch["no"] is None for batch in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 2, "num_generations": 2},
        pytest.param({"lora_rank": 0, "learning_rate": 1e-4}, marks=pytest.mark.thorough),
    ],
)
def test_ten_steps_end_in_the_same_weights_and_the_record_says_how(tmp_path, changes) -> None:
    config = runs.make_config({**SMALL, "steps": 10, "judge": "none", "eval_every": 0, **changes})
    options, weights = {"device": "cpu", "threads": 1}, {}
    for way in ("auto", "off"):
        run = training.train(config, tmp_path / way, **options, shared_prompts=way)
        weights[way] = load_file(next(run.adapter.glob("*.safetensors")))
        assert run.result["shared_prompts"] == ("off: asked for" if way == "off" else "on")
    base = policies.load_policy("tiny", device="cpu")[0].state_dict()
    for name, one in weights["auto"].items():
        moved = (one - base[name]).norm() if name in base else one.norm()
        apart = one - weights["off"][name]
        assert apart.norm() <= 1e-3 * moved, name
        assert apart.abs().max() <= 1e-2 * moved + 1e-7, name  # Adam makes much of little gradients
