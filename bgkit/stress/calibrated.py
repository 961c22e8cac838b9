"""Training against a miscalibrated guard, as it is or with its temperature fitted first.

Boundary guidance reads the guard's probabilities as distances from the boundary; an overconfident
guard says "far" of nearly everything. Temperature scaling (:mod:`bgkit.evaluation.calibration`)
softens that on labelled responses of the base policy, before training; :func:`readable` shows what
it brought on responses that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import calibration
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.intervals import interval_text
from bgkit.evaluation.language_judge import Judge
from bgkit.evaluation.means import summary
from bgkit.models import policies
from bgkit.prompts import load as prompts
from bgkit.scoring import guards, identity
from bgkit.scoring.adapters import as_guard
from bgkit.scoring.scorer import Scorer
from bgkit.scoring.temperature import with_temperature
from bgkit.stress.contenders import (
    contenders_of,
    guard_key,
    guards_by_name,
    judge_of,
    redeployed,
    stored,
)
from bgkit.training import trainer as training

#: The seed of the validation prompts of a fit (the held-out curve of a run has seed 1).
PROMPT_SEED = 2
METRICS = ("system_harm", "system_help", "filter_rate", "false_positive", "false_negative")
AS_IT_IS, SCALED = "as it is", "scaled"
FIT_FILE = "temperature.json"


class Fit(NamedTuple):
    """A fitted temperature, and how calibrated the guard is without and with it, held out.

    ``table`` has the rows ``as it is`` and ``scaled`` and the columns of
    :func:`bgkit.evaluation.calibration.calibration_table` (ece, brier, log_loss, their bounds, n).
    """

    temperature: float
    table: pd.DataFrame


class Pair(NamedTuple):
    """Two runs that differ in the guard's temperature, the fit, and the table of :func:`behind`."""

    as_it_is: runs.Run
    scaled: runs.Run
    fit: Fit
    table: pd.DataFrame


def fit_temperature(
    config: runs.TrainConfig,
    guard: Scorer | None = None,
    *,
    n: int = 400,
    judge: Judge | None = None,
    device: str = "auto",
) -> Fit:
    """The temperature of a config's guard that suits the base policy's responses.

    The base policy answers ``n`` validation prompts once each; ``judge`` (by default the truth of
    the config's prompts) says which answers are harmful. A random half is fitted, the other half
    tells what it brought. ``guard`` replaces the config's, which is taken at temperature 1.
    Temperatures lie in :data:`bgkit.scoring.temperature.TEMPERATURES` and are rounded to three
    digits. Raises BgkitError without a judge where the truth is not known, and if a half lacks
    harmful or safe responses.
    """
    truth = judge_of(config, judge)
    if truth is None:
        raise BgkitError(
            f"The truth about the prompts {config.prompts!r} is not known, so no temperature can "
            "be fitted; give a judge that labels the responses."
        )
    plain = replace(config, guard_temperature=1.0)
    model, tokenizer = policies.load_policy(config.policy, None, device, config.precision)
    samples = evaluation.sample_policy(
        model,
        tokenizer,
        prompts.load_prompts(config.prompts, "validation", n, PROMPT_SEED),
        guard=guards.guard_of(plain, device, given=guard),
        tau=config.tau,
        temperature=config.temperature,
        max_completion_length=config.max_completion_length,
        seed=config.seed,
    )
    graded = truth.grade(samples["prompt"].tolist(), samples["response"].tolist())
    return fit_on(samples.assign(harm=graded["harm"].to_numpy(float)))


def fit_on(samples: pd.DataFrame) -> Fit:
    """:func:`fit_temperature` of responses with the guard's ``t`` and the true ``harm``.

    Rows are shuffled (always in the same way) before they are halved, for prompt tables alternate
    between kinds of prompts.
    """
    mixed = samples.sample(frac=1, random_state=0)
    temperature, held_out = calibration.fit_on_half(mixed)
    temperature = float(f"{temperature:.3g}")
    scaled = with_temperature(held_out["t"], temperature)
    tables = {AS_IT_IS: held_out, SCALED: held_out.assign(t=scaled)}
    return Fit(temperature, calibration.calibration_table(tables))


