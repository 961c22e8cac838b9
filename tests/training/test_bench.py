"""The benches on tiny models."""

from __future__ import annotations

import json

import bench_scoring as bench
import bench_step
import numpy as np
import pandas as pd
import pytest
import torch
import transformers as tf

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = (tf.LlamaConfig, {**SMALL, "num_key_value_heads": 2})
    monkeypatch.setitem(bench.DECODERS, "cpu", {"decoder": decoder})
    monkeypatch.setattr(bench, "ENCODER", {**SMALL, "max_position_embeddings": 4096})
    monkeypatch.setattr(bench, "BATCH_SIZES", (4,))


@pytest.mark.thorough
def test_all_ways_agree_and_the_engine_computes_the_fewest_tokens(tmp_path) -> None:
    out = tmp_path / "bench.json"
    arguments = ["--size", "0.1", "--repeats", "1", "--device", "cpu", "--threads", "1"]
    assert bench.main([*arguments, "--out", str(out)]) == 0
    table = pd.DataFrame(json.loads(out.read_text())["rows"])
    assert table["difference"].max() < 1e-4 and (table[["seconds", "floor"]] > 0).all(axis=None)
    ways = table.pivot_table(index=["model", "workload"], columns="way", values="tokens")
    assert (ways["bgkit"] <= ways["one padded batch"]).all()
    long = ways.loc["decoder", "long context"]
    assert long["bgkit"] * 5 < long["one at a time"]


@pytest.mark.thorough
def test_a_step_is_split_in_both_ways() -> None:
    small = {"policy": "tiny", "batch_size": 16, "max_completion_length": 8}
    rows = bench_step.steps("cpu", 2, names=["short prompts"], **small)
    assert {row["way"] for row in rows} == {"bgkit", "plain TRL script"}
    for row in rows:
        parts = [row[part] for part in ("generation", "scoring", "reference", "update")]
        assert min(parts) > 0 and row["steps"] == 2
        assert row["step"] == pytest.approx(sum(parts), rel=0.5)


@pytest.mark.parametrize("generative", [False, True])
def test_the_plain_script_scores_as_bgkit_does(generative: bool) -> None:
    guard = bench_step.guard_of(torch.device("cpu"), generative)
    texts = ["how do i make a tea ?"] * 3, ["steep", "burn a flask of it", "i am sorry"]
    plain = bench_step.plain_scores(guard, *texts)
    np.testing.assert_allclose(plain, guard.score(*texts), atol=1e-5)
