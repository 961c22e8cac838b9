"""How fast scoring is: bgkit's engine against three common ways, on the same texts in one run.

The others are (1) one pair at a time, (2) one padded batch, as in TRL's path for reward models,
and (3) the transformers pipeline at its best batch size. All score with the same random weights: a
decoder with a reward head and an encoder. On a CPU each has about 30M parameters; on a GPU the
decoders have the shapes of Qwen2.5-0.5B and Granite-Guardian-3.1-2B.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers as tf

from bgkit.errors import BgkitError
from bgkit.models import devices
from bgkit.models.devices import provenance
from bgkit.progress import phase, say
from bgkit.runs import write_json
from bgkit.scoring.decoders import RewardDecoder
from bgkit.scoring.encoders import EncoderScorer
from bgkit.scoring.protocols import REWARD, Template
from bgkit.scoring.scorer import Scorer
from bgkit.testbed import store

BATCH_SIZES = (1, 4, 16, 64)  # of the pipeline; the best counts
#: device -> name -> configuration class and shape of a decoder
DECODERS: dict[str, dict[str, tuple[type, dict]]] = {
    "cpu": {
        "decoder, 30M": (
            tf.LlamaConfig,
            {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 9}
            | {"num_attention_heads": 8, "num_key_value_heads": 4},
        )
    },
    "cuda": {
        "Qwen2.5-0.5B": (
            tf.Qwen2Config,
            {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
            | {"num_attention_heads": 14, "num_key_value_heads": 2},
        ),
        "Granite-Guardian-3.1-2B": (
            tf.GraniteConfig,
            {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40}
            | {"num_attention_heads": 32, "num_key_value_heads": 8},
        ),
    },
}
ENCODER = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 9}
ENCODER |= {"num_attention_heads": 8, "max_position_embeddings": 4096}


@dataclass(frozen=True)
class Workload:
    """Pairs to score, and the template text before each."""

    prompts: list[str]
    responses: list[str]
    template: str = ""


def workloads(words: Sequence[str], size: float = 1.0, seed: int = 0) -> dict[str, Workload]:
    """The four workloads by name; ``size`` scales the number of prompts.

    * ``short chat``: 8 completions of 10 to 80 words for prompts of 10 to 60;
    * ``guard template``: 4 completions of such prompts, in a template of 350 words;
    * ``long context``: 8 completions of 20 to 80 words for prompts of 2,000;
    * ``skewed lengths``: one completion each, of lengths that vary a hundredfold (log-normal).
    """
    rng = np.random.default_rng(seed)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(words, int(rng.integers(low, high + 1))))

    def groups(count: int, each: int, prompt: tuple, response: tuple, template="") -> Workload:
        questions = [text(*prompt) for _ in range(max(1, round(count * size)))]
        prompts = [prompt for prompt in questions for _ in range(each)]
        return Workload(prompts, [text(*response) for _ in prompts], template)

    count = max(8, round(256 * size))
    lengths = np.clip(20 * np.exp(rng.normal(0.7, 1.1, count)), 5, 1500).astype(int)
    skewed = Workload([text(5, 5) for _ in lengths], [text(n, n) for n in lengths])
    return {
        "short chat": groups(16, 8, (10, 60), (10, 80)),
        "guard template": groups(16, 4, (10, 60), (10, 80), text(350, 350)),
        "long context": groups(2, 8, (2000, 2000), (20, 80)),
        "skewed lengths": skewed,
    }


def random_decoder(
    kind: type, shape: dict, place: torch.device, template: str = ""
) -> RewardDecoder:
    """A decoder with random weights, the testbed's words, and a template around each text."""
    tokenizer = tf.AutoTokenizer.from_pretrained(store.model_path("policy", "small"))
    frame = "{% for m in messages %} {{ m.content }}{% endfor %}"
    tokenizer.chat_template = template + frame
    tokenizer.model_max_length = 8192
    config = kind(**shape, vocab_size=len(tokenizer), num_labels=1, max_position_embeddings=8192)
    config.pad_token_id = tokenizer.pad_token_id
    model, protocol = _random_model(config, place), Template(max_length=8192)
    return RewardDecoder(model, tokenizer, protocol, "decoder")


def random_encoder(place: torch.device) -> EncoderScorer:
    """A BERT of the decoder's size with random weights and the testbed's words."""
    tokenizer = tf.AutoTokenizer.from_pretrained(store.model_path("guard", "default"))
    tokenizer.model_max_length = 4096
    config = tf.BertConfig(**ENCODER, vocab_size=len(tokenizer), num_labels=1)
    return EncoderScorer(_random_model(config, place), tokenizer, REWARD, "encoder")


