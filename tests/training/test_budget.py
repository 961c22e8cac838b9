"""The arithmetic of memory and time against what torch and PEFT count themselves."""

from __future__ import annotations

import json

import own
import pytest
import torch
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, DynamicCache

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import policies
from bgkit.scoring import guards
from bgkit.training import budget, machines, presets, shapes

ROWS, LENGTH = 3, 40


def built(kind: str, rank: int = 0, dtype: torch.dtype = torch.float32, layers: int = 2):
    """A tiny decoder with or without adapter, and its shape."""
    config = own.decoder(kind, num_hidden_layers=layers)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if rank:
        model = get_peft_model(model, policies.lora_config(rank, 2 * rank))
    return model, shapes.from_config(config, "policy", kind)


# --- Parameters ------------------------------------------------------------------------------


def test_parameters_of_embedded_models() -> None:
    for scale in ("tiny", "small", "large"):
        model, _ = policies.load_policy(scale, device="cpu")
        assert shapes.shape_of("policy", scale).parameters == model.num_parameters()
    guard = guards.load_guard("default", device="cpu").model
    assert shapes.shape_of("guard", "default").parameters == guard.num_parameters()


@pytest.mark.parametrize("kind", ["qwen2", "llama", "deberta", "modernbert"])
@pytest.mark.parametrize("more", [0, 1])
def test_parameters_of_decoders_and_encoders(kind: str, more: int) -> None:
    if kind in ("qwen2", "llama"):
        group, auto = "policy", AutoModelForCausalLM
        config = own.decoder(kind, tie_word_embeddings=bool(more))
    else:
        group, auto = "guard", AutoModelForSequenceClassification
        config = own.encoder(kind, 1 + more)
    shape = shapes.from_config(config, group, kind)
    assert shape.parameters == auto.from_config(config).num_parameters()
    assert shape.written_out == (kind == "deberta")


