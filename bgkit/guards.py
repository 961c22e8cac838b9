"""Guards: t(x, y) in [0, 1], the probability that a response is unsafe.

A guard is anything with ``score(prompts, responses) -> (n,) float32 in [0, 1]``. Names stand for
the testbed's guards (default, weak, overconfident, other); a path for a local folder with a
two-label sequence classifier whose second label means *unsafe*.
"""

from __future__ import annotations

from pathlib import Path

import torch

from bgkit import devices
from bgkit.scoring import SequenceScorer, load_sequence_scorer
from bgkit.testbed import store


def resolve(group: str, name: str) -> Path:
    """Folder of a model: a local folder as it is, an embedded model after its sha256 check."""
    folder = Path(name)
    looks_local = folder.is_absolute() or "/" in name or "\\" in name
    return folder if looks_local and folder.is_dir() else store.model_path(group, name)


def probability_of_unsafe(logits: torch.Tensor) -> torch.Tensor:
    """softmax(logits)[1] for logits (n, 2): the probability (n,) of the second label."""
    return torch.sigmoid(logits[:, 1] - logits[:, 0])


def load_guard(
    name: str = "default", device: str = "auto", precision: str = "auto"
) -> SequenceScorer:
    """Load a guard by name or folder.

    Raises BgkitError for an unknown name, a damaged file, or a model with other than two labels.
    """
    place = devices.pick_device(device)
    return load_sequence_scorer(
        resolve("guard", name),
        probability_of_unsafe,
        labels=2,
        name=f"guard {name}",
        device=place,
        dtype=devices.pick_dtype(place, precision),
    )
