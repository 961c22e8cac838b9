"""How long a GRPO step takes with bgkit, compared with the same step of a plain TRL script.

Both train the same policy from the same seed on the same prompts with the same reward, each in its
own process, one after the other. The plain script scores as reward functions are usually
written: the step's texts in one padded batch through the guard, then through the reward model. A
step is split into generation, scoring, the reference's log-probabilities and the update (the rest).
``floor`` is the time of reference and update at the model's best measured speed if each prompt
and completion went through it once: P + G R tokens. On a GPU the policy has the shape and the
vocabulary of Qwen2.5-0.5B, and random weights.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bench_scoring as bench
import numpy as np
import pandas as pd
import torch
import transformers as tf
from peft import get_peft_model
from trl import GRPOTrainer

from bgkit import rewards, runs
from bgkit.models import devices, policies
from bgkit.progress import phase, say
from bgkit.prompts.load import load_prompts
from bgkit.scoring import guards
from bgkit.scoring.decoders import RewardDecoder
from bgkit.scoring.encoders import READS
from bgkit.scoring.scorer import Scorer
from bgkit.training import grpo
from bgkit.training import prompt_order as training_prompts
from bgkit.training import trainer as training

#: part of a step -> the trainer's method that does it (the last one only without gradients)
PARTS = {
    "generation": "_generate",
    "scoring": "_calculate_rewards",
    "reference": "_get_per_token_logps_and_entropies",
}
WAYS = ("bgkit", "plain TRL script")
WORDS = 151_936  # of Qwen2.5
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 4}
#: workload -> the prompts, whether the guard is a decoder in a template, settings of the run
WORKLOADS: dict[str, tuple[str, bool, dict]] = {
    "short prompts": ("short", False, {}),
    "the testbed's mixture": ("testbed", False, {}),
    "the mixture, decoder in a template of 350 words": ("testbed", True, {}),
    "contexts of 2,000 tokens, policy of 30M": (
        "long",
        False,
        {"batch_size": 16, "max_completion_length": 32, "learning_rate": 1e-4},
    ),
}


class SigmoidGuard:
    """A decoder with random weights in place of a generative guard; t is the score's sigmoid."""

    def __init__(self, scorer: RewardDecoder) -> None:
        self.scorer, self.model, self.name = scorer, scorer.model, "random"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 in (0, 1)."""
        return _sigmoid(self.scorer.score(prompts, responses))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


class StepClock(tf.TrainerCallback):
    """Seconds of every step by part; wrap the training in ``watching``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """Start the clock."""
        self._now.clear()
        self._begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Store the step's times; held-out evaluation comes after."""
        _wait()
        whole = time.perf_counter() - self._begun
        row = {part: self._now[part] for part in PARTS}
        self.rows.append({**row, "update": whole - sum(row.values()), "step": whole})

    @contextmanager
    def watching(self, kind: type[GRPOTrainer] = GRPOTrainer) -> Iterator[None]:
        """Time the parts of all trainers of this class inside the block."""
        own = {name: vars(kind).get(name) for name in PARTS.values()}
        try:
            for part, name in PARTS.items():
                setattr(kind, name, self._timed(part, getattr(kind, name)))
            yield
        finally:
            for name, method in own.items():
                if method is None:
                    delattr(kind, name)
                else:
                    setattr(kind, name, method)

    def _timed(self, part: str, method: Callable) -> Callable:
        def run(*arguments, **options):
            if part == "reference" and torch.is_grad_enabled():
                return method(*arguments, **options)
            _wait()
            begun = time.perf_counter()
            result = method(*arguments, **options)
            _wait()
            self._now[part] += time.perf_counter() - begun
            return result

        return run


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.inference_mode()
def plain_scores(scorer: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) scores from one padded batch of all texts, as in a short script."""
    if isinstance(scorer, SigmoidGuard | RewardDecoder):
        work = bench.Workload(list(prompts), list(responses))
        scores = bench.padded_scores(getattr(scorer, "scorer", scorer), work, len(prompts))
        return _sigmoid(scores) if isinstance(scorer, SigmoidGuard) else scores
    columns = (list(prompts), list(responses)) if scorer.protocol.pair else (list(responses),)
    inputs = scorer.tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    logits = scorer.model(**inputs.to(scorer.model.device)).logits.float()
    return READS[scorer.protocol.read](logits, scorer.protocol.index).cpu().numpy()


def plain_training(
    config: runs.TrainConfig, guard: Scorer, utility: Scorer, clock: StepClock, place
) -> None:
    """A plain TRL script: a trainer and a reward function, without records."""
    model, tokenizer = policies.load_policy(config.policy, None, str(place), config.precision)

    def reward(prompts, completions, question, **columns) -> list[float]:
        responses = [completion[0]["content"] for completion in completions]
        t, u = (plain_scores(scorer, question, responses) for scorer in (guard, utility))
        z = (u - u.mean()) / max(u.std(), 1e-6)
        values = rewards.compute_reward(
            config.reward, t, z, config.tau, strength=config.strength, u=u
        )
        return (values / max(values.std(), 1e-6)).tolist()

    with tempfile.TemporaryDirectory() as folder:
        arguments = grpo.trainer_arguments(config, Path(folder), place)
        arguments.save_strategy = tf.trainer_utils.SaveStrategy.NO
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=training_prompts.training_table(
                config,
                training_prompts.load_splits(config)["train"][0],
                policies.special_strings(tokenizer),
            ),
            processing_class=tokenizer,
            peft_config=policies.lora_config(config.lora_rank, config.lora_alpha),
            callbacks=[clock],
        )
        trainer.remove_callback(tf.PrinterCallback)
        with clock.watching():
            trainer.train()


def bgkit_training(
    config: runs.TrainConfig, guard: Scorer, utility: Scorer, clock: StepClock, place
) -> pd.DataFrame:
    """The same with bgkit, including records; returns the completions."""
    with tempfile.TemporaryDirectory() as folder, clock.watching(grpo.QuietTrainer):
        run = training.train(
            config,
            Path(folder) / "run",
            device=str(place),
            threads=torch.get_num_threads(),
            guard=guard,
            utility=utility,
            callbacks=[clock],
        )
        return run.completions()


def guard_of(place: torch.device, generative: bool) -> Scorer:
    """The testbed's guard, or a decoder of 30M (a GPU's first) in a template of 350 words."""
    if not generative:
        return guards.load_guard("default", str(place))
    kind, shape = next(iter(bench.DECODERS.get(place.type, bench.DECODERS["cpu"]).values()))
    rng = np.random.default_rng(0)
    template = " ".join(rng.choice(sorted(bench.store_words()), 350))
    return SigmoidGuard(bench.random_decoder(kind, shape, place, template))


def prompts_of(which: str, folder: Path) -> str:
    """A prompt set: the testbed's, or a file written here of short or long prompts."""
    if which == "testbed":
        return which
    table = load_prompts("testbed", "train", 400)
    if which == "short":
        table = table[table["kind"] != "long_context"]
    else:
        rng, words = np.random.default_rng(0), sorted(bench.store_words())
        table = table[table["kind"] != "long_context"].head(64)
        table = table.assign(prompt=[" ".join(rng.choice(words, 2000)) for _ in table["prompt"]])
    path = folder / f"{which}.jsonl"
    table[["prompt"]].to_json(path, orient="records", lines=True)
    return str(path)


