"""Guards, t(x, y) in [0, 1]: how likely a response is unsafe; utilities, u(x, y): how good it is.

Either is anything with ``score(prompts, responses) -> (n,) float32``. Names stand for the testbed's
guards (default, weak, overconfident, other) and reward models, which differ in how strongly they
pull over the boundary (aligned, mild, weak, blind), or for published ones
(:mod:`bgkit.scoring.protocols`), by hub name or as ``protocol=folder``. Any other folder or hub
name is taken for a sequence classifier that reads ``tokenizer(prompt, response)``: a reward model
of one label, or a guard, whose label that means *unsafe* is read from its config's words or, as in
``unsafe:toxic=folder``, named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models import devices, templates
from bgkit.models.hub import last_folder_with, layers
from bgkit.models.loading import load_model
from bgkit.progress import phase, say
from bgkit.runs import TrainConfig
from bgkit.runs.config import is_object, label
from bgkit.scoring import protocols
from bgkit.scoring.adapters import CalibratedGuard, as_guard
from bgkit.scoring.decoders import RewardDecoder, VerdictGuard
from bgkit.scoring.encoders import EncoderScorer
from bgkit.scoring.scorer import Scorer, guard_scores, name_of, utility_scores
from bgkit.testbed.store import model_names, read_data

#: Pairs whose truth is plain to see, of ``data/words.yaml``: prompt, response, and whether it is
#: harmful (for a guard) or good (for a reward model); in the testbed's world, and in plain English.
OBVIOUS, EVERYDAY = read_data("words.yaml")["guard"].values()
ANSWERS, EVERYDAY_ANSWERS = read_data("words.yaml")["utility"].values()
LEAST_MASS = 0.5  # of the verdict words in the whole vocabulary, in the self-test


def load_guard(
    name: str | Path = "default",
    device: str = "auto",
    precision: str = "auto",
    *,
    strict: bool = True,
    bits: int = 16,
    check: bool = True,
) -> Scorer:
    """Load a guard by name, folder or hub name (:mod:`bgkit.models.hub`).

    ``strict`` counts a guard's grey verdicts (such as Controversial) as unsafe; ``bits`` 8 or 4
    quantises it; ``check`` runs :func:`self_test`, which embedded models skip. Raises BgkitError
    for an unknown name, a damaged file, a model of another kind or without trained weights for its
    head, labels of which none can be told to be the unsafe one, and a failed self-test.
    """
    guard = load_scorer("guard", name, device, precision, bits, strict)
    if name not in model_names("guard"):
        announce(guard, self_test if check else None)
    return guard


def load_utility(
    name: str | Path = "mild",
    device: str = "auto",
    precision: str = "auto",
    *,
    bits: int = 16,
    check: bool = True,
) -> Scorer:
    """Load a reward model by name, folder or hub name (:mod:`bgkit.models.hub`).

    ``bits`` 8 or 4 quantises it; ``check`` runs :func:`prefers_good`, which embedded models skip.
    Raises BgkitError as :func:`load_guard`.
    """
    utility = load_scorer("utility", name, device, precision, bits)
    if check and name not in model_names("utility"):
        announce(utility, prefers_good)
    return utility


def guard_of(
    config: TrainConfig, device: str = "auto", check: bool = True, given: object | None = None
) -> Scorer:
    """The guard that a run's config names, or the one ``given``, calibrated as the config says."""
    if given is None:
        how = {"strict": config.guard_verdicts == "strict", "bits": config.guard_bits}
        guard = load_guard(config.guard, device, config.precision, check=check, **how)
    else:
        guard = as_guard(given)
    scaled = config.guard_temperature != 1.0
    return CalibratedGuard(guard, config.guard_temperature) if scaled else guard


def utility_of(
    config: TrainConfig, device: str = "auto", check: bool = True, given: Scorer | None = None
) -> Scorer:
    """The reward model that a run's config names, quantised as it says, or the one ``given``."""
    if given is not None:
        return given
    how = {"bits": config.utility_bits, "check": check}
    return load_utility(config.utility, device, config.precision, **how)


def utility_if_known(
    config: TrainConfig, device: str = "auto", given: Scorer | None = None
) -> Scorer | None:
    """:func:`utility_of`, or None where the config names an object that is not given."""
    known = given is not None or not is_object(config.utility)
    return utility_of(config, device, given=given) if known else None


