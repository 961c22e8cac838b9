"""The memory a run will need, from model shapes alone, before any download; and its time.

Memory is an upper estimate: the longest completions, long prompts, blocks that an allocator cannot
reuse, and a GPU's own context. It is in bytes, in tables in GB of 10^9 bytes. The formulas are
exact for Llama-like decoders (gated feed-forward, RMSNorm, fused attention: Llama, Qwen2, Mistral,
...) and approximate for others.

A step has phases, each of which frees its memory: *sampling* (key-value cache), *scoring* (forward
passes of guard and reward model), *update* (activations, gradients). The peak is the memory that is
always used plus that of the largest phase. Logits exist for one tile of the batch at a time, as in
TRL since 1.16. Time is measured (:func:`step_time`), on the machine that will train.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from bgkit.errors import BgkitError, StoppedError
from bgkit.models import devices
from bgkit.models.policies import LOGITS_PER_BATCH, PROMPT_TOKENS_PER_BATCH
from bgkit.prompts.load import load_prompts
from bgkit.runs import TrainConfig
from bgkit.scoring.encoders import TOKENS_PER_BATCH
from bgkit.training import trainer
from bgkit.training.presets import PRESETS, SHAPES, choose
from bgkit.training.shapes import Shape, shape_of

FLOAT32 = 4  # bytes
SPARE = 1.3  # factor on a phase's memory for blocks that an allocator cannot reuse
PROMPT = 100  # tokens of a long prompt, by default
CONTEXT = 0.7e9  # bytes of a CUDA context and its libraries
TILE = (4096, 32_768)  # tokens and vocabulary of TRL's tile


class Machine(NamedTuple):
    """A device: its memory in bytes (0 if unknown), and the bytes of a weight on it."""

    name: str
    memory: float
    width: int
    on_gpu: bool = True  # a CUDA device


_MEMORY = {
    "L4": 24e9,
    "RTX 3090": 25e9,
    "RTX 4090": 25e9,
    "A100": 85e9,
    "H100": 85e9,
    "H200": 141e9,
}
#: Memory from the vendors' data sheets. A T4 has no bfloat16, so its weights take four bytes.
GPUS = {"T4": Machine("T4", 15.8e9, 4)} | {n: Machine(n, size, 2) for n, size in _MEMORY.items()}


def this_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The current machine."""
    place = devices.pick_device(device)
    width = devices.pick_dtype(place, precision).itemsize
    if place.type == "cuda":
        gpu = torch.cuda.get_device_properties(place)
        return Machine(gpu.name, float(gpu.total_memory), width)
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 0
    return Machine(place.type, float(memory), width, on_gpu=False)


def lora_parameters(shape: Shape, rank: int) -> int:
    """Trainable parameters: rank * sum(in + out) over all linear layers; all of them for rank 0."""
    return rank * shape.linears if rank else shape.parameters


def key_value_cache(shape: Shape, rows: int, tokens: int, width: int) -> int:
    """Bytes of keys and values: 2 * layers * key_value * rows * tokens of ``width`` bytes."""
    return 2 * shape.layers * shape.key_value * rows * tokens * width


def layer_activations(shape: Shape, tokens: int, width: int, rank: int) -> int:
    """Bytes of the activations that one layer keeps for its backward pass.

    Counted from the operations, as Korthikanti et al. 2022 (arXiv 2205.05198) do for GPT; here for
    RMSNorm, rotary positions, fused attention and a gated feed-forward. Values per token in
    float32: each norm keeps its input and output (2 h), and a trained one also what it scales (h);
    attention keeps queries, keys, values and its output (2 q + 2 kv) and one number per head; the
    feed-forward both branches, the activation and their product (4 i); LoRA the output of each A
    (7 r). In bfloat16, norms use float32 and, with LoRA, each adapter keeps a copy of its input.
    """
    h, i, q, kv = shape.hidden, shape.intermediate, shape.query, shape.key_value
    trained = 0 if rank else 1
    if width == FLOAT32:
        values = (4 + 2 * trained) * h + 2 * q + 2 * kv + 4 * i + shape.heads + 2 + 7 * rank
        return FLOAT32 * values * tokens
    norms = FLOAT32 * (2 * h + shape.heads + 2)  # inputs of both
    inputs = 4 * h if trained else 5 * h + q + 7 * rank
    return tokens * (norms + width * (2 * q + 2 * kv + 4 * i + inputs))


