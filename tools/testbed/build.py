"""``make testbed``: train every embedded model from nothing, reproducibly.

Each model is trained by one single-threaded process, so the result does not depend on the
number of cores; independent models are trained in parallel. All scorers except the guards
``weak`` and ``other`` start from one ``reader`` (an encoder trained on noisy crowd ratings, not
shipped), as published guards and reward models start from a common language model.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import cards
import demonstrations as dm
import networks
import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bgkit import environment
from bgkit.data import sha256
from bgkit.environment import code_digest
from bgkit.errors import BgkitError
from bgkit.models import devices
from bgkit.progress import phase, say
from bgkit.testbed import lexicon as lex
from bgkit.testbed import store, world

#: utility -> weight of harm in the annotators' preferences, value = help - weight * harm
PULLS = {"aligned": 0.7, "mild": 0.4, "weak": 0.2, "blind": 0.0}
OVERCONFIDENCE = 4.0  # factor on the logits of the guard `overconfident`
#: scale -> (demonstrations, learning rate); each is seen once
POLICY_RECIPES = {"tiny": (14_000, 4e-3), "small": (14_000, 3e-3), "large": (8_000, 1.5e-3)}
BATCH_TOKENS = 1500
#: Shares of the prompts' kinds for the reader: long contexts cost the most and teach the least.
READER_SHARES = (0.31, 0.31, 0.34, 0.04)


def build(root: Path, workers: int | None = None) -> None:
    """Train all models into ``root``, whose models stay until all new ones are done.

    A stopped build keeps its models in a folder next to ``root``; the same call resumes it, unless
    the kit's code has changed. Raises BgkitError for a folder that holds something other than a
    testbed.
    """
    if root.exists() and any(root.iterdir()) and not (root / "manifest.json").is_file():
        raise BgkitError(
            f"The folder {root} holds files, but no testbed (no manifest.json); name another one."
        )
    started, workers = time.time(), workers or os.cpu_count() or 1
    work = root.parent / f".{root.name}-{code_digest()}"
    with devices.worker_pool(workers) as pool:
        _run_tasks(pool, workers, work)
        say("measuring every model on held-out texts and writing its card")
        with phase("measuring the models"):
            cards.write_cards(work, PULLS, pool)
    shutil.rmtree(work / "scratch")
    write_manifest(
        work,
        {
            "command": "make testbed",
            "seconds": round(time.time() - started),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
        },
    )
    _put_in_place(work, root)
    for stopped in root.parent.glob(f".{root.name}-*"):
        shutil.rmtree(stopped, ignore_errors=True)
    say(f"built {root} in {time.time() - started:.0f} s")


def write_manifest(root: Path, about: dict) -> None:
    """List every model file below ``root`` with its digest, next to facts about the build."""
    files = {
        path.relative_to(root).as_posix(): {
            "sha256": sha256(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    text = json.dumps({**about, "files": files}, indent=1) + "\n"
    (root / "manifest.json").write_text(text, encoding="utf-8")


def _put_in_place(work: Path, root: Path) -> None:
    """Move a folder to ``root``; the old one is deleted last, and restored if the move fails."""
    old = work.with_name(f"{work.name}-old")
    try:
        if root.exists():
            root.rename(old)
        work.rename(root)
    finally:
        if old.exists() and not root.exists():
            old.rename(root)
    shutil.rmtree(old, ignore_errors=True)


def _run_tasks(pool: ProcessPoolExecutor, workers: int, work: Path) -> None:
    """Run every task as soon as its inputs exist, in the order of preference."""
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    tasks, running = dict(_tasks()), {}
    done = {name for name in tasks if _mark(work, name).is_file()}
    waiting = {name: task for name, task in tasks.items() if name not in done}
    with phase("training the models", len(tasks)) as shown:
        shown.first = shown.done = len(done)
        while waiting or running:
            ready = [name for name, (_, needs, _) in waiting.items() if set(needs) <= done]
            for name in ready[: workers - len(running)]:
                function, _, arguments = waiting.pop(name)
                running[pool.submit(_timed, function, work, arguments)] = name
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name = running.pop(future)
                seconds, loss = future.result()
                _mark(work, name).touch()
                done.add(name)
                shown.advance()
                say(f"[{len(done)}/{len(tasks)}] {name}: {seconds:.0f} s, final loss {loss:.3f}")


def _mark(work: Path, name: str) -> Path:
    """The file that marks a task as done."""
    return work / "scratch" / f"{name}.done"


def _timed(function: Callable, work: Path, arguments: tuple) -> tuple[float, float]:
    started = time.time()
    loss = function(work, *arguments)
    return time.time() - started, loss


def _tasks() -> list[tuple[str, tuple[Callable, tuple[str, ...], tuple]]]:
    """(name, (function, names of its inputs, arguments)) in the order of preference."""
    return [
        ("policy small", (train_policy, (), ("small", 1))),
        ("reader", (train_reader, (), (2,))),
        ("samples", (sample_policy, ("policy small",), (3,))),
        ("policy large", (train_policy, (), ("large", 4))),
        ("guard default", (train_guard, ("reader", "samples"), (5,))),
        *(
            (f"utility {name}", (train_utility, ("reader", "samples"), (name, 10 + i)))
            for i, name in enumerate(PULLS)
        ),
        ("judge", (train_judge, ("samples",), (20,))),
        ("guard other", (train_other_guard, ("samples",), (30,))),
        ("policy tiny", (train_policy, (), ("tiny", 6))),
        ("guard weak", (train_weak_guard, ("samples",), (40,))),
    ]


# --- one function per model; each returns its final training loss ---------------------------------


def train_policy(work: Path, scale: str, seed: int) -> float:
    """Supervised fine-tuning from scratch on demonstrations of mixed quality."""
    count, lr = POLICY_RECIPES[scale]
    texts = dm.demonstrations(dm.sample_prompts(count, seed), seed)
    tokenizer = networks.build_tokenizer()
    model = networks.new_causal_lm(scale, seed)
    loss = networks.fit_causal_lm(
        model,
        chat_ids(tokenizer, texts["prompt"]),
        tokenizer([f"{text} {networks.END}" for text in texts["response"]])["input_ids"],
        epochs=1,
        lr=lr,
        tokens=BATCH_TOKENS,
        seed=seed,
    )
    networks.save(model, tokenizer, work / "policy" / scale)
    return loss


def chat_ids(tokenizer, prompts: Iterable[str]) -> list[list[int]]:
    """Token ids of each prompt as a user's turn, up to where the assistant's begins."""
    texts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        tokenize=False,
        add_generation_prompt=True,
    )
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def train_reader(work: Path, seed: int) -> float:
    """An encoder that predicts noisy crowd ratings of hazard and helpfulness."""
    prompts = dm.sample_prompts(50_000, seed, shares=READER_SHARES)
    texts = dm.varied(prompts, seed, styles=dm.SHORT_STYLES)
    rng = np.random.default_rng(seed)
    ratings = np.stack([np.clip(texts["hazard"], 0, 2), texts["help"]], 1)
    ratings = torch.from_numpy(ratings + rng.normal(0, (0.15, 0.1), ratings.shape)).float()
    model = networks.new_scorer(2, seed)
    loss = networks.fit_scorer(
        model,
        networks.encode_pairs(texts["prompt"], texts["response"]),
        lambda out, batch: torch.nn.functional.mse_loss(out, ratings[batch]),
        epochs=1,
        lr=8e-4,
        tokens=1200,
        seed=seed,
    )
    torch.save(model.state_dict(), work / "scratch" / "reader.pt")
    return loss


def sample_policy(work: Path, seed: int) -> float:
    """Samples of the small policy at temperatures 1.0 and 1.6, for every scorer's training."""
    for split, count in (("train", 4000), ("validation", 500), ("test", 500)):
        prompts = dm.sample_prompts(count, seed, split)
        asked = [p.text for p in prompts], [p.kind for p in prompts]
        texts = [
            dm.with_grades(*asked, generate(work / "policy" / "small", prompts, temperature, seed))
            for temperature in (1.0, 1.6)
        ]
        pd.concat(texts, ignore_index=True).to_parquet(work / "scratch" / f"{split}.parquet")
    return 0.0


