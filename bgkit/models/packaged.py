"""Models without the hub: weights that ship in Python packages, and GGUF files as policies.

A GGUF file is dequantised once into a folder in the cache (:func:`dequantised_folder`), which is
then loaded like any other. Packages are located by their files and never imported.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bgkit.data import read_data, sha256
from bgkit.environment import cache_folder
from bgkit.errors import BgkitError
from bgkit.progress import phase

INSTALL = "`make english` installs it"


class Packaged(NamedTuple):
    """A model on the hub at a pinned revision, and the package whose ``file`` has its weights.

    ``groups`` are the groups in which its name is valid; an encoder is a base for classifiers.
    """

    groups: Sequence[str]
    hub: str
    package: str
    file: str
    sha256: str


PACKAGED = {name: Packaged(**row) for name, row in read_data("packaged.yaml").items()}
#: Name of the models fitted on the shipped English labels, and their folders by group.
ENGLISH = "english"
FITTED = {"guard": "guard", "utility": "utility", "judge": "auditor"}


def installed_folder(name: str) -> Path | None:
    """Folder of a packaged model, or None if its package is not installed.

    Raises BgkitError for a file that is missing or differs from the published one.
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
    return dequantised_folder(path, model.sha256) if path.suffix == ".gguf" else path.parent


def gguf_file(path: Path) -> Path | None:
    """The GGUF file at a path or in its folder, or None.

    Raises BgkitError for a folder with several.
    """
    if path.suffix.lower() == ".gguf":
        return path if path.is_file() else None
    files = sorted(path.glob("*.gguf"))
    if any(path.glob("*.safetensors")) or not files:
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise BgkitError(f"The folder {path} holds several GGUF files ({names}); name one of them.")
    return files[0]


def dequantised_folder(file: Path, sha: str = "") -> Path:
    """Folder with a GGUF file's weights, dequantised to float16, and its tokenizer; cached.

    ``sha`` is the file's sha256 if it is already known. Raises BgkitError for a file that
    transformers cannot read.
    """
    folder = cache_folder() / "gguf" / (sha or sha256(file))[:32]
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    title = f"dequantising {file.name}, once"
    with phase(title), TemporaryDirectory(dir=folder.parent) as scratch:
        _write_plain(file, Path(scratch))
        try:
            os.replace(scratch, folder)  # atomic; then nothing is left to remove
        except OSError:  # another process was first
            if not (folder / "config.json").is_file():
                raise
    return folder


def _write_plain(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bgkit.models.loading import LOADING_ERRORS, NO_CODE, loading_error

    options = {"gguf_file": file.name, **NO_CODE}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
        source = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
        for key in ("quantization_config", "architectures"):  # of the GGUF file
            if hasattr(source.config, key):
                delattr(source.config, key)
        plain = type(source)(type(source.config).from_dict(source.config.to_dict()))
        plain.load_state_dict(source.state_dict())  # a model read from GGUF cannot be saved
        plain.tie_weights()
        plain.generation_config = source.generation_config
        plain.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (*LOADING_ERRORS, struct.error) as error:  # struct.error: a truncated file
        raise loading_error(file.name, file.parent, error) from error
