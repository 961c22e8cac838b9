"""TRL's GRPO trainer with the settings of a run, in one process or in those of a launch.

``accelerate launch -m bgkit train ...`` starts several processes, each of which scores its own
share of a step's completions. Their number is not part of a config: the batch of a step is the
same for any number, so a run may be stopped and resumed with more or fewer.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import devices
from bgkit.models.policies import plain_model
from bgkit.models.sampling import fast_sampling
from bgkit.training.shared_prompts import SharedPrompts, regroup

#: Settings of a run that have the same name in TRL.
SAME = (
    "num_generations max_completion_length temperature learning_rate warmup_steps beta loss_type "
    "scale_rewards seed"
).split()
#: Arguments that users may not set, in addition to those of :func:`trainer_arguments`: they would
#: silently undo a run's settings or records, or sample differently in training and evaluation.
RESERVED = """generation_batch_size auto_find_batch_size steps_per_generation save_strategy
train_sampling_strategy save_only_model logging_strategy ignore_data_skip top_p top_k min_p
repetition_penalty generation_kwargs chat_template_kwargs vllm_structured_outputs_regex""".split()
SCHEDULES = {"constant": "constant_with_warmup"}  # TRL's "constant" has no warm-up
#: Prefixes of arguments that change how a step is computed, but not its result.
_MACHINE = tuple("use_vllm vllm_ gradient_checkpointing dataloader_ torch_compile ddp_".split())


class QuietTrainer(GRPOTrainer):
    """GRPOTrainer that writes no model card; a run has its own.

    vLLM uses the model's end tokens, and the reference of full fine-tuning is the given model, not
    the one on disk (which lacks merged adapters). Each prompt is computed once for all of its
    completions (:mod:`bgkit.training.shared_prompts`). Raises BgkitError if a launch would shard
    the policy.
    """

    def __init__(
        self, model: PreTrainedModel, args: GRPOConfig, sharing: SharedPrompts | None = None, **more
    ) -> None:
        self.sharing = sharing or SharedPrompts("off")
        if args.use_vllm:
            args.generation_kwargs = {"stop_token_ids": model.generation_config.eos_token_id}
        super().__init__(model=model, args=args, **more)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise BgkitError(
                "The launch uses FSDP or DeepSpeed, but bgkit needs the whole policy on each GPU: "
                "use data/accelerate/several_gpus.yaml, or a smaller policy."
            )
        if self.ref_model is not None:
            self.accelerator.unwrap_model(self.ref_model).load_state_dict(model.state_dict())

    def create_model_card(self, *args, **kwargs) -> None:
        """Write nothing."""

    def _generate_single_turn(self, *arguments, **more):
        """TRL's method with our sampling, unless ``shared_prompts`` is off."""
        shares = self.sharing.mode != "off" and not self.use_vllm
        inner = plain_model(self.accelerator.unwrap_model(self.model))
        with fast_sampling(inner) if shares else contextlib.nullcontext():
            return super()._generate_single_turn(*arguments, **more)

    def _prepare_inputs(self, generation_batch):
        """TRL's method, with the completions of a prompt in the same micro-batch if possible."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        batches, parts = self._buffered_inputs, self.args.steps_per_generation
        new = self.model.training and batches is not before and parts > 1
        if not new or self.sharing.off_reason or self.loss_type == "bnpo":  # mean of a micro-batch
            return inputs
        self._buffered_inputs = regroup(batches)
        return self._buffered_inputs[self._step % parts]

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **more
    ):
        """TRL's result, with each prompt computed once if the model allows it."""
        plain = super()._get_per_token_logps_and_entropies
        unwrapped = self.accelerator.unwrap_model(model)
        if not torch.is_grad_enabled():
            model = unwrapped  # a wrapped one waits for processes that may not share prompts
        batch, result = (input_ids, attention_mask, logits_to_keep), None
        given = {name for name, value in more.items() if value not in (None, False)}
        if given <= {"compute_entropy"}:  # no images, for example
            autocast = self.accelerator.autocast
            result = self.sharing.compute(model, unwrapped, *batch, plain, autocast)
        if result is None:
            return plain(model, *batch, batch_size, **more)
        logps, entropies = result
        return logps, entropies if given else None, None


def trainer_arguments(
    config: runs.TrainConfig,
    checkpoints: Path,
    place: torch.device,
    report_to: str = "none",
    more: dict | None = None,
) -> GRPOConfig:
    """TRL's arguments for a run on a device.

    ``more`` are further ones, such as ``{"use_vllm": True, "vllm_mode": "colocate"}``. Raises
    BgkitError for those that the run sets itself (:data:`RESERVED`), those that TRL rejects, and a
    step that cannot be divided among the processes of the launch.
    """
    micro, (_, processes) = config.batch_size // config.accumulation, devices.rank_and_size()
    if micro % processes:
        raise BgkitError(
            f"A micro-batch of {micro} completions (batch_size / accumulation) cannot be divided "
            f"among {processes} processes; use a batch_size that is a multiple of "
            f"{processes * config.accumulation}, or another number of processes."
        )
    on_gpu = place.type == "cuda"
    half = on_gpu and devices.pick_dtype(place, config.precision) is torch.bfloat16
    settings = {name: getattr(config, name) for name in SAME} | {
        "output_dir": str(checkpoints),
        "max_steps": config.steps,
        "per_device_train_batch_size": micro // processes,
        "gradient_accumulation_steps": config.accumulation,
        "lr_scheduler_type": SCHEDULES.get(config.lr_schedule, config.lr_schedule),
        "shuffle_dataset": False,  # the table is already in training order
        "use_cpu": place.type == "cpu",
        "bf16": half,
        "logging_steps": 1,
        "save_steps": config.save_every,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": report_to,
        "pad_to_multiple_of": None,
    }
    if taken := [name for name in more or {} if name in settings or name in RESERVED]:
        raise BgkitError(
            f"The trainer's {taken[0]!r} follows from the settings of the run, or is set by bgkit; "
            "leave it out (`bgkit train --help` has all settings)."
        )
    defaults = {"gradient_checkpointing": half, "dataloader_pin_memory": on_gpu}
    if config.loss_type == "luspo":  # its ratio is that of whole sequences
        defaults["importance_sampling_level"] = "sequence"
    try:
        return GRPOConfig(**settings, **(defaults | (more or {})))
    except (TypeError, ValueError) as error:
        raise BgkitError(f"TRL rejects the arguments of the trainer {more}: {error}") from error


def learning_arguments(more: dict | None) -> dict:
    """The further arguments of the trainer that change what is learned.

    >>> learning_arguments({"use_vllm": True, "epsilon": 0.3})
    {'epsilon': 0.3}
    """
    return {name: value for name, value in (more or {}).items() if not name.startswith(_MACHINE)}
