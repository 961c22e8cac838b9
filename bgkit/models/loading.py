"""Load a model and its tokenizer from folders: only safetensors, and no custom code.

PEFT adapters are merged into their base on loading. A policy's adapters are thus part of the base
policy, when it is sampled and when a new adapter is trained on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from bgkit.errors import BgkitError, reason_of
from bgkit.models.hub import last_folder_with
from bgkit.progress import phase

#: What transformers raises for a folder that it cannot load, or for a missing package.
LOADING_ERRORS = (
    *(OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError),
    *(TypeError, AttributeError, AssertionError),  # values of a wrong type in config.json
)
#: Without it transformers asks on the terminal whether to run a folder's Python files.
NO_CODE = {"trust_remote_code": False}


def load_model(
    auto_class: type,
    folders: Sequence[Path],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    bits: int = 16,
    **tokenizer_options,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model of an Auto class on ``device``, in evaluation mode, and its tokenizer.

    ``folders`` are the folder of a whole model and those of adapters to merge into it, whose config
    and tokenizer take precedence. ``bits`` 8 or 4 quantises the weights with bitsandbytes (16 keeps
    ``dtype``). Dropout is off, so training samples from the same distribution as evaluation. Raises
    BgkitError if a folder cannot be loaded, or if weights or bitsandbytes are missing.
    """
    folder, *adapters = folders
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **NO_CODE}
    # adapters may provide weights that are missing or of another size, such as a head
    options |= {"ignore_mismatched_sizes": True} if adapters else {}
    try:
        options |= _quantisation(bits, dtype, device)
        with phase(f"loading {name}"), silence_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                last_folder_with(folders, "tokenizer.json", "tokenizer_config.json"),
                **{**NO_CODE, **tokenizer_options},
            )
            config = AutoConfig.from_pretrained(last_folder_with(folders, "config.json"), **NO_CODE)
            options["config"] = _disable_dropout(config)
            model, loading = auto_class.from_pretrained(folder, **options)
    except torch.OutOfMemoryError as error:
        raise BgkitError(
            f"There is not enough memory on {device} to load {name}; load it in 8 or 4 bits, on "
            "another device, or choose a smaller model."
        ) from error
    except LOADING_ERRORS as error:
        raise loading_error(name, folder, error) from error
    model = (model if bits < 16 else model.to(device)).eval()
    missing = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    for adapter in adapters:
        model = _merge_adapter(model, adapter)
        weights = load_file(adapter / "adapter_model.safetensors")  # may include a head
        missing -= {key.removeprefix("base_model.model.") for key in weights}
    if missing:
        raise BgkitError(
            f"{name} has no weights for {min(missing)}: it is not a trained model of this kind, "
            "and the missing weights would be random; choose another one."
        )
    return model, tokenizer


def add_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A model with the adapter of a folder on top, in evaluation mode.

    Raises BgkitError for a pickle, and for an adapter that does not fit the model.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise BgkitError(
            f"The adapter in {folder} has no adapter_model.safetensors, and pickles (.bin) are not "
            "loaded; save it again with safetensors."
        )
    try:
        config = PeftConfig.from_pretrained(folder)
        if config.is_prompt_learning:
            raise ValueError(f"{config.peft_type.value} has no weights to merge")
        config.inference_mode, config.base_model_name_or_path = True, None
        adapted = get_peft_model(model, config)
        loading = adapted.load_adapter(folder, "default", torch_device=str(model.device))
        if unfit := [*loading.unexpected_keys, *loading.missing_keys]:
            raise ValueError(f"it does not fit its base ({unfit[0]}); is that the right one?")
    except LOADING_ERRORS as error:
        lines = [line.strip() for line in str(error).splitlines() if "Error(s)" not in line]
        reason = ([*filter(None, lines), type(error).__name__])[0].rstrip(":. ")
        raise BgkitError(f"Could not load the adapter in {folder}: {reason}.") from error
    return adapted.eval()


def _merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter of a folder merged into its weights.

    Raises BgkitError as :func:`add_adapter`, and for an adapter that cannot be merged.
    """
    adapted = add_adapter(model, folder)
    embeddings = model.get_input_embeddings(), model.get_output_embeddings()
    tied = embeddings[1] is not None and model.config.get_text_config().tie_word_embeddings
    if tied and any(isinstance(layer, BaseTunerLayer) for layer in embeddings):
        raise BgkitError(
            f"The adapter in {folder} changes weights that the model uses twice, as input and as "
            "output embeddings, so merging would change its behaviour; merge it with the tool that "
            "made it, and name the folder of the whole model."
        )
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except LOADING_ERRORS as error:
        raise BgkitError(
            f"The adapter in {folder} is of type {adapted.peft_config['default'].peft_type.value}, "
            "which cannot be merged into its base; use a LoRA adapter, or a whole model."
        ) from error
    return merged.requires_grad_(True)  # PEFT froze the weights


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress transformers' report of missing weights, which is checked after all adapters."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def loading_error(name: str, folder: str | Path, error: Exception) -> BgkitError:
    """The BgkitError to raise for one of :data:`LOADING_ERRORS`."""
    reason = reason_of(error)
    if "custom code" in reason:
        reason = (
            "it needs custom Python code, which is not run; name a model whose architecture is "
            "part of transformers"
        )
    return BgkitError(f"Could not load {name} from {folder}: {reason}.")


def _disable_dropout(config: PretrainedConfig) -> PretrainedConfig:
    for part in (config, config.get_text_config()):
        for name, value in vars(part).items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    return config


def _quantisation(bits: int, dtype: torch.dtype, device: torch.device) -> dict:
    """Options for 8 or 4 bits; transformers raises ImportError without bitsandbytes."""
    if bits not in (4, 8, 16):
        raise ValueError(f"a model can be loaded in 4, 8 or 16 bits, not {bits}.")
    if bits == 16:
        return {}
    options = {f"load_in_{bits}bit": True}
    if bits == 4:
        options |= {"bnb_4bit_compute_dtype": dtype, "bnb_4bit_quant_type": "nf4"}
    return {"quantization_config": BitsAndBytesConfig(**options), "device_map": {"": str(device)}}
