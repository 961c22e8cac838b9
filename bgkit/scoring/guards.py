"""Guards, t(x, y) in [0, 1]: how likely a response is unsafe; utilities, u(x, y): how good it is.

Both are anything with ``score(prompts, responses) -> (n,) numbers``. A name is one of the testbed's
guards (default, weak, overconfident, other) or reward models (aligned, mild, weak, blind, which
differ in how strongly they pull a policy over the boundary), or a published model
(:mod:`bgkit.scoring.protocols`), by hub name or as ``PROTOCOL=FOLDER``. Any other folder or hub
name is taken for a sequence classifier that reads ``tokenizer(prompt, response)``: a reward model
with one label, or a guard, whose unsafe label is found from its config or named, as in
``unsafe:toxic=FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from bgkit import checks, runs
from bgkit.data import read_data
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
from bgkit.scoring.scorer import Scorer, guard_scores, name_of, utility_scores, with_scores
from bgkit.testbed.store import model_names

#: Pairs with an obvious truth (``data/words.yaml``): prompt, response, and whether it is harmful
#: (for a guard) or good (for a reward model); in the testbed's world, and in everyday English.
OBVIOUS, EVERYDAY = read_data("words.yaml")["guard"].values()
ANSWERS, EVERYDAY_ANSWERS = read_data("words.yaml")["utility"].values()
MIN_MASS = 0.5  # probability of the verdict words in the whole vocabulary, in the self-test


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
    head, an unsafe label that is unclear, and a failed self-test.
    """
    guard = load_scorer("guard", name, device, precision, bits, strict)
    if name not in model_names("guard"):
        run_self_test(guard, self_test if check else None)
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
    if name not in model_names("utility"):
        run_self_test(utility, prefers_good if check else None)
    return utility


def guard_of(
    config: TrainConfig, device: str = "auto", check: bool = True, given: object | None = None
) -> Scorer:
    """The guard that a config names, or the one ``given``, at the config's guard temperature."""
    if given is None:
        options = {"strict": config.guard_verdicts == "strict", "bits": config.guard_bits}
        guard = load_guard(config.guard, device, config.precision, check=check, **options)
    else:
        guard = as_guard(given)
    temperature = config.guard_temperature
    return guard if temperature == 1.0 else CalibratedGuard(guard, temperature)


def utility_of(
    config: TrainConfig, device: str = "auto", check: bool = True, given: Scorer | None = None
) -> Scorer:
    """The reward model that a config names, in its number of bits, or the one ``given``."""
    if given is not None:
        return given
    options = {"bits": config.utility_bits, "check": check}
    return load_utility(config.utility, device, config.precision, **options)


def utility_if_known(
    config: TrainConfig, device: str = "auto", given: Scorer | None = None
) -> Scorer | None:
    """:func:`utility_of`, or None if the config names an object that is not given."""
    missing = given is None and is_object(config.utility)
    return None if missing else utility_of(config, device, given=given)


def load_scorer(
    group: str,
    name: str | Path,
    device: str = "auto",
    precision: str = "auto",
    bits: int = 16,
    strict: bool = True,
) -> Scorer:
    """Load a guard or utility (``group``) by name, without a self-test; see :func:`load_guard`."""
    if is_object(name):
        raise BgkitError(
            f"The {group} {label(name)!r} of this run is a Python object that was passed to its "
            f"training and cannot be loaded by name: pass it as {group}=..., or name another one "
            "(to deploy with another guard: --guard NAME)."
        )
    protocol, place = protocols.find(group, name)
    title, device = f"{group} {name}", devices.pick_device(device)
    folders = list(layers(group, place).values())
    config_folder = last_folder_with(folders, "config.json")
    generative = isinstance(protocol, protocols.Verdict)
    architectures = runs.read_config(config_folder / "config.json").get("architectures") or []
    if not generative and any("ForCausalLM" in kind for kind in architectures):
        raise BgkitError(
            f"{title} is a generative model, and how to prompt it is not known; name a sequence "
            f"classifier or, for a guard, put a protocol first, as in llama-guard-3={config_folder}"
            f" (known: {', '.join(protocols.GUARDS)})."
        )
    model, tokenizer = load_model(
        AutoModelForCausalLM if generative else AutoModelForSequenceClassification,
        folders,
        title,
        device=device,
        dtype=devices.pick_dtype(device, precision),
        bits=bits,
    )
    if generative:
        return VerdictGuard(model, tokenizer, protocol, title, strict)
    scorer = RewardDecoder if isinstance(protocol, protocols.Template) else EncoderScorer
    return scorer(model, tokenizer, protocol, title)


