"""Fit a guard or a utility from a table of labelled responses, and write it as a folder.

Rows are divided by prompt. The training rows fit an encoder; a guard's validation rows set its
temperature (Guo et al. 2017), which goes into its head, so that the folder is an ordinary
classifier; the test rows tell how good it is (:mod:`bgkit.fitting.quality`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit import checks, runs
from bgkit.errors import BgkitError
from bgkit.fitting import encoder as encoders
from bgkit.fitting import labelled, quality
from bgkit.models import devices
from bgkit.progress import say
from bgkit.prompts.tables import short_repr
from bgkit.runs.replies import key_of
from bgkit.scoring.encoders import EncoderScorer
from bgkit.scoring.temperature import temperature_scale
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
    :class:`bgkit.fitting.encoder.Settings`. ``out`` becomes a guard's folder: an adapter of some MB
    that names its encoder, or a whole model. Accuracy and errors are counted at ``tau`` in (0, 1).

    Returns counts of labels and splits, the temperature, texts that were cut or left out, what
    splits share, and rows of kind, metric (auc, accuracy, brier, ece, false_positive and
    false_negative as shares of all), mean, low, high on held-out prompts. The same call goes on
    where one was interrupted, and returns at once when it is done. Raises BgkitError for a table
    with too few of either label or other faults, and for an ``out`` that holds something else.
    """
    checks.threshold(tau)
    rows = labelled.read_labelled(table, "harmful", columns, leave_out)
    labelled.check_classes(rows, "the table" if isinstance(table, pd.DataFrame) else table)
    counts = {"labels": {n: int((rows["harmful"] == v).sum()) for n, v in labelled.CLASSES}}
    chosen = encoders.Settings(encoder, **settings)
    return _fitted("guard", rows, Path(out), chosen, device, counts, {"tau": tau})


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
    rows, counts = labelled.read_labelled(table, "rating", columns, leave_out), {}
    if len(rows) < 2 * labelled.LEAST:
        raise BgkitError(
            f"{len(rows)} rows are too few to fit a utility on; it takes at least "
            f"{2 * labelled.LEAST}."
        )
    if "rating" in rows:
        if rows["rating"][rows["split"] == "train"].nunique() < 2:
            raise BgkitError("All ratings to fit on are the same; a utility needs a difference.")
        counts["ratings"] = [float(rows["rating"].min()), float(rows["rating"].max())]
    chosen = encoders.Settings(encoder, **settings)
    return _fitted("utility", rows, Path(out), chosen, device, counts, {})


def _fitted(
    what: str,
    rows: pd.DataFrame,
    out: Path,
    settings: encoders.Settings,
    device: str,
    counts: dict,
    tau: dict[str, float],
) -> dict:
    """Fit, measure and write; or what an earlier call wrote of the same."""
    key = key_of(rows=rows.to_dict("list"), settings=asdict(settings), what=what, **tau)[:32]
    if (out / FILE).is_file() and (done := runs.read_config(out / FILE)).get("key") == key:
        return done
    scratch = out / f".fitting-{key[:8]}"
    if out.is_dir() and any(path.name != scratch.name for path in out.iterdir()):
        raise BgkitError(f"The folder {out} holds something else than this fit; name another one.")
    splits = {name: int((rows["split"] == name).sum()) for name in ("train", "validation", "test")}
    if not splits["train"] or not splits["test"]:
        raise BgkitError(f"There are no rows to fit on, or none to measure with ({splits}).")
    shared = labelled.shared_texts(rows)
    if shared["near_prompts"] or shared["responses"]:
        pair = "".join(f" ({short_repr(a)}, {short_repr(b)})" for a, b in shared["examples"][:1])
        say(
            f"{shared['near_prompts']} held-out prompts have a near-duplicate{pair} and "
            f"{shared['responses']} held-out responses a copy among the training rows, which "
            "flatters the figures."
        )
    labels = ["safe", "unsafe"] if what == "guard" else ["utility"]
    scorer, new = encoders.new_scorer(settings, labels, device, f"{what} {out.name}")
    kept = _with_room(rows, scorer)
    texts = {"left_out": len(rows) - len(kept), "max_length": scorer.max_length}
    train = _encoded(kept[kept["split"] == "train"], scorer)
    encoders.train(scorer, new, train, settings, scratch)
    found, provenance = _measured(what, scorer, kept, tau), devices.provenance()
    del provenance["command"]
    fit = {
        "what": what,
        "key": key,
        **asdict(settings),
        "counts": {**counts, **splits, "prompts": int(kept["prompt"].nunique())},
        "texts": texts | {"responses_cut": len(scorer.cut)},
        "shared": shared,
        **found,
        **tau,
        **provenance,
    }
    encoders.save(scorer, out, settings.encoder)
    fit["sha256"] = {path.name: sha256(path) for path in sorted(out.glob("*.safetensors"))}
    card = quality.card({"ratings": False, **counts, **fit})
    (out / "README.md").write_text(card, encoding="utf-8")
    runs.write_json(out / FILE, fit)  # last: what has it is complete
    shutil.rmtree(scratch, ignore_errors=True)
    return fit


