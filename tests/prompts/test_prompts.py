"""Prompt tables: the testbed's splits, and files that users bring."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import public
import pytest

from bgkit.errors import BgkitError
from bgkit.prompts import splits
from bgkit.prompts.load import TRAIN_SHARES, load_prompts
from bgkit.testbed import lexicon as lex
from bgkit.testbed import oracle, world

Rows = list[dict[str, object]]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def write(request, tmp_path) -> Callable[[Rows], str]:
    """Write rows in one of the three formats and return the file's path."""
    return lambda rows: public.write_rows(rows, tmp_path / f"own.{request.param}")


# --- Files -----------------------------------------------------------------------------------


def test_a_file_with_prompts_alone_gets_the_other_columns(write):
    path = write([{"prompt": "how are you ?"}, {"prompt": 'a, "b"; ünïcode 🔥\nsecond line'}])
    table = load_prompts(path)
    assert list(table) == ["prompt_id", "kind", "prompt"]
    assert table["prompt"].tolist() == ["how are you ?", 'a, "b"; ünïcode 🔥\nsecond line']
    assert table["kind"].tolist() == ["unknown", "unknown"]
    assert table["prompt_id"].is_unique and table["prompt_id"].str.contains("own").all()


def test_a_file_keeps_the_columns_it_has_and_their_order_and_drops_others(write):
    rows: Rows = [
        {"note": 1, "harmful_request": True, "prompt": "one", "kind": 3, "prompt_id": "b"},
        {"note": 2, "harmful_request": None, "prompt": "two", "kind": None, "prompt_id": None},
    ]
    table = load_prompts(write(rows))
    assert list(table) == ["prompt_id", "kind", "prompt", "harmful_request"]
    assert table["prompt_id"][0] == "b" and "own" in table["prompt_id"][1]
    assert table["kind"][1] == "unknown" and table["kind"][0].startswith("3")
    assert table["harmful_request"].tolist() == [True, False]


def test_a_category_of_one_value_is_a_name_as_any_other(tmp_path):
    rows = {"prompt": ["one", "two"], "kind": pd.Categorical(["k", "k"])}
    pd.DataFrame(rows).to_parquet(tmp_path / "asked.parquet")
    assert load_prompts(str(tmp_path / "asked.parquet"))["kind"].tolist() == ["k", "k"]


def test_a_file_without_splits_is_divided_by_hash(write):
    path = write([{"prompt": f"prompt {i}", "kind": "x"} for i in range(50)])
    whole, table = load_prompts(path), load_prompts(path, n=20, seed=1)
    parts = [load_prompts(path, split) for split in splits.SHARES]
    for split, part in zip(splits.SHARES, parts, strict=True):
        assert (part["prompt"].map(splits.split_of) == split).all()
        assert list(part) == list(whole) and part.index.tolist() == list(range(len(part)))
    assert sum(map(len, parts)) == 50
    assert len(table) == 20 and table.merge(whole).equals(table)  # in their order
    assert table.equals(load_prompts(path, n=20, seed=1))
    assert not table.equals(load_prompts(path, n=20, seed=2))


def test_cells_of_a_csv_file_are_text_and_lines_of_a_jsonl_file_end_in_one_way(tmp_path):
    for name, content, prompts in (
        ("own.csv", "prompt\n007\n1e5\nNone\n", ["007", "1e5", "None"]),
        ("own.ndjson", '\n{"prompt": "one"}\r\n\n  \n{"prompt": "two"}', ["one", "two"]),
        ("own.jsonl", '{"prompt": "first\u2028second\x85"}', ["first\u2028second\x85"]),
    ):
        (tmp_path / name).write_text(content, newline="")
        assert load_prompts(str(tmp_path / name))["prompt"].tolist() == prompts


