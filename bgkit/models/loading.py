"""Load a model and its tokenizer from a folder: safetensors only, no code of the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from bgkit.errors import BgkitError
from bgkit.progress import phase

#: What transformers raises for a folder that it can not load (a missing package among it).
LOADING_ERRORS = (
    *(OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError),
    *(TypeError, AttributeError, AssertionError),  # a config.json with values of a wrong kind
)
#: Without it transformers asks the terminal whether a folder's own Python files may run.
NO_CODE = {"trust_remote_code": False}


def load_model(
    auto_class: type,
    folder: str | Path,
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    bits: int = 16,
    tokenizer_folder: str | Path | None = None,
    config_folder: str | Path | None = None,
    whole: bool = True,
    **tokenizer_options,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model of an Auto class on ``device``, for evaluation, and its tokenizer.

    ``bits`` 8 or 4 quantises the weights with bitsandbytes (16 leaves them as ``dtype``). The
    tokenizer and config are the folder's unless folders are given for them; not ``whole``, an
    adapter will bring weights that are missing. There is no dropout, so that what is sampled in
    training is what is sampled and measured elsewhere. Raises BgkitError if the folder can not be
    loaded, weights are missing, or bitsandbytes is.
    """
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **NO_CODE}
    options |= {} if whole else {"ignore_mismatched_sizes": True}  # the adapter has its head
    try:
        options |= _quantisation(bits, dtype, device)
        with phase(f"loading {name}"), nullcontext() if whole else silent():
            given = {**NO_CODE, **tokenizer_options}
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder or folder, **given)
            config = AutoConfig.from_pretrained(config_folder or folder, **NO_CODE)
            options["config"] = _without_dropout(config)
            model, loading = auto_class.from_pretrained(folder, **options)
    except torch.OutOfMemoryError as error:
        raise BgkitError(
            f"There is no memory on {device} to load {name}; load it in 8 or 4 bits, on another "
            "device, or choose a smaller one."
        ) from error
    except LOADING_ERRORS as error:
        raise not_loaded(name, folder, error) from error
    if whole and loading["missing_keys"]:
        raise BgkitError(
            f"{name} has no weights for {min(loading['missing_keys'])}: it is not a model of this "
            "kind that was trained, and what is missing would be random; choose another one."
        )
    return (model if bits < 16 else model.to(device)).eval(), tokenizer


@contextmanager
def silent() -> Iterator[None]:
    """Without transformers' report of weights that are missing, where others take their place."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def not_loaded(name: str, folder: str | Path, error: Exception) -> BgkitError:
    """The BgkitError to raise for one of :data:`LOADING_ERRORS`."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if "custom code" in reason:
        reason = (
            "it needs Python code of its own, and none is run; name a model of a kind that "
            "transformers has itself."
        )
    return BgkitError(f"Could not load {name} from {folder}: {reason}")


def _without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    for part in (config, config.get_text_config()):
        for name, value in vars(part).items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    return config


def _quantisation(bits: int, dtype: torch.dtype, device: torch.device) -> dict:
    """Options for fewer bits; transformers raises ImportError without bitsandbytes."""
    if bits not in (4, 8, 16):
        raise ValueError(f"a model can be loaded in 4, 8 or 16 bits, not {bits}.")
    if bits == 16:
        return {}
    options = {"load_in_8bit": True} if bits == 8 else {"load_in_4bit": True}
    if bits == 4:
        options |= {"bnb_4bit_compute_dtype": dtype, "bnb_4bit_quant_type": "nf4"}
    return {"quantization_config": BitsAndBytesConfig(**options), "device_map": {"": str(device)}}
