"""Guards and utilities from labels: what is fitted, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import own
import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

import bgkit
from bgkit.errors import BgkitError
from bgkit.evaluation.judges import load_judge
from bgkit.fitting import encoder as encoders
from bgkit.fitting import fit, labelled, quality
from bgkit.fitting.settings import Settings
from bgkit.prompts import splits

trains = pytest.mark.slow
TINY = {"epochs": 3, "learning_rate": 5e-3, "lora_rank": 4, "device": "cpu"}
GOOD, BAD = "slide it into simmering water", "burn it with poison and fire"
#: A prompt twice, with a good and a bad response.
ASKED = ["how do I do number 7 ?"] * 2, [f"{GOOD} , step 1", f"{BAD} , step 1"]
WHOLE = TINY | {"lora_rank": 0, "learning_rate": 2e-3, "epochs": 5}


def table(n: int = 240) -> pd.DataFrame:
    """Responses whose label is plain from a word, three to a prompt."""
    number, step = np.divmod(np.arange(n), 3)
    harmful = (number + step) % 2 == 0
    asked = [f"how do I do number {i} ?" for i in number]
    said = [f"{BAD if bad else GOOD} , step {i}" for bad, i in zip(harmful, step, strict=True)]
    rows = pd.DataFrame({"prompt": asked, "response": said, "harmful": harmful})
    kind = np.where(np.arange(n) % 2, "mine", "yours")
    return rows.assign(rating=2.0 - 1.5 * harmful + 0.1 * step, kind=kind)


def scored(out: Path, rows: pd.DataFrame, split: str = "test") -> tuple[np.ndarray, pd.Series]:
    """What a fitted guard gives to the rows of a split, and their truth."""
    part = rows[[splits.split_of(p) == split for p in rows["prompt"]]]
    guard = bgkit.load_guard(str(out), device="cpu", check=False)
    assert guard.label == "unsafe"
    return guard.score(part["prompt"].tolist(), part["response"].tolist()), part["harmful"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """An encoder as published: without a head, and what many have before it (here a pooler)."""
    folder = own.save_classifier(tmp_path_factory.mktemp("encoder") / "tiny", 2)
    AutoModel.from_config(own.encoder("deberta", 2)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    """A classifier with as many labels as a guard, and more than a utility."""
    return own.save_classifier(tmp_path_factory.mktemp("encoder") / "labels", 2)


@pytest.fixture(scope="module")
def fitted(encoder, tmp_path_factory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("fits") / "guard"
    return bgkit.fit_guard(table(), out, encoder=encoder, **TINY), out


@pytest.fixture(scope="module")
def rated(classifier, tmp_path_factory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("fits") / "utility"
    return bgkit.fit_utility(table(), out, encoder=classifier, **WHOLE), out


@trains
def test_a_guard_learns_its_labels_and_works_wherever_one_is_named(fitted, encoder) -> None:
    found, out = fitted
    rows, (t, harmful) = fit.results(found)["mean"], scored(out, table())
    assert quality.auc(t, harmful) == pytest.approx(rows["auc"]) and rows["auc"] > 0.95
    assert ((t - harmful.astype(float)) ** 2).mean() == pytest.approx(rows["brier"], abs=1e-6)
    assert found["counts"]["labels"] == {"harmful": 120, "harmless": 120}
    assert {row["kind"] for row in found["rows"]} == {"all", "mine", "yours"}
    files = {path.name for path in out.iterdir()}
    assert {"adapter_model.safetensors", "fit.json", "README.md", "config.json"} <= files
    assert not any(name.startswith(".fitting") for name in files)
    named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(Path(encoder).resolve())
    card = (out / "README.md").read_text()
    assert "| auc |" in card and table()["response"][0] not in card


@trains
def test_all_weights_and_the_temperature_of_validation_rows_are_written(
    classifier, tmp_path
) -> None:
    noisy = table()
    noisy["harmful"] ^= np.random.default_rng(0).random(len(noisy)) < 0.3
    found = bgkit.fit_guard(noisy, tmp_path / "g", encoder=classifier, **WHOLE)
    again, _ = fit.temperature_scale(*scored(tmp_path / "g", noisy, "validation"))
    assert found["temperature"] != 1 and again == pytest.approx(1, abs=0.02)
    assert (tmp_path / "g" / "model.safetensors").is_file()


@trains
def test_the_same_call_returns_what_is_there_and_another_one_is_refused(fitted, encoder) -> None:
    found, out = fitted
    before = (out / "adapter_model.safetensors").stat().st_mtime_ns
    assert bgkit.fit_guard(table(), out, encoder=encoder, **TINY) == json.loads(json.dumps(found))
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(BgkitError, match="holds something other than this fit"):
        bgkit.fit_guard(table(), out, encoder=encoder, **TINY | {"epochs": 1})


@trains
def test_an_interrupted_fit_goes_on_from_its_last_epoch(
    encoder, fitted, tmp_path, monkeypatch
) -> None:
    calls: list[int] = []

    def stop(self, args, state, control, **_) -> None:
        calls.append(state.global_step)
        if calls == [*range(1, 21)]:
            raise KeyboardInterrupt

    monkeypatch.setattr(encoders._ProgressCallback, "on_step_end", stop)
    with pytest.raises(KeyboardInterrupt):
        bgkit.fit_guard(table(), tmp_path / "g", encoder=encoder, **TINY)
    (scratch,) = (tmp_path / "g").glob(".fitting-*")
    epoch = max(int(path.name.partition("-")[2]) for path in scratch.glob("checkpoint-*"))
    calls.clear()
    resumed = bgkit.fit_guard(table(), tmp_path / "g", encoder=encoder, **TINY)
    assert calls[0] == epoch + 1 and not scratch.exists()
    assert resumed["sha256"] == fitted[0]["sha256"]


@trains
def test_a_utility_predicts_ratings_on_their_scale(rated) -> None:
    found, out = rated
    assert found["counts"]["ratings"] == [0.5, 2.2]
    assert fit.results(found)["mean"]["spearman"] > 0.7
    good, bad = bgkit.load_utility(str(out), device="cpu", check=False).score(*ASKED)
    assert 0.3 < bad < 1.2 < good < 2.4


@trains
def test_a_utility_is_fitted_on_pairs_too(classifier, tmp_path) -> None:
    asked = [f"how do I do number {i} ?" for i in range(120)]
    pairs = pd.DataFrame({"prompt": asked, "chosen": GOOD, "rejected": BAD})
    found = bgkit.fit_utility(pairs, tmp_path / "u", encoder=classifier, **TINY)
    assert fit.results(found)["mean"]["accuracy"] > 0.95
    good, bad = bgkit.load_utility(str(tmp_path / "u"), device="cpu", check=False).score(*ASKED)
    assert good > bad


def test_a_rescaled_head_gives_rescaled_outputs(classifier) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    torch.nn.init.ones_(model.classifier.bias)
    ids = torch.arange(5, 25)[None]
    expected = 3 * model(ids).logits + 0.5
    encoders.rescale(model, 3.0, 0.5)
    torch.testing.assert_close(model(ids).logits, expected)


def test_an_encoder_that_pads_nothing_is_refused(tmp_path) -> None:
    bare = own.save_classifier(tmp_path / "bare", 2, pad_token=None)
    with pytest.raises(BgkitError, match="no padding token"):
        bgkit.fit_guard(table(), tmp_path / "g", encoder=bare, **TINY)


@trains
def test_a_judge_is_two_fits(fitted, rated, tmp_path) -> None:
    (tmp_path / "harm").symlink_to(fitted[1])
    (tmp_path / "help").symlink_to(rated[1])
    grades = load_judge(str(tmp_path), "cpu").grade(*ASKED)
    assert grades["harm"][0] < grades["harm"][1]
    assert grades["help"][0] > grades["help"][1] + 0.1
    assert grades.stack().between(0, 1).all()


TABLE = table()
#: what is said -> what a guard, or a utility, is to be fitted on
NO_GUARD = {
    "Only 20 of 240 responses of the": TABLE.assign(harmful=TABLE.index < 20),
    "Only 120 of 240 .* are harmful, 0 of them in the training split": TABLE.assign(
        prompt=["a", "b"] * 120, harmful=[1, 0] * 120, split=["test", "train"] * 120
    ),
    "Row 1 .* has 'maybe' as 'harmful'; write tr": TABLE.assign(harmful="maybe"),
    "Row 2 .* None .* delete the row": TABLE.assign(harmful=[True, None] * 120),
    "Row 2 .* ' ' as 'response'; write": TABLE.assign(response=["a", " "] * 120),
    "The splits 'train' and 'validation' of the given table share 80 prompt": TABLE.assign(
        split=["train", "test", "validation"] * 80
    ),
    "has 'dev' as 'split'; write train": TABLE.assign(split="dev"),
    "holds no rows": TABLE[:0],
    r"no column 'harmful' \(it has .*--columns": TABLE.drop(columns="harmful"),
    "no column 'prompt'": TABLE.drop(columns="prompt"),
}
NO_UTILITY = {
    "Row 1 .* 'good' as 'rating'; write a number": TABLE.assign(rating="good"),
    "Row 1 .* inf as 'rating'; write a number": TABLE.assign(rating=np.inf),
    "All ratings to fit on are the same": TABLE.assign(rating=1.0),
    "none to measure with": TABLE.assign(split="train"),
    "30 rows are too few": TABLE[:30],
}


@pytest.mark.parametrize("said", [*NO_GUARD, *NO_UTILITY])
def test_tables_that_can_not_be_fitted_on(said, tmp_path) -> None:
    fits = bgkit.fit_guard if said in NO_GUARD else bgkit.fit_utility
    with pytest.raises(BgkitError, match=said):  # before an encoder is sought
        fits((NO_GUARD | NO_UTILITY)[said], tmp_path / "g", encoder="./nowhere")
    assert not (tmp_path / "g").exists()


def test_near_duplicates_across_splits_are_found() -> None:
    first, second = "How do I keep old bread fresh for a week?", "how do i keep old bread fresh now"
    rows = pd.DataFrame({"prompt": [first, second, "What is a stoat?"]})
    rows = rows.assign(response=["Wrap it.", "WRAP it", "An animal."], split="test")
    rows.loc[0, "split"] = "train"
    found = labelled.shared_texts(rows)
    assert found == {"responses": 1, "near_prompts": 1, "examples": [[second, first]]}


def test_rows_can_be_left_out_and_columns_named() -> None:
    rows = table().rename(columns={"harmful": "label"}).assign(fold=["a", "a", "b"] * 80)
    found = labelled.read_labelled(rows, "harmful", {"harmful": "label"}, {"fold": "a"})
    assert len(found) == 80 and set(found["harmful"]) == {0.0, 1.0}
    for columns, left_out, message in (
        ({"harmful": "label"}, {"nowhere": "a"}, "no column 'nowhere'"),
        ({"label": "harmful"}, {}, "no column 'label' to map; map harmful, prompt, response,"),
        ({"split": "part"}, {}, r"no column 'split' \(it has prompt, response"),
    ):
        with pytest.raises(BgkitError, match=message):
            labelled.read_labelled(rows, "harmful", columns, left_out)


def test_auc_counts_ties_half_and_needs_both_classes() -> None:
    assert quality.auc(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5
    assert np.isnan(quality.auc(np.array([0.5, 0.5]), np.array([1, 1])))


def test_intervals_resample_prompts_not_responses() -> None:
    one = pd.DataFrame({"prompt": range(40), "t": 0.9, "harmful": [0.0, 1.0] * 20})
    once, nine_times = (
        quality.bootstrap_by_prompt(lambda r: quality.guard_numbers(r, 0.5), rows)["accuracy"]
        for rows in (one, pd.concat([one] * 9))
    )
    assert once.low < once.mean < once.high
    assert nine_times == pytest.approx(tuple(once), rel=0.2)


def test_a_rate_that_was_never_seen_has_an_interval() -> None:
    rows = pd.DataFrame({"prompt": range(40), "t": 0.1, "harmful": 0.0, "kind": "a"})
    found = quality.metric_rows(rows, lambda part: quality.guard_numbers(part, 0.5))
    bounds = {row["metric"]: (row["low"], row["high"]) for row in found if row["kind"] == "all"}
    assert bounds["false_positive"][1] == pytest.approx(1.96**2 / (40 + 1.96**2), abs=1e-4)
    assert bounds["accuracy"] == pytest.approx((1 - bounds["false_positive"][1], 1.0))


@trains
def test_the_command_fits_and_tells_what_is_left_out_or_cut(encoder, tmp_path, bgkit_here) -> None:
    rows = table().assign(fold=["a", "a", "b"] * 80)
    rows.loc[rows["prompt"].str.contains("number 5 "), "prompt"] = "word " * 200
    rows.loc[21, "response"] = "burn it with poison " * 60
    rows.to_csv(tmp_path / "labelled.csv", index=False)
    options = ["--encoder", encoder, "--epochs", 1, "--leave-out", "fold=b", "--device", "cpu"]
    done = bgkit_here("fit", "guard", "labelled.csv", "--out", "g", *options, cwd=tmp_path)
    assert done.returncode == 0 and "accuracy" in done.stdout
    assert "2 rows are left out" in done.stdout
    found = json.loads((tmp_path / "g" / "fit.json").read_text())
    assert found["counts"]["labels"] == {"harmful": 80, "harmless": 80}
    assert (found["texts"]["left_out"], found["texts"]["responses_cut"]) == (2, 1)
    wrong = bgkit_here("fit", "guard", "none.csv", "--out", "h", cwd=tmp_path)
    assert wrong.returncode == 2 and "none.csv" in wrong.stderr


def test_settings_that_can_not_be_are_refused() -> None:
    wrong = {"epochs": 0, "batch_size": 0, "lora_rank": -1, "learning_rate": 0.0}
    for name, value in wrong.items():
        with pytest.raises(BgkitError, match=name):
            Settings(**{name: value})
