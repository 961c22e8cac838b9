"""A user's log becomes the samples table, or one sentence says what is wrong with it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import grading, logs

Rows = list[dict[str, object]]
ROWS: Rows = [
    {"prompt": "a ?", "response": "b", "p_unsafe": 0.25, "harmful": False, "kind": "x"},
    {"prompt": "c ?", "response": "d", "p_unsafe": 0.75, "harmful": True, "kind": "y"},
    {"prompt": "e ?", "response": "f", "p_unsafe": 1.0, "harmful": None, "kind": None},
]
HEAD = "prompt,response,p_unsafe"


def write(folder: Path, rows: Rows, suffix: str) -> Path:
    path = folder / f"log.{suffix}"
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif suffix == "parquet":
        pd.DataFrame(rows).to_parquet(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def written(request, tmp_path) -> Callable[[Rows], Path]:
    """Write rows in one of the three formats and return the file's path."""
    return lambda rows: write(tmp_path, rows, request.param)


def refused(path: Path, *hints: str, **options: object) -> None:
    """Reading fails with one sentence that names the file and every hint."""
    with pytest.raises(BgkitError) as caught:
        logs.read_log(path, **options)
    message = str(caught.value)
    assert "\n" not in message and message.rstrip().endswith(".")
    for hint in (path.name, *hints):
        assert hint in message, message


# --- What is read ------------------------------------------------------------------------------


def test_a_log_becomes_a_samples_table(written):
    table = logs.read_log(written(ROWS))
    assert list(table) == ["prompt_id", "kind", "prompt", "response", "t", "harm", "help"]
    kept = table[["prompt", "response", "t", "kind", "harm"]].to_numpy().tolist()
    assert kept[:2] == [["a ?", "b", 0.25, "x", 0.0], ["c ?", "d", 0.75, "y", 1.0]]
    assert kept[2][:4] == ["e ?", "f", 1.0, "unknown"] and np.isnan(kept[2][4])
    assert table["help"].isna().all() and table["prompt_id"].is_unique
    assert table.attrs == {"rows": 3, "note": ""}


def test_columns_can_be_mapped_and_those_that_are_absent_are_not_known(written):
    rows = [{"q": r["prompt"], "a": r["response"], "s": 0.5, "label": "unsafe"} for r in ROWS]
    names = {"prompt": "q", "response": "a", "p_unsafe": "s"}
    table = logs.read_log(written(rows), names)
    assert table["prompt"].tolist() == ["a ?", "c ?", "e ?"]
    assert table["harm"].isna().all() and set(table["kind"]) == {"unknown"}
    assert logs.read_log(written(rows), {**names, "harmful": "label"})["harm"].eq(1).all()


def test_a_long_log_is_sampled_and_says_so(written):
    rows = [{"prompt": f"{i:03d}", "response": "r", "p_unsafe": i / 100} for i in range(100)]
    path = written(rows)
    table = logs.read_log(path, limit=20, seed=1)
    assert len(table) == 20 and table["prompt"].is_monotonic_increasing
    places = [int(name[-7:]) - 1 for name in table["prompt_id"]]
    assert places == table["prompt"].astype(int).tolist()
    assert table.attrs["rows"] == 100
    assert "100 rows" in table.attrs["note"] and "20 of them" in table.attrs["note"]
    assert table.equals(logs.read_log(path, limit=20, seed=1))
    assert not table.equals(logs.read_log(path, limit=20, seed=2))
    rows[37]["p_unsafe"] = 3.5  # rows that the sample leaves out are checked, too
    refused(written(rows), "Row 38 ", "3.5", limit=5)


# --- Logs that can not be used -----------------------------------------------------------------


@pytest.mark.parametrize("missing", logs.REQUIRED)
def test_a_missing_column_is_named_with_those_that_are_there(written, missing):
    rows = [{k: v for k, v in row.items() if k != missing} for row in ROWS]
    refused(written(rows), f"'{missing}'", "it has ", "kind", "map a log's")


def test_mappings_and_limits_that_can_not_be_are_refused(written):
    refused(written(ROWS), "'verdict' (for harmful)", columns={"harmful": "verdict"})
    with pytest.raises(BgkitError, match="no column 'completion' to map"):
        logs.read_log(written(ROWS), {"completion": "response"})
    with pytest.raises(BgkitError, match="at least 1, not 0"):
        logs.read_log(written(ROWS), limit=0)