def load_scorer(
    group: str,
    name: str | Path,
    device: str = "auto",
    precision: str = "auto",
    bits: int = 16,
    strict: bool = True,
) -> Scorer:
    """A guard or utility (``group``) by name, as :func:`load_guard` does, without a self-test."""
    if is_object(name):
        raise BgkitError(
            f"The {group} {label(name)!r} of this run is a Python object that was given to its "
            f"training, and no name loads it: pass it as {group}=..., or name another one "
            f"(to deploy with another guard: --guard NAME)."
        )
    protocol, place = protocols.find(group, name)
    title, where = f"{group} {name}", devices.pick_device(device)
    folders = list(layers(group, place).values())
    config_folder = last_folder_with(folders, "config.json")
    verdict = isinstance(protocol, protocols.Verdict)
    kinds = runs.read_config(config_folder / "config.json").get("architectures") or []
    if not verdict and any("ForCausalLM" in kind for kind in kinds):
        raise BgkitError(
            f"{title} is a generative model, and how it is asked is not known; name a sequence "
            f"classifier or, for a guard, a protocol in front, as in llama-guard-3={config_folder} "
            f"(known: {', '.join(protocols.GUARDS)})."
        )
    model, tokenizer = load_model(
        AutoModelForCausalLM if verdict else AutoModelForSequenceClassification,
        folders,
        title,
        device=where,
        dtype=devices.pick_dtype(where, precision),
        bits=bits,
    )
    if verdict:
        return VerdictGuard(model, tokenizer, protocol, title, strict)
    scorer = RewardDecoder if isinstance(protocol, protocols.Template) else EncoderScorer
    return scorer(model, tokenizer, protocol, title)


def self_test(guard: Scorer) -> tuple[dict, str]:
    """What only the real weights can show: what it found, and what is wrong (empty: nothing).

    Of :data:`EVERYDAY` a harmful response must get a higher t than a harmless one. A generative
    guard's template must keep prompt and response, and its verdict words hold at least half of the
    probability at the verdict position.
    """
    (p, r, _), (q, s, _) = EVERYDAY[0], EVERYDAY[-1]
    harmless, harmful, *other = guard_scores(guard, [p, q, p, q], [r, s, s, r]).tolist()
    found = {"harmless": round(harmless, 4), "harmful": round(harmful, 4)}
    faults = []
    if np.allclose([harmless, harmful], other, rtol=0, atol=1e-6):
        faults.append(f"its t ({harmful:.3g}) does not depend on the response")
    elif not harmful > harmless:
        read = f" ({guard.label!r} is read as unsafe)" if getattr(guard, "label", "") else ""
        faults.append(
            f"it gives a harmful response t = {harmful:.3g}, a harmless {harmless:.3g}, as if it "
            f"were untrained or its labels or verdicts were swapped{read}"
        )
    if isinstance(guard, VerdictGuard):
        mass = min(guard.verdict_mass(p, r), guard.verdict_mass(q, s))
        found["verdict_mass"] = round(mass, 4)
        if mass < LEAST_MASS:
            faults.append(f"its verdict words hold only {mass:.2g} of the probability")
        faults += templates.faults(
            lambda *texts: guard.text(*texts, guard.calls[0]),
            lambda text: guard.tokens([text])[0],
            guard.tokenizer.bos_token_id,
            ("prompt", "response"),
        )
    return found, "; ".join(faults)


def prefers_good(utility: Scorer) -> tuple[dict, str]:
    """Whether a reward model prefers a good answer to a broken one; returns as :func:`self_test`.

    Raises BgkitError where it gives no finite number.
    """
    prompts, responses, _ = zip(*EVERYDAY_ANSWERS, strict=True)
    good, broken = utility_scores(utility, prompts, responses).tolist()
    told = f"it gives a good answer {good:.3g} and a broken one {broken:.3g}"
    fault = "" if good > broken else f"{told} (higher must be better)"
    return {"good": round(good, 4), "broken": round(broken, 4)}, fault


def announce(scorer: Scorer, test: Callable[[Scorer], tuple[dict, str]] | None) -> None:
    """Run a self-test, or none, and tell its outcome on the error stream and as ``checked``.

    Raises BgkitError for a scorer that fails it.
    """
    found, fault = {}, ""
    if test is not None:
        with phase(f"testing {name_of(scorer)}"):
            found, fault = test(scorer)
    if fault:
        raise BgkitError(
            f"{name_of(scorer)} failed its self-test: {fault}. Check its protocol, head and "
            "tokenizer, and name its unsafe label as in unsafe:LABEL=FOLDER (check=False, on the "
            "command line --no-self-test, loads it all the same)."
        )
    label = {"unsafe_label": scorer.label} if getattr(scorer, "label", "") else {}
    told = {"name": name_of(scorer), **label, **found}
    values = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items())
    say(f"{'self-test passed' if test else 'not self-tested'}: {values}", sys.stderr)
    scorer.checked = told if test else {**told, "tested": False}


def try_guard(guard: Scorer, pairs: Sequence[tuple[str, str, bool]] = OBVIOUS) -> pd.DataFrame:
    """Score pairs whose truth is plain: does a guard work at all, before anything rests on it?

    Returns prompt, response, harmful (the truth) and t, which should be low for the harmless ones
    (of :data:`EVERYDAY`, for a guard for English) and high for the others.
    """
    table = pd.DataFrame(pairs, columns=["prompt", "response", "harmful"])
    t = guard_scores(guard, table["prompt"].tolist(), table["response"].tolist())
    return table.assign(t=t.astype(float))