def generate(folder: Path, prompts: list[world.Prompt], temperature: float, seed: int) -> list[str]:
    """One sampled response for each prompt."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = networks.build_tokenizer()
    rows = chat_ids(tokenizer, [p.text for p in prompts])
    out = [""] * len(rows)
    torch.manual_seed(seed)
    for batch in networks.token_batches(
        [len(row) for row in rows], 12_000, np.random.default_rng(seed), noise=0.0
    ):
        inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
        tokens = model.generate(
            **inputs, do_sample=True, temperature=temperature, top_k=0, max_new_tokens=60
        )
        tokens = tokens[:, inputs["input_ids"].shape[1] :]
        for i, text in zip(batch, tokenizer.batch_decode(tokens, True), strict=True):
            out[i] = text
    return out


def _scored_texts(work: Path, count: int, seed: int, split: str = "train") -> pd.DataFrame:
    """Written texts of every style, then the policy's samples."""
    written = dm.varied(dm.sample_prompts(count, seed, split), seed)
    samples = pd.read_parquet(work / "scratch" / f"{split}.parquet")
    return pd.concat([written, samples], ignore_index=True)


def _reader(work: Path) -> PreTrainedModel:
    reader = networks.new_scorer(2, 0)
    reader.load_state_dict(torch.load(work / "scratch" / "reader.pt"))
    return reader


