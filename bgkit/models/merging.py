"""PEFT adapters: put on a model, merged into it, and saved with the name of what they are for.

A policy that is an adapter is merged when it is loaded, so that it is part of base wherever base
is sampled, and stays in what is trained on top. Only safetensors are read.
"""

from __future__ import annotations

from pathlib import Path

from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.models.loading import LOADING_ERRORS
from bgkit.models.packaged import PACKAGED


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


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
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


def name_base(folder: Path, base: str, group: str = "policy") -> None:
    """Let an adapter that was just saved name the model that it is for, as a run's config does.

    PEFT writes the folder that the model's weights were read from, which is this machine's, and
    does not hold what was merged into them.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():  # after full fine-tuning
        return
    here = None if base in PACKAGED else hub.local_folder(group, base)
    on_hub = hub.parse(base)
    name, revision = (on_hub.repository, on_hub.revision) if on_hub else (base, None)
    if here is not None:
        name, revision = str(here.resolve()), None
    told = {"base_model_name_or_path": name, "revision": revision}
    runs.write_json(path, {**runs.read_config(path), **told})
