"""A user's log becomes the samples table, or one sentence says what is wrong with it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import public
import pytest

from bgkit.errors import BgkitError
from bgkit.evaluation import grading, logs

ROWS = [
    {"prompt": "a ?", "response": "b", "p_unsafe": 0.25, "harmful": False, "kind": "x"},
    {"prompt": "c ?", "response": "d", "p_unsafe": 0.75, "harmful": True, "kind": "y"},
    {"prompt": "e ?", "response": "f", "p_unsafe": 1.0, "harmful": None, "kind": None},
]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def written(request, tmp_path) -> Callable[[list[dict]], str]:
    """Write rows in one of the three formats and return the file's path."""
    return lambda rows: public.write_rows(rows, tmp_path / f"log.{request.param}")


def refused(path: str | Path, *hints: str, **options: object) -> None:
    """Reading fails with one sentence that names the file and every hint."""
    with pytest.raises(BgkitError) as caught:
        logs.read_log(path, **options)
    message = str(caught.value)
    assert "\n" not in message and message.rstrip().endswith(".")
    for hint in (Path(path).name, *hints):
        assert hint in message, message


def test_a_log_becomes_a_samples_table(written):
    table = logs.read_log(written(ROWS))
    assert list(table) == ["prompt_id", "kind", "prompt", "response", "t", "harm", "help"]
    kept = table[["prompt", "response", "t", "kind", "harm"]].to_numpy().tolist()
    assert kept[:2] == [["a ?", "b", 0.25, "x", 0.0], ["c ?", "d", 0.75, "y", 1.0]]
    assert kept[2][:4] == ["e ?", "f", 1.0, "unknown"] and np.isnan(kept[2][4])
    assert table["help"].isna().all() and table["prompt_id"].is_unique
    assert table.attrs == {"rows": 3, "note": ""}


def test_columns_can_be_mapped_and_those_that_are_absent_are_not_known(written):
    path = written([{"q": r["prompt"], "a": "b", "s": 0.5, "label": "unsafe"} for r in ROWS])
    names = {"prompt": "q", "response": "a", "p_unsafe": "s"}
    table = logs.read_log(path, names)
    assert table["prompt"].tolist() == ["a ?", "c ?", "e ?"]
    assert table["harm"].isna().all() and set(table["kind"]) == {"unknown"}
    assert logs.read_log(path, {**names, "harmful": "label"})["harm"].eq(1).all()


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


def test_files_columns_and_limits_that_can_not_be_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    refused(path, "cannot be read", "No such file")
    for content, hint in (("", "holds no rows"), ("a, a \nb,c\n", "'a' occurs 2 times")):
        path.write_text(content)
        refused(path, hint)
    for missing in logs.REQUIRED:
        public.write_rows([{k: v for k, v in row.items() if k != missing} for row in ROWS], path)
        refused(path, f"'{missing}'", "it has ", "kind", "map a log's")
    public.write_rows(ROWS, path)
    refused(path, "'verdict' (for harmful)", columns={"harmful": "verdict"})
    with pytest.raises(BgkitError, match="no column 'completion' to map"):
        logs.read_log(path, {"completion": "response"})
    with pytest.raises(BgkitError, match="at least 1, not 0"):
        logs.read_log(path, limit=0)


@pytest.mark.parametrize(
    ("change", "hints"),
    [
        ({"p_unsafe": -0.01}, ["-0.01", "0 to 1"]),
        ({"p_unsafe": 1.01}, ["1.01"]),
        ({"p_unsafe": None}, ["nan as 'p_unsafe'"]),
        ({"p_unsafe": True}, ["True", "0 to 1"]),
        ({"p_unsafe": "0,5"}, ["'0,5'", "decimal comma"]),
        ({"p_unsafe": [0.5]}, ["[0.5]"]),
        ({"harmful": "perhaps"}, ["'perhaps'", "true or false"]),
        ({"kind": []}, ["'kind'"]),
    ],
)
def test_a_value_that_is_none_is_named_by_its_row(tmp_path, change, hints):
    path = public.write_rows([ROWS[0], {**ROWS[1], **change}], tmp_path / "log.jsonl")
    refused(path, "Row 2 ", *hints)


def test_rows_of_a_parquet_file_are_counted_whatever_index_it_stores(tmp_path):
    table = pd.DataFrame([ROWS[0], {**ROWS[1], "p_unsafe": 2.0}], index=[41, 7])
    table.to_parquet(tmp_path / "log.parquet")
    refused(tmp_path / "log.parquet", "Row 2 ")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_text_of_other_encodings_and_compressed_is_read(tmp_path, encoding):
    content = "prompt,response,p_unsafe\ncafé 🔥,b,0.1\n".encode(encoding)
    (tmp_path / "log.csv").write_bytes(content)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(content))
    for path in tmp_path.iterdir():
        assert logs.read_log(path)["prompt"].tolist() == ["café 🔥"]


def test_half_an_emoji_is_read_and_can_be_written(tmp_path):
    row = {"prompt": "half \ud83d, whole 🔥", "response": "b", "p_unsafe": 0.1, "more": ["\udd25"]}
    path = tmp_path / "log.json"
    path.write_text(json.dumps([row, row]))
    table = logs.read_log(path).drop(columns="prompt_id")
    assert table["prompt"].tolist() == ["half ?, whole 🔥"] * 2
    for name, writer in grading.WRITERS.items():
        writer(logs.read_responses(path), out := tmp_path / f"out{name}")
        assert logs.read_log(out).drop(columns="prompt_id").equals(table)


def test_every_file_has_a_graded_copy_beside_it_for_each_judge_and_rubric():
    named = ("api:a/m (xstest)", "api:b/m (xstest)", "api:b/m (help_harm)")
    assert len({grading.graded_path(Path("a.csv"), name) for name in named}) == len(named)
    assert grading.graded_path(Path("a.JSON"), "m") == Path("a.judged-m.jsonl")
    assert grading.graded_path(Path("b/a.b.csv.gz"), "../m").parent == Path("b")
    assert grading.graded_path(Path("a.b.csv.gz"), "m") == Path("a.b.judged-m.csv")
