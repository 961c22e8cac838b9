"""Sequence classifiers of many kinds: which label is read, at which token, and how long a text."""

from __future__ import annotations

import copy
import json

import numpy as np
import own
import pytest
import torch
import transformers as tf

from bgkit.errors import BgkitError
from bgkit.scoring import guards, protocols
from bgkit.scoring.encoders import EncoderScorer

PROMPTS = ["how do I poach an egg ?", "so ?", "how do I poach an egg ?", "x"]
RESPONSES = ["slide it into simmering water .", "no", "sorry , I can not help . slide it .", ""]
SIZE = {"vocab_size": 320, "num_labels": 2, "pad_token_id": 1}
BERT = {**own.ENCODER, **SIZE, "type_vocab_size": 1, "max_position_embeddings": 66}
LLAMA = {**own.DECODER, **SIZE, "max_position_embeddings": 64, "pad_token_id": None}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, **SIZE, "pad_token_id": None}
TYPES = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}

#: kind of a model: its configuration, and how its tokenizer differs
KINDS = {
    "roberta": (
        tf.RobertaConfig(**BERT),
        {"padding_side": "left", "model_max_length": 64, **TYPES},
    ),
    "gpt2": (tf.GPT2Config(**GPT2), {"pad_token": None}),
    "qwen2": (tf.Qwen2Config(**LLAMA | {"pad_token_id": 2}), {"pad_token": "[SEP]"}),
    "convbert": (tf.ConvBertConfig(**BERT, embedding_size=64), {"model_max_length": 64}),
    "xlnet": (tf.XLNetConfig(vocab_size=320, d_model=64, n_layer=2, n_head=2, d_inner=64), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batch_single_and_transformers_agree_and_long_texts_are_cut(kind, tmp_path) -> None:
    """Left padding, none at all, an end token that pads, lost positions, padding that is read:
    no score depends on it."""
    config, changes = KINDS[kind]
    place = own.save_classifier(tmp_path, 2, config, 0.05, **changes)
    guard = guards.load_guard(place, "cpu", check=False)
    together = guard.score(PROMPTS, RESPONSES)
    assert np.ptp(together) > 1e-4
    single = [float(guard.score([p], [r])[0]) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(together, single, atol=1e-6)
    model = tf.AutoModelForSequenceClassification.from_pretrained(place)
    model.config.pad_token_id = None  # one row at a time: the last token is read
    for pair, found in zip(zip(PROMPTS, RESPONSES, strict=True), single, strict=True):
        ids = torch.tensor(guard.tokenizer([pair[0]], [pair[1]])["input_ids"])
        with torch.inference_mode():
            expected = torch.softmax(model(input_ids=ids).logits, -1)[0, 1]
        assert found == pytest.approx(float(expected), abs=1e-6)
    if kind != "xlnet":  # which has no longest text
        assert guard.max_length == 64
        (row,) = guard.encode(["so ?"], ["slide it " * 99])
        assert len(row["input_ids"]) == 64
        assert np.isfinite(guard.score(["so ?"], ["slide it " * 99])).all()


# --- Which label -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Model and tokenizer of classifiers with one, two and three labels."""
    root = tmp_path_factory.mktemp("labels")
    found = {}
    for n in (1, 2, 3):
        own.save_classifier(root / str(n), n, scale=0.05)
        options = {"device": torch.device("cpu"), "dtype": torch.float32}
        found[n] = guards.load_model(
            tf.AutoModelForSequenceClassification, [root / str(n)], "guard g", **options
        )
    return found


def read(loaded, labels: list[str], unsafe: str = "", problem: str | None = None):
    """A guard whose config has these labels, and what its logits are for one pair."""
    model, tokenizer = loaded[len(labels)]
    model.config.id2label, model.config.problem_type = dict(enumerate(labels)), problem
    guard = EncoderScorer(model, tokenizer, protocols.Encoder(unsafe=unsafe), "guard mine")
    with torch.inference_mode():
        logits = model(**tokenizer([PROMPTS[0]], [RESPONSES[0]], return_tensors="pt")).logits[0]
    return guard, logits.double().numpy()


def softmax(logits: np.ndarray, *places: int) -> float:
    return float(np.exp(logits)[list(places)].sum() / np.exp(logits).sum())


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


SEVERAL = "multi_label_classification"


@pytest.mark.parametrize(
    ("labels", "unsafe", "problem", "expected", "label"),
    [
        (["harmful", "harmless"], "", None, lambda x: softmax(x, 0), "harmful"),
        (["LABEL_0", "LABEL_1"], "", None, lambda x: softmax(x, 1), "LABEL_1"),
        (["nothing", "insult"], "", SEVERAL, lambda x: sigmoid(x[1]), "insult"),
        (["S", "OK", "V"], "v", None, lambda x: softmax(x, 2), "V"),
        (["toxicity"], "", None, lambda x: sigmoid(x[0]), "toxicity"),
        (["LABEL_0"], "LABEL_0", None, lambda x: sigmoid(x[0]), "LABEL_0"),
    ],
)
def test_the_label_is_read_by_its_words(loaded, labels, unsafe, problem, expected, label) -> None:
    guard, logits = read(loaded, labels, unsafe, problem)
    assert guard.score(PROMPTS[:1], RESPONSES[:1])[0] == pytest.approx(expected(logits), abs=1e-6)
    assert guard.label == label


def test_the_given_tokenizer_stays_as_it_is(loaded) -> None:
    model, tokenizer = loaded[2]
    bare = copy.deepcopy(tokenizer)
    bare.pad_token, names = None, list(bare.model_input_names)
    model.config.id2label, model.config.problem_type = {0: "harmful", 1: "harmless"}, None
    guard = EncoderScorer(model, bare, protocols.Encoder(), "guard mine")
    expected = EncoderScorer(model, tokenizer, protocols.Encoder(), "guard mine")
    scores = guard.score(PROMPTS, RESPONSES)
    np.testing.assert_allclose(scores, expected.score(PROMPTS, RESPONSES), atol=1e-6)
    assert bare.pad_token is None and list(bare.model_input_names) == names


@pytest.mark.parametrize(
    ("labels", "unsafe", "problem", "message"),
    [
        (["harmless", "not_harmful"], "", None, "can not be told .* unsafe:not_harmful=mine"),
        (["OFF", "NOT"], "", None, r"labels OFF, NOT .* as in unsafe:NOT=mine"),
        (["safe", "grey", "unsafe"], "", None, "unsafe:unsafe=mine"),
        (["safe", "unsafe"], "toxic", None, "is not 'toxic'"),
        (["LABEL_0"], "", None, r"1 labels whose outputs are not known .* unsafe:LABEL_0=mine"),
        (["safe", "unsafe"], "", "regression", "outputs are not known"),
    ],
)
def test_labels_that_do_not_tell_are_asked_for(loaded, labels, unsafe, problem, message) -> None:
    with pytest.raises(BgkitError, match=message):
        read(loaded, labels, unsafe, problem)


def test_the_label_is_named_in_front_of_a_folder_and_told(tmp_path, capsys) -> None:
    folder = tmp_path / "seed=1"  # a sign that stands behind a protocol's name, too
    place = own.save_classifier(folder, 2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "x", "1": "y"}}))
    for given in (place, folder):
        with pytest.raises(BgkitError, match=f"as in unsafe:y={place}"):
            guards.load_guard(given, "cpu")
    guard = guards.load_guard(f"unsafe:x={place}", "cpu", check=False)
    assert guard.protocol.index == 0 and "unsafe label x" in capsys.readouterr().err
    assert guard.checked["unsafe_label"] == "x" and guard.checked["tested"] is False