def self_test(guard: Scorer) -> tuple[dict, str]:
    """Test what only the real weights can show; returns the values and the faults (empty if none).

    A harmful response of :data:`EVERYDAY` must get a higher t than a harmless one. A generative
    guard's template must keep prompt and response, and its verdict words must hold at least half of
    the probability at the verdict position.
    """
    (p, r, _), (q, s, _) = EVERYDAY[0], EVERYDAY[-1]
    harmless, harmful, *swapped = guard_scores(guard, [p, q, p, q], [r, s, s, r]).tolist()
    values = {"harmless": round(harmless, 4), "harmful": round(harmful, 4)}
    faults = []
    if np.allclose([harmless, harmful], swapped, rtol=0, atol=1e-6):
        faults.append(f"its t ({harmful:.3g}) does not depend on the response")
    elif not harmful > harmless:
        label = f" ({guard.label!r} is read as unsafe)" if getattr(guard, "label", "") else ""
        faults.append(
            f"it gives a harmful response t = {harmful:.3g} and a harmless one {harmless:.3g}, as "
            f"if it were untrained or its labels or verdicts were swapped{label}"
        )
    if isinstance(guard, VerdictGuard):
        mass = min(guard.verdict_mass(p, r), guard.verdict_mass(q, s))
        values["verdict_mass"] = round(mass, 4)
        if mass < MIN_MASS:
            faults.append(f"its verdict words hold only {mass:.2g} of the probability")
        faults += templates.faults(
            lambda *texts: guard.text(*texts, guard.calls[0]),
            lambda text: guard.tokens([text])[0],
            guard.tokenizer.bos_token_id,
            ("prompt", "response"),
        )
    return values, "; ".join(faults)


def prefers_good(utility: Scorer) -> tuple[dict, str]:
    """Test whether a reward model prefers a good answer to a broken one; see :func:`self_test`.

    Raises BgkitError if a score is not finite.
    """
    prompts, responses, _ = zip(*EVERYDAY_ANSWERS, strict=True)
    good, broken = utility_scores(utility, prompts, responses).tolist()
    values = f"it gives a good answer {good:.3g} and a broken one {broken:.3g}"
    fault = "" if good > broken else f"{values} (higher must be better)"
    return {"good": round(good, 4), "broken": round(broken, 4)}, fault


def run_self_test(scorer: Scorer, test: Callable[[Scorer], tuple[dict, str]] | None) -> None:
    """Run a self-test, if any; print its outcome to stderr and keep it as ``scorer.test_outcome``.

    Raises BgkitError for a scorer that fails it.
    """
    values, fault = {}, ""
    if test is not None:
        with phase(f"testing {name_of(scorer)}"):
            values, fault = test(scorer)
    if fault:
        raise BgkitError(
            f"{name_of(scorer)} failed its self-test: {fault}. Check its protocol, head and "
            "tokenizer, and for a guard name the unsafe label as in unsafe:LABEL=FOLDER "
            "(check=False, on the command line --no-self-test, loads it anyway)."
        )
    label = {"unsafe_label": scorer.label} if getattr(scorer, "label", "") else {}
    outcome = {"name": name_of(scorer), **label, **values}
    text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in outcome.items())
    say(f"{'self-test passed' if test else 'not self-tested'}: {text}", sys.stderr)
    scorer.test_outcome = outcome if test else {**outcome, "tested": False}


def rescored(samples: pd.DataFrame, names: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """The same responses scored by several guards: name -> samples with that guard's t.

    Without ``names``: all embedded guards. Columns that follow from the old t (``filtered``, what
    the user saw) are left out.
    """
    texts = samples["prompt"].tolist(), samples["response"].tolist()
    scored = {
        n: guard_scores(load_guard(n), *texts)
        for n in checks.as_list("names", names, str) or model_names("guard")
    }
    return {name: with_scores(samples, t) for name, t in scored.items()}


def try_guard(guard: Scorer, prompt_set: str = "testbed") -> pd.DataFrame:
    """Score pairs with an obvious truth, to see whether a guard works at all.

    They are :data:`OBVIOUS` for the testbed's prompts, else :data:`EVERYDAY`, plain English.
    Returns prompt, response, harmful (the truth) and t, which should be low for the harmless pairs
    and high for the others.
    """
    pairs = OBVIOUS if prompt_set == "testbed" else EVERYDAY
    table = pd.DataFrame(pairs, columns=["prompt", "response", "harmful"])
    t = guard_scores(guard, table["prompt"].tolist(), table["response"].tolist())
    return table.assign(t=t.astype(float))
