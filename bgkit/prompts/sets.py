"""Public prompt sets by name: location, columns, licence and citation.

A set is an entry of ``data/prompts/sets.yaml``. Public sets are not shipped: their file is
downloaded from the hub at a pinned revision (no code of a repository is run), or read from the
folder in the environment variable ``BGKIT_PROMPTS``, as ``<set>.csv`` or with another ending
(:data:`bgkit.prompts.tables.READERS`). The kit's own sets (:data:`OWN`) are shipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bgkit.data import data_folder, read_data, sha256
from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.prompts import tables

_SHORT = ("harmless.jsonl", "ambiguous.jsonl", "jailbreak.jsonl")
#: The kit's own sets and their files. Long prompts need a guard with about 1,000 tokens of input.
OWN = {"everyday": (*_SHORT, "long_context.jsonl"), "everyday-short": _SHORT}
ROLE = "prompt file"


class PromptSet(NamedTuple):
    """One file of a data set on the hub, and how to read it.

    ``revision`` is a commit (None: the newest, which the manifest records), ``rows`` the rough
    number of rows. ``harmful`` says which requests are harmful: all, none, those with one of the
    values in a column (``[column, values]``), or None if unknown; ``only`` selects rows in the same
    way. ``context`` is the column of a text before the prompt, ``gated`` says how to get access if
    it is needed.
    """

    repository: str
    file: str
    revision: str | None
    rows: int
    kind: str
    harmful: bool | list | None
    licence: str
    citation: str
    prompt: str = "prompt"
    category: str = "category"
    context: str = ""
    only: list | None = None
    gated: str = ""
    note: str = ""

    @property
    def page(self) -> str:
        """URL of the set's page on the hub."""
        return f"https://huggingface.co/datasets/{self.repository}"


SETS = {name: PromptSet(**row) for name, row in read_data("prompts", "sets.yaml").items()}


def load_set(name: str) -> tuple[pd.DataFrame, dict]:
    """All rows of a set, and their source for the manifest.

    The column ``question``, the prompt without its context, decides the split. Raises BgkitError
    for a set that is not available, and for a file without the set's columns.
    """
    if name in OWN:
        return _load_own(name)
    row = SETS[name]
    path, revision, origin = _fetch(name, row)
    raw = tables.read_table(path, ROLE)
    conditions = [v[0] for v in (row.harmful, row.only) if isinstance(v, list)]
    needed = [column for column in (row.prompt, row.context, *conditions) if column]
    for column in needed:
        where = f"The file {path} of the prompt set {name!r}"
        tables.require(raw, column, where, f"use {row.file} of {row.page} as published")
    if row.only:
        raw = raw[raw[row.only[0]].isin(row.only[1])]
    questions = tables.texts(raw[row.prompt], row.prompt, path)
    ids = [f"{name}/{number:05d}" for number in raw.index]
    table = pd.DataFrame({"prompt_id": ids, "kind": row.kind, "prompt": questions})
    if row.context:
        table["prompt"] = tables.texts(raw[row.context], row.context, path) + "\n\n" + questions
    if isinstance(row.harmful, list):
        table["harmful_request"] = raw[row.harmful[0]].isin(row.harmful[1])
    elif row.harmful is not None:
        table["harmful_request"] = row.harmful
    if row.category in raw:
        table["category"] = raw[row.category].astype(str)
    source = {
        "name": name,
        "repository": row.repository,
        "file": row.file,
        "revision": revision,
        "pinned": origin == "hub" and row.revision is not None,
        "origin": origin,
        "licence": row.licence,
        "rows": len(table),
    }
    return table.assign(question=questions).reset_index(drop=True), source


def describe(name: str) -> str:
    """One paragraph about a set, for users.

    >>> print(describe("xstest"))
    xstest: 450 rows, ambiguous, CC-BY-4.0, https://huggingface.co/datasets/Paul/XSTest
      (xstest_prompts.csv at f600c994b256); Röttger et al., XSTest: ...
    """
    row = SETS[name]
    at = row.revision[:12] if row.revision else "the newest revision: none is pinned"
    more = " ".join(filter(None, (row.gated, row.note and f"{row.note}.")))
    return (
        f"{name}: {row.rows:,} rows, {row.kind}, {row.licence}, {row.page} ({row.file} at {at}); "
        f"{row.citation}. {more}"
    ).rstrip()


def _fetch(name: str, row: PromptSet) -> tuple[Path, str, str]:
    """The file of a set, its revision, and its origin: the hub or a local file."""
    if folder := os.environ.get("BGKIT_PROMPTS"):
        for ending in tables.READERS:
            path = Path(folder).expanduser() / f"{name}{ending}"
            if path.is_file():
                return path, f"sha256:{sha256(path)}", "local file"
    try:
        path, revision = hub.download_file(row.repository, row.file, row.revision)
    except BgkitError as error:
        at = f" at revision {row.revision[:12]}" if row.revision else ""
        access = f" {row.gated}" if row.gated else ""
        raise BgkitError(
            f"{error}{access} Or download {row.file} of {row.page}{at} elsewhere, save it as "
            f"{name}{Path(row.file).suffix} in a folder, and set BGKIT_PROMPTS to that folder."
        ) from error
    return path, revision, "hub"


def _load_own(name: str) -> tuple[pd.DataFrame, dict]:
    paths = [data_folder() / "prompts" / file for file in OWN[name]]
    table = pd.concat([tables.read_table(path, ROLE) for path in paths], ignore_index=True)
    table["question"] = table.get("question", table["prompt"]).fillna(table["prompt"])
    table["prompt_id"] = [f"{name}/{number:05d}" for number in table.index]
    columns = ["prompt_id", "kind", "prompt", "harmful_request", "category", "position", "question"]
    hashes = ",".join(sha256(path)[:12] for path in paths)
    source = {"name": name, "revision": f"sha256:{hashes}", "pinned": True, "origin": "shipped"}
    source |= {"licence": "MIT", "rows": len(table)}
    return table[[column for column in columns if column in table]], source
