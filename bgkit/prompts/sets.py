"""Public prompt sets by name: where they lie, what their columns mean, licence and citation.

A set is a row of :data:`SETS`; adding one is adding a row. None is shipped: its one file is fetched
from the hub at a pinned revision (no code of a repository ever runs), or read from the folder that
the environment variable ``BGKIT_PROMPTS`` names, as ``<set>.csv``, ``.tsv``, ``.jsonl``,
``.parquet`` or ``.json``. The kit's own sets (:data:`OWN`) are shipped and need no network.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bgkit.errors import BgkitError
from bgkit.models import hub
from bgkit.prompts import tables
from bgkit.testbed.store import data_folder, sha256

_SHORT = ("harmless.jsonl", "ambiguous.jsonl", "jailbreak.jsonl")
#: The kit's own sets and their files. Long prompts need a guard that reads about 1,000 tokens.
OWN = {"everyday": (*_SHORT, "long_context.jsonl"), "everyday-short": _SHORT}
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
ROLE = tables.Role("prompt file", '{"prompt": "..."}')
GATED = "To get access, accept the terms on its page while logged in; it is given at once."


class PromptSet(NamedTuple):
    """One file of a data set on the hub, and how to read it.

    ``revision`` is a commit; None: no commit could be confirmed while this table was written, so
    the newest one is fetched and the manifest records which it was. ``rows`` are those of the file
    (about, for the large one). ``harmful`` says which requests are: all, none, those with one of
    the values in a column, or None where the set does not tell. ``only`` keeps the rows with one
    of the values in a column. ``context`` is the column of a text that stands before the prompt.
    ``gated`` says how to get access, where that is needed.
    """

    repository: str
    file: str
    revision: str | None
    rows: int
    kind: str
    harmful: bool | tuple[str, tuple[str, ...]] | None
    licence: str
    citation: str
    prompt: str = "prompt"
    category: str = "category"
    context: str = ""
    only: tuple[str, tuple[str, ...]] | None = None
    gated: str = ""
    note: str = ""

    @property
    def page(self) -> str:
        """Address of the set's page on the hub."""
        return f"https://huggingface.co/datasets/{self.repository}"


_JBB = ("JailbreakBench/JBB-Behaviors", "886acc352a31533ffbcf4ef22c744658688086fc")
_HARMBENCH = ("walledai/HarmBench", "fb6c2afd5a2a943d701d6db3efab87d077e81be5")
_WILD = ("allenai/wildjailbreak", "5ddc12a7894f842b0619b8e1c7ee496b198af009")
_CHAO = (
    "Chao et al., JailbreakBench: An Open Robustness Benchmark for Jailbreaking Large Language "
    "Models, arXiv 2404.01318"
)
_MAZEIKA = (
    "Mazeika et al., HarmBench: A Standardized Evaluation Framework for Automated Red Teaming and "
    "Robust Refusal, arXiv 2402.04249"
)
_JIANG = (
    "Jiang et al., WildTeaming at Scale: From In-the-Wild Jailbreaks to (Adversarially) Safer "
    "Language Models, arXiv 2406.18510"
)
_PARQUET = "train-00000-of-00001.parquet"


def _jbb(file: str, kind: str, harmful: bool) -> PromptSet:
    names = {"prompt": "Goal", "category": "Category"}
    return PromptSet(
        _JBB[0], f"data/{file}.csv", _JBB[1], 100, kind, harmful, "MIT", _CHAO, **names
    )


def _harmbench(config: str, rows: int, **more: str) -> PromptSet:
    repository, revision = _HARMBENCH
    more |= {"gated": GATED}
    file = f"{config}/{_PARQUET}"
    return PromptSet(repository, file, revision, rows, "jailbreak", True, "MIT", _MAZEIKA, **more)


def _wild(file: str, rows: int, note: str) -> PromptSet:
    repository, revision = _WILD
    kinds = ("adversarial_harmful", "adversarial_benign")
    return PromptSet(
        repository,
        file,
        revision,
        rows,
        "jailbreak",
        ("data_type", kinds[:1]),
        "ODC-BY",
        _JIANG,
        prompt="adversarial",
        category="data_type",
        only=("data_type", kinds),
        gated=f"{GATED} They include Ai2's Responsible Use Guidelines.",
        note=note,
    )


SETS: dict[str, PromptSet] = {
    "xstest": PromptSet(
        "Paul/XSTest",
        "xstest_prompts.csv",
        "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
        450,
        "ambiguous",
        ("label", ("unsafe",)),
        "CC-BY-4.0",
        "Röttger et al., XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in "
        "Large Language Models, arXiv 2308.01263",
        category="type",
        note="walledai/XSTest holds the same prompts, gated",
    ),
    "or-bench-hard": PromptSet(
        "bench-llm/or-bench",
        "or-bench-hard-1k.csv",
        "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272",
        1319,
        "ambiguous",
        False,
        "CC-BY-4.0",
        "Cui et al., OR-Bench: An Over-Refusal Benchmark for Large Language Models, "
        "arXiv 2405.20947",
    ),
    "jbb-harmful": _jbb("harmful-behaviors", "jailbreak", True),
    "jbb-benign": _jbb("benign-behaviors", "ambiguous", False),
    "strongreject": PromptSet(
        "walledai/StrongREJECT",
        f"data/{_PARQUET}",
        "df54272b395ce9e584d2f8140519935425d8549f",
        313,
        "jailbreak",
        True,
        "MIT",
        "Souly et al., A StrongREJECT for Empty Jailbreaks, arXiv 2402.10260",
        gated=GATED,
    ),
    "harmbench": _harmbench("standard", 200),
    "harmbench-contextual": _harmbench("contextual", 100, context="context"),
    "harmbench-copyright": _harmbench("copyright", 100, category=""),
    "wildjailbreak": _wild("train/train.tsv", 262_000, "its adversarial rows only; a large file"),
    "wildjailbreak-eval": _wild("eval/eval.tsv", 2210, "its authors meant it for evaluation"),
    "longsafety": PromptSet(
        "thu-coai/LongSafety",
        "longsafety.json",
        None,
        1543,
        "long_context",
        None,
        "MIT",
        "Lu et al., LongSafety: Evaluating Long-Context Safety of Large Language Models, "
        "arXiv 2502.16971",
        prompt="instruction",
        category="safety_type",
        context="context",
        note="revision and file name unconfirmed; 3,000 to 20,000 words a prompt",
    ),
}