def policy_of(which: str, place: torch.device, folder: Path) -> str:
    """The testbed's small policy; on a GPU, or for long prompts, random weights in a folder."""
    if which != "long" and place.type == "cpu":
        return "small"
    kind, shape = next(iter(bench.DECODERS.get(place.type, bench.DECODERS["cpu"]).values()))
    tokenizer = policies.load_policy("small", None, "cpu")[1]
    words = len(tokenizer) if place.type == "cpu" else WORDS
    torch.manual_seed(0)
    ends = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "eos")}
    config = kind(**shape, vocab_size=words, max_position_embeddings=8192, pad_token_id=0, **ends)
    model = tf.AutoModelForCausalLM.from_config(config).to(devices.pick_dtype(place, "auto"))
    model.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    file = folder / "policy/tokenizer.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["model"]["vocab"] |= {f"word{i}": i for i in range(len(tokenizer), words)}
    file.write_text(json.dumps(stored), encoding="utf-8")
    return str(folder / "policy")


@contextmanager
def with_attention(kind: str) -> Iterator[None]:
    """Policies loaded in the block use this attention kernel; "" keeps the default."""
    load = policies.load_policy

    def loaded(*arguments, **options) -> tuple:
        model, tokenizer = load(*arguments, **options)
        model.set_attn_implementation(kind)
        return model, tokenizer

    policies.load_policy = loaded if kind else load
    try:
        yield
    finally:
        policies.load_policy = load