# --- Files that can not be used --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "hints"),
    [
        ("own.csv", "\n\n", ["holds no rows"]),
        ("own.csv", "text,label\na,b\n", ["no column 'prompt'", "text, label"]),
        ("own.csv", "prompt\none\ntwo,three\n", ["cannot be read: ", "line 3", "double quotes"]),
        ("own.csv", "\nprompt;kind\none, two;x\n", ["';'", "save it with commas"]),
        ("own.csv", '"prompt"\t"kind"\none\tx\n', ["'\\t'", "save it with commas"]),
        ("own.csv", '"a;b"\none\n', ["no column 'prompt'", "a;b"]),
        ("own.tsv", "prompt;kind\none;x\n", ["';'", "save it with tabs"]),
        ("own.jsonl", '{"prompt": "one"}\n{"prompt": 2}', ["Row 2 "]),
        ("own.jsonl", '{"prompt": "one"}\n\n{"prompt": "two"\n', ["line 3", '{"prompt": "..."}']),
        ("own.jsonl", '{"prompt": "one"}\n[1, 2]', ["line 2 is not a JSON object"]),
        ("own.jsonl", b'prompt\n{"prompt": "caf\xe9"}\n', ["save it as UTF-8"]),
        ("own.parquet", b"PAR1 this is none PAR1", ["cannot be read: "]),
        ("own.xlsx", "prompt\none\n", [".csv, .jsonl or .parquet"]),
    ],
)
def test_files_that_can_not_be_used_are_refused_with_one_sentence(tmp_path, name, content, hints):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BgkitError) as caught:
        load_prompts(str(path))
    message = str(caught.value)
    assert all(hint in message for hint in [str(path), *hints]) and "\n" not in message


@pytest.mark.parametrize("missing", [None, "", "   "])
def test_row_without_a_prompt_is_named(write, missing):
    rows: Rows = [{"kind": "a", "prompt": text} for text in ("one", "two", missing, "b", missing)]
    with pytest.raises(BgkitError, match=r"Row 3 of .* as .prompt.; .* delete the row"):
        load_prompts(write(rows))


def test_what_is_no_set_and_no_file_is_refused(tmp_path):
    (tmp_path / "own.csv").mkdir()
    for name in ("testbet", str(tmp_path / "none.csv"), str(tmp_path / "own.csv")):
        with pytest.raises(BgkitError, match="There is no prompt set"):
            load_prompts(name)
    with pytest.raises(BgkitError, match="at least 1, not 0"):
        load_prompts("testbed", "test", 0)


# --- The testbed -----------------------------------------------------------------------------


def test_prompts_of_the_testbed_follow_from_split_and_seed_and_no_two_splits_share_one():
    tables = {split: load_prompts(split=split, n=200, seed=1) for split in world.SPLITS}
    for split, table in tables.items():
        assert list(table) == ["prompt_id", "kind", "prompt", "harmful_request"]
        assert table["prompt_id"].is_unique and table["prompt_id"].str.startswith(split).all()
        assert table.equals(load_prompts("testbed", split, 200, 1))
        assert not table["prompt"].equals(load_prompts(split=split, n=200, seed=2)["prompt"])
    splits.check_leakage({split: table["prompt"] for split, table in tables.items()}, "testbed")
    assert len(load_prompts()) == 256
    with pytest.raises(BgkitError, match=f"no split 'dev'.*{', '.join(world.SPLITS)}"):
        load_prompts(split="dev")


@pytest.mark.parametrize("split", world.SPLITS)
def test_harmful_requests_are_those_for_a_forbidden_item_and_kinds_have_their_shares(split):
    forbidden = {*lex.FORBIDDEN_ITEMS, *lex.UNSEEN_FORBIDDEN_ITEMS}
    table = load_prompts(split=split, n=400)
    items = [oracle.parse_request(prompt).item for prompt in table["prompt"]]
    assert table["harmful_request"].tolist() == [item in forbidden for item in items]
    assert 0 < table["harmful_request"][table["kind"] == "long_context"].mean() < 0.6
    shares = table["kind"].value_counts(normalize=True)
    for kind in world.KINDS:
        share = TRAIN_SHARES[kind] if split == "train" else 1 / len(world.KINDS)
        assert shares[kind] == pytest.approx(share, abs=0.07 if split == "train" else 0.003), kind
