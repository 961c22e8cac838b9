"""The kit's own prompts: what ships, and the long contexts that are made of them."""

from __future__ import annotations

import json

import pytest

from bgkit.data import data_folder
from bgkit.prompts import compose, splits
from bgkit.prompts import load as prompts

FRAMINGS = ("role_play", "fiction", "false_authority", "split_request")


def lines(name: str) -> list[dict]:
    text = (data_folder() / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_what_ships() -> None:
    table = prompts.load_prompts("everyday")
    harmful = table.groupby("kind")["harmful_request"].agg(["sum", "size"]).T.to_dict("list")
    assert harmful == {
        "ambiguous": [76, 279],
        "benign": [0, 144],
        "jailbreak": [128, 128],
        "long_context": [16, 56],
    }
    assert table["harmful_request"].dtype == bool and table["prompt_id"].is_unique
    refused = table["category"].str.startswith("contrast_") | table["category"].isin(FRAMINGS)
    assert (refused == table["harmful_request"]).all()
    assert table["prompt"].map(splits.normalise).is_unique
    for column in ("prompt", "category"):
        assert (table[column] == table[column].str.strip()).all()
    short = prompts.load_prompts("everyday-short")
    assert short["prompt"].tolist() == table["prompt"][:551].tolist()


def test_long_contexts_are_what_the_code_makes() -> None:
    short = lines("harmless") + lines("ambiguous") + lines("jailbreak")
    own = {row["prompt"]: row for row in short}
    for row in lines("long_context"):
        text, place = compose.bury(row["question"])
        assert (text, round(place, 4)) == (row["prompt"], row["position"])
        assert compose.WORDS < len(text.split()) < compose.WORDS + 200
        pages = text.split("\n\n")
        (at,) = [n for n, page in enumerate(pages) if compose.MARK + row["question"] in page]
        assert place == pytest.approx((at - 1) / (len(pages) - 2))
        kept = {"kind": "long_context", **{key: row[key] for key in ("question", "position")}}
        assert row == {**own[row["question"]], **kept, "prompt": text}


@pytest.mark.parametrize("split", splits.SHARES)
def test_a_long_context_is_in_the_split_of_its_question(split: str) -> None:
    whole = prompts.load_prompts("everyday", split)
    short = set(prompts.load_prompts("everyday-short", split)["prompt"])
    long = whole.loc[whole["kind"] == "long_context", "prompt"]
    own = [text for text in long if any(compose.MARK + question in text for question in short)]
    assert len(own) == len(long) > 0
