"""The arithmetic of memory against what torch and PEFT count themselves."""

from __future__ import annotations

import functools
from dataclasses import replace
from unittest.mock import Mock

import own
import pandas as pd
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, DynamicCache

from bgkit import runs
from bgkit.errors import BgkitError, StoppedError
from bgkit.models import policies
from bgkit.training import plan, presets, shapes, trainer

ROWS, LENGTH = 3, 40


@pytest.fixture(scope="module", autouse=True)
def presets_shapes_are_counted_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "shape_of", functools.lru_cache(shapes.shape_of))
        yield


def built(kind: str, rank: int = 0, dtype: torch.dtype = torch.float32, layers: int = 2):
    """A tiny decoder with or without adapter, and its shape."""
    config = own.decoder(kind, num_hidden_layers=layers)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if rank:
        model = get_peft_model(model, policies.lora_config(rank, 2 * rank))
    return model, shapes.from_config(config, "policy")


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_of_decoders_and_encoders(tied: bool) -> None:
    config = own.decoder("qwen2", tie_word_embeddings=tied)
    counted = AutoModelForCausalLM.from_config(config).num_parameters()
    assert shapes.from_config(config, "policy").parameters == counted
    for kind in ("deberta", "modernbert"):
        shape = shapes.from_config(config := own.encoder(kind, 1 + tied), "guard")
        counted = AutoModelForSequenceClassification.from_config(config).num_parameters()
        assert shape.parameters == counted and shape.written_out == (kind == "deberta")


def test_parameters_of_the_presets_are_those_on_the_model_cards() -> None:
    assert shapes.shape_of("policy", "Qwen/Qwen2.5-7B-Instruct").parameters == 7_615_616_512
    assert shapes.shape_of("guard", "hbseong/HarmAug-Guard").parameters == 435_063_810


def test_adapters_have_as_many_parameters_as_peft_counts() -> None:
    model, shape = built("llama", rank := 4)
    trainable, total = model.get_nb_trainable_parameters()
    assert plan.lora_parameters(shape, rank) == trainable
    assert shape.parameters == total - trainable


def kept_bytes(model) -> int:
    """Bytes that autograd keeps of one forward pass of the layers, without the weights."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    model.train()
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
    told = 2 * plan.layer_activations(shape, ROWS * LENGTH, width, rank)
    if rank and width == 2:  # autocast keeps bfloat16 copies of the adapter, once for all tokens
        told += 2 * width * plan.lora_parameters(shape, rank)
    assert grown == told


def test_checkpoints_keep_the_input_of_every_layer_and_one_layer() -> None:
    shape = shapes.shape_of("policy", "Qwen/Qwen2.5-0.5B-Instruct")
    layer = plan.layer_activations(shape, 1000, 4, 8)
    assert plan.activations(shape, 1000, 4, 8, checkpoints=True) == 24 * 896 * 1000 * 4 + layer
    assert plan.activations(shape, 1000, 4, 8, checkpoints=False) == 24 * layer


def test_the_cache_of_keys_and_values() -> None:
    model, shape = built("llama")
    cache = DynamicCache()
    with torch.inference_mode():
        model(torch.ones(ROWS, LENGTH, dtype=torch.long), past_key_values=cache)
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert plan.key_value_cache(shape, ROWS, LENGTH, 4) == stored


def memory_of(name: str, machine: str = "T4", **changes) -> tuple[pd.Series, str]:
    """GB of the parts of a preset on a machine, and the verdict."""
    config = replace(presets.choose(name), **changes)
    table = plan.memory(config, plan.GPUS[machine])
    return table.set_index("part")["GB"], plan.verdict(table, plan.GPUS[machine])


def test_every_preset_fits_its_machine_and_the_overview_says_so() -> None:
    table = plan.overview()
    assert list(table.index) == list(presets.PRESETS)
    assert table["download, GB"][["colab-t4", "testbed-cpu"]].tolist() == ["4.5", "0.0"]
    for name, machine in table["machine"].items():
        found, verdict = memory_of(name, "T4" if machine == "cpu" else machine)
        assert (found >= 0).all() and "it fits: " in verdict
        assert machine == "cpu" or f"{found.iloc[-1]:.1f}" == table.loc[name, "memory, GB"]
    phases = plan.memory(presets.choose("colab-t4"), plan.GPUS["T4"]).groupby("phase")["GB"].sum()
    largest = phases.drop(index=["always", "peak"]).max()
    assert phases["peak"] == pytest.approx(phases["always"] + largest)


def test_memory_follows_the_settings_and_what_does_not_fit_is_told_with_the_remedy() -> None:
    usual, few, full = (
        memory_of("colab-t4", **change)[0].iloc[-1]
        for change in ({}, {"accumulation": 1}, {"lora_rank": 0})
    )
    assert few > usual and full > usual + 3.5  # 8 more bytes a weight
    usual, bits, full = (
        memory_of("gpu-24gb", "A100", **change)[0]["guard and reward model"]
        for change in ({}, {"guard_bits": 4}, {"precision": "float32"})
    )
    assert bits < usual and full == pytest.approx(2 * usual)
    told = memory_of("colab-t4", accumulation=2)[1]
    assert "may not fit: up to" in told and "raise accumulation" in told


def test_a_preset_is_overridden_by_what_is_given() -> None:
    chosen = presets.choose("colab-t4", guard="default", steps=0)
    assert chosen.guard == "default" and chosen.steps == 40
    with pytest.raises(BgkitError, match=r"no preset 'best'; choose one of testbed-cpu, english"):
        presets.choose("best")


def test_a_stopped_measurement_does_not_advise_to_go_on(monkeypatch) -> None:
    monkeypatch.setattr(trainer, "train", Mock(side_effect=StoppedError("resume")))
    with pytest.raises(StoppedError, match="time of a step is not known") as stop:
        plan.step_time(runs.TrainConfig(), "cpu")
    assert "resume" not in str(stop.value)


def test_a_folder_is_read_without_its_weights_and_a_foreign_one_is_refused(tmp_path) -> None:
    folder = own.save_policy(tmp_path / "policy")
    (tmp_path / "policy" / "model.safetensors").unlink()
    assert shapes.shape_of("policy", folder) == shapes.from_config(own.decoder("qwen2"), "policy")
    guard = own.save_guard(tmp_path / "guard", "granite-guardian-3.1")
    assert shapes.shape_of("guard", f"granite-guardian-3.1={guard}").hidden == 32
    own.encoder("deberta", 2).save_pretrained(tmp_path)
    with pytest.raises(BgkitError, match="is no policy's: "):
        shapes.shape_of("policy", str(tmp_path))
    config = '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}'
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(BgkitError, match=r"is no policy's: .* custom code"):
        shapes.shape_of("policy", str(tmp_path))
