"""Scores on disk, keyed by the model that gave them and the text: nothing is scored twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bgkit.errors import BgkitError
from bgkit.runs.replies import Replies, default_folder, key_of
from bgkit.scoring.outputs import as_numbers
from bgkit.scoring.scorer import Scorer

FILE = "scores.jsonl"


class CachedScorer:
    """A guard or utility that keeps its scores in a folder's file, by model revision and text.

    ``asked`` counts the pairs that had to be scored. Prompts and responses are not kept, only
    hashes. Two processes may use one folder.
    """

    def __init__(self, scorer: Scorer, folder: str | Path | None = None) -> None:
        self.scorer, self.revision = scorer, revision_of(scorer)
        self.name, self.checked = scorer.name, getattr(scorer, "checked", None)
        self.model, self.asked = getattr(scorer, "model", None), 0
        self.kept = Replies(Path(folder) if folder else default_folder(), FILE)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) float32 scores, kept ones from the file."""
        self.kept.refresh()
        pairs = list(zip(prompts, responses, strict=True))
        keys = {
            pair: key_of(model=self.revision, prompt=_whole(pair[0]), response=_whole(pair[1]))
            for pair in dict.fromkeys(pairs)
        }
        known = {pair: self.kept.get(key) for pair, key in keys.items()}
        new = [pair for pair, value in known.items() if value is None]
        self.asked += len(new)
        if new:
            scores = self.scorer.score([p for p, _ in new], [r for _, r in new])
            for pair, score in zip(new, as_numbers(scores, len(new), self.name), strict=True):
                known[pair] = float(np.float32(score)).hex()
                self.kept.put(keys[pair], known[pair])
        return np.array([float.fromhex(known[pair]) for pair in pairs], dtype=np.float32)


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def revision_of(scorer: Scorer) -> str:
    """What tells a scorer's model from any other: its ``revision``, or files and protocol.

    Of a folder the names, sizes and times of its weights and settings count, not their content.
    Raises BgkitError for a scorer that has neither.
    """
    if revision := getattr(scorer, "revision", ""):
        return revision
    if (inner := getattr(scorer, "guard", None)) is not None:  # a temperature around a guard
        return key_of(guard=revision_of(inner), temperature=repr(getattr(scorer, "temperature", 0)))
    folder = Path(getattr(getattr(scorer, "model", None), "name_or_path", "") or "/none")
    if not folder.is_dir():
        name = getattr(scorer, "name", type(scorer).__name__)
        raise BgkitError(
            f"The scores of {name} can not be kept, for nothing tells it from another version; "
            "give it an attribute `revision`."
        )
    files = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.glob("*"))
        if path.suffix in (".safetensors", ".json", ".jinja", ".model")
    ]
    asked = [repr(getattr(scorer, name, None)) for name in ("protocol", "temperature", "words")]
    unsafe = getattr(scorer, "_unsafe", None)
    bits = getattr(scorer.model.config, "quantization_config", None)
    kind = [
        str(scorer.model.dtype),
        repr(bits),
        None if unsafe is None else np.asarray(unsafe).tolist(),
    ]
    return key_of(folder=str(folder.resolve()), files=files, asked=asked, kind=kind)
