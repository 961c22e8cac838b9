"""Paths of the embedded models, verified against the checksums that were shipped.

``data/testbed/manifest.json`` lists every file with its sha256 and size; :func:`model_path` checks
a model's files against it before anything is loaded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bgkit.data import data_folder, sha256
from bgkit.errors import BgkitError

GROUPS = ("policy", "guard", "utility", "judge")


def testbed_folder() -> Path:
    """Folder of the embedded models; the environment variable ``BGKIT_TESTBED`` overrides it."""
    return Path(os.environ.get("BGKIT_TESTBED") or data_folder() / "testbed")


def manifest() -> dict:
    """The manifest of the embedded models; raises BgkitError if it cannot be read."""
    path = testbed_folder() / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BgkitError(
            f"The list of the embedded models, {path}, cannot be read ({error}): restore it from "
            "the repository or run `make testbed` there (about 10 minutes)."
        ) from error


def model_names(group: str) -> list[str]:
    """Names of the embedded models of a group (policy, guard, utility or judge)."""
    names = {Path(name).parts[1] for name in manifest()["files"] if name.startswith(f"{group}/")}
    return sorted(names)


def model_path(group: str, name: str) -> Path:
    """Folder of an embedded model, once the sha256 of its files is verified.

    Raises BgkitError for an unknown name, and for a missing, changed or additional file (an added
    adapter or tokenizer file would be loaded with the model).
    """
    if name not in (names := model_names(group)):
        raise BgkitError(
            f"There is no embedded {group} {name!r}; choose one of {', '.join(names)}, or give "
            f"{'oracle, english, none, api:MODEL, ' * (group == 'judge')}a local folder or a name "
            "on the hub."
        )
    root, folder = testbed_folder(), testbed_folder() / group / name
    listed = {root / file: entry["sha256"] for file, entry in manifest()["files"].items()}
    for path, digest in listed.items():
        if folder in path.parents:
            verify(path, digest)
    for path in folder.rglob("*"):
        if path.is_file() and path not in listed:
            raise BgkitError(
                f"The file {path} does not belong to the embedded models (the manifest does not "
                "list it): remove it."
            )
    return folder


def verify(path: Path, digest: str) -> None:
    """Raise BgkitError unless the file's sha256 is ``digest``."""
    try:
        actual = sha256(path)
    except OSError as error:
        raise BgkitError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if actual != digest:
        raise BgkitError(
            f"The model file {path} is damaged or was changed (sha256 {actual[:12]}..., expected "
            f"{digest[:12]}...): restore it from the repository or rebuild the testbed."
        )