def floor_of(config: runs.TrainConfig, completions: pd.DataFrame, place: torch.device) -> float:
    """Seconds of reference and update for P + G R tokens of a step, at the best measured speed."""
    model, tokenizer = policies.load_policy(config.policy, None, str(place), config.precision)
    model = get_peft_model(model, policies.lora_config(config.lora_rank, config.lora_alpha))
    step = completions[completions["step"] == completions["step"].max()]
    prompts = policies.prompt_ids(tokenizer, step["prompt"].unique().tolist())
    tokens = sum(map(len, prompts)) + int(step["length"].sum())
    best = np.inf
    for rows, width in ((8, 64), (32, 64), (8, 256), (4, 512)):
        ids = torch.randint(2, model.config.vocab_size, (rows, width), device=place)
        for _ in range(3):
            begun = time.perf_counter()
            with torch.no_grad():
                model(input_ids=ids, logits_to_keep=1)
            model(input_ids=ids, logits_to_keep=1).logits.sum().backward()
            _wait()
            best = min(best, (time.perf_counter() - begun) / ids.numel())
    return best * tokens


def measure(
    name: str, way: str, count: int, device: str, threads: int, attention: str, changes: dict
) -> dict:
    """Median seconds of a step's parts for one way, without the first step."""
    torch.set_num_threads(threads)
    place, (which, generative, settings) = devices.pick_device(device), WORKLOADS[name]
    basic = {"steps": count + 1, "eval_every": 0, "test_prompts": 8, "judge": "none"}
    with tempfile.TemporaryDirectory() as folder, with_attention(attention):
        own = {
            "prompts": prompts_of(which, Path(folder)),
            "policy": policy_of(which, place, Path(folder)),
        }
        if place.type != "cpu":
            basic["learning_rate"] = 1e-5  # the policy is large and its text is noise
        config = runs.make_config({**basic, "save_every": count + 1, **own, **settings, **changes})
        guard, utility = guard_of(place, generative), guards.load_utility("mild", str(place))
        if which == "long":  # too long for the testbed's scorers
            utility = bench.random_decoder(tf.LlamaConfig, TINY, place)
            guard = SigmoidGuard(utility)
        clock, extra = StepClock(), {}
        if way == WAYS[0]:
            extra["floor"] = floor_of(
                config, bgkit_training(config, guard, utility, clock, place), place
            )
        else:
            plain_training(config, guard, utility, clock, place)
    parts = {part: statistics.median(row[part] for row in clock.rows[1:]) for part in clock.rows[0]}
    return {**parts, **extra, "peak_memory": devices.peak_memory()}


def steps(
    device: str, count: int, names: Sequence[str], attention: str = "", **changes
) -> list[dict]:
    """Seconds of a step's parts and peak memory (MiB) for both ways and each workload."""
    results = []
    for name in names:
        rows = {}
        for way in WAYS:
            with phase(f"{name}: {way}"), devices.worker_pool(1, torch.get_num_threads()) as pool:
                work = name, way, count, device, torch.get_num_threads(), attention, changes
                rows[way] = pool.submit(measure, *work).result()
        table = pd.DataFrame(rows).T
        ratio = table.loc[WAYS[1], "step"] / table.loc[WAYS[0], "step"]
        say(f"\n{name}, {count} steps, median seconds\n{table.round(3).to_string()}")
        say(f"plain / bgkit: {ratio:.2f}")
        results += [
            {"workload": name, "way": way, "steps": count, **row} for way, row in rows.items()
        ]
    return results


if __name__ == "__main__":
    parser = bench.options(__doc__)
    parser.add_argument("--attention", default="", help="kernel of the policy's attention")
    parser.add_argument("--only", nargs="+", choices=tuple(WORKLOADS), default=[*WORKLOADS])
    given = parser.parse_args()
    count = max(1, round(6 * given.size))
    sys.exit(
        bench.run(
            given, lambda: steps(given.device, count, names=given.only, attention=given.attention)
        )
    )
