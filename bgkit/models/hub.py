"""Names of models and data sets: embedded, in a local folder, or on the Hugging Face hub.

A hub name is ``owner/name``, optionally followed by ``@revision``: a branch, a commit or a pull
request (``owner/name@refs/pr/3``). A data set may have ``:config`` before that. Only safetensors
weights are downloaded, never pickles or Python files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bgkit import checks, runs
from bgkit.data import data_folder
from bgkit.errors import BgkitError, reason_of
from bgkit.models.packaged import (
    ENGLISH,
    FITTED,
    INSTALL,
    PACKAGED,
    dequantised_folder,
    gguf_file,
    installed_folder,
)
from bgkit.progress import phase
from bgkit.testbed import store

_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::([\w.-]+))?(?:@([\w./-]+))?")
FILE_ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet", ".json", ".txt")
#: Files of a model to download.
MODEL_FILES = {"allow_patterns": ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]}
MODEL_FILES |= {"ignore_patterns": ["*/*"]}
_OFFLINE = (
    "is not in the local cache and the hub cannot be reached (no network, or HF_HUB_OFFLINE is "
    "set); go online once, or name a local folder or file"
)
#: class name of an error, anywhere in the chain of causes -> end of the message
_REASONS = {
    "GatedRepoError": "is gated: ask for access on its page, then log in with `hf auth login` or "
    "set HF_TOKEN",
    "RevisionNotFoundError": "has no such revision; check the part after the @",
    "RepositoryNotFoundError": "is neither a local folder nor on the hub (or it is private: log in "
    "with `hf auth login`); check the name",
    "RemoteEntryNotFoundError": "has no config.json, so it is not a transformers model",
    "OfflineModeIsEnabled": _OFFLINE,
    "LocalEntryNotFoundError": _OFFLINE,
    "ConnectionError": _OFFLINE,
    "TransportError": _OFFLINE,  # httpx: no connection, or a timeout
}


class HubName(NamedTuple):
    """The parts of a hub name; only data sets have a ``config``."""

    repository: str
    config: str | None
    revision: str | None


def parse(name: str) -> HubName | None:
    """The parts of a hub name, or None if the text is not one.

    >>> parse("owner/name@refs/pr/3")
    HubName(repository='owner/name', config=None, revision='refs/pr/3')
    >>> parse("owner/set:hard").config, parse("default"), parse("./runs/mine"), parse("my/set.csv")
    ('hard', None, None, None)
    """
    match = _NAME.fullmatch(name)
    is_file = name.lower().endswith(FILE_ENDINGS)
    return HubName(*match.groups()) if match and not is_file else None


def local_folder(group: str, name: str) -> Path | None:
    """The folder that a name refers to, or None for an embedded model or a hub name.

    A GGUF file of a policy or judge, or a folder with one, is dequantised first. A packaged model
    comes from the hub's cache, its package, or the hub. Raises BgkitError for a path that is not a
    folder, a packaged model that is not available, and GGUF files of other models.
    """
    if name in PACKAGED and group in PACKAGED[name].groups:
        return _packaged_folder(name, group)
    if name == ENGLISH and group in FITTED:
        return data_folder() / ENGLISH / FITTED[group]
    path = Path(name).expanduser()
    if not (path.is_absolute() or "/" in name or "\\" in name):
        return path if path.is_dir() and name not in store.model_names(group) else None
    if (file := gguf_file(path)) is not None:
        if group in ("policy", "judge"):
            return dequantised_folder(file)
        raise BgkitError(
            f"The {group} {name} is a GGUF file, which is supported only for policies and judges; "
            "name the model that it was made from (with safetensors weights)."
        )
    if path.is_file() or not (path.is_dir() or parse(name)):
        raise BgkitError(f"There is no folder {name} with a {group}; check the path.")
    return path if path.is_dir() else None


def _packaged_folder(name: str, group: str) -> Path:
    model, on_hub = PACKAGED[name], parse(PACKAGED[name].hub)
    if (folder := cached_folder(on_hub) or installed_folder(name)) is not None:
        return folder
    try:
        return download(on_hub, group)
    except BgkitError as error:
        raise BgkitError(
            f"The model {name} is not on this machine: {INSTALL} (the package {model.package}); "
            f"it cannot be fetched from the hub ({str(error).rstrip('.')})."
        ) from error


def model_source(name: str) -> str | None:
    """Source of a packaged model: its hub name, or package and version; None for other models.

    >>> model_source("small") is None
    True
    """
    if (model := PACKAGED.get(name)) is None:
        return None
    is_cached = cached_folder(parse(model.hub)) is not None
    return model.hub if is_cached else f"{model.package} {metadata.version(model.package)}"


def download(name: HubName, group: str, **options: bool) -> Path:
    """Fetch a model's configuration, tokenizer and safetensors weights; returns their folder."""
    from huggingface_hub import snapshot_download

    options |= {"revision": name.revision, **MODEL_FILES}
    with translate_errors(group, name.repository):
        folder = Path(snapshot_download(name.repository, **options))
    if not any(folder.glob("*.safetensors")):
        raise BgkitError(
            f"The {group} {name.repository} has no safetensors weights, and pickles and GGUF files "
            "are not loaded; name another model, or a revision that has them."
        )
    return folder


