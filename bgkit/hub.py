"""Names of models and data sets: embedded, in a local folder, or on the Hugging Face hub.

A hub name is ``owner/name``, with ``@revision`` behind it for a branch, a commit or a pull request
(``owner/name@refs/pr/3``), and for a data set with ``:config`` before that. Only weights in the
safetensors format are fetched, and no code: a pickle or a Python file of a repository is never
downloaded. Whatever goes wrong is told in one :class:`~bgkit.errors.BgkitError` sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bgkit.errors import BgkitError
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
    "NotASafetensorsRepoError": "holds no safetensors weights, and pickles are not loaded; name "
    "another model, or a revision that has them",
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


def resolve(group: str, name: str) -> Path:
    """Folder of a model of a group (policy, guard, utility, judge).

    A local folder is taken as it is, an embedded model after its sha256 check, a hub name after
    its download (or from the hub's cache). Raises BgkitError where there is no such model.
    """
    folder = Path(name).expanduser()
    looks_local = folder.is_absolute() or "/" in name or "\\" in name
    if looks_local and folder.is_dir():
        return folder
    if (on_hub := parse(name)) is not None:
        return download(on_hub, group)
    if looks_local:
        raise BgkitError(f"There is no folder {name} with a {group}; check the path.")
    return store.model_path(group, name)


def download(name: HubName, group: str) -> Path:
    """Fetch a model's configuration, tokenizer and safetensors weights; returns their folder."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name.repository, revision=name.revision, allow_patterns=WANTED, ignore_patterns=["*/*"]
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
