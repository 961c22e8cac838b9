"""Train a sequence classifier on prompts and responses, and save it to a folder.

transformers' Trainer handles labels and ratings, TRL's RewardTrainer preference pairs. Texts are
encoded as in scoring (:meth:`bgkit.scoring.encoders.EncoderScorer.encode`), without token types,
which RewardTrainer does not pass on. An interrupted fit resumes from its last epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from bgkit.errors import BgkitError
from bgkit.fitting.settings import Settings
from bgkit.models import devices, hub
from bgkit.models.loading import LOADING_ERRORS, NO_CODE, loading_error, silence_transformers
from bgkit.progress import Phase, phase
from bgkit.scoring.encoders import EncoderScorer
from bgkit.scoring.protocols import REWARD, Encoder


def new_scorer(
    settings: Settings, labels: Sequence[str], device: str, name: str
) -> tuple[EncoderScorer, list[str]]:
    """A scorer with an untrained head for these labels (regression if there is one).

    Also returns the names of the modules with new weights: the head, and for many encoders
    (DeBERTa, ModernBERT) a pooler or norm before it. Raises BgkitError for an encoder that is
    missing or cannot be loaded.
    """
    regression = len(labels) == 1
    folder = hub.resolve("encoder", settings.encoder)
    torch.manual_seed(settings.seed)  # for the head
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
        with silence_transformers():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                problem_type="regression" if regression else "single_label_classification",
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the encoder may be a classifier with other labels
                **NO_CODE,
            )
    except LOADING_ERRORS as error:
        raise loading_error(f"the encoder {settings.encoder}", folder, error) from error
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    protocol = REWARD if regression else Encoder()
    new = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    scorer = EncoderScorer(model.to(devices.pick_device(device)), tokenizer, protocol, name)
    return scorer, sorted({key.rpartition(".")[0] for key in new})


class _ProgressCallback(TrainerCallback):
    """Advances a phase with each step."""

    def __init__(self, progress: Phase) -> None:
        self.progress = progress

    def on_train_begin(self, args, state, control, **_) -> None:
        self.progress.first = self.progress.done = state.global_step
        self.progress.total = state.max_steps

    def on_step_end(self, args, state, control, **_) -> None:
        self.progress.advance()


def train(
    scorer: EncoderScorer, new: list[str], rows: list[dict], settings: Settings, scratch: Path
) -> None:
    """Train a scorer's model on encoded rows, with a LoRA adapter if there is a rank.

    The ``new`` modules are trained and saved in full. Rows hold input_ids and labels, or chosen_ids
    and rejected_ids. Checkpoints are in ``scratch``.
    """
    model, tokenizer, rank = scorer.model, scorer.tokenizer, settings.lora_rank
    if rank:
        lora = {"task_type": "SEQ_CLS", "target_modules": "all-linear", "modules_to_save": new}
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, **lora))
    arguments = {
        "output_dir": str(scratch),
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": settings.batch_size,
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "seed": settings.seed,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": model.device.type == "cpu",
        "dataloader_pin_memory": model.device.type != "cpu",
        "bf16": False,
    }
    with phase(f"fitting {settings.encoder}", 1) as progress:
        trainer = _make_trainer(model, tokenizer, rows, arguments, [_ProgressCallback(progress)])
        trainer.remove_callback(PrinterCallback)
        last = get_last_checkpoint(str(scratch)) if scratch.is_dir() else None
        trainer.train(resume_from_checkpoint=last)
    for name, weight in model.named_parameters():
        if "lora_" in name:  # rounded as it will be stored, so the saved model is what is measured
            weight.data = weight.data.half().float()
    scorer.model = model.eval()


def _make_trainer(model, tokenizer, rows: list[dict], arguments: dict, callbacks: list) -> Trainer:
    if tokenizer.pad_token is None:
        raise BgkitError(
            "The encoder's tokenizer has no padding token, which a fit needs; set pad_token in its "
            "tokenizer_config.json."
        )
    if "chosen_ids" not in rows[0]:
        by_length = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
        return Trainer(
            model,
            TrainingArguments(**arguments, **by_length),
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=callbacks,
        )
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    return RewardTrainer(
        model,
        RewardConfig(**arguments, max_length=None, gradient_checkpointing=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def rescale(model: PreTrainedModel | PeftModel, factor: float, shift: float = 0.0) -> None:
    """Change a model's head so that its outputs are multiplied by ``factor``, plus ``shift``.

    Raises BgkitError for a head whose last layer is not linear.
    """
    outputs = model.config.num_labels
    head = None  # the last linear layer with these outputs, without PEFT's own
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == outputs:
            head = head if "lora_" in name or "original_module" in name else layer
    if head is None:
        raise BgkitError(f"The head of {type(model).__name__} has no linear last layer to scale.")
    with torch.no_grad():
        head.weight *= factor
        if head.bias is None and shift:
            head.bias = torch.nn.Parameter(head.weight.new_zeros(outputs))
        if head.bias is not None:
            head.bias *= factor
            head.bias += shift


def save(scorer: EncoderScorer, folder: Path, encoder: str) -> None:
    """Save a fitted model: whole, or as an adapter that names its encoder, with its config."""
    model = scorer.model
    weights = {
        name: weight.half() if "lora_" in name else weight
        for name, weight in model.state_dict().items()
    }
    model.save_pretrained(folder, state_dict=weights)
    scorer.tokenizer.save_pretrained(folder)
    if isinstance(model, PeftModel):
        model.get_base_model().config.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's; a fit has its own card
        hub.write_base_name(folder, encoder, "encoder")
