"""How long a GRPO step takes with bgkit, beside the same step of a plain TRL script.

Both train the testbed's policy from the same seed on the same prompts with the same reward, in one
process, one after the other. The plain script scores as its reward function is usually written: the
step's texts in one padded batch through the guard, then through the reward model. A step is split
into generation, scoring and update, which here is the rest.
"""

from __future__ import annotations

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
from trl import GRPOTrainer

from bgkit import rewards, runs
from bgkit.models import devices, policies
from bgkit.progress import phase, say
from bgkit.scoring import guards, utilities
from bgkit.scoring.encoders import READS
from bgkit.scoring.generative import RewardDecoder
from bgkit.scoring.scorer import Scorer, text_of
from bgkit.training import grpo
from bgkit.training import prompt_order as training_prompts
from bgkit.training import trainer as training

#: part of a step -> the trainer's method that does it
PARTS = {"generation": "_generate", "scoring": "_calculate_rewards"}


class SigmoidGuard:
    """A decoder with random weights in the place of a generative guard: its score as a t."""

    def __init__(self, scorer: RewardDecoder) -> None:
        self.scorer, self.model, self.name = scorer, scorer.model, "random"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 in (0, 1)."""
        return _sigmoid(self.scorer.score(prompts, responses))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


class StepClock(tf.TrainerCallback):
    """Seconds of every step by part; use ``watching`` around the training."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """Start the clock."""
        self._now.clear()
        self._begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Keep the step's times; held-out evaluation comes after."""
        _wait()
        whole = time.perf_counter() - self._begun
        row = {part: self._now[part] for part in PARTS}
        self.rows.append({**row, "update": whole - sum(row.values()), "step": whole})

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the parts of all trainers inside."""
        kept = {name: getattr(GRPOTrainer, name) for name in PARTS.values()}
        try:
            for part, name in PARTS.items():
                setattr(GRPOTrainer, name, self._timed(part, kept[name]))
            yield
        finally:
            for name, method in kept.items():
                setattr(GRPOTrainer, name, method)

    def _timed(self, part: str, method: Callable) -> Callable:
        def run(*arguments, **options):
            _wait()
            begun = time.perf_counter()
            found = method(*arguments, **options)
            _wait()
            self._now[part] += time.perf_counter() - begun
            return found

        return run


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.inference_mode()
def plain_scores(scorer: Scorer, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(n,) scores from one padded batch of all texts, as a short script computes them."""
    if isinstance(scorer, SigmoidGuard):
        work = bench.Workload(list(prompts), list(responses))
        return _sigmoid(bench.padded(scorer.scorer, work, len(prompts)))
    columns = (list(prompts), list(responses)) if scorer.protocol.pair else (list(responses),)
    inputs = scorer.tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    logits = scorer.model(**inputs.to(scorer.model.device)).logits.float()
    return READS[scorer.protocol.read](logits, scorer.protocol.index).cpu().numpy()


def plain_training(
    config: runs.TrainConfig, guard: Scorer, utility: Scorer, base: dict, clock: StepClock, place
) -> None:
    """A plain TRL script: a trainer, a reward function, nothing kept."""
    model, tokenizer = policies.load_policy(config.policy, None, str(place), config.precision)

    def reward(prompts, completions, question, **columns) -> list[float]:
        said = [text_of(completion) for completion in completions]
        t, u = (plain_scores(scorer, question, said) for scorer in (guard, utility))
        z = (u - base["utility_mean"]) / base["utility_deviation"]
        found = rewards.compute_reward(config.reward, t, z, config.tau, **config.weights())
        return found.tolist()

    with tempfile.TemporaryDirectory() as folder:
        arguments = grpo.trainer_arguments(config, Path(folder), place)
        arguments.save_strategy = tf.trainer_utils.SaveStrategy.NO
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=training_prompts.training_table(
                config, policies.special_strings(tokenizer)
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
) -> dict:
    """The same with bgkit, records and all; returns what it measured of base."""
    with tempfile.TemporaryDirectory() as folder, clock.watching():
        run = training.train(
            config,
            Path(folder) / "run",
            device=str(place),
            threads=torch.get_num_threads(),
            guard=guard,
            utility=utility,
            callbacks=[clock],
        )
        return run.read_json("base.json")


def guards_of(place: torch.device) -> dict[str, Scorer]:
    """The testbed's guard, and a decoder of 30M (or a GPU's first) in a template of 350 words."""
    kind, shape = next(iter(bench.DECODERS.get(place.type, bench.DECODERS["cpu"]).values()))
    rng = np.random.default_rng(0)
    template = " ".join(rng.choice(sorted(bench.store_words()), 350))
    decoder = bench.random_decoder(kind, shape, place, template)
    return {
        "encoder, the testbed's": guards.load_guard("default", str(place)),
        "decoder, in a template of 350 words": SigmoidGuard(decoder),
    }


def steps(
    device: str = "auto", count: int = 6, say: Callable[[str], None] = say, **changes
) -> list[dict]:
    """Median seconds of a step's parts with both, for both guards; the first step is left out."""
    place = devices.pick_device(device)
    utility = utilities.load_utility("mild", str(place))
    settings = {"steps": count + 1, "eval_every": 0, "test_prompts": 8, "judge": "none"}
    config = runs.make_config({**settings, "save_every": count + 1, **changes})
    found = []
    for name, guard in guards_of(place).items():
        ours, plain = StepClock(), StepClock()
        with phase(f"{name} guard"):
            base = bgkit_training(config, guard, utility, ours, place)
            plain_training(config, guard, utility, base, plain, place)
        rows = {
            way: {
                part: statistics.median(row[part] for row in clock.rows[1:])
                for part in clock.rows[0]
            }
            for way, clock in (("bgkit", ours), ("plain TRL script", plain))
        }
        table = pd.DataFrame(rows).T
        say(f"\n{name} guard, {count} steps, median seconds\n{table.round(3).to_string()}")
        found += [{"guard": name, "way": way, "steps": count, **row} for way, row in rows.items()]
    return found


if __name__ == "__main__":
    given = bench.options(__doc__).parse_args()
    count = max(1, round(6 * given.size))
    sys.exit(bench.run(given, lambda: steps(given.device, count)))