def activations(shape: Shape, tokens: int, width: int, rank: int, checkpoints: bool) -> int:
    """Bytes of all layers' activations; with ``checkpoints`` (Chen et al. 2016, arXiv 1604.06174)
    of the input of every layer, and of one layer at a time.
    """
    layer = layer_activations(shape, tokens, width, rank)
    inputs = shape.layers * shape.hidden * tokens * width
    return inputs + layer if checkpoints else shape.layers * layer


def _scoring_work(shape: Shape, rows: int, tokens: int, width: int, batch: int) -> int:
    """Bytes of a layer's largest tensors in a pass of at most ``batch`` tokens.

    The feed-forward's (with a copy) and the hidden states; without fused attention also six tensors
    of (heads, tokens, tokens), as in DeBERTa (content and both kinds of position).
    """
    rows = max(1, min(rows, batch // max(1, tokens)))
    work = rows * tokens * (2 * shape.intermediate + 4 * shape.hidden)
    return width * (work + 6 * rows * shape.heads * tokens**2 * shape.written_out)


def estimate(
    config: TrainConfig, machine: str | None = None, device: str = "auto"
) -> tuple[pd.DataFrame, str]:
    """A run's memory (:func:`memory`) and whether it fits, before any model is downloaded.

    ``machine`` is one of :data:`GPUS`; without it, this machine's ``device``. Raises BgkitError for
    an unknown machine.
    """
    if machine and machine not in GPUS:
        raise BgkitError(f"There is no machine {machine!r}; known: {', '.join(GPUS)}.")
    chosen = GPUS[machine] if machine else this_machine(device, config.precision)
    prompts = load_prompts(config.prompts, "train", None, config.seed)["prompt"]
    table = memory(config, chosen, tokens_of(prompts))
    return table, verdict(table, chosen)


def memory(config: TrainConfig, machine: Machine, prompt_tokens: int = PROMPT) -> pd.DataFrame:
    """Memory of a run in GB by phase and part; the last row is the peak.

    ``prompt_tokens`` is the length of a long prompt, to which a batch is padded
    (:func:`tokens_of`). Raises BgkitError if the shape of a model cannot be read.
    """
    parts = _memory_parts(config, machine, prompt_tokens).items()
    rows = [(*key, size * (1 if key[0] == "always" else SPARE) / 1e9) for key, size in parts]
    table = pd.DataFrame(rows, columns=["phase", "part", "GB"])
    phases = table.groupby("phase")["GB"].sum()
    peak = phases["always"] + phases.drop("always").max()
    table.loc[len(table)] = ["peak", "always and the largest phase", peak]
    return table


def _memory_parts(c: TrainConfig, machine: Machine, prompt_tokens: int) -> dict:
    """(phase, part) -> bytes, for completions of the maximal length."""
    p, guard, utility = (shape_of(of, getattr(c, of)) for of in ("policy", "guard", "utility"))
    width = {"float32": 4, "bfloat16": 2}.get(c.precision, machine.width)
    checkpoints = width == 2 and machine.on_gpu  # the trainer recomputes activations then
    length = prompt_tokens + c.max_completion_length
    micro = c.batch_size // c.accumulation * length
    batch = TOKENS_PER_BATCH["cuda" if machine.on_gpu else "cpu"]
    trainable = lora_parameters(p, c.lora_rank)
    trained_width = FLOAT32 if c.lora_rank else width  # PEFT keeps adapters in float32
    copies = 2 if c.beta and not c.lora_rank else 1  # policy and reference
    sampled = max(c.batch_size, min(c.test_prompts, PROMPT_TOKENS_PER_BATCH // length))
    # float32 logits with two copies: of the next token, of TRL's tile, of an evaluation's batch
    tile = min(micro, TILE[0]) * min(p.vocabulary, TILE[1])
    head = 0 if c.lora_rank else p.vocabulary * p.hidden
    evaluated = min(PROMPT_TOKENS_PER_BATCH, LOGITS_PER_BATCH // p.vocabulary)
    evaluated = min(evaluated, c.test_prompts * length)
    return {
        ("always", "policy"): copies * p.parameters * width,
        ("always", "adapter"): trainable * FLOAT32 if c.lora_rank else 0,
        ("always", "gradients and Adam"): 3 * trained_width * trainable,  # Adam has two moments
        ("always", "guard and reward model"): sum(
            shape.parameters * (width if bits == 16 else bits / 8)
            for shape, bits in ((guard, c.guard_bits), (utility, c.utility_bits))
        ),
        ("always", "context of the GPU"): CONTEXT * machine.on_gpu,
        ("sampling", "keys and values"): key_value_cache(p, sampled, length, width),
        ("sampling", "logits of the next token"): 3 * FLOAT32 * sampled * p.vocabulary,
        ("scoring", "guard or reward model"): max(
            _scoring_work(shape, c.batch_size, length, width, batch) for shape in (guard, utility)
        ),
        ("update", "activations"): activations(p, micro, width, c.lora_rank, checkpoints),
        ("update", "tile of logits"): FLOAT32 * (3 * tile + head),
        ("evaluation", "logits"): 3 * FLOAT32 * p.vocabulary * evaluated,
    }


def tokens_of(prompts: pd.Series) -> int:
    """Approximate number of tokens of a long prompt (the 95th percentile).

    A token counts as four characters, as in English text; a chat template adds 20 tokens.

    >>> tokens_of(pd.Series(["a" * 40] * 80 + ["a" * 400] * 20))
    120
    """
    return 20 + round((prompts.str.len() / 4).quantile(0.95))


def verdict(table: pd.DataFrame, machine: Machine) -> str:
    """One sentence on whether a run with this table of :func:`memory` fits on a machine."""
    need, have = table["GB"].iloc[-1], machine.memory / 1e9
    start = f"An estimate for {machine.name}: it "
    if not have:
        return f"{start}needs at most about {need:.1f} GB."
    if need <= have:
        return f"{start}fits: at most about {need:.1f} GB of {have:.1f} GB."
    return (
        f"{start}may not fit: up to {need:.1f} GB of {have:.1f} GB; raise accumulation, shorten "
        "completions, or take a smaller policy or a larger machine."
    )


def step_time(config: TrainConfig, device: str = "auto") -> float:
    """Seconds per step on this machine: the median over a short run without its first step.

    The run is deleted; missing models are downloaded. Raises BgkitError as
    :func:`bgkit.training.trainer.train` does, StoppedError if it was stopped.
    """
    short = {"steps": 3, "warmup_steps": 0, "eval_every": 0, "test_prompts": 1, "judge": "none"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = trainer.train(replace(config, **short), Path(folder) / "run", device=device)
        except StoppedError:  # its advice to resume does not apply to a deleted folder
            raise StoppedError("Stopped; the time of a step is not known.") from None
        return float(run.curve()["seconds"].iloc[1:].median())


def overview() -> pd.DataFrame:
    """Every preset on its machine: models, download and peak memory."""
    rows = {}
    for name, preset in PRESETS.items():
        machine = GPUS.get(preset["machine"]) or Machine("cpu", 0, 4, on_gpu=False)
        config = choose(name)
        stored = sum(
            SHAPES[model]["bytes_per_weight"] * shape_of(group, model).parameters
            for group in ("policy", "guard", "utility")
            if "/" in (model := getattr(config, group))  # others come with the kit or a package
        )
        rows[name] = {
            "policy": config.policy,
            "guard": config.guard,
            "machine": machine.name,
            "download, GB": f"{stored / 1e9:.1f}",
            "memory, GB": f"{memory(config, machine)['GB'].iloc[-1]:.1f}",
        }
    return pd.DataFrame(rows).T
