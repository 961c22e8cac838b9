"""What memory and time a run will take, from shapes alone: before anything is downloaded.

Estimates, told as ranges. The low end takes completions of half the longest length and nothing but
the tensors that are counted; the high end the longest completions, :data:`SPARE` for what an
allocator can not reuse, and a GPU's own context. Memory is in bytes (tables: GB of 10^9 bytes),
time in seconds. The formulas are exact for Llama-like decoders (gated feed-forward, RMSNorm, fused
attention: Llama, Qwen2, Mistral, ...) and near enough for others.

A step has phases, each of which gives its memory back: *sampling* (the cache of keys and values),
*scoring* (forward passes of guard and reward model), *update* (activations, gradients). The peak is
what is there always plus the largest phase.

What is often the largest part of GRPO, the logits of the whole batch, is not: TRL since 1.16
computes log-probabilities in tiles (:data:`TILE`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bgkit.models.policies import LOGITS_PER_BATCH, PROMPT_TOKENS_PER_BATCH
from bgkit.runs import TrainConfig, make_config
from bgkit.scoring.encoders import TOKENS_PER_BATCH
from bgkit.training.machines import GPUS, Machine, this_machine
from bgkit.training.presets import PRESETS, SHAPES, choose
from bgkit.training.shapes import Shape, shape_of

FLOAT32 = 4  # bytes
SPARE = 1.3  # of a phase's memory, at the high end: blocks that an allocator can not reuse
ASSUMED = (50, 100)  # tokens of prompts, usual and long, where they are not known yet
CONTEXT = 0.7e9  # bytes of a CUDA context and its libraries
TILE = (4096, 32_768)  # tokens and vocabulary of TRL's tile
#: Column of a step's time -> share of the longest completion that the mean one has, and of a
#: machine's speed at matrix products that models reach on a CPU and on a GPU.
ENDS = {"low": (0.5, 1.0, 0.6), "expected": (0.75, 0.9, 0.35), "high": (1.0, 0.4, 0.2)}
#: Measured on a CPU (benchmarks/plan.py), taken for GPUs, too: seconds of the sampling loop around
#: each token, seconds of a step around its passes, and how often a layer moves its hidden state.
TOKEN, STEP, MOVES = 1.5e-3, 0.1, 21


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


@dataclass(frozen=True)
class Plan:
    """What is to run: a config, the shapes of its models, a machine, and how long prompts are."""

    config: TrainConfig
    policy: Shape
    guard: Shape
    utility: Shape
    machine: Machine
    usual_tokens: int  # of a prompt, template included: what time depends on
    long_tokens: int  # of a long prompt, to which its batch is padded: what memory depends on

    @property
    def width(self) -> int:
        """Bytes of a weight: as the config says, or the machine's own."""
        return {"float32": 4, "bfloat16": 2}.get(self.config.precision, self.machine.width)

    @property
    def checkpoints(self) -> bool:
        """Whether the trainer recomputes activations: it does in bfloat16 on a GPU."""
        return self.width == 2 and self.machine.on_gpu


def make_plan(
    config: TrainConfig, machine: Machine | None = None, lengths: tuple[int, int] = ASSUMED
) -> Plan:
    """A plan with the shapes of the models that a config names; ``machine`` None measures this one.

    ``lengths`` are those of :func:`tokens_of`. Raises BgkitError where a shape can not be read.
    """
    found = (shape_of(group, getattr(config, group)) for group in ("policy", "guard", "utility"))
    return Plan(config, *found, machine or this_machine(), *lengths)


def memory(plan: Plan) -> pd.DataFrame:
    """Memory by phase and part in GB, low and high; the last row is the peak."""
    low, high = (_parts(plan, share) for share in (0.5, 1.0))
    table = pd.DataFrame(
        [(*key, low[key] / 1e9, high[key] / 1e9) for key in low],
        columns=["phase", "part", "low", "high"],
    )
    always = table["phase"] == "always"
    table.loc[~always, "high"] *= SPARE
    phases = table[~always].groupby("phase")[["low", "high"]].sum().max()
    peak = table.loc[always, ["low", "high"]].sum() + phases
    table.loc[len(table)] = ["peak", "always and the largest phase", peak["low"], peak["high"]]
    return table


def _parts(plan: Plan, share: float) -> dict[tuple[str, str], float]:
    """Bytes of every part, for completions of a share of the longest length."""
    c, p, width = plan.config, plan.policy, plan.width
    length = plan.long_tokens + max(1, round(share * c.max_completion_length))
    micro = c.batch_size // c.accumulation * length
    batch = TOKENS_PER_BATCH["cuda" if plan.machine.on_gpu else "cpu"]
    trainable = lora_parameters(p, c.lora_rank)
    trained_width = FLOAT32 if c.lora_rank else width  # PEFT keeps adapters in float32
    copies = 2 if c.beta and not c.lora_rank else 1  # the reference is one
    most = PROMPT_TOKENS_PER_BATCH // (plan.long_tokens + c.max_completion_length)
    sampled = max(c.batch_size, min(c.test_prompts, most))
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
        ("always", "guard and reward model"): plan.machine.width
        * (plan.guard.parameters + plan.utility.parameters),
        ("always", "context of the GPU"): CONTEXT * share * plan.machine.on_gpu,
        ("sampling", "keys and values"): key_value_cache(p, sampled, length, width),
        ("sampling", "logits of the next token"): 3 * FLOAT32 * sampled * p.vocabulary,
        ("scoring", "guard or reward model"): max(
            _scoring_work(shape, c.batch_size, length, width, batch)
            for shape in (plan.guard, plan.utility)
        ),
        ("update", "activations"): activations(p, micro, width, c.lora_rank, plan.checkpoints),
        ("update", "tile of logits"): FLOAT32 * (3 * tile + head),
        ("evaluation", "logits"): 3 * FLOAT32 * p.vocabulary * evaluated,
    }


