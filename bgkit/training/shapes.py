"""Shapes of models: the numbers that memory and time follow from, without any weights.

Parameters are counted on torch's meta device, which builds a model without memory for it. For a
model on the hub only its ``config.json`` and the headers of its weight files (a few kilobytes) are
read; for the presets' models nothing is, their shapes lie in :data:`bgkit.training.presets.SHAPES`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.models.loading import NO_CODE
from bgkit.scoring import protocols
from bgkit.training.presets import SHAPES

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Shape:
    """A model as numbers. Widths are values per token; ``linears`` is sum(in + out) over the linear
    layers that LoRA adapts, so that an adapter of rank r has r * linears parameters (Hu et al.
    2021, arXiv 2106.09685: B A with A (r, in) and B (out, r)). ``products`` are the weights of
    these layers: each takes part in one multiplication per token.

    ``stored`` are the bytes of its weight files. ``written_out`` says that attention scores
    (heads, length, length) are kept in memory, for the architecture has no fused kernel (DeBERTa).
    """

    name: str
    parameters: int
    hidden: int
    layers: int
    heads: int
    query: int  # heads * size of a head
    key_value: int  # key and value heads * size of a head
    intermediate: int
    vocabulary: int
    linears: int
    products: int
    stored: int
    written_out: bool = False


def shape_of(group: str, name: str) -> Shape:
    """Shape of a policy, guard or utility: embedded, in a local folder, or on the hub.

    Raises BgkitError for an unknown name, without network, and for a model whose architecture
    transformers does not have (code in a repository is never run).
    """
    if group in ("guard", "utility"):  # a protocol may stand in front
        tables = {"guard": protocols.GUARDS, "utility": protocols.UTILITIES}
        _, name = protocols.find(tables[group], name)
    below, folder = hub.layers(group, name, _here)[0]  # merged adapters leave a model's shape
    if folder is not None:
        return replace(_from_folder(folder, group, below), name=name)
    if below in SHAPES:
        known = dict(SHAPES[below])
        width = known.pop("bytes_per_weight")
        shape = from_config(AutoConfig.for_model(**known), group, name)
        return replace(shape, stored=width * shape.parameters)
    return replace(_from_hub(hub.parse(below), group, below), name=name)


def _here(group: str, name: str) -> Path | None:
    """Folder of a model, or None where it has to be read from the hub or from a preset."""
    if name in SHAPES:
        return None
    if (folder := hub.local_folder(group, name)) is not None:
        return folder
    on_hub = hub.parse(name)
    return hub.resolve(group, name) if on_hub is None else hub.cached(on_hub)


def from_config(config: PretrainedConfig, group: str, name: str, stored: int = 0) -> Shape:
    """Shape of a model of this configuration: generative guards and policies, else classifiers.

    ``stored`` 0 takes float32 weights.
    """
    generates = any("ForCausalLM" in kind for kind in config.architectures or [])
    causal = group == "policy" or (group == "guard" and generates)
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    try:
        with torch.device("meta"):
            model = auto.from_config(config)
    except (ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BgkitError(f"The {group} {name} is no model for this job: {first}") from error
    text = config.get_text_config()
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    linears = _linears(model)
    parameters = sum(weight.numel() for weight in model.parameters())
    return Shape(
        name=name,
        parameters=parameters,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=heads,
        query=heads * size,
        key_value=(getattr(text, "num_key_value_heads", None) or heads) * size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        linears=sum(sum(weight.shape) for weight in linears),
        products=sum(weight.numel() for weight in linears),
        stored=stored or FLOAT32 * parameters,
        written_out=model.config._attn_implementation == "eager",
    )


def _linears(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Weights of what PEFT calls ``all-linear``: every linear layer but the output's."""
    last = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    found = [module for module in model.modules() if isinstance(module, kinds)]
    return [module.weight for module in found if module is not last]


def _from_folder(folder: Path, group: str, name: str) -> Shape:
    config = _read(folder, group, name)
    files = sorted(folder.glob("*.safetensors"))
    try:
        stored = sum(bytes_in(path) for path in files)
    except (OSError, ValueError, struct.error) as error:
        raise BgkitError(f"The weights in {folder} are damaged: {error}") from error
    if not files:
        raise BgkitError(f"The {group} {name} has no safetensors weights in {folder}.")
    return from_config(config, group, name, stored)


def bytes_in(path: Path) -> int:
    """Bytes of the tensors of a safetensors file, from its header (8 bytes of length, then JSON).

    Raises ValueError if the file is shorter than its header says.
    """
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length)) if length < 10**8 else {}
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    if not ends or path.stat().st_size != 8 + length + max(ends):
        raise ValueError(f"{path.name} is not a whole safetensors file")
    return max(ends)


def _from_hub(name: hub.HubName, group: str, written: str) -> Shape:
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    where = {"repo_id": name.repository, "revision": name.revision}
    try:
        try:
            folder = Path(hf_hub_download(filename="config.json", **where)).parent
        except EntryNotFoundError:
            folder = Path(hf_hub_download(filename="adapter_config.json", **where)).parent
        base = hub.base_name(folder, group)
        stored = 0 if base else _stored(get_safetensors_metadata(**where))
    except BgkitError:
        raise
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        raise hub.problem(error, group, name.repository) from error
    if base is not None:
        return shape_of(group, base)
    return from_config(_read(folder, group, written), group, written, stored)


def _stored(metadata) -> int:
    files = metadata.files_metadata.values()
    return sum(
        tensor.data_offsets[1] - tensor.data_offsets[0]
        for file in files
        for tensor in file.tensors.values()
    )


def _read(folder: Path, group: str, name: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, **NO_CODE)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BgkitError(f"The {group} {name} in {folder} has no usable config: {first}") from error