def resolve(
    group: str, name: str, fetch: Callable[[HubName, str], Path | None] = download
) -> Path | None:
    """Folder of a model of a group (policy, guard, utility, judge).

    A local folder is returned as it is, an embedded model after its sha256 check, and a hub name is
    passed to ``fetch``. Raises BgkitError if there is no such model.
    """
    if (folder := local_folder(group, name)) is not None:
        return folder
    if (on_hub := parse(name)) is not None:
        return fetch(on_hub, group)
    return store.model_path(group, name)


def check(group: str, name: str) -> Path | None:
    """:func:`resolve` without network access: None for a hub name."""
    return resolve(group, name, lambda *_: None)


def layers(
    group: str, name: str | os.PathLike, find: Callable[[str, str], Path | None] = resolve
) -> dict[str, Path | None]:
    """The whole model that a name refers to, and the adapters on top of it: name -> folder.

    Most names refer to one folder. A PEFT adapter (adapter_config.json) names a base, which may
    itself be an adapter. ``find`` returns a name's folder; None (not on this machine) ends the
    search. Raises BgkitError as :func:`resolve`, and for an adapter without a usable base.
    """
    checks.require_type("a name or a path", **{group: name})
    name = os.fspath(name)
    folders = {name: find(group, name)}
    while (adapter := next(iter(folders.values()))) and (base := base_name(adapter)):
        try:
            folder = find(group, base)
        except BgkitError as error:
            raise BgkitError(f"The base of the adapter in {adapter}: {error}") from error
        if folder in folders.values():
            raise BgkitError(f"The adapter in {adapter} is for {base}, an adapter on top of it.")
        folders = {base: folder, **folders}
    return folders


def last_folder_with(folders: Sequence[Path], *files: str) -> Path:
    """The last folder with one of the files: an adapter's files replace those of its base."""
    return [folders[0], *(f for f in folders if any((f / file).is_file() for file in files))][-1]


def base_name(folder: Path) -> str | None:
    """The base of the adapter in a folder; None for a folder without adapter_config.json.

    Raises BgkitError for an adapter that names no base, and for a folder that also holds a whole
    model.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")):
        raise BgkitError(
            f"The folder {folder} holds a whole model and an adapter, which may be merged into it "
            "or not; move one of them to its own folder."
        )
    config = runs.read_config(path)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name:
        raise BgkitError(
            f"The adapter in {folder} names no base; write its folder or hub name as "
            f"base_model_name_or_path into {path}."
        )
    on_hub = parse(name) is not None and not Path(name).is_dir()
    return f"{name}@{revision}" if on_hub and revision and "@" not in name else name


def write_base_name(folder: Path, base: str, group: str = "policy") -> None:
    """Make a newly saved adapter name its base as the run's config does.

    PEFT records the local folder of the weights, which lacks the adapters merged into them.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():  # after full fine-tuning
        return
    local = None if base in PACKAGED else local_folder(group, base)
    on_hub = parse(base)
    name, revision = (on_hub.repository, on_hub.revision) if on_hub else (base, None)
    if local is not None:
        name, revision = str(local.resolve()), None
    entries = {"base_model_name_or_path": name, "revision": revision}
    runs.write_json(path, {**runs.read_config(path), **entries})


def cached_folder(name: HubName) -> Path | None:
    """Folder of a model in the hub's local cache, or None."""
    with contextlib.suppress(BgkitError):
        return download(name, "model", local_files_only=True)
    return None


def read_table(name: HubName) -> pd.DataFrame:
    """A data set's rows, with a column ``split`` unless the set has only one."""
    import datasets

    with translate_errors("prompt set", name.repository):
        loaded = datasets.load_dataset(name.repository, name.config, revision=name.revision)
    parts = {split: rows.to_pandas() for split, rows in loaded.items()}
    if len(parts) == 1:
        return next(iter(parts.values()))
    return pd.concat([rows.assign(split=split) for split, rows in parts.items()])


def download_file(repository: str, file: str, revision: str | None) -> tuple[Path, str]:
    """Download one file of a data set; returns its path and commit (also without ``revision``)."""
    from huggingface_hub import hf_hub_download

    missing = {"RemoteEntryNotFoundError": f"has no file {file} (at this revision)"}
    with translate_errors("prompt set", repository, reasons={**_REASONS, **missing}):
        path = Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    return path, path.parts[-1 - len(Path(file).parts)]  # .../snapshots/COMMIT/FILE


@contextlib.contextmanager
def translate_errors(
    what: str, name: str, doing: str = "fetching", reasons: Mapping[str, str] = _REASONS
) -> Iterator[None]:
    """Turn any error of the hub's client into a BgkitError about the ``what`` called ``name``.

    ``reasons`` map class names of errors to the end of the message.

    >>> with translate_errors("guard", "owner/name"):
    ...     raise ConnectionError("no route")
    Traceback (most recent call last):
    bgkit.errors.BgkitError: The guard owner/name is not in the local cache and the hub cannot ...
    """
    try:
        with phase(f"{doing} {name}"):
            yield
    except Exception as error:  # of the client, httpx, the system or file readers
        names, cause = set(), error
        while cause is not None:
            names |= {kind.__name__ for kind in type(cause).__mro__}
            cause = cause.__cause__ or cause.__context__
        default = f"could not be fetched from the hub: {reason_of(error)}"
        # in order: GatedRepoError is a subclass of RepositoryNotFoundError
        reason = next((text for kind, text in reasons.items() if kind in names), default)
        raise BgkitError(f"The {what} {name} {reason}.") from error