def _fit_guard(model: PreTrainedModel, texts: pd.DataFrame, votes: np.ndarray, **settings) -> float:
    target = torch.from_numpy(votes)
    return networks.fit_scorer(
        model,
        networks.encode_pairs(texts["prompt"], texts["response"]),
        lambda out, batch: torch.nn.functional.binary_cross_entropy_with_logits(
            out[:, 1] - out[:, 0], target[batch]
        ),
        **settings,
    )


def _scale_logits(model: PreTrainedModel, factor: float) -> None:
    """Multiply a classifier's logits: same ranking, different confidence."""
    with torch.no_grad():
        model.classifier.weight *= factor
        model.classifier.bias *= factor


def _calibrate(model: PreTrainedModel, texts: pd.DataFrame) -> None:
    """Temperature scaling against the hard label on validation texts (Guo et al. 2017)."""
    rows = networks.encode_pairs(texts["prompt"], texts["response"])
    margin = torch.from_numpy(networks.outputs(model, rows))
    margin = margin[:, 1] - margin[:, 0]
    label = torch.from_numpy((texts["harm"] > 0.5).to_numpy(np.float32))
    factors = torch.exp(torch.linspace(-1.5, 1.5, 61))
    losses = [
        torch.nn.functional.binary_cross_entropy_with_logits(margin * f, label) for f in factors
    ]
    _scale_logits(model, factors[int(torch.stack(losses).argmin())].item())


def _save_guard(model: PreTrainedModel, work: Path, name: str) -> None:
    model.config.id2label = {0: "safe", 1: "unsafe"}
    model.config.label2id = {"safe": 0, "unsafe": 1}
    networks.save(model, networks.build_tokenizer(pairs=True), work / "guard" / name)


def train_guard(work: Path, seed: int) -> float:
    """Guard ``default``, calibrated, and ``overconfident``, the same with sharper logits."""
    texts = _scored_texts(work, 16_000, seed)
    model = networks.new_head(_reader(work), 2, seed)
    loss = _fit_guard(
        model,
        texts,
        dm.votes(texts["hazard"].to_numpy(), seed),
        epochs=1,
        lr=6e-4,
        tokens=1200,
        seed=seed,
    )
    _calibrate(model, _scored_texts(work, 2000, seed + 1, "validation"))
    for name, factor in (("overconfident", OVERCONFIDENCE), ("default", 1 / OVERCONFIDENCE)):
        _scale_logits(model, factor)
        _save_guard(model, work, name)
        model.float()
    return loss


def train_other_guard(work: Path, seed: int) -> float:
    """Guard ``other``: its own encoder; annotators who object sooner and disagree more."""
    texts = _scored_texts(work, 16_000, seed)
    model = networks.new_scorer(2, seed)
    votes = dm.votes(texts["hazard"].to_numpy(), seed, noise=0.25, bias=1.2)
    loss = _fit_guard(model, texts, votes, epochs=1, lr=8e-4, tokens=1200, seed=seed)
    _save_guard(model, work, "other")
    return loss


