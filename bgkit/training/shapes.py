"""Shapes of models: the numbers that determine memory, without any weights.

Parameters are counted on torch's meta device, which builds a model without allocating memory. For a
model on the hub only its ``config.json`` is read; the configurations of the presets' models are in
:data:`bgkit.training.presets.SHAPES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)
from transformers.pytorch_utils import Conv1D

from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.models.loading import NO_CODE
from bgkit.scoring import protocols
from bgkit.training.presets import SHAPES


@dataclass(frozen=True)
class Shape:
    """A model as numbers. Widths are values per token. ``linears`` is sum(in + out) over the linear
    layers that LoRA adapts, so an adapter of rank r has r * linears parameters (Hu et al. 2021,
    arXiv 2106.09685: B A with A (r, in) and B (out, r)). ``written_out``: attention scores (heads,
    length, length) are held in memory, because there is no fused kernel (DeBERTa).
    """

    parameters: int
    hidden: int
    layers: int
    heads: int
    query: int  # heads * size of a head
    key_value: int  # key and value heads * size of a head
    intermediate: int
    vocabulary: int
    linears: int
    written_out: bool = False


def shape_of(group: str, name: str) -> Shape:
    """Shape of a policy, guard or utility: embedded, in a local folder, or on the hub.

    Raises BgkitError for an unknown name, without network, and for a model of another kind or with
    an architecture that transformers does not have (a repository's code is never run).
    """
    if group in ("guard", "utility"):  # a protocol may come first
        _, name = protocols.find(group, name)
    layers = hub.layers(group, name, _config_folder)  # merged adapters do not change the shape
    base, folder = next(iter(layers.items()))
    try:
        if folder is None:
            fields = {key: v for key, v in SHAPES[base].items() if key != "bytes_per_weight"}
            return from_config(AutoConfig.for_model(**fields), group)
        return from_config(AutoConfig.from_pretrained(folder, **NO_CODE), group)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BgkitError(f"The config of {base} is no {group}'s: {reason}") from error


def _config_folder(group: str, name: str) -> Path | None:
    """Folder with the config of a model or adapter; None for a model of a preset."""
    return None if name in SHAPES else hub.resolve(group, name, _download_config)


def _download_config(name: hub.HubName, group: str) -> Path:
    from huggingface_hub import snapshot_download

    files = ["config.json", "adapter_config.json"]
    with hub.translate_errors(group, name.repository):
        return Path(
            snapshot_download(name.repository, revision=name.revision, allow_patterns=files)
        )


def from_config(config: PretrainedConfig, group: str) -> Shape:
    """Shape of a model with this configuration: a causal model or a classifier, by its group."""
    generates = any("ForCausalLM" in kind for kind in config.architectures or [])
    causal = group == "policy" or (group == "guard" and generates)
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    with torch.device("meta"):
        model = auto.from_config(config)
    text, last = config.get_text_config(), model.get_output_embeddings()
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    # PEFT's ``all-linear``: every linear layer except the output layer
    kinds = (torch.nn.Linear, Conv1D)
    linears = [m.weight for m in model.modules() if isinstance(m, kinds) and m is not last]
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=heads,
        query=heads * size,
        key_value=(getattr(text, "num_key_value_heads", None) or heads) * size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        linears=sum(sum(weight.shape) for weight in linears),
        written_out=model.config._attn_implementation == "eager",
    )
