"""Utilities: u(x, y), a reward model's unbounded preference for a response.

A utility is anything with ``score(prompts, responses) -> (n,) float32``. Names stand for the
testbed's reward models, which differ in how strongly they pull over the boundary: aligned (likes
safety most), mild, weak, blind (helpfulness only), a path for a local folder, ``owner/name`` for a
model on the hub: a one-label sequence classifier that reads ``tokenizer(prompt, response)``.
"""

from __future__ import annotations

from bgkit import devices
from bgkit.hub import resolve
from bgkit.scoring import SequenceScorer, load_sequence_scorer


def load_utility(
    name: str = "mild", device: str = "auto", precision: str = "auto"
) -> SequenceScorer:
    """Load a reward model by name, folder or hub name (:mod:`bgkit.hub`).

    Raises BgkitError for an unknown name, a damaged file, or a model with other than one label or
    without trained weights for its head.
    """
    place = devices.pick_device(device)
    return load_sequence_scorer(
        resolve("utility", name),
        lambda logits: logits[:, 0],
        labels=1,
        name=f"utility {name}",
        device=place,
        dtype=devices.pick_dtype(place, precision),
    )