def test_parameters_of_the_presets_are_those_on_the_model_cards() -> None:
    known = {
        "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
        "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
        "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    }
    for name, count in known.items():
        assert shapes.shape_of("policy", name).parameters == count
    assert shapes.shape_of("guard", "hbseong/HarmAug-Guard").parameters == 435_063_810


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("rank", [4, 16])
def test_adapters_have_as_many_parameters_as_peft_counts(kind: str, rank: int) -> None:
    model, shape = built(kind, rank)
    trainable, total = model.get_nb_trainable_parameters()
    assert budget.lora_parameters(shape, rank) == trainable
    assert shape.parameters == total - trainable


# --- Bytes -----------------------------------------------------------------------------------


def kept_bytes(model, checkpoints: bool = False) -> int:
    """Bytes that autograd keeps of one forward pass of the layers, without the weights."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    model.train()
    if checkpoints:
        inner.gradient_checkpointing_enable({"use_reentrant": False})
        inner.enable_input_require_grads()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    half = inner.dtype == torch.bfloat16
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        out = inner.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    assert out.last_hidden_state.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [0, 8])
def test_activations_are_what_autograd_keeps(kind: str, dtype: torch.dtype, rank: int) -> None:
    """Two more layers keep what two more layers are said to keep."""
    (few, shape), (many, _) = (built(kind, rank, dtype, layers) for layers in (1, 3))
    grown = kept_bytes(many) - kept_bytes(few)
    width = dtype.itemsize
    told = 2 * budget.layer_activations(shape, ROWS * LENGTH, width, rank)
    if rank and width == 2:  # autocast keeps bfloat16 copies of the adapter, once for all tokens
        told += 2 * width * budget.lora_parameters(shape, rank)
    assert grown == told


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoints_keep_the_input_of_every_layer(dtype: torch.dtype) -> None:
    (few, shape), (many, _) = (built("qwen2", 8, dtype, layers) for layers in (1, 3))
    grown = kept_bytes(many, True) - kept_bytes(few, True)
    assert grown == 2 * shape.hidden * ROWS * LENGTH * dtype.itemsize
    large = shapes.shape_of("policy", "Qwen/Qwen2.5-0.5B-Instruct")
    full, less = (budget.activations(large, 1000, 4, 8, kept) for kept in (False, True))
    assert less < full / 10


def test_the_cache_of_keys_and_values() -> None:
    model, shape = built("llama")
    cache = DynamicCache()
    with torch.inference_mode():
        model(torch.ones(ROWS, LENGTH, dtype=torch.long), past_key_values=cache)
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert budget.key_value_cache(shape, ROWS, LENGTH, 4) == stored


def test_forward_flops_are_near_what_torch_counts() -> None:
    model, shape = built("qwen2")
    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.model(ids)
    told = budget.forward_flops(shape, ROWS * LENGTH, LENGTH)
    assert told == pytest.approx(counter.get_total_flops(), rel=0.1)


# --- Plans -----------------------------------------------------------------------------------


def plan_of(name: str = "testbed-cpu", machine: str = "T4", **changes) -> budget.Plan:
    config = runs.make_config({**presets.choose(name), **changes})
    return budget.make_plan(config, machines.GPUS[machine])


def peak(plan: budget.Plan) -> tuple[float, float]:
    last = budget.memory(plan).iloc[-1]
    return last["low"], last["high"]


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_a_valid_config_and_fits_its_machine(name: str) -> None:
    machine = presets.PRESETS[name]["machine"]
    plan = plan_of(name, "T4" if machine == "cpu" else machine)
    for table in (budget.memory(plan), budget.step_time(plan)):
        assert (table["low"] <= table["high"]).all() and (table["low"] >= 0).all()
    assert "it fits: " in budget.verdict(plan)


def test_the_peak_is_what_is_always_there_and_the_largest_phase() -> None:
    table = budget.memory(plan_of("colab-t4"))
    sums = table.groupby("phase")[["low", "high"]].sum()
    phases = sums.drop(index=["always", "peak"])
    assert sums.loc["peak", "low"] == pytest.approx(sums.loc["always", "low"] + phases["low"].max())


def test_more_micro_batches_need_less_and_full_tuning_more() -> None:
    usual = peak(plan_of("colab-t4"))
    assert peak(plan_of("colab-t4", accumulation=1))[1] > usual[1]
    assert peak(plan_of("colab-t4", lora_rank=0))[0] > usual[0] + 3.5  # 8 more bytes a weight


def test_verdicts_say_what_to_do() -> None:
    assert "does not fit" in budget.verdict(plan_of("gpu-80gb", "T4"))
    risky = plan_of("colab-t4", accumulation=2)
    assert "may not fit" in budget.verdict(risky) and "raise accumulation" in budget.verdict(risky)


def test_the_overview_names_every_preset() -> None:
    table = budget.overview()
    assert list(table.index) == list(presets.PRESETS)
    assert table["download, GB"][["colab-t4", "testbed-cpu"]].tolist() == ["4.5", "0.0"]


def test_this_machine_is_measured() -> None:
    machine = machines.this_machine("cpu", size=128)
    assert machine.width == 4 and not machine.on_gpu
    assert 1e8 < machine.flops < 1e14 and 1e7 < machine.bandwidth < 1e13


def test_an_unknown_preset_lists_the_choices() -> None:
    with pytest.raises(BgkitError, match=r"no preset 'best'; choose one of testbed-cpu, english"):
        presets.choose("best")
    chosen = presets.choose("colab-t4", guard="default", steps=0)
    assert chosen["guard"] == "default" and chosen["steps"] == 40


# --- Shapes of folders -----------------------------------------------------------------------


def test_a_folder_is_read_without_its_weights(tmp_path, monkeypatch) -> None:
    folder = own.save_policy(tmp_path / "policy")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    shape = shapes.shape_of("policy", folder)
    assert shape.vocabulary == 320 and shape.key_value == 32
    assert shape.parameters == shapes.from_config(own.decoder("qwen2"), "policy", "q").parameters


def test_foreign_folders_are_refused(tmp_path) -> None:
    folder = own.save_policy(tmp_path / "policy")
    foreign = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (tmp_path / "policy" / "config.json").write_text(json.dumps(foreign))
    with pytest.raises(BgkitError, match="has no usable config"):
        shapes.shape_of("policy", folder)
    with pytest.raises(BgkitError, match="is no model for this job"):
        shapes.shape_of("policy", own.save_classifier(tmp_path / "guard", 2))
