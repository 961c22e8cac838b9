"""Fit a guard or a utility from a table of labelled responses, and write it as a folder.

Rows are divided by prompt. The training rows fit an encoder; a guard's validation rows set its
temperature (Guo et al. 2017), which goes into its head, so that the folder is an ordinary
classifier; the test rows tell how good it is (:mod:`bgkit.fitting.quality`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.evaluation.calibration import temperature_scale
from bgkit.fitting import encoder as encoders
from bgkit.fitting import labelled, quality
from bgkit.models import devices
from bgkit.progress import say
from bgkit.runs.replies import key_of
from bgkit.scoring.encoders import EncoderScorer
from bgkit.testbed.store import sha256

FILE = "fit.json"


def fit_guard(
    table: str | Path | pd.DataFrame,
    out: str | Path,
    *,
    encoder: str = "minilm",
    tau: float = 0.5,
    columns: Mapping[str, str] | None = None,
    leave_out: Mapping[str, str] | None = None,
    device: str = "auto",
    **settings,
) -> dict:
    """Fit a guard on responses labelled ``harmful``; returns what ``fit.json`` holds.

    ``table`` is a file or a table (:func:`bgkit.fitting.labelled.read_labelled`, with ``columns``
    and ``leave_out``). ``encoder`` is ``minilm``, a folder or a hub name; ``settings`` are those of
    :class:`bgkit.fitting.encoder.Settings`: epochs, learning_rate, batch_size, lora_rank (0: all
    weights), seed. ``out`` becomes a guard's folder: an adapter of some MB that names its encoder,
    or a whole model. ``tau`` in (0, 1) is where accuracy and errors are counted.

    Returns counts of labels and splits, the temperature, texts that were cut or left out, what
    splits share, and rows of kind, metric (auc, accuracy, brier, ece, false_positive and
    false_negative as shares of all), mean, low, high on held-out prompts. The same call goes on
    where one was interrupted, and returns at once when it is done. Raises BgkitError for a table
    with too few of either label or other faults, and for an ``out`` that holds something else.
    """
    checks.threshold(tau)
    rows = labelled.read_labelled(table, "harmful", columns, leave_out)
    name = table if isinstance(table, str | Path) else "the table"
    labelled.check_classes(rows, name)
    counts = {"labels": {n: int((rows["harmful"] == v).sum()) for n, v in labelled.CLASSES}}
    chosen = encoders.Settings(encoder, **settings)
    return _fitted("guard", rows, Path(out), chosen, device, _finish_guard, counts, tau=tau)


def fit_utility(
    table: str | Path | pd.DataFrame,
    out: str | Path,
    *,
    encoder: str = "minilm",
    columns: Mapping[str, str] | None = None,
    leave_out: Mapping[str, str] | None = None,
    device: str = "auto",
    **settings,
) -> dict:
    """Fit a reward model on responses with a ``rating``, or on ``chosen`` and ``rejected`` ones.

    As :func:`fit_guard`; ratings are predicted by their mean square error and on their own scale,
    pairs by Bradley and Terry's model (TRL's RewardTrainer). The metrics are accuracy (how often
    the better response has the higher u) and, of ratings, Spearman's correlation.
    """
    names = columns or {}
    head = table if isinstance(table, pd.DataFrame) else None
    if head is None:
        head = labelled.tables.read_table(Path(table), labelled.ROLE)
    pairs = names.get("chosen", "chosen") in head and names.get("rejected", "rejected") in head
    rows = labelled.read_labelled(head, "chosen" if pairs else "rating", columns, leave_out)
    if len(rows) < 2 * labelled.LEAST:
        raise BgkitError(
            f"{len(rows)} rows are too few to fit a utility on; it takes at least "
            f"{2 * labelled.LEAST}."
        )
    counts = {}
    if not pairs:
        train = rows["rating"][rows["split"] == "train"]
        if train.nunique() < 2:
            raise BgkitError("All ratings to fit on are the same; a utility needs a difference.")
        counts["ratings"] = [float(rows["rating"].min()), float(rows["rating"].max())]
    chosen = encoders.Settings(encoder, **settings)
    return _fitted("utility", rows, Path(out), chosen, device, _finish_utility, counts)


def _fitted(
    what: str,
    rows: pd.DataFrame,
    out: Path,
    settings: encoders.Settings,
    device: str,
    finish: Callable,
    counts: dict,
    **more: float,
) -> dict:
    """Fit, measure and write; or what an earlier call wrote of the same."""
    key = key_of(rows=rows.to_dict("list"), settings=asdict(settings), what=what, **more)[:32]
    if (out / FILE).is_file() and (done := runs.read_config(out / FILE)).get("key") == key:
        return done
    scratch = out / f".fitting-{key[:8]}"
    if out.is_dir() and any(path.name != scratch.name for path in out.iterdir()):
        raise BgkitError(f"The folder {out} holds something else than this fit; name another one.")
    splits = {name: int((rows["split"] == name).sum()) for name in ("train", "validation", "test")}
    if not splits["train"] or not splits["test"]:
        raise BgkitError(f"There are no rows to fit on, or none to measure with ({splits}).")
    shared = labelled.shared_texts(rows)
    _tell(shared)
    labels = ["safe", "unsafe"] if what == "guard" else ["utility"]
    model, tokenizer = encoders.new_model(settings, labels, device, regression=what == "utility")
    scorer = encoders.encoder_scorer(model, tokenizer, f"{what} {out.name}")
    rows, cut = _with_room(rows, scorer)
    train = rows[rows["split"] == "train"]
    ratings = train["rating"] if "rating" in rows else None
    encoded = _encoded(train, scorer, ratings)
    trained = encoders.train(model, tokenizer, encoded, settings, scratch)
    scorer.model = trained
    found = finish(trained, scorer, rows, ratings, **more)
    cut["responses_cut"] = len(scorer.cut)
    fit = {
        "what": what,
        "key": key,
        **asdict(settings),
        "counts": {**counts, **splits, "prompts": int(rows["prompt"].nunique())},
        "texts": cut,
        "shared": shared,
        **found,
        **more,
        **{key: value for key, value in devices.provenance().items() if key != "command"},
    }
    encoders.save(trained, tokenizer, out, settings.encoder)
    fit["sha256"] = {path.name: sha256(path) for path in sorted(out.glob("*.safetensors"))}
    (out / "README.md").write_text(
        quality.card({"ratings": False, **counts, **fit}), encoding="utf-8"
    )
    runs.write_json(out / FILE, fit)  # last: what has it is complete
    shutil.rmtree(scratch, ignore_errors=True)
    return fit


def _tell(shared: dict) -> None:
    if shared["near_prompts"]:
        one, other = shared["examples"][0]
        say(
            f"{shared['near_prompts']} held-out prompts have a near-duplicate among the training "
            f"ones, which flatters the figures: {labelled.tables.shortened(one)} and "
            f"{labelled.tables.shortened(other)}."
        )
    if shared["responses"]:
        say(f"{shared['responses']} held-out responses stand in the training rows word for word.")


def _with_room(rows: pd.DataFrame, scorer: EncoderScorer) -> tuple[pd.DataFrame, dict]:
    """The rows whose prompt leaves room for a response, and how many do not."""
    prompts = rows["prompt"].drop_duplicates()
    room = dict(zip(prompts, prompts.map(scorer.has_room), strict=True))
    kept = rows[rows["prompt"].map(room)]
    left_out = len(rows) - len(kept)
    if left_out:
        say(
            f"{left_out} rows are left out: their prompts alone have more than {scorer.max_length} "
            "tokens, which is all that the encoder reads."
        )
    if not (kept["split"] == "train").any() or not (kept["split"] == "test").any():
        raise BgkitError("The encoder can read none of the prompts; take one with more tokens.")
    return kept, {"left_out": left_out, "max_length": scorer.max_length}


def _encoded(rows: pd.DataFrame, scorer: EncoderScorer, ratings: pd.Series | None) -> list[dict]:
    """Rows as the trainers take them; ratings without their mean, in units of their deviation."""
    prompts = rows["prompt"].tolist()
    if "chosen" in rows:
        sides = (scorer.encode(prompts, rows[side].tolist()) for side in ("chosen", "rejected"))
        return [
            {"chosen_ids": one["input_ids"], "rejected_ids": other["input_ids"]}
            for one, other in zip(*sides, strict=True)
        ]
    if ratings is None:
        labels = rows["harmful"].astype(int).tolist()
    else:
        labels = ((rows["rating"] - ratings.mean()) / ratings.std()).tolist()
    inputs = scorer.encode(prompts, rows["response"].tolist())
    return [{**row, "labels": label} for row, label in zip(inputs, labels, strict=True)]


def _finish_guard(model, scorer: EncoderScorer, rows: pd.DataFrame, _: None, tau: float) -> dict:
    held_out = rows[rows["split"] != "train"]
    t = scorer.score(held_out["prompt"].tolist(), held_out["response"].tolist()).astype(float)
    held_out = held_out.assign(t=t)
    validation = held_out[held_out["split"] == "validation"]
    temperature = None
    if validation["harmful"].nunique() == 2:
        temperature, _scaled = temperature_scale(validation["t"], validation["harmful"])
        encoders.rescale(model, 1 / temperature)
        t = scorer.score(held_out["prompt"].tolist(), held_out["response"].tolist()).astype(float)
    test = held_out.assign(t=t)[held_out["split"] == "test"]
    numbers = partial(quality.guard_numbers, tau=tau)
    return {"temperature": temperature, "rows": quality.table_of(test, numbers)}


def _finish_utility(
    model, scorer: EncoderScorer, rows: pd.DataFrame, ratings: pd.Series | None
) -> dict:
    if ratings is not None:
        encoders.rescale(model, float(ratings.std()), float(ratings.mean()))
    test = rows[rows["split"] == "test"]
    prompts, pairs = test["prompt"].tolist(), "chosen" in rows
    said = test["chosen" if pairs else "response"].tolist()
    test = test.assign(u=scorer.score(prompts, said).astype(float))
    if pairs:
        test["u_rejected"] = scorer.score(prompts, test["rejected"].tolist()).astype(float)
    return {"rows": quality.table_of(test, quality.utility_numbers)}


def results(fit: dict, kind: str = "all") -> pd.DataFrame:
    """The metrics of a fit as a table: mean, low and high by metric."""
    rows = pd.DataFrame(fit["rows"])
    table = rows[rows["kind"] == kind].set_index("metric")[["mean", "low", "high", "n"]]
    return table.replace({None: np.nan})
