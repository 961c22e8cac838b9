"""Names of models and data sets: embedded, in a local folder, or on the Hugging Face hub.

A hub name is ``owner/name``, with ``@revision`` behind it for a branch, a commit or a pull request
(``owner/name@refs/pr/3``), and for a data set with ``:config`` before that. Only weights in the
safetensors format are fetched, and no code: a pickle or a Python file of a repository is never
downloaded. Whatever goes wrong is told in one :class:`~bgkit.errors.BgkitError` sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.models.packaged import (
    ENGLISH,
    FITTED,
    PACKAGED,
    fitted,
    gguf_file,
    installed,
    missing,
    plain_folder,
)
from bgkit.progress import phase
from bgkit.testbed import store

_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::([\w.-]+))?(?:@([\w./-]+))?")
FILE_ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet", ".json", ".txt")
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # files of a model
#: class name of an error, wherever it stands in the chain of causes -> what to say
_REASONS = {
    "GatedRepoError": "is gated: ask for access on its page, then log in with `hf auth login` or "
    "set HF_TOKEN",
    "RevisionNotFoundError": "has no such revision; check what stands behind the @",
    "RepositoryNotFoundError": "is neither a local folder nor on the hub (or it is private: log in "
    "with `hf auth login`); check the name",
    "RemoteEntryNotFoundError": "has no config.json, so it is no model of the transformers library",
    "NotASafetensorsRepoError": "holds no safetensors weights, and neither pickles nor GGUF files "
    "are loaded; name another model, or a revision that has them",
}
_OFFLINE = {
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "TimeoutException",
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
    if found is None or name.lower().endswith(FILE_ENDINGS):
        return None
    return HubName(*found.groups())


class Layer(NamedTuple):
    """A whole model, or an adapter on top of one: what it is called, and its folder."""

    name: str
    folder: Path | None


def local_folder(group: str, name: str) -> Path | None:
    """The folder that a name stands for, or None for the name of an embedded model or of the hub.

    A GGUF file, or a folder with one, is a policy's or judge's after it was dequantised; a packaged
    model (:mod:`bgkit.models.packaged`) is that of the hub's cache, of its package, or fetched.
    Raises BgkitError for a path that is no folder, and for other models in GGUF files.
    """
    if name in PACKAGED and group in PACKAGED[name].groups:
        return _packaged(name, group)
    if name == ENGLISH and group in FITTED:
        return fitted(group)
    path = Path(name).expanduser()
    looks_local = path.is_absolute() or "/" in name or "\\" in name
    if looks_local and (file := gguf_file(path)) is not None:
        if group in ("policy", "judge"):
            return plain_folder(file)
        raise BgkitError(
            f"The {group} {name} is in the GGUF format of llama.cpp, which is read for policies "
            "only; name the model that it was made from (with safetensors weights)."
        )
    if looks_local and path.is_file():
        raise BgkitError(f"The {group} {name} is a file; name the folder that it lies in.")
    if looks_local and not path.is_dir() and parse(name) is None:
        raise BgkitError(f"There is no folder {name} with a {group}; check the path.")
    return path if looks_local and path.is_dir() else None


def _packaged(name: str, group: str) -> Path:
    on_hub = parse(PACKAGED[name].hub)
    if (folder := cached(on_hub) or installed(name)) is not None:
        return folder
    try:
        return download(on_hub, group)
    except BgkitError as error:
        raise missing(name, str(error)) from error


def came_from(name: str) -> str | None:
    """Where a packaged model is taken from: its hub name, or package and version; None for others.

    >>> came_from("small") is None
    True
    """
    if name not in PACKAGED:
        return None
    model = PACKAGED[name]
    on_hub = cached(parse(model.hub)) is not None
    return model.hub if on_hub else f"{model.package} {metadata.version(model.package)}"


def resolve(group: str, name: str) -> Path:
    """Folder of a model of a group (policy, guard, utility, judge).

    A local folder is taken as it is, an embedded model after its sha256 check, a hub name after
    its download (or from the hub's cache). Raises BgkitError where there is no such model.
    """
    if (folder := local_folder(group, name)) is not None:
        return folder
    if (on_hub := parse(name)) is not None:
        return download(on_hub, group)
    return store.model_path(group, name)


def layers(
    group: str, name: str, place: Callable[[str, str], Path | None] = resolve
) -> list[Layer]:
    """The whole model that a name stands for, and the adapters on top of it, in their order.

    Most names stand for one folder. That of a PEFT adapter (its adapter_config.json) names a base,
    which may be an adapter, too. ``place`` finds a name's folder; None, for one that is not here,
    ends the search. Raises BgkitError as :func:`resolve`, and for a base that can not be told.
    """
    found = [Layer(name, place(group, name))]
    while (on_top := found[0].folder) and (base := base_name(on_top, group)):
        try:
            found.insert(0, Layer(base, place(group, base)))
        except BgkitError as error:
            raise BgkitError(f"The base of the adapter in {on_top}: {error}") from error
        if found[0].folder in [layer.folder for layer in found[1:]]:
            raise BgkitError(
                f"The adapter in {on_top} is for the base {base}, which is an adapter on top of it;"
                " write a whole model into its adapter_config.json."
            )
    return found


def last_with(folders: Sequence[Path], *files: str) -> Path:
    """The last folder that has one of the files: an adapter's own count before its base's."""
    return [folders[0], *(f for f in folders if any((f / file).is_file() for file in files))][-1]


def base_name(folder: Path, group: str) -> str | None:
    """What the adapter in a folder is for: a path, an embedded model's name or a hub name.

    None for a folder without adapter_config.json. A relative path may start in the working folder
    (as PEFT takes it), in the adapter's, or in the one above. Raises BgkitError if the base can not
    be told.
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
    remedy = f"write its folder or hub name as base_model_name_or_path into {path}."
    if not isinstance(name, str) or not name.strip():
        raise BgkitError(f"The adapter in {folder} does not say which model it is for; {remedy}")
    if name in PACKAGED:
        return name
    if (embedded := _embedded(group, name)) is not None:
        return embedded
    beside = [str(place) for root in (folder, folder.parent) for place in _models(root, name)]
    folders = sorted({*map(str, _models(Path(), name)), *beside[:1]})
    if len(folders) > 1:
        raise BgkitError(
            f"The adapter in {folder} is for the base {name}, which may be any of "
            f"{', '.join(folders)}; {remedy}"
        )
    if not folders and parse(name) is None:
        raise BgkitError(
            f"The adapter in {folder} is for the base {name}, which is not on this machine; put it "
            f"there, or {remedy}"
        )
    named = f"{name}@{revision}" if revision and "@" not in name else name
    return folders[0] if folders else named


def _models(root: Path, name: str) -> list[Path]:
    """The folder of a path from a root, if there is a model in it."""
    place = (root / Path(name).expanduser()).resolve()
    files = (place / "config.json", place / "adapter_config.json")
    return [place] if any(file.is_file() for file in files) else []


def _embedded(group: str, name: str) -> str | None:
    """The embedded model of a name, or of the path it had where an adapter was trained."""
    path = Path(name)
    short = path.name if path.parts[-3:-1] == ("testbed", group) and not path.is_dir() else name
    return short if short in store.model_names(group) else None


def download(name: HubName, group: str) -> Path:
    """Fetch a model's configuration, tokenizer and safetensors weights; returns their folder."""
    from huggingface_hub import snapshot_download

    try:
        with phase(f"fetching {name.repository}"):
            folder = snapshot_download(
                name.repository,
                revision=name.revision,
                allow_patterns=WANTED,
                ignore_patterns=["*/*"],
            )
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        raise problem(error, group, name.repository) from error
    if not any(Path(folder).glob("*.safetensors")):
        reason = _REASONS["NotASafetensorsRepoError"]
        raise BgkitError(f"The {group} {name.repository} {reason}.")
    return Path(folder)


def cached(name: HubName) -> Path | None:
    """Folder of a model that was fetched before, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    options = {"allow_patterns": WANTED, "ignore_patterns": ["*/*"], "local_files_only": True}
    try:
        folder = Path(snapshot_download(name.repository, revision=name.revision, **options))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def read_table(name: HubName) -> pd.DataFrame:
    """A data set's rows; the column ``split`` tells theirs, unless the set has only one split.

    Raises BgkitError if the set can not be had.
    """
    import datasets

    try:
        with phase(f"fetching {name.repository}"):
            loaded = datasets.load_dataset(name.repository, name.config, revision=name.revision)
    except Exception as error:  # as above; and what the readers of its files raise
        raise problem(error, "prompt set", name.repository) from error
    parts = {split: rows.to_pandas() for split, rows in loaded.items()}
    if len(parts) == 1:
        return next(iter(parts.values()))
    return pd.concat([rows.assign(split=split) for split, rows in parts.items()])


def download_file(repository: str, file: str, revision: str | None) -> tuple[Path, str]:
    """Fetch one file of a data set; returns its path and its commit (of ``revision`` None, too).

    Raises BgkitError if the file can not be had.
    """
    from huggingface_hub import hf_hub_download

    try:
        with phase(f"fetching {repository}"):
            path = hf_hub_download(repository, file, repo_type="dataset", revision=revision)
    except Exception as error:
        missing = {"RemoteEntryNotFoundError": f"has no file {file} (at this revision)"}
        raise problem(error, "prompt set", repository, missing) from error
    return Path(path), Path(path).parts[-1 - len(Path(file).parts)]  # .../snapshots/COMMIT/FILE


def _causes(error: BaseException | None) -> Iterator[str]:
    """Names of the classes of an error and of its causes, the error's first."""
    while error is not None:
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = error.__cause__ or error.__context__


def problem(
    error: Exception, what: str, name: str, reasons: Mapping[str, str] | None = None
) -> BgkitError:
    """The BgkitError to raise for an error of the hub's client; ``what`` is a word for the thing.

    ``reasons`` say of kinds of errors what the thing's name is followed by, where that differs.

    >>> print(problem(ConnectionError("no route"), "guard", "owner/name"))
    The guard owner/name is not in the local cache and the hub can not be reached (no network, ...
    """
    names = set(_causes(error))
    for kind, reason in {
        **_REASONS,
        **(reasons or {}),
    }.items():  # a gated repository counts as not found, too
        if kind in names:
            return BgkitError(f"The {what} {name} {reason}.")
    if names & _OFFLINE:
        return BgkitError(
            f"The {what} {name} is not in the local cache and the hub can not be reached (no "
            "network, or HF_HUB_OFFLINE is set); go online once, or name a local folder or file."
        )
    first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return BgkitError(f"The {what} {name} could not be fetched from the hub: {first}.")
