"""Names of models and data sets: embedded, in a local folder, or on the Hugging Face hub.

A hub name is ``owner/name``, with ``@revision`` behind it for a branch, a commit or a pull request
(``owner/name@refs/pr/3``), and for a data set with ``:config`` before that. Only weights in the
safetensors format are fetched, and no code: a pickle or a Python file of a repository is never
downloaded.
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
from bgkit.errors import BgkitError
from bgkit.models.packaged import (
    ENGLISH,
    FITTED,
    INSTALL,
    PACKAGED,
    gguf_file,
    installed,
    plain_folder,
)
from bgkit.progress import phase
from bgkit.testbed import store

_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::([\w.-]+))?(?:@([\w./-]+))?")
FILE_ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet", ".json", ".txt")
#: Files of a model.
WANTED = {"allow_patterns": ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]}
WANTED |= {"ignore_patterns": ["*/*"]}
_OFFLINE = (
    "is not in the local cache and the hub can not be reached (no network, or HF_HUB_OFFLINE is "
    "set); go online once, or name a local folder or file"
)
#: class name of an error, wherever it stands in the chain of causes -> what to say
_REASONS = {
    "GatedRepoError": "is gated: ask for access on its page, then log in with `hf auth login` or "
    "set HF_TOKEN",
    "RevisionNotFoundError": "has no such revision; check what stands behind the @",
    "RepositoryNotFoundError": "is neither a local folder nor on the hub (or it is private: log in "
    "with `hf auth login`); check the name",
    "RemoteEntryNotFoundError": "has no config.json, so it is no model of the transformers library",
    "OfflineModeIsEnabled": _OFFLINE,
    "LocalEntryNotFoundError": _OFFLINE,
    "ConnectionError": _OFFLINE,
    "TransportError": _OFFLINE,  # of httpx: no connection, or a time-out
}


class HubName(NamedTuple):
    """The parts of a hub name; ``config`` is that of a data set."""

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
    found = _NAME.fullmatch(name)
    is_file = name.lower().endswith(FILE_ENDINGS)
    return HubName(*found.groups()) if found and not is_file else None


def local_folder(group: str, name: str) -> Path | None:
    """The folder that a name stands for, or None for the name of an embedded model or of the hub.

    A GGUF file, or a folder with one, is a policy's or judge's after it was dequantised, a packaged
    model that of the hub's cache, of its package, or fetched. Raises BgkitError for a path that is
    no folder, a packaged model that is nowhere to be had, and other models in GGUF files.
    """
    if name in PACKAGED and group in PACKAGED[name].groups:
        return _packaged(name, group)
    if name == ENGLISH and group in FITTED:
        return store.data_folder() / ENGLISH / FITTED[group]
    path = Path(name).expanduser()
    if not (path.is_absolute() or "/" in name or "\\" in name):
        here = path.is_dir() and name not in store.model_names(group)
        return path if here else None
    if (file := gguf_file(path)) is not None:
        if group in ("policy", "judge"):
            return plain_folder(file)
        raise BgkitError(
            f"The {group} {name} is in the GGUF format of llama.cpp, which is read for policies "
            "only; name the model that it was made from (with safetensors weights)."
        )
    if path.is_file() or not (path.is_dir() or parse(name)):
        raise BgkitError(f"There is no folder {name} with a {group}; check the path.")
    return path if path.is_dir() else None


def _packaged(name: str, group: str) -> Path:
    model, on_hub = PACKAGED[name], parse(PACKAGED[name].hub)
    if (folder := cached(on_hub) or installed(name)) is not None:
        return folder
    try:
        return download(on_hub, group)
    except BgkitError as error:
        raise BgkitError(
            f"The model {name} is not on this machine: {INSTALL} (the package {model.package}); "
            f"from the hub it can not be had ({str(error).rstrip('.')})."
        ) from error


def came_from(name: str) -> str | None:
    """Where a packaged model is taken from: its hub name, or package and version; None for others.

    >>> came_from("small") is None
    True
    """
    if (model := PACKAGED.get(name)) is None:
        return None
    on_hub = cached(parse(model.hub)) is not None
    return model.hub if on_hub else f"{model.package} {metadata.version(model.package)}"


def download(name: HubName, group: str) -> Path:
    """Fetch a model's configuration, tokenizer and safetensors weights; returns their folder."""
    from huggingface_hub import snapshot_download

    with reaching(group, name.repository):
        folder = Path(snapshot_download(name.repository, revision=name.revision, **WANTED))
    if not any(folder.glob("*.safetensors")):
        raise BgkitError(
            f"The {group} {name.repository} holds no safetensors weights, and neither pickles nor "
            "GGUF files are loaded; name another model, or a revision that has them."
        )
    return folder


def resolve(
    group: str, name: str, fetch: Callable[[HubName, str], Path | None] = download
) -> Path | None:
    """Folder of a model of a group (policy, guard, utility, judge).

    A local folder is taken as it is, an embedded model after its sha256 check, and a hub name as
    ``fetch`` does. Raises BgkitError where there is no such model.
    """
    if (folder := local_folder(group, name)) is not None:
        return folder
    if (on_hub := parse(name)) is not None:
        return fetch(on_hub, group)
    return store.model_path(group, name)


