"""Batches of sampled completions, kept until all that is made of them is there.

Sampling a large model takes minutes. Whoever does it :func:`keeping` finds what was drawn before an
interruption again, bit for bit, as every batch has a seed of its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import torch

from bgkit.errors import BgkitError
from bgkit.runs import write_json
from bgkit.runs.replies import default_folder, key_of
from bgkit.versions import versions

#: The folder, and the versions of what draws.
_KEPT: ContextVar[tuple[Path, dict[str, str]] | None] = ContextVar("drawn", default=None)

TokenIds = list[list[int]]


@contextlib.contextmanager
def keeping(folder: str | Path) -> Iterator[None]:
    """Keep every batch that is drawn inside in a folder, which goes as soon as all is done.

    Give each state of a model that its weights do not tell (an adapter switched off) its own
    folder.
    """
    token = _KEPT.set((Path(folder), versions()))
    try:
        yield
    finally:
        _KEPT.reset(token)
    shutil.rmtree(folder, ignore_errors=True)


def shared(**task: object) -> Path:
    """A folder in the user's cache for a task without one; ``task`` tells it from all others."""
    return default_folder() / "drawn" / key_of(**task)[:32]


def once(draw: Callable[..., TokenIds], model: torch.nn.Module, **asked: object) -> TokenIds:
    """What ``draw(**asked)`` returns, or what the folder has of it for the same model.

    ``asked`` is all that determines the batch beside the model, as JSON can hold it.
    """
    if (kept := _KEPT.get()) is None:
        return draw(**asked)
    folder, made_by = kept
    weights = [one.detach().sum(dtype=torch.float64).item() for one in model.parameters()]
    path = folder / f"{key_of(weights=weights, versions=made_by, **asked)[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    ids = draw(**asked)
    with contextlib.suppress(BgkitError):  # where nothing can be kept, sampling goes on
        write_json(path, ids)
    return ids
