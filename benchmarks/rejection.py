"""Rejection fine-tuning: learn from the base policy's own best answers, without RL.

Samples as many tokens from base as a GRPO run generated, keeps the best sample of every prompt, and
fits a LoRA adapter to those with TRL's supervised trainer. (Dong et al. 2023, RAFT,
arXiv 2304.06767, do this in rounds; here it is one.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import transformers
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from bgkit import checks, rewards, runs
from bgkit.environment import versions
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.models import devices, hub, policies
from bgkit.progress import phase
from bgkit.prompts import load as prompts
from bgkit.rewards import NEAR
from bgkit.runs import METHOD
from bgkit.scoring import guards, identity
from bgkit.scoring.scorer import Scorer, guard_scores, utility_scores
from bgkit.stress.without_training import run_reward
from bgkit.training import prompt_order as training_prompts
from bgkit.training import trainer as training

NAME = "rejection fine-tuning"
TokenIds = tuple[list[int], list[int]]  # of a prompt and of its completion
MOST_RISK = 1 - 2 * NEAR  # a tent below this means |t - tau| >= NEAR at tau = 0.5


@dataclass(frozen=True)
class Settings:
    """What is kept, and the supervised training; the config has the rest (LoRA, seed, sampling).

    ``most_risk`` is that of :func:`keep_best`. The other defaults were chosen on 200 validation
    prompts, for the policy ``tiny`` and 60,000 tokens: 5e-4 for two epochs changed less, 6e-3 for
    two was as good.
    """

    most_risk: float = MOST_RISK
    learning_rate: float = 2e-3
    epochs: int = 4
    batch_size: int = 16


class QuietTrainer(SFTTrainer):
    """SFTTrainer that writes no model card draft."""

    def create_model_card(self, *args, **kwargs) -> None:
        """Write nothing."""


def keep_best(samples: pd.DataFrame, tau: float, most_risk: float = MOST_RISK) -> np.ndarray:
    """Row numbers of the best sample of each prompt among those safely passed by the guard.

    Needs columns prompt_id, t and reward. A sample counts if t < tau and its tent
    (:func:`bgkit.rewards.tent`) is at most ``most_risk``, in [0, 1]; a prompt without such a sample
    is left out. Of equal rewards the first is kept.

    >>> table = pd.DataFrame({"prompt_id": list("aaab"), "t": [0.1, 0.0, 0.4, 0.9]})
    >>> keep_best(table.assign(reward=[1.0, 2.0, 3.0, 4.0]), tau=0.5).tolist()
    [1]
    """
    checks.samples(samples, columns=("prompt_id", "t", "reward"), empty=True)
    t = samples["t"].to_numpy(float)
    fit = np.flatnonzero((t < checks.threshold(tau)) & (rewards.tent(t, tau) <= most_risk))
    best = samples.reset_index(drop=True).loc[fit].groupby("prompt_id", sort=False)["reward"]
    return np.sort(best.idxmax().to_numpy(int))


def rejection_fine_tuning(
    config: runs.TrainConfig,
    folder: str | Path,
    tokens: int,
    settings: Settings | None = None,
    threads: int = 0,
) -> runs.Run:
    """Fine-tune the base policy on its own best answers; returns a run folder like GRPO's.

    The config's training prompts are answered ``num_generations`` times each, in order and
    repeatedly, until the next prompt would exceed ``tokens`` generated tokens. :func:`keep_best`
    chooses by the config's reward; the loss covers the kept answers' tokens, prompts are masked.
    ``completions.parquet`` has the samples (``kept``;
    ``step`` is the pass over the prompts); ``result.json`` adds asked, tokens, samples, kept,
    seconds (sampling and fine-tuning) and peak_memory. :mod:`bgkit.stress.contenders` loads the
    folder like any run's. A complete run is returned as it is; an unfinished one starts again.

    Raises BgkitError for a budget below one prompt's samples, if no sample can be kept, and for a
    folder of another kind.
    """
    settings = settings or Settings()
    plan = {"tokens": tokens, **vars(settings)}
    if config.max_false_negatives:
        raise BgkitError("Rejection fine-tuning has no strength to move: leave the bound at 0.")
    existing = _stored_run(config, Path(folder), plan)
    if existing is not None and existing.complete:
        return existing
    devices.pin_threads(threads)
    place = str(devices.pick_device())
    guard, utility = guards.guard_of(config, place), guards.utility_of(config, place)
    model, tokenizer = policies.load_policy(config.policy, None, place, config.precision)
    scorers = {"guard": guard, "utility": utility}
    scorers["policy"] = identity.PolicyScorer(model, tokenizer)
    if existing is not None:
        identity.check(existing, **scorers)
    run = _open_folder(config, Path(folder), plan, identity.fingerprints(**scorers))
    base = training.measure_base(run, model, tokenizer, guard, utility)
    started = time.time()
    with phase("sampling candidates"):
        samples, rows = _scored_samples(run, model, tokenizer, plan["tokens"], guard, utility)
    kept = _best_rows(samples, config, settings.most_risk)
    run.record_completions(0, samples.assign(kept=np.isin(np.arange(len(samples)), kept)))
    policy = _fine_tune(run, model, tokenizer, [rows[i] for i in kept], settings)
    result = {"tokens": int(samples["length"].sum()), "samples": len(samples), "kept": len(kept)}
    result |= {"seconds": round(time.time() - started, 1), "base": base}
    result |= {"peak_memory": devices.peak_memory(), "asked": plan}
    run.finish({**result, **evaluation.evaluate_run(run, policy, tokenizer, guard, utility)})
    return run


def generated_tokens(run: runs.Run) -> int:
    """Tokens that a run generated for its training: the lengths of its recorded completions."""
    table = run.completions()
    if table.empty:
        raise BgkitError(
            f"The run {run.folder} has no recorded completions, so its tokens cannot be counted."
        )
    return int(table["length"].sum())


def _stored_run(config: runs.TrainConfig, folder: Path, plan: dict) -> runs.Run | None:
    """The run of a folder, or None; raises BgkitError if it is of another kind."""
    run = runs.find_run(folder, config)
    stored = run.read_json("config.json") if run else {METHOD: NAME, "asked": plan}
    if (stored.get(METHOD), stored.get("asked")) != (NAME, plan):
        raise BgkitError(
            f"The run folder {folder} belongs to another method, budget or settings with the same "
            "config; choose another folder, or delete it."
        )
    return run


def _open_folder(config: runs.TrainConfig, folder: Path, plan: dict, scores: dict) -> runs.Run:
    """The opened run folder with config, method, plan and prompt manifests."""
    prompt_sets = training_prompts.load_splits(config)
    environment = {identity.RECORD: scores}
    about = versions()
    environment |= {METHOD: NAME, "asked": plan, "git": about.pop("git")}
    environment |= {"versions": about, "machine": devices.machine()}
    run = runs.open_run(folder, config, environment)
    manifests = {split: manifest for split, (_, manifest) in prompt_sets.items()}
    prompts.write_manifests(run.folder / "prompts.json", manifests)
    return run


def _best_rows(samples: pd.DataFrame, config: runs.TrainConfig, most_risk: float) -> np.ndarray:
    """:func:`keep_best`; raises BgkitError if it keeps nothing."""
    kept = keep_best(samples, config.tau, most_risk)
    if len(kept) == 0:
        raise BgkitError(
            f"None of {len(samples)} samples of {config.policy} passes the guard far from the "
            "boundary; raise the budget or 'most_risk'."
        )
    return kept


def _scored_samples(
    run: runs.Run, model, tokenizer, budget: int, guard: Scorer, utility: Scorer
) -> tuple[pd.DataFrame, list[TokenIds]]:
    """Samples within the budget, with the columns of a run's completions, and their token ids."""
    table, _ = training_prompts.load_splits(run.config)["train"]
    specials = policies.special_strings(tokenizer)
    table = training_prompts.training_table(run.config, table, specials)
    parts = list(_samples_within(run.config, model, tokenizer, table.to_pandas(), budget))
    if not parts:
        raise BgkitError(
            f"A budget of {budget} tokens does not suffice for the {run.config.num_generations} "
            "samples of one prompt; raise it."
        )
    samples = pd.concat([frame for frame, _ in parts], ignore_index=True)
    texts = samples["prompt"].tolist(), samples["response"].tolist()
    samples["t"] = guard_scores(guard, *texts)
    samples["u"] = utility_scores(utility, *texts).astype(float)
    samples["filtered"] = samples["t"] >= run.config.tau
    samples["reward"] = run_reward(run, samples)
    return samples, [row for _, rows in parts for row in rows]