def _random_model(config: tf.PretrainedConfig, place: torch.device) -> tf.PreTrainedModel:
    torch.manual_seed(0)
    dtype = devices.pick_dtype(place)
    model = tf.AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    return model.to(place).eval()


# --- The other ways ------------------------------------------------------------------------------


def _texts(scorer: RewardDecoder | EncoderScorer, work: Workload) -> list:
    """Inputs of a pipeline or a tokenizer: templated texts, or pairs."""
    pairs = zip(work.prompts, work.responses, strict=True)
    if isinstance(scorer, RewardDecoder):
        return [scorer.text(prompt, response) for prompt, response in pairs]
    return [{"text": prompt, "text_pair": response} for prompt, response in pairs]


@torch.inference_mode()
def padded_scores(scorer: RewardDecoder | EncoderScorer, work: Workload, size: int) -> np.ndarray:
    """(n,) logits from batches of ``size`` in the order given, padded to the longest."""
    texts, logits = _texts(scorer, work), []
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        if isinstance(scorer, RewardDecoder):
            inputs = scorer.tokenizer(
                part, padding=True, add_special_tokens=False, return_tensors="pt"
            )
        else:
            columns = ([row["text"] for row in part], [row["text_pair"] for row in part])
            inputs = scorer.tokenizer(*columns, padding=True, return_tensors="pt")
        part_logits = scorer.model(**inputs.to(scorer.model.device)).logits
        logits.append(part_logits[:, 0].float().cpu())
    return torch.cat(logits).numpy()


def pipeline_scores(scorer: RewardDecoder | EncoderScorer, work: Workload, size: int) -> np.ndarray:
    """(n,) scores of the text classification pipeline, in batches of ``size``."""
    pipeline = tf.pipeline(
        "text-classification",
        model=scorer.model,
        tokenizer=scorer.tokenizer,
        device=scorer.model.device,
        function_to_apply="none",
    )
    options = {"batch_size": size}
    if isinstance(scorer, RewardDecoder):
        options["add_special_tokens"] = False
    rows = pipeline(_texts(scorer, work), **options)
    return np.array([row["score"] for row in rows], dtype=np.float32)


def lengths_of(scorer: RewardDecoder | EncoderScorer, work: Workload) -> np.ndarray:
    """(n,) token counts of the pairs' texts."""
    if isinstance(scorer, RewardDecoder):
        rows = scorer.encode(work.prompts, work.responses)
    else:
        rows = scorer.tokenizer(work.prompts, work.responses)["input_ids"]
    return np.array([len(row) for row in rows])


def padded_tokens(lengths: Sequence[int], size: int) -> int:
    """Tokens computed in batches of ``size`` in order, each padded to its longest.

    >>> padded_tokens([3, 1, 5], 2)
    11
    """
    parts = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return int(sum(len(part) * max(part) for part in parts))


# --- Measuring -----------------------------------------------------------------------------------


def _measure(
    run: Callable[[], np.ndarray], place: torch.device, repeats: int
) -> tuple[float, np.ndarray]:
    """Best time of ``repeats`` in seconds, and the scores."""
    seconds, scores = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        scores = run()
        if place.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), scores


def throughput(scorer: RewardDecoder | EncoderScorer) -> float:
    """The model's best tokens per second, over batches of rows of equal length."""
    place, best = scorer.model.device, 0.0
    for rows, width in ((8, 128), (32, 128), (8, 512), (64, 64)):
        ids = torch.randint(5, 50, (rows, width), device=place)
        with torch.inference_mode():
            scorer.model.base_model(input_ids=ids)
            seconds, _ = _measure(lambda ids=ids: scorer.model.base_model(input_ids=ids), place, 2)
        best = max(best, ids.numel() / seconds)
    return best


def needed_tokens(scorer: RewardDecoder | EncoderScorer, work: Workload) -> int:
    """Tokens that every exact method must compute: each distinct prefix once; encoders: all."""
    if isinstance(scorer, EncoderScorer):
        return int(lengths_of(scorer, work).sum())
    rows = sorted(map(tuple, scorer.encode(work.prompts, work.responses)))
    needed, before = 0, ()
    for row in rows:
        same = next((i for i, (a, b) in enumerate(zip(row, before, strict=False)) if a != b), None)
        needed += len(row) - (min(len(row), len(before)) if same is None else same)
        before = row
    return needed


