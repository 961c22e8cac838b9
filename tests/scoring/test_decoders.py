"""The shared-prefix engine: the same numbers as one row at a time, with far fewer tokens."""

from __future__ import annotations

import types

import numpy as np
import own
import pytest
import torch
import transformers as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bgkit.errors import BgkitError
from bgkit.models.batches import can_share
from bgkit.scoring.decoders import DecoderScorer
from bgkit.scoring.protocols import Template

SIZE = {**own.SIZE, "vocab_size": 60}
CONFIGS = {
    "llama": tf.LlamaConfig(**SIZE),
    "gemma2": tf.Gemma2Config(**SIZE, head_dim=8),
    "mistral, short window": tf.MistralConfig(**SIZE, sliding_window=8),
}


def decoder(config: tf.PretrainedConfig) -> DecoderScorer:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    words = types.SimpleNamespace(get_added_vocab=dict, model_max_length=4096)
    return DecoderScorer(model, words, Template(), "the guard")


@pytest.fixture(scope="module")
def engines() -> dict[str, DecoderScorer]:
    return {name: decoder(config) for name, config in CONFIGS.items()}


def one_by_one(engine: DecoderScorer, rows: list[list[int]]) -> np.ndarray:
    with torch.inference_mode():
        return np.stack([engine.model(torch.tensor([r])).logits[0, -1].numpy() for r in rows])


def tokens(rng: np.random.Generator, n: int) -> list[int]:
    return rng.integers(0, 60, n).tolist()


def test_models_that_take_no_positions_are_refused() -> None:
    with pytest.raises(BgkitError, match="of the kind bloom, which takes no position ids"):
        decoder(tf.BloomConfig(vocab_size=60, hidden_size=32, n_layer=1, n_head=2))


@settings(max_examples=60)
@given(
    st.sampled_from([*CONFIGS]),
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=9)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 60) | st.just(4096),
    st.sampled_from([0, 5]),
)
@example("llama", [(0, [0]), (1, [0])], 60, 0)  # each keeps a token of its own after the template
def test_scores_are_those_of_one_row_at_a_time(engines, name, pairs, slots, cost) -> None:
    """Few different tokens: rows that are equal, or prefixes of each other, are among them."""
    engine = engines[name]
    engine.slots, engine.cost, engine._templates = slots, cost, {}
    groups, rows = [g for g, _ in pairs], [[5] * 17 + [10 + g] * g + row for g, row in pairs]
    expected = one_by_one(engine, rows)
    for given_groups in (groups, range(len(rows))):  # the second time with the template kept
        found = engine.last_outputs(rows, given_groups)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_prefixes_are_computed_once() -> None:
    llama = decoder(CONFIGS["llama"])
    llama.slots, llama.cost = 100_000, 0
    rng = np.random.default_rng(1)
    start, stems = tokens(rng, 100), [tokens(rng, 200) for _ in range(3)]
    rows = [start + stem + tokens(rng, 10) for stem in stems for _ in range(8)]
    groups = np.repeat(range(3), 8).tolist()
    for computed in (100 + 3 * 202 + 24 * 10, 3 * 202 + 24 * 10):  # the template was kept
        before = llama.computed
        llama.last_outputs(rows, groups)
        assert llama.computed - before <= computed  # two tails may share a token


def test_rows_share_what_the_cache_holds() -> None:
    assert not can_share(CONFIGS["mistral, short window"], 9)
    assert can_share(CONFIGS["mistral, short window"], 8) and can_share(CONFIGS["llama"], 100_000)


def test_memory_that_runs_out_halves_the_batches_for_good_or_is_one_sentence(monkeypatch) -> None:
    engine, rng, tried = decoder(CONFIGS["llama"]), np.random.default_rng(0), []
    stems, groups = [tokens(rng, 40) for _ in range(5)], [0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4]
    rows = [[1] * 20 + stems[group] + tokens(rng, 1 + i) for i, group in enumerate(groups)]
    expected, plain, engine.slots = one_by_one(engine, rows), engine.read, 100_000

    def small(past_key_values, input_ids, **inputs):
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        tried.append(input_ids.shape[0] * (past + input_ids.shape[1]))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(input_ids=input_ids, past_key_values=past_key_values, **inputs)

    monkeypatch.setattr(engine, "read", small)
    most = 260
    np.testing.assert_allclose(engine.last_outputs(rows, groups), expected, atol=1e-5)
    assert engine.slots < 100_000
    tried.clear()
    engine.last_outputs(rows, groups)
    assert max(tried) <= 260  # it is remembered
    most = 0
    with pytest.raises(BgkitError, match="the guard has no memory for one text of 3 tokens on cpu"):
        engine.last_outputs([[1, 2, 3]], [0])