def load_set(name: str) -> tuple[pd.DataFrame, dict]:
    """All rows of a set, and the source: the entry of the manifest that says where they are from.

    The table has prompt_id, kind, prompt, harmful_request (where the set tells it), category
    (where it has one) and ``question``: the text that decides the split, without its context.
    Raises BgkitError for a set that can not be had (it says what to download, and from where), and
    for a file whose columns are not those of the table.
    """
    if name in OWN:
        return _own(name)
    row = SETS[name]
    path, revision, origin = _fetch(name, row)
    raw = tables.read_table(path, ROLE)
    values = [row.harmful, row.only]
    needed = [row.prompt, row.context, *(v[0] for v in values if isinstance(v, tuple))]
    if lacking := [column for column in needed if column and column not in raw]:
        raise BgkitError(
            f"The file {path} of the prompt set {name!r} has no column {lacking[0]!r} (it has "
            f"{', '.join(map(str, raw))}); take {row.file} of {row.page} as it was published."
        )
    if row.only:
        raw = raw[raw[row.only[0]].isin(row.only[1])]
    table = _mapped(name, row, raw, path)
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
    return table, source


def describe(name: str) -> str:
    """One paragraph on a set: rows, kind, licence, place, revision, citation, access.

    >>> print(describe("xstest"))
    xstest: 450 rows, ambiguous, CC-BY-4.0, https://huggingface.co/datasets/Paul/XSTest
      (xstest_prompts.csv at f600c994b256); Röttger et al., XSTest: ...
    """
    row = SETS[name]
    at = f"at {row.revision[:12]}" if row.revision else "at the newest revision: none is confirmed"
    more = " ".join(
        filter(None, (f"; {row.citation}.", row.gated, f"{row.note}." * bool(row.note)))
    )
    return (
        f"{name}: {row.rows:,} rows, {row.kind}, {row.licence}, {row.page} ({row.file} {at}){more}"
    )


def _mapped(name: str, row: PromptSet, raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows of a set with the kit's columns."""
    for column in filter(None, (row.prompt, row.context)):
        empty = ~raw[column].map(lambda value: isinstance(value, str) and bool(value.strip()))
        if empty.any():
            raise BgkitError(
                f"Row {raw.index[empty][0] + 1} of {path} has no {column!r}; take {row.file} of "
                f"{row.page} as it was published."
            )
    questions = raw[row.prompt].astype(str)
    texts = raw[row.context].astype(str) + "\n\n" + questions if row.context else questions
    ids = [f"{name}/{number:05d}" for number in raw.index]
    table = pd.DataFrame({"prompt_id": ids, "kind": row.kind, "prompt": texts.to_numpy()})
    if isinstance(row.harmful, tuple):
        table["harmful_request"] = raw[row.harmful[0]].isin(row.harmful[1]).to_numpy()
    elif row.harmful is not None:
        table["harmful_request"] = row.harmful
    if row.category in raw:
        table["category"] = raw[row.category].astype(str).to_numpy()
    table["question"] = questions.to_numpy()
    return table


def _fetch(name: str, row: PromptSet) -> tuple[Path, str, str]:
    """The file of a set, its revision, and whether that is of the hub or of a local file."""
    if folder := os.environ.get("BGKIT_PROMPTS"):
        for ending in ENDINGS:
            path = Path(folder).expanduser() / f"{name}{ending}"
            if path.is_file():
                return path, f"sha256:{sha256(path)}", "local file"
    try:
        path, revision = hub.download_file(row.repository, row.file, row.revision)
    except BgkitError as error:
        at = f" at revision {row.revision[:12]}" if row.revision else ""
        access = f" {row.gated}" if row.gated else ""
        raise BgkitError(
            f"{error}{access} Or fetch {row.file} of {row.page}{at} elsewhere, save it as "
            f"{name}{Path(row.file).suffix} in a folder, and set BGKIT_PROMPTS to that folder."
        ) from error
    return path, revision, "hub"


def _own(name: str) -> tuple[pd.DataFrame, dict]:
    folder = data_folder() / "prompts"
    parts = []
    for file in OWN[name]:
        if not (folder / file).is_file():
            raise BgkitError(
                f"The kit's own prompts are incomplete: {folder / file} is missing; restore "
                "data/prompts from the repository."
            )
        parts.append(tables.read_table(folder / file, ROLE))
    table = pd.concat(parts, ignore_index=True)
    if "question" not in table:
        table["question"] = table["prompt"]
    table["question"] = table["question"].fillna(table["prompt"])
    table["prompt_id"] = [f"{name}/{number:05d}" for number in table.index]
    columns = ["prompt_id", "kind", "prompt", "harmful_request", "category", "position", "question"]
    table = table[[column for column in columns if column in table]]
    hashes = ",".join(sha256(folder / file)[:12] for file in OWN[name])
    source = {"name": name, "revision": f"sha256:{hashes}", "pinned": True}
    return table, {**source, "origin": "shipped", "licence": "MIT", "rows": len(table)}