def compare_scoring(
    scorer: RewardDecoder | EncoderScorer, work: Workload, repeats: int = 2
) -> pd.DataFrame:
    """One workload, scored in all ways: seconds, tokens, ratio to bgkit, difference.

    ``difference`` is the largest to one pair at a time; ``floor`` is the time that the needed
    tokens take at the model's best measured throughput.
    """
    place, lengths = scorer.model.device, lengths_of(scorer, work)
    gc.collect()
    n, before = len(lengths), scorer.computed
    best = min(
        BATCH_SIZES,
        key=lambda size: _measure(lambda: pipeline_scores(scorer, work, size), place, 1)[0],
    )
    ways = {
        "one at a time": (lambda: padded_scores(scorer, work, 1), int(lengths.sum())),
        "one padded batch": (lambda: padded_scores(scorer, work, n), padded_tokens(lengths, n)),
        f"pipeline, batches of {best}": (
            lambda: pipeline_scores(scorer, work, best),
            padded_tokens(lengths, best),
        ),
        "bgkit": (lambda: scorer.score(work.prompts, work.responses), np.nan),
    }
    measured = {name: _measure(run, place, repeats) for name, (run, _) in ways.items()}
    exact = measured["one at a time"][1]
    table = pd.DataFrame({"tokens": [tokens for _, tokens in ways.values()]}, list(ways))
    table.loc["bgkit", "tokens"] = (scorer.computed - before) // repeats
    table["seconds"] = [seconds for seconds, _ in measured.values()]
    table["ratio"] = table["seconds"] / table.loc["bgkit", "seconds"]
    table["difference"] = [float(np.abs(s - exact).max()) for _, s in measured.values()]
    return table.assign(floor=needed_tokens(scorer, work) / throughput(scorer)).astype(float)


def scoring(device: str, size: float, repeats: int) -> list[dict]:
    """Rows for a JSON file, of every model on every workload; prints each table when done."""
    place = devices.pick_device(device)
    words = sorted(store_words())
    results = []
    for model, make in _models(place).items():
        for name, work in workloads(words, size).items():
            scorer = make(work.template)
            work = work if isinstance(scorer, RewardDecoder) else with_template(work)
            with phase(f"{model}, {name}"):
                table = compare_scoring(scorer, work, repeats)
            say(f"\n{model}, {name}, {len(work.prompts)} pairs\n{table.round(5).to_string()}")
            for way, row in table.iterrows():
                results.append({"model": model, "workload": name, "way": way, **row.to_dict()})
            del scorer
            gc.collect()
    return results


def with_template(work: Workload) -> Workload:
    """A workload for an encoder: it has no template, so the prompts contain it."""
    return Workload([f"{work.template} {p}".strip() for p in work.prompts], work.responses)


def store_words() -> list[str]:
    """The testbed's words."""
    tokenizer = tf.AutoTokenizer.from_pretrained(store.model_path("policy", "small"))
    return [word for word in tokenizer.get_vocab() if word.isalpha()]


def _models(place: torch.device) -> dict[str, Callable[[str], Scorer]]:
    shapes = DECODERS.get(place.type, DECODERS["cpu"])
    models: dict[str, Callable[[str], Scorer]] = {
        name: lambda template, kind=kind, shape=shape: random_decoder(kind, shape, place, template)
        for name, (kind, shape) in shapes.items()
    }
    models["encoder, 30M"] = lambda template: random_encoder(place)
    return models


def options(about: str) -> argparse.ArgumentParser:
    """The options that both benchmarks take."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    return parser


def run(arguments: argparse.Namespace, measure: Callable[[], list[dict]]) -> int:
    """Measure, and write rows, command, machine and versions to ``out``; returns the status."""
    threads = devices.pin_threads(arguments.threads)
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for name, value in vars(arguments).items():
        if name != "out" and value:  # a local path
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    try:
        rows = measure()
        if arguments.out:
            about = {**provenance(), "command": shlex.join(words), "threads": threads}
            write_json(arguments.out, {**about, "rows": rows})
    except BgkitError as error:
        print(f"bgkit: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parsed = options(__doc__).parse_args(arguments)
    return run(parsed, lambda: scoring(parsed.device, parsed.size, parsed.repeats))


if __name__ == "__main__":
    sys.exit(main())