@pytest.mark.parametrize(
    ("change", "hints"),
    [
        ({"p_unsafe": -0.01}, ["-0.01", "0 to 1"]),
        ({"p_unsafe": 87}, ["87", "0 to 1"]),
        ({"p_unsafe": None}, ["nan as 'p_unsafe'"]),
        ({"p_unsafe": True}, ["True", "0 to 1"]),
        ({"p_unsafe": "high"}, ["'high'"]),
        ({"p_unsafe": [0.5]}, ["[0.5]"]),
        ({"harmful": "perhaps"}, ["'perhaps'", "true or false"]),
    ],
)
def test_a_value_that_is_none_is_named_by_its_row(tmp_path, change, hints):
    refused(write(tmp_path, [ROWS[0], {**ROWS[1], **change}], "jsonl"), "Row 2 ", *hints)


@pytest.mark.parametrize(
    ("name", "content", "hints"),  # what else a file may be is refused as for prompts
    [
        ("log.csv", f"{HEAD}\n", ["holds no rows"]),
        ("log.csv", "prompt,response, prompt \na,b,c\n", ["'prompt' occurs 2 times"]),
        ("log.jsonl", '{"prompt": "a", "prompt ": "b"}', ["'prompt' occurs 2 times"]),
        ("log.tsv", "prompt\tresponse\tp_unsafe\na\tb\t0,5\n", ["'0,5'", "decimal comma"]),
        ("log.csv", f"{HEAD}\na,b\n", ["line 2", "2 cells, but the header has 3"]),
        ("log.csv", f'{HEAD}\na,"b\n', ["line 2 is no CSV", "quotes"]),
        ("log.jsonl", '{"prompt": "a", "response": "b", "p_unsafe": 1, "kind": []}', ["'kind'"]),
    ],
)
def test_what_a_file_says_wrongly_is_refused(tmp_path, name, content, hints):
    (tmp_path / name).write_text(content, encoding="utf-8")
    refused(tmp_path / name, *hints)


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none.csv", "cannot be read", "No such file")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", f"{HEAD}\ncafé 🔥,b,0.1\n"),
        ("log.jsonl.gz", '{"prompt": "café 🔥", "response": "b", "p_unsafe": 0.1}\n'),
        ("log.json", '[{"prompt": "café 🔥", "response": "b", "p_unsafe": 0.1}]'),
    ],
)
def test_text_of_other_encodings_and_compressed_is_read(tmp_path, name, content, encoding):
    path, written = tmp_path / name, content.encode(encoding)
    path.write_bytes(gzip.compress(written) if path.suffix == ".gz" else written)
    assert logs.read_log(path)["prompt"].tolist() == ["café 🔥"]


def test_half_an_emoji_is_read_and_can_be_written(tmp_path):
    row = {"prompt": "half \ud83d, whole 🔥", "response": "b", "p_unsafe": 0.1, "more": ["\udd25"]}
    path = write(tmp_path, [row, row], "jsonl")
    table = logs.read_log(path).drop(columns="prompt_id")
    assert table["prompt"].tolist() == ["half ?, whole 🔥"] * 2
    for name, writer in grading.WRITERS.items():
        writer(logs.read_responses(path), out := tmp_path / f"out{name}")
        assert logs.read_log(out).drop(columns="prompt_id").equals(table)


@pytest.mark.parametrize(
    ("name", "graded"),
    [("a.JSON", "a.judged-m.jsonl"), ("a.b.csv.gz", "a.b.judged-m.csv")],
)
def test_every_file_that_is_read_has_a_graded_copy(name, graded):
    assert grading.graded_path(Path(name), "m").name == graded


def test_copies_by_other_judges_and_rubrics_lie_beside_each_other():
    named = ("api:a/m (xstest)", "api:b/m (xstest)", "api:b/m (help_harm)", "/my/judge", "oracle")
    assert len({grading.graded_path(Path("a.csv"), name) for name in named}) == len(named)
    assert grading.graded_path(Path("b/a.csv"), "../judge").parent == Path("b")