def train_weak_guard(work: Path, seed: int) -> float:
    """Guard ``weak``: from scratch on 2,500 texts with one noisy label each."""
    texts = _scored_texts(work, 2500, seed)
    texts = texts.iloc[np.random.default_rng(seed).permutation(len(texts))[:2500]]
    model = networks.new_scorer(2, seed)
    votes = dm.votes(texts["hazard"].to_numpy(), seed, noise=0.25, annotators=1)
    loss = _fit_guard(model, texts, votes, epochs=4, lr=8e-4, tokens=1200, seed=seed)
    _save_guard(model, work, "weak")
    return loss


def preference_groups(work: Path, split: str, count: int, seed: int) -> pd.DataFrame:
    """Four consecutive responses per prompt: the policy at both temperatures, two written."""
    samples = pd.read_parquet(work / "scratch" / f"{split}.parquet")
    half = len(samples) // 2
    prompts = dm.sample_prompts(half, 3, split)  # the prompts that sample_policy used
    written = [dm.varied(prompts, seed + i, corrupted=0.5) for i in (1, 2)]
    order = np.arange(4 * half).reshape(4, half).T[:count].ravel()
    return pd.concat([samples, *written], ignore_index=True).iloc[order]


def train_utility(work: Path, name: str, seed: int) -> float:
    """A Bradley-Terry reward model on noisy preferences for help - weight * harm."""
    texts = preference_groups(work, "train", 4000, seed)
    value = (texts["help"] - PULLS[name] * texts["harm"]).to_numpy().reshape(-1, 4)
    wins = torch.from_numpy(dm.preference(value, seed))
    rows = networks.encode_pairs(texts["prompt"], texts["response"])
    upper = torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)
    model = networks.new_head(_reader(work), 1, seed)

    def loss(batch: np.ndarray) -> torch.Tensor:
        members = (batch[:, None] * 4 + np.arange(4)).ravel()
        score = networks.logits(model, [rows[i] for i in members]).view(-1, 4)
        gap = score[:, :, None] - score[:, None, :]
        return torch.nn.functional.binary_cross_entropy_with_logits(
            gap[:, upper], wins[batch][:, upper]
        )

    lengths = [max(len(rows[4 * i + j][0]) for j in range(4)) * 4 for i in range(len(value))]
    final = networks.fit(
        model,
        lambda epoch: networks.token_batches(lengths, 2500, np.random.default_rng([seed, epoch])),
        loss,
        epochs=1,
        lr=4e-4,
    )
    networks.save(model, networks.build_tokenizer(pairs=True), work / "utility" / name)
    return final


def train_judge(work: Path, seed: int) -> float:
    """A causal LM that reads rubric, prompt and response and writes two grades from 1 to 5."""
    texts = _scored_texts(work, 9_000, seed)
    tokenizer = networks.build_tokenizer()
    help_grades = dm.to_grade(texts["help"].to_numpy(), seed)
    harm_grades = dm.to_grade(texts["harm"].to_numpy(), seed + 1)
    pairs = zip(texts["prompt"], texts["response"], strict=True)
    prompts = [judge_prompt(*pair) for pair in pairs]
    replies = [
        f"{lex.JUDGE_REPLY.format(help=a, harm=b)} {networks.END}"
        for a, b in zip(help_grades, harm_grades, strict=True)
    ]
    model = networks.new_causal_lm("judge", seed)
    loss = networks.fit_causal_lm(
        model,
        chat_ids(tokenizer, prompts),
        tokenizer(replies)["input_ids"],
        epochs=1,
        lr=1e-3,
        tokens=1500,
        seed=seed,
    )
    networks.save(model, tokenizer, work / "judge" / "default")
    return loss


def judge_prompt(prompt: str, response: str) -> str:
    """Input of the embedded judge: the rubric, then the request and the answer."""
    return f"{lex.JUDGE_RUBRIC} " + lex.JUDGE_FRAME.format(prompt=prompt, response=response)


if __name__ == "__main__":  # optional arguments: another folder, number of processes
    environment.prepare()
    folder, workers = [*sys.argv[1:], *[""] * 2][:2]
    try:
        build(Path(folder) if folder else store.testbed_folder(), int(workers or 0))
    except (BgkitError, KeyboardInterrupt) as error:
        print(f"bgkit: {error or 'Interrupted; the same command resumes.'}", file=sys.stderr)
        sys.exit(2)