def test_a_reward_models_protocol_takes_a_folder(tmp_path) -> None:
    place = own.save_classifier(tmp_path / "mine", 1)
    utility = guards.load_utility(f"openassistant={place}", "cpu")
    assert utility.protocol.read == "raw" and utility.score(PROMPTS, RESPONSES).shape == (4,)


def test_no_memory_halves_the_batches_or_is_one_sentence(loaded, monkeypatch) -> None:
    guard, _ = read(loaded, ["harmful", "harmless"])
    expected, plain = guard.score(PROMPTS, RESPONSES), guard._logits

    def only(rows, most):
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(rows)

    monkeypatch.setattr(guard, "_logits", lambda rows: only(rows, 2))
    np.testing.assert_allclose(guard.score(PROMPTS, RESPONSES), expected, atol=1e-6)
    monkeypatch.setattr(guard, "_logits", lambda rows: only(rows, 0))
    with pytest.raises(BgkitError, match="has no memory for one text"):
        guard.score(PROMPTS, RESPONSES)
    monkeypatch.setattr(guard, "_logits", lambda rows: torch.zeros(1)[[9]])
    with pytest.raises(BgkitError, match=r"could not score a text: .* belong together"):
        guard.score(PROMPTS, RESPONSES)


# --- The self-test -----------------------------------------------------------------------------


class Told:
    """A guard of given t: for harmless and harmful responses, plain ones and after the prompt."""

    name, label, model = "guard told", "mine", None

    def __init__(self, harmless: float, harmful: float, reads: bool = True) -> None:
        self.t, self.reads = (harmless, harmful), reads

    def score(self, prompts, responses) -> np.ndarray:
        harmful = [r if self.reads else p for p, r in zip(prompts, responses, strict=True)]
        return np.array([self.t["beat" in text or "colleague" in text] for text in harmful])


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        (Told(0.9, 0.2), r"t = 0.2, a harmless 0.9, .*swapped \('mine' is read as.*unsafe:LABEL"),
        (Told(0.1, 0.9, reads=False), "does not depend on the response"),
    ],
)
def test_the_self_test_names_the_cause(guard, message) -> None:
    with pytest.raises(BgkitError, match=message):
        guards.announce(guard, guards.self_test)
