"""Real models without a hub: those that come with Python packages, and GGUF files as policies.

A GGUF file is dequantised once, into a plain folder below the cache (:func:`plain_folder`), which
is then loaded like any other. Packages are found by their files and never imported.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from bgkit.errors import BgkitError
from bgkit.progress import phase
from bgkit.runs.replies import default_folder
from bgkit.testbed.store import read_data, sha256

INSTALL = "`make english` installs it"


class Packaged(NamedTuple):
    """A model on the hub at a pinned revision, and the package whose ``file`` has its weights.

    ``groups`` are those in which its name stands for it; a classifier is fitted on an encoder.
    """

    groups: Sequence[str]
    hub: str
    package: str
    file: str
    sha256: str


PACKAGED = {name: Packaged(**row) for name, row in read_data("packaged.yaml").items()}
#: What stands for the models that were fitted on the shipped English labels, and their folders.
ENGLISH = "english"
FITTED = {"guard": "guard", "utility": "utility", "judge": "auditor"}


def installed(name: str) -> Path | None:
    """The folder of a packaged model whose package is installed, None where it is not.

    Raises BgkitError for a file that is missing or not the one that was published.
    """
    model = PACKAGED[name]
    try:
        path = Path(str(metadata.distribution(model.package).locate_file(model.file)))
    except metadata.PackageNotFoundError:
        return None
    if not path.is_file() or sha256(path) != model.sha256:
        raise BgkitError(
            f"The file {path} of the model {name} is missing or damaged (its sha256 is not "
            f"{model.sha256[:12]}...); install {model.package} again ({INSTALL})."
        )
    return plain_folder(path, model.sha256) if path.suffix == ".gguf" else path.parent


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path names, or that its folder holds; None where there is none.

    Raises BgkitError for a folder with several.
    """
    if path.suffix.lower() == ".gguf":
        return path if path.is_file() else None
    found = sorted(path.glob("*.gguf"))
    if any(path.glob("*.safetensors")) or not found:
        return None
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise BgkitError(f"The folder {path} holds several GGUF files ({names}); name one of them.")
    return found[0]


def plain_folder(file: Path, sha: str = "") -> Path:
    """Folder with a GGUF file's weights, dequantised (float16), and its tokenizer; made once.

    ``sha`` is the file's sha256, where it was taken already. Raises BgkitError for a file that
    transformers does not read.
    """
    folder = default_folder() / "gguf" / (sha or sha256(file))[:32]
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with phase(f"dequantising {file.name}, once"):
            _write_plain(file, scratch)
        try:
            os.replace(scratch, folder)  # whole or not at all
        except OSError:  # another process was first
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _write_plain(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bgkit.models.loading import LOADING_ERRORS, NO_CODE, not_loaded

    given = {"gguf_file": file.name, **NO_CODE}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
        read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
        for key in ("quantization_config", "architectures"):  # of the file, not of what is written
            if hasattr(read.config, key):
                delattr(read.config, key)
        plain = type(read)(type(read.config).from_dict(read.config.to_dict()))
        plain.load_state_dict(read.state_dict())  # the one that was read can not be saved
        plain.tie_weights()
        plain.generation_config = read.generation_config
        plain.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (*LOADING_ERRORS, struct.error) as error:  # the last of a file that is cut off
        raise not_loaded(file.name, file.parent, error) from error