def _samples_within(
    config: runs.TrainConfig, model, tokenizer, table: pd.DataFrame, budget: int
) -> Iterator[tuple[pd.DataFrame, list[TokenIds]]]:
    """Groups of samples, prompt by prompt, until the next group would exceed the budget."""
    n, spent, step = config.num_generations, 0, 0
    per_step = config.batch_size // n
    starts = range(0, len(table), per_step)
    while True:
        for start in starts:
            chunk = table.iloc[start : start + per_step]
            repeated = chunk.loc[chunk.index.repeat(n)].reset_index(drop=True)
            generated = policies.generate(
                model,
                tokenizer,
                repeated["question"].tolist(),
                max_completion_length=config.max_completion_length,
                temperature=config.temperature,
                seed=config.seed * 1_000_003 + step * len(starts) + start // per_step,
            )
            lengths = np.array([len(ids) for ids in generated.ids])
            total = spent + lengths.reshape(-1, n).sum(1).cumsum()
            fits = int((total <= budget).sum()) * n
            frame = repeated.drop(columns="prompt").rename(columns={"question": "prompt"})
            frame = frame.assign(step=step, response=generated.texts, length=lengths)
            rows = list(zip(generated.prompt_ids, generated.ids, strict=True))
            if fits:
                yield frame[:fits], rows[:fits]
            if fits < len(frame):
                return
            spent = int(total[-1])
        step += 1


def _fine_tune(run: runs.Run, model, tokenizer, rows: list[TokenIds], settings: Settings):
    """Fit the adapter (or the whole model, for rank 0) to (prompt ids, completion ids); save it."""
    config = run.config
    data = Dataset.from_dict(
        {
            "input_ids": [p + c for p, c in rows],
            "labels": [[-100] * len(p) + c for p, c in rows],  # -100: no loss on prompts
        }
    )
    half = model.device.type == "cuda" and model.dtype.itemsize == 2
    arguments = SFTConfig(
        output_dir=str(run.checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        max_length=None,
        seed=config.seed,
        use_cpu=model.device.type == "cpu",
        bf16=half,
        gradient_checkpointing=half,
        dataloader_pin_memory=model.device.type == "cuda",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    trainer = QuietTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=policies.lora_config(config.lora_rank, config.lora_alpha),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with phase("fine-tuning"):
        trainer.train()
    trainer.save_model(str(run.adapter))
    hub.write_base_name(run.adapter, config.policy)
    return trainer.accelerator.unwrap_model(trainer.model)