def forward_flops(shape: Shape, tokens: float, length: float) -> float:
    """2 N a token, and 2 * layers * query * length for attention over half a text on average.

    Kaplan et al. 2020 (arXiv 2001.08361), table 1; N are the weights of the layers' products, that
    is, without embeddings and without the output over the vocabulary.
    """
    return tokens * (2 * shape.products + 2 * shape.layers * shape.query * length)


def step_time(plan: Plan) -> pd.DataFrame:
    """Seconds of one optimiser step by phase; the last rows are step and whole run.

    Columns are those of :data:`ENDS`. Sampling makes a pass over all layers for every token of the
    longest completion, and reads weights and cache each time; update is forward and backward (twice
    the forward; once with LoRA) and once more with checkpoints; the reference is one forward. The
    run has its steps, and the sampling for the evaluation.
    """
    table = pd.DataFrame({name: _times(plan, name) for name in ENDS})
    table.loc["step"] = table.sum()
    c = plan.config
    tests = 2 * c.test_prompts + 256 + 2 * c.eval_prompts * (c.steps // (c.eval_every or 10**9))
    whole = c.steps + (table.loc["sampling"] / table.loc["step"]) * tests / c.batch_size
    table.loc["whole run"] = table.loc["step"] * whole
    return table.rename_axis("phase").reset_index()


def _times(plan: Plan, end: str) -> dict[str, float]:
    c, p, m = plan.config, plan.policy, plan.machine
    share, on_cpu, on_gpu = ENDS[end]
    speed, launch = (on_gpu if m.on_gpu else on_cpu) * m.flops, p.layers * m.launch
    most = max(1, round(min(1.0, share + 0.25) * c.max_completion_length))
    new = max(1, round(share * c.max_completion_length))
    length = plan.usual_tokens + new
    tokens = c.batch_size * length
    head = 2 * p.vocabulary * p.hidden

    def passed(shape: Shape, count: float) -> float:
        moved = MOVES * shape.layers * shape.hidden * plan.width * count
        return forward_flops(shape, count, length) / speed + moved / m.bandwidth

    one = forward_flops(p, c.batch_size, length) + c.batch_size * head
    cache = key_value_cache(p, c.batch_size, length, plan.width) / 2  # its mean over the loop
    token = max(one / speed, p.parameters * plan.width / m.bandwidth) + cache / m.bandwidth
    forward = passed(p, tokens) + head * c.batch_size * new / speed
    passes = (2 if c.lora_rank else 3) + plan.checkpoints
    return {
        "sampling": passed(p, c.batch_size * plan.usual_tokens) + most * (token + launch + TOKEN),
        "scoring": sum(
            passed(shape, tokens) + shape.layers * m.launch for shape in (plan.guard, plan.utility)
        ),
        "reference": (forward + launch * c.accumulation) if c.beta else 0.0,
        "update": passes * (forward + launch * c.accumulation) + STEP,
    }


def tokens_of(prompts: pd.Series, template: int = 20) -> tuple[int, int]:
    """About how many tokens prompts have, on average and at the 95th percentile.

    A token is taken as four characters, as in English text; ``template`` tokens frame a prompt.

    >>> tokens_of(pd.Series(["a" * 40] * 80 + ["a" * 400] * 20))
    (48, 120)
    """
    lengths = prompts.str.len() / 4
    return template + round(lengths.mean()), template + round(lengths.quantile(0.95))


def verdict(plan: Plan) -> str:
    """One sentence: whether the run fits into the machine's memory, and how long it may take."""
    peak, whole = memory(plan).iloc[-1], step_time(plan).iloc[-1]
    need, have = f"{peak['low']:.1f} to {peak['high']:.1f} GB", plan.machine.memory / 1e9
    if not have:
        fits = f"needs about {need}"
    elif peak["high"] <= have:
        fits = f"fits: {need} of {have:.1f} GB"
    elif peak["low"] <= have:
        fits = f"may not fit: {need} of {have:.1f} GB; raise accumulation or shorten completions"
    else:
        fits = f"does not fit: {need} of {have:.1f} GB; take a smaller policy or a larger machine"
    low, expected, high = (whole[name] / 60 for name in ENDS)
    time_ = f"about {expected:.1f} minutes of computing ({low:.1f} to {high:.1f})"
    return f"An estimate for {plan.machine.name}: it {fits}; {time_}."


def overview(lengths: tuple[int, int] = ASSUMED) -> pd.DataFrame:
    """Every preset on the machine it names: models, download, peak memory and computing time.

    The preset for a CPU is left without a time, for CPUs differ too much to assume one.
    """
    rows = {}
    for name, preset in PRESETS.items():
        machine = GPUS.get(preset["machine"]) or Machine("cpu", 1e11, 1e10, 0, 4)
        plan = make_plan(make_config(choose(name)), machine, lengths)
        peak, whole = memory(plan).iloc[-1], step_time(plan).iloc[-1]
        stored = sum(
            SHAPES[shape.name]["bytes_per_weight"] * shape.parameters
            for shape in (plan.policy, plan.guard, plan.utility)
            if "/" in shape.name  # others come with the kit or a package
        )
        minutes = f"{whole['low'] / 60:.0f} to {whole['high'] / 60:.0f}"
        rows[name] = {
            "policy": plan.policy.name,
            "guard": plan.guard.name,
            "machine": machine.name,
            "download, GB": f"{stored / 1e9:.1f}",
            "memory, GB": f"{peak['low']:.1f} to {peak['high']:.1f}",
            "minutes": minutes if machine.on_gpu else "?",
        }
    return pd.DataFrame(rows).T