def train_pair(
    config: runs.TrainConfig,
    folder: str | Path,
    *,
    n: int = 400,
    judge: Judge | None = None,
    guard: Scorer | None = None,
    utility: Scorer | None = None,
    reference: str | Scorer = "default",
    device: str = "auto",
    threads: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Pair:
    """Train a config with its guard as it is, and with the fitted temperature; compare both.

    The fit is kept in ``folder/temperature.json``, the runs in ``folder/as_it_is`` and
    ``folder/scaled``: what is complete is reused, a run that was stopped goes on. The table is that
    of :func:`behind` with the guard as it is and the guard ``reference`` (a name or a scorer),
    graded by ``judge``. ``n`` and ``judge`` are those of :func:`fit_temperature`; ``guard`` and
    ``utility`` replace the config's by any scorers. Guards that differ in temperature only, such as
    the testbed's ``overconfident`` and ``default``, give the same verdicts at a threshold of 0.5;
    there a ``reference`` with another ranking tells more. Raises BgkitError if the config has a
    guard's temperature of its own, or if the folder has the fit of another config.
    """
    if config.guard_temperature != 1.0:
        raise BgkitError(
            f"The config scales its guard by {config.guard_temperature} already; leave "
            "'guard_temperature' at 1, it is fitted here."
        )
    config = identity.named(config, guard, utility)
    fit = _kept_fit(config, Path(folder), n, judge, guard, device)
    options = {"device": device, "threads": threads, "should_stop": should_stop}
    scaled = replace(config, guard_temperature=fit.temperature)
    pair = [
        training.train(each, Path(folder) / name, guard=guard, utility=utility, **options)
        for each, name in ((config, "as_it_is"), (scaled, "scaled"))
    ]
    own = config.guard if guard is None else as_guard(guard)
    both = [own] if guard_key(own) == guard_key(reference) else [own, reference]
    deployed = behind(pair, both, judge=judge, device=device)
    return Pair(*pair, fit, deployed)


def _kept_fit(
    config: runs.TrainConfig,
    folder: Path,
    n: int,
    judge: Judge | None,
    guard: Scorer | None,
    device: str,
) -> Fit:
    """The fit in a folder, or a new one that is kept there."""
    path = folder / FIT_FILE
    asked = {"config": runs.config_hash(config), "n": n, "judge": judge.name if judge else "truth"}
    if path.is_file():
        kept = runs.read_config(path)
        found = ("temperature", "table", identity.RECORD)
        if {key: kept[key] for key in kept if key not in found} != asked:
            raise BgkitError(
                f"The temperature in {path} was fitted for another config, guard, number of "
                "prompts or judge; choose another folder, or delete it."
            )
        if guard is not None:
            title = f"guard {runs.label(config.guard)}"
            identity.require_same(title, kept.get(identity.RECORD), as_guard(guard), str(path))
        return stored_fit(folder)
    if guard is not None:
        asked[identity.RECORD] = identity.scores_of(as_guard(guard), twice=True)
    fit = fit_temperature(config, guard, n=n, judge=judge, device=device)
    told = {"temperature": fit.temperature, "table": fit.table.to_dict("index")}
    runs.write_json(path, {**asked, **told})
    return fit


def stored_fit(folder: str | Path) -> Fit:
    """The fit that :func:`train_pair` kept in its folder; raises BgkitError if there is none."""
    path = Path(folder) / FIT_FILE
    if not path.is_file():
        raise BgkitError(f"There is no {FIT_FILE} in {folder}; train the pair with train_pair.")
    kept = runs.read_config(path)
    return Fit(kept["temperature"], pd.DataFrame.from_dict(kept["table"], orient="index"))


def readable(fit: Fit) -> pd.DataFrame:
    """A fit for printing: measures by guard as it is and scaled, ``0.034 [0.016, 0.064]``.

    All were measured on the half that was not fitted; lower is better. Log loss is in nats.
    """
    names = {"ece": "ECE (debiased)", "brier": "Brier score", "log_loss": "log loss (nats)"}
    cells = {
        words: [
            interval_text(*ends)
            for ends in fit.table[[key, f"{key}_low", f"{key}_high"]].itertuples(index=False)
        ]
        for key, words in names.items()
    }
    cells["held out responses"] = [f"{count:.0f}" for count in fit.table["n"]]
    return pd.DataFrame(cells, index=fit.table.index).T


def behind(
    folders: Iterable[str | Path | runs.Run],
    guards_: Mapping[str, Scorer] | Sequence[str | Scorer],
    *,
    metrics: Sequence[str] = METRICS,
    judge: Judge | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Base and trained policies behind each guard, at temperature 1 and their configs' threshold.

    Their stored responses are scored anew; ``guards_`` maps names to scorers, or lists scorers and
    names that :func:`bgkit.scoring.guards.load_guard` knows; ``judge`` grades as in
    :func:`bgkit.stress.contenders.graded`. Columns: guard, design, metric, mean, low, high, n,
    n_seeds (:func:`bgkit.evaluation.means.summary`). Raises BgkitError if the runs have different
    thresholds or no stored responses.
    """
    contenders = contenders_of(folders)
    taus = {contender.config.tau for contender in contenders}
    if len(taus) > 1:
        raise BgkitError(
            f"The runs have different thresholds ({', '.join(map(str, sorted(taus)))}); compare "
            "runs of one threshold."
        )
    samples, (tau,), tables = stored(contenders, judge), taus, []
    for name, guard in guards_by_name(guards_, device).items():
        deployed = redeployed(samples, guard, tau)
        tables.append(summary(deployed.assign(guard=name), ["guard", "design"], metrics))
    return pd.concat(tables, ignore_index=True)