def _measured(what: str, scorer: EncoderScorer, rows: pd.DataFrame, tau: dict[str, float]) -> dict:
    """Put a fitted model on its scale; returns that, and its figures on the test prompts."""
    parts = ("train", "validation", "test")
    train, validation, test = (rows[rows["split"] == part] for part in parts)
    if what == "guard":
        t, temperature = _scores(scorer, validation), None  # scored in any case: what is cut counts
        if validation["harmful"].nunique() == 2:
            temperature, _ = temperature_scale(t, validation["harmful"])
            encoders.rescale(scorer.model, 1 / temperature)
        test = test.assign(t=_scores(scorer, test))
        numbers = partial(quality.guard_numbers, **tau)
        return {"temperature": temperature, "rows": quality.table_of(test, numbers)}
    if "rating" in train:
        deviation, mean = float(train["rating"].std()), float(train["rating"].mean())
        encoders.rescale(scorer.model, deviation, mean)
    test = test.assign(u=_scores(scorer, test))
    if "rejected" in test:
        test["u_rejected"] = _scores(scorer, test, "rejected")
    return {"rows": quality.table_of(test, quality.utility_numbers)}


def _with_room(rows: pd.DataFrame, scorer: EncoderScorer) -> pd.DataFrame:
    """The rows whose prompt leaves room for a response."""
    kept = rows[np.array(scorer.lengths(rows["prompt"].tolist())) < scorer.max_length]
    if len(kept) < len(rows):
        say(
            f"{len(rows) - len(kept)} rows are left out: their prompts alone have more than "
            f"{scorer.max_length} tokens, which is all that the encoder reads."
        )
    if not {"train", "test"} <= set(kept["split"]):
        raise BgkitError(
            "No rows are left to fit on, or none to measure with; label more prompts, give them a "
            "column 'split', or take an encoder that reads more tokens."
        )
    return kept


def _scores(scorer: EncoderScorer, rows: pd.DataFrame, column: str = "") -> np.ndarray:
    """Scores (n,) of the responses in a column, by default those labelled or chosen."""
    column = column or ("chosen" if "chosen" in rows else "response")
    return scorer.score(rows["prompt"].tolist(), rows[column].tolist()).astype(float)


def _encoded(rows: pd.DataFrame, scorer: EncoderScorer) -> list[dict]:
    """Rows as the trainers take them; ratings without their mean, in units of their deviation."""
    prompts = rows["prompt"].tolist()
    if "chosen" in rows:
        sides = (scorer.encode(prompts, rows[side].tolist()) for side in ("chosen", "rejected"))
        return [
            {"chosen_ids": one["input_ids"], "rejected_ids": other["input_ids"]}
            for one, other in zip(*sides, strict=True)
        ]
    if "harmful" in rows:
        labels = rows["harmful"].astype(int)
    else:
        labels = (rows["rating"] - rows["rating"].mean()) / rows["rating"].std()
    inputs = scorer.encode(prompts, rows["response"].tolist())
    return [{**row, "labels": label} for row, label in zip(inputs, labels.tolist(), strict=True)]


def results(fit: dict) -> pd.DataFrame:
    """The metrics of a fit as a table: mean, low, high and n by metric."""
    rows = pd.DataFrame(fit["rows"])
    table = rows[rows["kind"] == "all"].set_index("metric")[["mean", "low", "high", "n"]]
    return table.replace({None: np.nan})
