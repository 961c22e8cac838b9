"""What a run's config means to TRL's GRPO trainer, in one process or in those of a launch.

``accelerate launch -m bgkit train ...`` starts several processes, each of which scores its own
share of a step's completions. A config does not name their number: a step has as many completions
whatever it is, so that a run may be stopped and resumed with more or fewer.
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
from bgkit.training.shared_prompts import SharedPrompts, regrouped

#: Settings of a run that the trainer calls the same.
SAME = (
    "num_generations max_completion_length temperature learning_rate warmup_steps beta loss_type "
    "scale_rewards seed"
).split()
#: Arguments that nobody sets, beside those of :func:`trainer_arguments`: they would silently undo
#: a run's settings or records, or sample in training otherwise than in evaluation.
DECIDED = """generation_batch_size auto_find_batch_size steps_per_generation train_sampling_strategy
save_strategy save_only_model logging_strategy ignore_data_skip top_p top_k min_p repetition_penalty
generation_kwargs chat_template_kwargs vllm_structured_outputs_regex""".split()
SCHEDULES = {"constant": "constant_with_warmup"}  # TRL's plain one knows no warm-up
#: Arguments that say how a step is computed, not what comes of it, begin so.
_MACHINE = tuple("use_vllm vllm_ gradient_checkpointing dataloader_ torch_compile ddp_".split())


class QuietTrainer(GRPOTrainer):
    """GRPOTrainer that leaves no model card draft beside the adapter; a run has its own files.

    vLLM ends completions where the model does, and the reference of full fine-tuning is the model
    as it was given, not as it lies on disk (where what was merged into it is missing). Prompts are
    computed once for all of their completions (:mod:`bgkit.training.shared_prompts`). Raises
    BgkitError where a launch would divide the policy into shards.
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
                "The launch asks for FSDP or DeepSpeed, and bgkit trains a policy that is whole on "
                "each GPU: use data/accelerate/several_gpus.yaml, or a smaller policy."
            )
        if self.ref_model is not None:
            self.accelerator.unwrap_model(self.ref_model).load_state_dict(model.state_dict())

    def create_model_card(self, *args, **kwargs) -> None:
        """Write nothing."""

    def _generate_single_turn(self, *arguments, **more):
        """TRL's method with our sampling, unless the run asks for TRL's way."""
        shares = self.sharing.way != "off" and not self.use_vllm
        inner = plain_model(self.accelerator.unwrap_model(self.model))
        with fast_sampling(inner) if shares else contextlib.nullcontext():
            return super()._generate_single_turn(*arguments, **more)

    def _prepare_inputs(self, generation_batch):
        """TRL's method; the micro-batches of a step hold whole groups as far as they go."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        drawn, parts = self._buffered_inputs, self.args.steps_per_generation
        new = self.model.training and drawn is not before and parts > 1
        if not new or self.sharing.why or self.loss_type == "bnpo":  # a mean over a micro-batch
            return inputs
        self._buffered_inputs = regrouped(drawn)
        return self._buffered_inputs[self._step % parts]

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **more
    ):
        """TRL's method, each prompt once where the model takes it, and else TRL's way."""
        trls = super()._get_per_token_logps_and_entropies
        local = self.accelerator.unwrap_model(model)
        if not torch.is_grad_enabled():
            model = local  # a wrapped one waits for the other processes, which may take other ways
        batch, found = (input_ids, attention_mask, logits_to_keep), None
        given = {name for name, value in more.items() if value not in (None, False)}
        if given <= {"compute_entropy"}:  # nothing such as pictures
            found = self.sharing.compute(model, local, *batch, trls, self.accelerator.autocast)
        if found is None:
            return trls(model, *batch, batch_size, **more)
        logps, entropies = found
        return logps, entropies if given else None, None


def trainer_arguments(
    config: runs.TrainConfig,
    checkpoints: Path,
    place: torch.device,
    report_to: str = "none",
    more: dict | None = None,
) -> GRPOConfig:
    """The trainer's arguments for a run on a device.

    ``more`` are arguments that are TRL's business, such as ``{"use_vllm": True, "vllm_mode":
    "colocate"}``. Raises BgkitError for those that the run decides on (:data:`DECIDED`), those that
    TRL refuses, and a step that can not be divided among the processes of the launch.
    """
    micro, (_, processes) = config.batch_size // config.accumulation, devices.rank_and_size()
    if micro % processes:
        raise BgkitError(
            f"A micro-batch of {micro} completions (batch_size / accumulation) can not be divided "
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
        "shuffle_dataset": False,  # the table is already in the order of training
        "use_cpu": place.type == "cpu",
        "bf16": half,
        "logging_steps": 1,
        "save_steps": config.save_every,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": report_to,
        "pad_to_multiple_of": None,
    }
    if taken := [name for name in more or {} if name in settings or name in DECIDED]:
        raise BgkitError(
            f"The trainer's {taken[0]!r} follows from the settings of the run, or is decided on by "
            "bgkit; leave it out (`bgkit train --help` has all settings)."
        )
    free = {"gradient_checkpointing": half, "dataloader_pin_memory": on_gpu}
    if config.loss_type == "luspo":  # its ratio is that of whole sequences
        free["importance_sampling_level"] = "sequence"
    try:
        return GRPOConfig(**settings, **(free | (more or {})))
    except (TypeError, ValueError) as error:
        raise BgkitError(f"TRL refuses the arguments of the trainer {more}: {error}") from error


def of_training(more: dict | None) -> dict:
    """Those of the trainer's further arguments that change what is learned.

    >>> of_training({"use_vllm": True, "epsilon": 0.3})
    {'epsilon': 0.3}
    """
    return {name: value for name, value in (more or {}).items() if not name.startswith(_MACHINE)}
