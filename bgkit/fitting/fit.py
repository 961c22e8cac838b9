"""Fit a guard or a utility to a table of labelled responses, and save it to a folder.

Rows are split by prompt. The training rows fit an encoder; a guard's validation rows set its
temperature (Guo et al. 2017), which is built into its head, so the folder is an ordinary
classifier; the test rows measure its quality (:mod:`bgkit.fitting.quality`).
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
from bgkit.data import hash_of, sha256
from bgkit.errors import BgkitError
from bgkit.fitting import encoder as encoders
from bgkit.fitting import labelled, quality
from bgkit.fitting.settings import Settings
from bgkit.models import devices
from bgkit.progress import say
from bgkit.prompts.tables import short_repr
from bgkit.scoring.encoders import EncoderScorer
from bgkit.scoring.temperature import temperature_scale

FILE = "fit.json"


def fit_guard(
    table: str | Path | pd.DataFrame,
    out: str | Path,
    *,
    tau: float = 0.5,
    columns: Mapping[str, str] | None = None,
    leave_out: Mapping[str, str] | None = None,
    device: str = "auto",
    **settings,
) -> dict:
    """Fit a guard to responses labelled ``harmful``; returns the contents of ``fit.json``.

    ``table`` is a file or a table (:func:`bgkit.fitting.labelled.read_labelled`, with ``columns``
    and ``leave_out``). ``settings`` are those of :class:`bgkit.fitting.settings.Settings`, such as
    the ``encoder`` (``minilm``, a folder or a hub name). ``out`` becomes the guard's folder: an
    adapter of a few MB that names its encoder, or a whole model. Accuracy and errors are at
    threshold ``tau``.

    Returns counts of labels and splits, the temperature, numbers of truncated and left-out texts,
    texts that splits share, and rows of kind, metric (auc, accuracy, brier, ece, false_positive and
    false_negative as shares of all), mean, low, high on held-out prompts. An interrupted fit is
    resumed by the same call, and a complete one is returned at once. Raises BgkitError for a table
    with too few of either label or other faults, and for an ``out`` that holds something else.
    """
    checks.threshold(tau)
    rows = labelled.read_labelled(table, "harmful", columns, leave_out)
    labelled.check_classes(rows, "the table" if isinstance(table, pd.DataFrame) else table)
    counts = {"labels": {n: int((rows["harmful"] == v).sum()) for n, v in labelled.CLASSES}}
    return _fit("guard", rows, Path(out), Settings(**settings), device, counts, {"tau": tau})


def fit_utility(
    table: str | Path | pd.DataFrame,
    out: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    leave_out: Mapping[str, str] | None = None,
    device: str = "auto",
    **settings,
) -> dict:
    """Fit a reward model to responses with a ``rating``, or to ``chosen`` and ``rejected`` ones.

    Works like :func:`fit_guard`. Ratings are fitted by mean squared error and predicted on their
    own scale; pairs use the Bradley-Terry model (TRL's RewardTrainer). The metrics are accuracy
    (how often the better response has the higher u) and, for ratings, Spearman's correlation.
    """
    rows, counts = labelled.read_labelled(table, "rating", columns, leave_out), {}
    if len(rows) < 2 * labelled.LEAST:
        raise BgkitError(
            f"{len(rows)} rows are too few to fit a utility on; at least {2 * labelled.LEAST} are "
            "needed."
        )
    if "rating" in rows:
        if rows["rating"][rows["split"] == "train"].nunique() < 2:
            raise BgkitError("All ratings to fit on are the same; a utility needs differences.")
        counts["ratings"] = [float(rows["rating"].min()), float(rows["rating"].max())]
    return _fit("utility", rows, Path(out), Settings(**settings), device, counts, {})


def _fit(
    what: str,
    rows: pd.DataFrame,
    out: Path,
    settings: Settings,
    device: str,
    counts: dict,
    tau: dict[str, float],
) -> dict:
    """Fit, measure and save; returns the result of an earlier identical call if there is one."""
    key = hash_of(rows=rows.to_dict("list"), settings=asdict(settings), what=what, **tau)[:32]
    if (out / FILE).is_file() and (done := runs.read_config(out / FILE)).get("key") == key:
        return done
    scratch = out / f".fitting-{key[:8]}"
    if out.is_dir() and any(path.name != scratch.name for path in out.iterdir()):
        raise BgkitError(f"The folder {out} holds something other than this fit; name another one.")
    splits = {name: int((rows["split"] == name).sum()) for name in ("train", "validation", "test")}
    if not splits["train"] or not splits["test"]:
        raise BgkitError(f"There are no rows to fit on, or none to measure with ({splits}).")
    shared = labelled.shared_texts(rows)
    if shared["near_prompts"] or shared["responses"]:
        pair = "".join(f" ({short_repr(a)}, {short_repr(b)})" for a, b in shared["examples"][:1])
        say(
            f"{shared['near_prompts']} held-out prompts have a near-duplicate{pair} and "
            f"{shared['responses']} held-out responses a copy among the training rows, so the "
            "metrics are too favourable."
        )
    labels = ["safe", "unsafe"] if what == "guard" else ["utility"]
    scorer, new = encoders.new_scorer(settings, labels, device, f"{what} {out.name}")
    used = _drop_long_prompts(rows, scorer)
    texts = {"left_out": len(rows) - len(used), "max_length": scorer.max_length}
    train = _encode(used[used["split"] == "train"], scorer)
    encoders.train(scorer, new, train, settings, scratch)
    metrics, provenance = _measure(what, scorer, used, tau), devices.provenance()
    del provenance["command"]
    fit = {
        "what": what,
        "key": key,
        **asdict(settings),
        "counts": {**counts, **splits, "prompts": int(used["prompt"].nunique())},
        "texts": texts | {"responses_cut": len(scorer.truncated)},
        "shared": shared,
        **metrics,
        **tau,
        **provenance,
    }
    encoders.save(scorer, out, settings.encoder)
    fit["sha256"] = {path.name: sha256(path) for path in sorted(out.glob("*.safetensors"))}
    card = quality.card({"ratings": False, **counts, **fit})
    (out / "README.md").write_text(card, encoding="utf-8")
    runs.write_json(out / FILE, fit)  # last, as it marks a complete fit
    shutil.rmtree(scratch, ignore_errors=True)
    return fit


def _measure(what: str, scorer: EncoderScorer, rows: pd.DataFrame, tau: dict[str, float]) -> dict:
    """Rescale a fitted model's outputs; returns a guard's temperature, and the test metrics."""
    parts = ("train", "validation", "test")
    train, validation, test = (rows[rows["split"] == part] for part in parts)
    if what == "guard":
        t, temperature = _scores(scorer, validation), None  # always scored, to count truncations
        if validation["harmful"].nunique() == 2:
            temperature, _ = temperature_scale(t, validation["harmful"])
            encoders.rescale(scorer.model, 1 / temperature)
        else:
            say(
                "The guard is not calibrated: the validation rows hold no harmful or no harmless "
                "response. Label more, or set the splits in a column 'split'."
            )
        test = test.assign(t=_scores(scorer, test))
        numbers = partial(quality.guard_numbers, **tau)
        return {"temperature": temperature, "rows": quality.metric_rows(test, numbers)}
    if "rating" in train:
        deviation, mean = float(train["rating"].std()), float(train["rating"].mean())
        encoders.rescale(scorer.model, deviation, mean)
    test = test.assign(u=_scores(scorer, test))
    if "rejected" in test:
        test["u_rejected"] = _scores(scorer, test, "rejected")
    return {"rows": quality.metric_rows(test, quality.utility_numbers)}


def _drop_long_prompts(rows: pd.DataFrame, scorer: EncoderScorer) -> pd.DataFrame:
    """The rows whose prompt leaves room for a response."""
    used = rows[np.array(scorer.lengths(rows["prompt"].tolist())) < scorer.max_length]
    if len(used) < len(rows):
        say(
            f"{len(rows) - len(used)} rows are left out: their prompts alone fill the "
            f"{scorer.max_length} tokens that the encoder reads."
        )
    if not {"train", "test"} <= set(used["split"]):
        raise BgkitError(
            "No rows are left to fit on, or none to measure with; label more prompts, add a "
            "column 'split', or use an encoder that reads more tokens."
        )
    return used


def _scores(scorer: EncoderScorer, rows: pd.DataFrame, column: str = "") -> np.ndarray:
    """Scores (n,) of the responses in a column, by default ``chosen`` or ``response``."""
    column = column or ("chosen" if "chosen" in rows else "response")
    return scorer.score(rows["prompt"].tolist(), rows[column].tolist()).astype(float)


def _encode(rows: pd.DataFrame, scorer: EncoderScorer) -> list[dict]:
    """Rows in the trainers' format; ratings are standardised."""
    prompts = rows["prompt"].tolist()
    if "chosen" in rows:
        sides = (scorer.encode(prompts, rows[side].tolist()) for side in ("chosen", "rejected"))
        return [
            {"chosen_ids": chosen["input_ids"], "rejected_ids": rejected["input_ids"]}
            for chosen, rejected in zip(*sides, strict=True)
        ]
    if "harmful" in rows:
        labels = rows["harmful"].astype(int)
    else:
        labels = (rows["rating"] - rows["rating"].mean()) / rows["rating"].std()
    inputs = scorer.encode(prompts, rows["response"].tolist())
    return [{**row, "labels": label} for row, label in zip(inputs, labels.tolist(), strict=True)]


def results(fit: dict) -> pd.DataFrame:
    """The metrics of a fit as a table: mean, low, high and n for each metric."""
    rows = pd.DataFrame(fit["rows"])
    table = rows[rows["kind"] == "all"].set_index("metric")[["mean", "low", "high", "n"]]
    return table.replace({None: np.nan})