def check(group: str, name: str) -> Path | None:
    """:func:`resolve` without asking the hub: None for a name there."""
    return resolve(group, name, lambda *_: None)


def layers(
    group: str, name: str | os.PathLike, place: Callable[[str, str], Path | None] = resolve
) -> dict[str, Path | None]:
    """The whole model that a name stands for, and the adapters on top of it: name -> folder.

    Most names stand for one folder. That of a PEFT adapter (its adapter_config.json) names a base,
    which may be an adapter, too. ``place`` finds a name's folder; None, for one that is not here,
    ends the search. Raises BgkitError as :func:`resolve`, and for a base that can not be told.
    """
    checks.kind("a name or a path", **{group: name})
    name = os.fspath(name)
    found = {name: place(group, name)}
    while (on_top := next(iter(found.values()))) and (base := base_name(on_top)):
        try:
            folder = place(group, base)
        except BgkitError as error:
            raise BgkitError(f"The base of the adapter in {on_top}: {error}") from error
        if folder in found.values():
            raise BgkitError(f"The adapter in {on_top} is for {base}, an adapter on top of it.")
        found = {base: folder, **found}
    return found


def last_with(folders: Sequence[Path], *files: str) -> Path:
    """The last folder that has one of the files: an adapter's own count before its base's."""
    return [folders[0], *(f for f in folders if any((f / file).is_file() for file in files))][-1]


def base_name(folder: Path) -> str | None:
    """What the adapter in a folder is for; None for a folder without adapter_config.json.

    Raises BgkitError for an adapter that names no base, and for one beside a whole model.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")):
        raise BgkitError(
            f"The folder {folder} holds a whole model and an adapter, so that it can not be told "
            "whether the one contains the other; move one of them to a folder of its own."
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


def name_base(folder: Path, base: str, group: str = "policy") -> None:
    """Let an adapter that was just saved name the model that it is for, as a run's config does.

    PEFT writes the folder that the model's weights were read from, which is this machine's, and
    does not hold what was merged into them.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():  # after full fine-tuning
        return
    here = None if base in PACKAGED else local_folder(group, base)
    on_hub = parse(base)
    name, revision = (on_hub.repository, on_hub.revision) if on_hub else (base, None)
    if here is not None:
        name, revision = str(here.resolve()), None
    told = {"base_model_name_or_path": name, "revision": revision}
    runs.write_json(path, {**runs.read_config(path), **told})


def cached(name: HubName) -> Path | None:
    """Folder of a model that was fetched before, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    options = {**WANTED, "revision": name.revision, "local_files_only": True}
    try:
        folder = Path(snapshot_download(name.repository, **options))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def read_table(name: HubName) -> pd.DataFrame:
    """A data set's rows; the column ``split`` tells theirs, unless the set has only one split."""
    import datasets

    with reaching("prompt set", name.repository):
        loaded = datasets.load_dataset(name.repository, name.config, revision=name.revision)
    parts = {split: rows.to_pandas() for split, rows in loaded.items()}
    if len(parts) == 1:
        return next(iter(parts.values()))
    return pd.concat([rows.assign(split=split) for split, rows in parts.items()])


def download_file(repository: str, file: str, revision: str | None) -> tuple[Path, str]:
    """Fetch one file of a data set; returns its path and its commit (of ``revision`` None, too)."""
    from huggingface_hub import hf_hub_download

    missing = {"RemoteEntryNotFoundError": f"has no file {file} (at this revision)"}
    with reaching("prompt set", repository, reasons={**_REASONS, **missing}):
        path = Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    return path, path.parts[-1 - len(Path(file).parts)]  # .../snapshots/COMMIT/FILE


@contextlib.contextmanager
def reaching(
    what: str, name: str, doing: str = "fetching", reasons: Mapping[str, str] = _REASONS
) -> Iterator[None]:
    """Raise one BgkitError for whatever the hub's client raises inside; ``what`` is a word for it.

    ``reasons`` say of kinds of errors what the thing's name is followed by.

    >>> with reaching("guard", "owner/name"):
    ...     raise ConnectionError("no route")
    Traceback (most recent call last):
    bgkit.errors.BgkitError: The guard owner/name is not in the local cache and the hub can not ...
    """
    try:
        with phase(f"{doing} {name}"):
            yield
    except Exception as error:  # its own, httpx's, the system's, and those of files' readers
        names, cause = set(), error
        while cause is not None:
            names |= {kind.__name__ for kind in type(cause).__mro__}
            cause = cause.__cause__ or cause.__context__
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        other = f"could not be fetched from the hub: {first}"
        # in their order: a gated repository counts as not found, too
        reason = next((told for kind, told in reasons.items() if kind in names), other)
        raise BgkitError(f"The {what} {name} {reason}.") from error
