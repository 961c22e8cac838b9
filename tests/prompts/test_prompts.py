"""Prompt tables: the testbed's splits, and files that users bring."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.prompts.load import TRAIN_SHARES, load_prompts
from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

Rows = list[dict[str, object]]


def write_csv(folder: Path, rows: Rows) -> Path:
    path = folder / "own.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def write_jsonl(folder: Path, rows: Rows) -> Path:
    path = folder / "own.jsonl"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(folder: Path, rows: Rows) -> Path:
    path = folder / "own.parquet"
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path) -> Callable[[Rows], str]:
    """Write rows in one of the three formats and return the file's path."""
    return lambda rows: str(WRITERS[request.param](tmp_path, rows))


def written(tmp_path: Path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# --- Files -----------------------------------------------------------------------------------


def test_a_file_with_prompts_alone_gets_the_other_columns(write):
    path = write([{"prompt": "how are you ?"}, {"prompt": 'a, "b"; ünïcode 🔥\nsecond line'}])
    table = load_prompts(path)
    assert list(table) == ["prompt_id", "kind", "prompt"]
    assert table["prompt"].tolist() == ["how are you ?", 'a, "b"; ünïcode 🔥\nsecond line']
    assert table["kind"].tolist() == ["unknown", "unknown"]
    assert table["prompt_id"].is_unique
    assert all(Path(path).name in name for name in table["prompt_id"])


def test_a_file_keeps_the_columns_it_has_and_their_order_and_drops_others(write):
    rows: Rows = [
        {"note": 1, "harmful_request": True, "prompt": "one", "kind": "x", "prompt_id": "b"},
        {"note": 2, "harmful_request": False, "prompt": "two", "kind": "y", "prompt_id": "a"},
    ]
    table = load_prompts(write(rows))
    assert list(table) == ["prompt_id", "kind", "prompt", "harmful_request"]
    assert table["prompt_id"].tolist() == ["b", "a"]
    assert table["kind"].tolist() == ["x", "y"]
    assert table["harmful_request"].tolist() == [True, False]
    assert table["harmful_request"].dtype == bool


def test_numbers_as_names_become_text(write):
    table = load_prompts(write([{"prompt": "one", "kind": 3, "prompt_id": 7}]))
    assert table[["prompt_id", "kind"]].values.tolist() == [["7", "3"]]


def test_prompts_that_look_like_numbers_stay_text(tmp_path):
    path = written(tmp_path, "own.csv", "prompt\n007\n1e5\n")
    assert load_prompts(path)["prompt"].tolist() == ["007", "1e5"]


def test_a_file_without_splits_is_divided_by_hash(write):
    path = write([{"prompt": f"prompt {i}", "kind": "x"} for i in range(50)])
    parts = [load_prompts(path, split=split) for split in ("train", "validation", "test")]
    assert sorted(pd.concat(parts)["prompt_id"]) == sorted(load_prompts(path)["prompt_id"])
    assert [list(part) for part in parts] == [["prompt_id", "kind", "prompt"]] * 3
    assert all(part.index.tolist() == list(range(len(part))) for part in parts)


def test_a_sample_of_a_file_has_n_rows_in_their_order(write):
    path = write([{"prompt": f"prompt {i:03d}"} for i in range(50)])
    table = load_prompts(path, n=20, seed=1)
    assert len(table) == 20
    assert table["prompt"].is_monotonic_increasing and table["prompt"].is_unique
    assert table.index.tolist() == list(range(20))
    assert table.equals(load_prompts(path, n=20, seed=1))
    assert not table.equals(load_prompts(path, n=20, seed=2))
    whole = load_prompts(path)
    assert (
        table["prompt_id"].tolist()
        == whole["prompt_id"][whole["prompt"].isin(table["prompt"])].tolist()
    )


@pytest.mark.parametrize("n", [None, 3, 100])
def test_a_file_gives_no_more_than_it_has(write, n):
    path = write([{"prompt": text} for text in "abc"])
    assert load_prompts(path, n=n)["prompt"].tolist() == ["a", "b", "c"]


def test_blank_lines_of_a_jsonl_file_are_skipped(tmp_path):
    path = written(tmp_path, "own.ndjson", '\n{"prompt": "one"}\r\n\n  \n{"prompt": "two"}')
    assert load_prompts(path)["prompt"].tolist() == ["one", "two"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_line_separators_within_a_jsonl_prompt_are_part_of_it(tmp_path, mark):
    path = write_jsonl(tmp_path, [{"prompt": f"first{mark}second"}])
    assert load_prompts(str(path))["prompt"].tolist() == [f"first{mark}second"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_request_that_is_not_marked_is_not_taken_for_a_harmful_one(tmp_path, suffix):
    rows: Rows = [{"prompt": "one", "harmful_request": False}, {"prompt": "two"}]
    path = WRITERS[suffix](tmp_path, rows)
    try:
        marked = load_prompts(str(path))["harmful_request"].tolist()
    except BgkitError as error:
        assert "harmful_request" in str(error)  # refusing the row is as good
    else:
        assert marked == [False, False]


def test_a_row_without_kind_or_id_gets_the_defaults(write):
    table = load_prompts(write([{"prompt": "one", "kind": "x", "prompt_id": "a"}, {"prompt": "b"}]))
    assert table["kind"].tolist() == ["x", "unknown"]
    assert table["prompt_id"].notna().all()


@pytest.mark.parametrize("no", ["no", "false", "0"])
def test_a_request_marked_with_the_word_no_is_not_harmful(tmp_path, no):
    path = write_jsonl(tmp_path, [{"prompt": "one", "harmful_request": no}])
    try:
        marked = load_prompts(str(path))["harmful_request"].tolist()
    except BgkitError as error:
        assert "harmful_request" in str(error)
    else:
        assert marked == [False]


# --- Files that can not be used --------------------------------------------------------------


def assert_refused(path: str, *hints: str) -> None:
    """Loading fails with one sentence that names the file and every hint."""
    with pytest.raises(BgkitError) as caught:
        load_prompts(path)
    message = str(caught.value)
    assert path in message
    for hint in hints:
        assert hint in message
    assert "\n" not in message


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_text_file_is_refused(tmp_path, suffix, content):
    assert_refused(written(tmp_path, f"own.{suffix}", content), "holds no prompts")


def test_empty_parquet_file_is_refused(tmp_path):
    assert_refused(written(tmp_path, "own.parquet", b""), "can not be read")


def test_file_with_a_header_alone_is_refused(tmp_path):
    assert_refused(written(tmp_path, "own.csv", "prompt,kind\n"), "holds no prompts")


def test_table_without_rows_is_refused(tmp_path):
    path = tmp_path / "own.parquet"
    pd.DataFrame({"prompt": pd.Series(dtype=str)}).to_parquet(path)
    assert_refused(str(path), "holds no prompts")


def test_file_without_a_prompt_column_is_refused(write):
    path = write([{"text": "one", "label": 1}])
    assert_refused(path, "no column 'prompt'", "text, label")


@pytest.mark.parametrize("missing", [None, "", "   "])
def test_row_without_a_prompt_is_named(write, missing):
    rows: Rows = [
        {"kind": "a", "prompt": text} for text in ("one", "two", missing, "four", missing)
    ]
    assert_refused(write(rows), "Row 3 ", "fill it in or delete the row")


def test_prompt_that_is_no_text_is_named_by_its_row(tmp_path):
    path = write_jsonl(tmp_path, [{"prompt": "one"}, {"prompt": 2}])
    assert_refused(str(path), "Row 2 ")


def test_broken_json_is_named_by_its_line(tmp_path):
    path = written(tmp_path, "own.jsonl", '{"prompt": "one"}\n\n{"prompt": "two"\n')
    assert_refused(path, "Line 3 ", "not valid JSON", '{"prompt": "..."}')


@pytest.mark.parametrize("line", ["[1, 2]", '"prompt"', "5", "null"])
def test_json_that_is_no_object_is_named_by_its_line(tmp_path, line):
    path = written(tmp_path, "own.jsonl", f'{{"prompt": "one"}}\n{line}\n')
    assert_refused(path, "Line 2 ", "not a JSON object")


@pytest.mark.parametrize("name", ["own.txt", "own", "own.txt.gz", "own.xlsx"])
def test_other_formats_are_refused(tmp_path, name):
    assert_refused(written(tmp_path, name, "prompt\none\n"), ".csv, .jsonl or .parquet")


def test_missing_file_is_refused(tmp_path):
    assert_refused(str(tmp_path / "none.csv"), "no prompt set", "'testbed'", "'prompt'")


def test_folder_is_refused(tmp_path):
    (tmp_path / "own.csv").mkdir()
    assert_refused(str(tmp_path / "own.csv"), "no prompt set")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_file_that_is_not_utf8_is_refused(tmp_path, suffix):
    path = written(tmp_path, f"own.{suffix}", b'prompt\n{"prompt": "caf\xe9"}\n')
    assert_refused(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("own.parquet", b"PAR1 this is none PAR1"), ("own.csv", b"prompt\none\ntwo,three,four\n")],
)
def test_broken_file_is_refused_with_the_readers_reason(tmp_path, name, content):
    assert_refused(written(tmp_path, name, content), "can not be read: ")


# --- The testbed -----------------------------------------------------------------------------


def test_unknown_split_lists_the_choices():
    with pytest.raises(BgkitError, match="no split 'dev'") as caught:
        load_prompts(split="dev")
    assert all(split in str(caught.value) for split in world.SPLITS)


def test_unknown_name_is_refused():
    with pytest.raises(BgkitError, match="There is no prompt set 'testbet'"):
        load_prompts("testbet")


@pytest.mark.parametrize("split", world.SPLITS)
def test_testbed_has_the_columns_and_as_many_rows_as_asked(split):
    table = load_prompts(split=split, n=37, seed=5)
    assert list(table) == ["prompt_id", "kind", "prompt", "harmful_request"]
    assert len(table) == 37
    assert table["prompt_id"].is_unique
    assert all(name.startswith(f"{split}/5/") for name in table["prompt_id"])
    assert table["harmful_request"].dtype == bool


def test_testbed_gives_256_prompts_unless_asked():
    assert len(load_prompts()) == 256


@pytest.mark.parametrize("split", world.SPLITS)
def test_testbed_depends_on_split_and_seed_alone(split):
    table = load_prompts(split=split, n=40, seed=1)
    assert table.equals(load_prompts("testbed", split, 40, 1))
    assert table["prompt"].tolist() != load_prompts(split=split, n=40, seed=2)["prompt"].tolist()


def test_testbed_splits_share_no_prompt():
    tables = [load_prompts(split=split, n=200) for split in world.SPLITS]
    prompts = pd.concat([table["prompt"].drop_duplicates() for table in tables])
    assert prompts.is_unique


def test_shares_of_the_kinds_in_training():
    assert sum(TRAIN_SHARES.values()) == pytest.approx(1.0)
    assert set(TRAIN_SHARES) == set(world.KINDS)
    assert min(TRAIN_SHARES, key=lambda kind: TRAIN_SHARES[kind]) == "long_context"
    shares = load_prompts(n=2000)["kind"].value_counts(normalize=True)
    for kind, share in TRAIN_SHARES.items():
        assert shares[kind] == pytest.approx(share, abs=0.035), kind


@pytest.mark.parametrize("split", ["validation", "test", "shift"])
def test_kinds_are_equal_in_number_elsewhere(split):
    counts = load_prompts(split=split, n=42)["kind"].value_counts()
    assert set(counts.index) == set(world.KINDS)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("split", world.SPLITS)
def test_harmful_requests_are_those_for_a_forbidden_item(split):
    forbidden = {*lex.FORBIDDEN_ITEMS, *lex.UNSEEN_FORBIDDEN_ITEMS}
    table = load_prompts(split=split, n=400)
    items = [oracle.parse_request(prompt).item for prompt in table["prompt"]]
    assert table["harmful_request"].tolist() == [item in forbidden for item in items]
    by_kind = table.groupby("kind")["harmful_request"].mean()
    assert by_kind["jailbreak"] == 1.0
    assert by_kind["benign"] == by_kind["ambiguous"] == 0.0
    assert 0.0 < by_kind["long_context"] < 0.6


@pytest.mark.parametrize("n", [0, -1])
@pytest.mark.parametrize("name", ["testbed", "prompts.csv"])
def test_fewer_than_one_prompt_is_refused(name, n):
    with pytest.raises(BgkitError, match=f"at least 1, not {n}"):
        load_prompts(name, "test", n)
