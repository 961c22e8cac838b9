"""What a run's config means to TRL's GRPO trainer, in one process or in those of a launch.

``accelerate launch -m bgkit train ...`` starts several processes, each of which scores its own
share of a step's completions. A config does not name their number: a step has as many completions
whatever it is, so that a run may be stopped and resumed with more or fewer.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

import torch
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from bgkit import devices, runs
from bgkit.errors import BgkitError

#: Arguments of TRL's that would ask or sample otherwise in training than in the evaluation.
TRAINING_ONLY = (
    "top_p top_k min_p repetition_penalty generation_kwargs chat_template_kwargs "
    "vllm_structured_outputs_regex"
).split()


class QuietTrainer(GRPOTrainer):
    """GRPOTrainer that leaves no model card draft beside the adapter; a run has its own files.

    vLLM ends completions where the model does, and the reference of full fine-tuning is the model
    as it was given, not as it lies on disk (where what was merged into it is missing).
    """

    def __init__(self, model: PreTrainedModel, args: GRPOConfig, **more) -> None:
        if args.use_vllm:
            args.generation_kwargs = {"stop_token_ids": model.generation_config.eos_token_id}
        super().__init__(model=model, args=args, **more)
        if self.ref_model is None:
            return
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self.accelerator.unwrap_model(self.ref_model).load_state_dict(model.state_dict())
        elif getattr(model, "made_of", None):
            raise BgkitError(
                f"The policy is an adapter ({model.made_of[-1]}), and full fine-tuning in shards "
                "reads its reference from a whole model; merge it first, train with LoRA, or set "
                "beta to 0."
            )

    def create_model_card(self, *args, **kwargs) -> None:
        """Write nothing."""


def trainer_arguments(
    config: runs.TrainConfig,
    checkpoints: Path,
    place: torch.device,
    report_to: str = "none",
    more: dict | None = None,
) -> GRPOConfig:
    """The trainer's arguments for a run on a device.

    ``more`` are arguments that are TRL's business, such as ``{"use_vllm": True, "vllm_mode":
    "colocate"}``. Raises BgkitError if it has an argument that TRL does not know or that follows
    from the config, or if a step can not be divided among the processes of the launch.
    """
    on_gpu = place.type == "cuda"
    half = on_gpu and devices.pick_dtype(place, config.precision) is torch.bfloat16
    settings = {
        "output_dir": str(checkpoints),
        "max_steps": config.steps,
        "per_device_train_batch_size": _per_process(config),
        "gradient_accumulation_steps": config.accumulation,
        "num_generations": config.num_generations,
        "max_completion_length": config.max_completion_length,
        "temperature": config.temperature,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "linear",
        "beta": config.beta,
        "loss_type": "grpo",
        "scale_rewards": "none",
        "shuffle_dataset": False,  # the table is already in the order of training
        "seed": config.seed,
        "use_cpu": place.type == "cpu",
        "bf16": half,
        "logging_steps": 1,
        "save_steps": config.save_every,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": report_to,
        "pad_to_multiple_of": None,
    }
    _check_more(more or {}, settings)
    free = {"gradient_checkpointing": half, "dataloader_pin_memory": on_gpu}
    try:
        return GRPOConfig(**settings, **{**free, **(more or {})})
    except (TypeError, ValueError) as error:
        raise BgkitError(f"TRL refuses the arguments of the trainer {more}: {error}") from error


def _per_process(config: runs.TrainConfig) -> int:
    """Completions of a micro-batch that each process of the launch takes."""
    micro, (_, processes) = config.batch_size // config.accumulation, devices.launched()
    if micro % processes:
        raise BgkitError(
            f"A micro-batch of {micro} completions (batch_size / accumulation) can not be divided "
            f"among {processes} processes; use a batch_size that is a multiple of "
            f"{processes * config.accumulation}, or another number of processes."
        )
    return micro // processes


def _check_more(more: dict, settings: dict) -> None:
    known = {field.name for field in dataclasses.fields(GRPOConfig) if field.init}
    for name in more:
        if name in settings:
            raise BgkitError(
                f"The trainer's {name!r} follows from the run's config; set it there "
                "(see `bgkit train --help`)."
            )
        if name in TRAINING_ONLY:
            raise BgkitError(
                f"The trainer's {name!r} would sample or ask otherwise in training than in the "
                "evaluation, so that they were of two policies; leave it out."
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            hint = f"did you mean {', '.join(near)}?" if near else "see TRL's GRPOConfig."
            raise BgkitError(f"TRL's GRPO trainer has no argument {name!r}; {hint}")
