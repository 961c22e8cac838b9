"""What memory a run will take, from shapes alone, before anything is downloaded; and its time.

Memory is told at the high end: the longest completions, long prompts, what an allocator can not
reuse, and a GPU's own context. It is in bytes, in tables in GB of 10^9 bytes. The formulas are
exact for Llama-like decoders (gated feed-forward, RMSNorm, fused attention: Llama, Qwen2, Mistral,
...) and near enough for others.

A step has phases, each of which gives its memory back: *sampling* (the cache of keys and values),
*scoring* (forward passes of guard and reward model), *update* (activations, gradients). The peak is
what is there always plus the largest phase. Logits are there for a tile of the batch only, as TRL
since 1.16 computes them. Time is measured (:func:`step_time`), on the machine that will train.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from bgkit.errors import StoppedError
from bgkit.models import devices
from bgkit.models.policies import LOGITS_PER_BATCH, PROMPT_TOKENS_PER_BATCH
from bgkit.runs import TrainConfig, make_config
from bgkit.scoring.encoders import TOKENS_PER_BATCH
from bgkit.training import trainer
from bgkit.training.presets import PRESETS, SHAPES, choose
from bgkit.training.shapes import Shape, shape_of

FLOAT32 = 4  # bytes
SPARE = 1.3  # of a phase's memory: blocks that an allocator can not reuse
PROMPT = 100  # tokens of a long prompt, where it is not known yet
CONTEXT = 0.7e9  # bytes of a CUDA context and its libraries
TILE = (4096, 32_768)  # tokens and vocabulary of TRL's tile


class Machine(NamedTuple):
    """A device: its memory in bytes (0: not known), and the bytes of a weight on it."""

    name: str
    memory: float
    width: int
    on_gpu: bool = True  # a CUDA device


#: Memory from makers' data sheets. A T4 has no bfloat16, so that weights have four bytes there.
GPUS = {
    name: Machine(name, memory, width)
    for name, memory, width in (
        ("T4", 15.8e9, 4),
        ("L4", 24e9, 2),
        ("RTX 3090", 25e9, 2),
        ("RTX 4090", 25e9, 2),
        ("A100", 85e9, 2),
        ("H100", 85e9, 2),
        ("H200", 141e9, 2),
    )
}


def this_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The machine at hand."""
    place = devices.pick_device(device)
    width = devices.pick_dtype(place, precision).itemsize
    if place.type == "cuda":
        found = torch.cuda.get_device_properties(place)
        return Machine(found.name, float(found.total_memory), width)
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
    """Bytes that one layer keeps of every token for its backward pass.

    Counted from the operations, as Korthikanti et al. 2022 (arXiv 2205.05198) do for GPT; here for
    RMSNorm, rotary positions, fused attention and a gated feed-forward. In float32, in values: each
    norm keeps its input and output (2 h), a trained one what it scales (h), too; attention keeps
    queries, keys, values and its output (2 q + 2 kv) and one number a head; the feed-forward both
    branches, the activation and their product (4 i); LoRA the output of each A (7 r). In bfloat16
    norms work in float32 and, with LoRA, each adapter keeps its own copy of its input.
    """
    h, i, q, kv = shape.hidden, shape.intermediate, shape.query, shape.key_value
    trained = 0 if rank else 1
    if width == FLOAT32:
        values = (4 + 2 * trained) * h + 2 * q + 2 * kv + 4 * i + shape.heads + 2 + 7 * rank
        return FLOAT32 * values * tokens
    kept = FLOAT32 * (2 * h + shape.heads + 2)  # inputs of both norms
    inputs = 4 * h if trained else 5 * h + q + 7 * rank
    return tokens * (kept + width * (2 * q + 2 * kv + 4 * i + inputs))


def activations(shape: Shape, tokens: int, width: int, rank: int, checkpoints: bool) -> int:
    """Bytes that the backward pass of a micro-batch needs; with ``checkpoints`` (Chen et al. 2016,
    arXiv 1604.06174) the input of every layer, and all of one layer at a time.
    """
    one = layer_activations(shape, tokens, width, rank)
    return shape.layers * shape.hidden * tokens * width + one if checkpoints else shape.layers * one


