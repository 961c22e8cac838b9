"""Load a model and its tokenizer from folders: safetensors only, no code of the model's own.

PEFT adapters are merged into their base when they are loaded: of a policy they are then part of
base wherever base is sampled, and stay in what is trained on top.
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

from bgkit.errors import BgkitError
from bgkit.models.hub import last_with
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
    folders: Sequence[Path],
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    bits: int = 16,
    **tokenizer_options,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model of an Auto class on ``device``, for evaluation, and its tokenizer.

    ``folders`` are that of a whole model and those of the adapters to merge into it, whose own
    config and tokenizer count before its. ``bits`` 8 or 4 quantises the weights with bitsandbytes
    (16 leaves them as ``dtype``). There is no dropout, so that what is sampled in training is what
    is sampled and measured elsewhere. Raises BgkitError if a folder can not be loaded, weights are
    missing, or bitsandbytes is.
    """
    folder, *adapters = folders
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **NO_CODE}
    # adapters may bring weights that are missing or of another size, such as a head
    options |= {"ignore_mismatched_sizes": True} if adapters else {}
    try:
        options |= _quantisation(bits, dtype, device)
        with phase(f"loading {name}"), silent():
            given = {**NO_CODE, **tokenizer_options}
            said = last_with(folders, "tokenizer.json", "tokenizer_config.json")
            tokenizer = AutoTokenizer.from_pretrained(said, **given)
            config = AutoConfig.from_pretrained(last_with(folders, "config.json"), **NO_CODE)
            options["config"] = _without_dropout(config)
            model, loading = auto_class.from_pretrained(folder, **options)
    except torch.OutOfMemoryError as error:
        raise BgkitError(
            f"There is no memory on {device} to load {name}; load it in 8 or 4 bits, on another "
            "device, or choose a smaller one."
        ) from error
    except LOADING_ERRORS as error:
        raise not_loaded(name, folder, error) from error
    model = (model if bits < 16 else model.to(device)).eval()
    missing = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    for adapter in adapters:
        model = _merged(model, adapter)
        whole = load_file(adapter / "adapter_model.safetensors")  # such as a head of its own
        missing -= {key.removeprefix("base_model.model.") for key in whole}
    if missing:
        raise BgkitError(
            f"{name} has no weights for {min(missing)}: it is not a model of this kind that was "
            "trained, and what is missing would be random; choose another one."
        )
    return model, tokenizer


def with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A model with the adapter of a folder on top, for evaluation.

    Raises BgkitError for a pickle, and for an adapter whose weights this model has no place for.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise BgkitError(
            f"The adapter in {folder} has no adapter_model.safetensors, and pickles (.bin) are not "
            "loaded; save it anew with safetensors."
        )
    try:
        config = PeftConfig.from_pretrained(folder)
        if config.is_prompt_learning:
            raise ValueError(f"{config.peft_type.value} has no weights that could be merged")
        config.inference_mode, config.base_model_name_or_path = True, None
        made = get_peft_model(model, config)
        loaded = made.load_adapter(folder, "default", torch_device=str(model.device))
        if unfit := [*loaded.unexpected_keys, *loaded.missing_keys]:
            raise ValueError(f"it does not fit its base ({unfit[0]}); is that the right one?")
    except LOADING_ERRORS as error:
        lines = [line.strip() for line in str(error).splitlines() if "Error(s)" not in line]
        reason = ([*filter(None, lines), type(error).__name__])[0].rstrip(":. ")
        raise BgkitError(f"Could not load the adapter in {folder}: {reason}.") from error
    return made.eval()


def _merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter of a folder merged into its weights.

    Raises BgkitError as :func:`with_adapter`, and for an adapter that can not be merged.
    """
    made = with_adapter(model, folder)
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    tied = ends[1] is not None and model.config.get_text_config().tie_word_embeddings
    if tied and any(isinstance(end, BaseTunerLayer) for end in ends):
        raise BgkitError(
            f"The adapter in {folder} changes weights that the model uses twice, as input and as "
            "output, so that it does something else once it is merged; merge it with the tool it "
            "was made with, and name the folder of the whole model."
        )
    try:
        whole = made.merge_and_unload(safe_merge=True)
    except LOADING_ERRORS as error:
        raise BgkitError(
            f"The adapter in {folder} is of the kind {made.peft_config['default'].peft_type.value},"
            " which can not be merged into its base; use a LoRA adapter, or a whole model."
        ) from error
    return whole.requires_grad_(True)  # the adapter had frozen them


@contextmanager
def silent() -> Iterator[None]:
    """Without transformers' report of weights that are missing: it is told here, or they come."""
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