def _scoring_work(shape: Shape, rows: int, tokens: int, width: int, batch: int) -> int:
    """Bytes of a layer's largest tensors in a pass of at most ``batch`` tokens.

    The feed-forward's (with a copy) and the hidden states; where attention is written out, six
    tensors of (heads, tokens, tokens), as in DeBERTa (content and both kinds of position).
    """
    rows = max(1, min(rows, batch // max(1, tokens)))
    work = rows * tokens * (2 * shape.intermediate + 4 * shape.hidden)
    return width * (work + 6 * rows * shape.heads * tokens**2 * shape.written_out)


def memory(config: TrainConfig, machine: Machine, prompt_tokens: int = PROMPT) -> pd.DataFrame:
    """Memory of a run in GB by phase and part; the last row is the peak.

    ``prompt_tokens`` are those of a long prompt, to which a batch is padded (:func:`tokens_of`).
    Raises BgkitError where the shape of a model that the config names can not be read.
    """
    parts = _parts(config, machine, prompt_tokens)
    rows = [
        (phase, part, size * (1 if phase == "always" else SPARE) / 1e9)
        for (phase, part), size in parts.items()
    ]
    table = pd.DataFrame(rows, columns=["phase", "part", "GB"])
    phases = table.groupby("phase")["GB"].sum()
    peak = phases["always"] + phases.drop("always").max()
    table.loc[len(table)] = ["peak", "always and the largest phase", peak]
    return table


def _parts(c: TrainConfig, machine: Machine, prompt_tokens: int) -> dict[tuple[str, str], float]:
    """Bytes of every part, for completions of the longest length."""
    p, guard, utility = (shape_of(of, getattr(c, of)) for of in ("policy", "guard", "utility"))
    width = {"float32": 4, "bfloat16": 2}.get(c.precision, machine.width)
    checkpoints = width == 2 and machine.on_gpu  # the trainer recomputes activations then
    length = prompt_tokens + c.max_completion_length
    micro = c.batch_size // c.accumulation * length
    batch = TOKENS_PER_BATCH["cuda" if machine.on_gpu else "cpu"]
    trainable = lora_parameters(p, c.lora_rank)
    trained_width = FLOAT32 if c.lora_rank else width  # PEFT keeps adapters in float32
    copies = 2 if c.beta and not c.lora_rank else 1  # the reference is one
    sampled = max(c.batch_size, min(c.test_prompts, PROMPT_TOKENS_PER_BATCH // length))
    # logits in float32, with two copies: of the next token, of TRL's tile, of an evaluation's batch
    tile = min(micro, TILE[0]) * min(p.vocabulary, TILE[1])
    head = 0 if c.lora_rank else p.vocabulary * p.hidden
    evaluated = min(PROMPT_TOKENS_PER_BATCH, LOGITS_PER_BATCH // p.vocabulary)
    evaluated = min(evaluated, c.test_prompts * length)
    return {
        ("always", "policy"): copies * p.parameters * width,
        ("always", "adapter"): trainable * FLOAT32 if c.lora_rank else 0,
        # and its two moments (Kingma and Ba 2015)
        ("always", "gradients and Adam"): 3 * trained_width * trainable,
        ("always", "guard and reward model"): machine.width
        * (guard.parameters + utility.parameters),
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
    """About how many tokens a long prompt has, at the 95th percentile.

    A token is taken as four characters, as in English text; a template's 20 frame a prompt.

    >>> tokens_of(pd.Series(["a" * 40] * 80 + ["a" * 400] * 20))
    120
    """
    return 20 + round((prompts.str.len() / 4).quantile(0.95))


def verdict(table: pd.DataFrame, machine: Machine) -> str:
    """One sentence on a table of :func:`memory`: whether the run fits into the machine's."""
    need, have = table["GB"].iloc[-1], machine.memory / 1e9
    told = f"An estimate for {machine.name}: it "
    if not have:
        return f"{told}needs at most about {need:.1f} GB."
    if need <= have:
        return f"{told}fits: at most about {need:.1f} GB of {have:.1f} GB."
    return (
        f"{told}may not fit: up to {need:.1f} GB of {have:.1f} GB; raise accumulation, shorten "
        "completions, or take a smaller policy or a larger machine."
    )


def step_time(config: TrainConfig, device: str = "auto") -> float:
    """Seconds of a step on this machine: the median of a short run's but for its first.

    The run is thrown away; its models are fetched where they are not here. Raises BgkitError as
    :func:`bgkit.training.trainer.train` does, StoppedError if it was stopped.
    """
    short = {"steps": 3, "warmup_steps": 0, "eval_every": 0, "test_prompts": 1, "judge": "none"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = trainer.train(replace(config, **short), Path(folder) / "run", device=device)
        except StoppedError:  # its advice is to go on from a folder that is gone then
            raise StoppedError("Stopped; the time of a step is not known.") from None
        return float(run.curve()["seconds"].iloc[1:].median())


def overview() -> pd.DataFrame:
    """Every preset on the machine it names: models, download and peak memory."""
    rows = {}
    for name, preset in PRESETS.items():
        machine = GPUS.get(preset["machine"]) or Machine("cpu", 0, 4, on_gpu=False)
        config = make_config(choose(name))
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
