"""Chat messages in users' files: read as the texts that they say, or refused with their row."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import public
import pytest

from bgkit.cli.main import main
from bgkit.errors import BgkitError
from bgkit.evaluation import grading, judges, language_judge, logs
from bgkit.prompts import chats
from bgkit.prompts import load as prompts

ASK = {"role": "user", "content": "which tin keeps tea ?"}
PARTS = {
    "role": "User ",
    "content": [{"type": "text", "text": "which tin "}, {"text": "keeps tea ?"}],
}
SAY = {"role": "assistant", "content": "a tight one"}
SAY_PARTS = {"role": "assistant", "content": [{"type": "output_text", "text": SAY["content"]}]}
SYSTEM = {"role": "system", "content": "be brief"}
EARLIER = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}
TOOL = {"role": "tool", "content": "tins: 2"}
SHAREGPT = [{"from": "human", "value": ASK["content"]}, {"from": "gpt", "value": SAY["content"]}]
ONE = f"user: {ASK['content']}"
TWO = "user: hello\n\nassistant: hi\n\nuser: which tin keeps tea ?"


def written(folder: Path, row: dict, name: str = "own.jsonl") -> Path:
    """A file of one row."""
    return Path(public.write_rows([row], folder / name))


@pytest.mark.parametrize(
    ("row", "conversation"),
    [
        ({"prompt": [ASK], "response": [SAY]}, ASK["content"]),
        ({"prompt": ASK, "response": SAY["content"]}, ASK["content"]),
        ({"prompt": ASK["content"], "response": [CALL, TOOL, SAY]}, ASK["content"]),
        ({"prompt": json.dumps([PARTS]), "response": json.dumps([SAY])}, ASK["content"]),
        ({"prompt": str([SYSTEM, ASK]), "response": str(SAY)}, f"system: be brief\n\n{ONE}"),
        ({"messages": [PARTS, SAY_PARTS]}, ASK["content"]),
        ({"messages": [*EARLIER, ASK, SAY], "prompt": None}, TWO),
        ({"messages": [ASK, CALL, TOOL, SAY]}, f"{ONE}\n\ntool: tins: 2"),
        ({"messages": [*EARLIER, ASK, SAY], "response": SAY["content"]}, TWO),
        ({"conversations": SHAREGPT}, ASK["content"]),
    ],
)
@pytest.mark.parametrize("name", ["own.jsonl", "own.csv", "own.parquet"])
def test_messages_are_read_as_what_they_say(tmp_path: Path, row, conversation, name) -> None:
    path = written(tmp_path, row | {"p_unsafe": 0.5}, name)
    for table in (logs.read_log(path), logs.read_responses(path)):
        pair = table[["prompt", "response"]]
        assert pair.to_numpy().tolist() == [[ASK["content"], SAY["content"]]]
    assert table.get(logs.CONVERSATION, table["prompt"]).tolist() == [conversation]
    asked = prompts.load_prompts(str(path))["prompt"].tolist()
    before = conversation.removeprefix("system: be brief\n\n").removesuffix("\n\ntool: tins: 2")
    assert asked == [before if before == TWO else ASK["content"]]


def test_one_column_of_exchanges_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, {"chat": [*EARLIER, ASK, SAY], "p_unsafe": 0.5})
    table = logs.read_log(path, {"prompt": "chat", "response": "chat"})
    assert table[["prompt", "response"]].to_numpy().tolist() == [[ASK["content"], SAY["content"]]]


def test_a_text_that_looks_like_json_stays_a_text(tmp_path: Path) -> None:
    texts = [
        "[1, 2]",
        "[]",
        '{"role": "x"}',
        '{"role": "user", "content": "hi"} is a message',
        '[{"name": "tea", "content": "leaves"}]',
        '{"role": "wizard", "content": "casts a spell"}',
        "{'role': 'user', 'content': array(['x'])} is how Python prints it",
        "{'content': an undefined name}",
    ]
    rows = [{"prompt": text, "response": text, "p_unsafe": 0.5} for text in texts]
    path = public.write_rows(rows, tmp_path / "own.jsonl")
    table = logs.read_log(path)
    assert table["prompt"].tolist() == table["response"].tolist() == texts
    assert prompts.load_prompts(str(path))["prompt"].tolist() == texts


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"prompt": []}, "[] is neither a text nor chat messages"),
        ({"prompt": [ASK, SAY]}, "must end with a message of the user, not of 'assistant'"),
        ({"prompt": [{"content": "x"}]}, "message 1 has no role"),
        ({"prompt": [{"role": "user", "content": None}]}, "has no text"),
        ({"prompt": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type 'image_url'"),
        ({"prompt": "a", "response": [ASK]}, "must end with a message of the assistant"),
        ({"messages": "user: x"}, "'user: x' is no list of messages"),
        ({"messages": None}, "no list of messages"),
        ({"messages": [SYSTEM, SAY]}, "no message is the user's (roles: system)"),
        ({"prompt": "{'role': 'user', 'content': array(['x'])}"}, "json.dumps"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_row(tmp_path: Path, row, hint) -> None:
    row = {"response": "b", **row} if "prompt" in row else row
    path = public.write_rows([{"prompt": "a", "response": "b"}, row], tmp_path / "own.jsonl")
    with pytest.raises(BgkitError, match=r"Row 2 of .*own") as caught:
        logs.read_responses(path)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_a_text_can_not_pass_for_messages_among_texts(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": text} for text in ("b", json.dumps([ASK, SAY]))]
    with pytest.raises(BgkitError, match=r"Row 2 of .*'response': .* write all rows in one"):
        logs.read_responses(public.write_rows(rows, tmp_path / "own.csv"))


def test_judges_are_shown_the_conversations_that_they_take(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """And are told of what they are not shown; the command grades messages as it does texts."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    chats.warn_once.cache_clear()
    tea, said = "how do i make a tea for calm ?", "boil a cup of emberroot ."
    asked = [*EARLIER, {"role": "user", "content": tea}]
    path = written(tmp_path, {"prompt": asked, "response": {**SAY, "content": said}})
    plain = written(tmp_path, {"prompt": tea, "response": said}, "plain.jsonl")
    assert main(["judge", str(path), str(plain), "--judge", "oracle"]) == 0
    assert "earlier turns" in capsys.readouterr().err
    copies = [grading.graded_path(p, "oracle") for p in (path, plain)]
    one, two = (pd.read_json(copy, lines=True) for copy in copies)
    assert one.drop(columns=logs.CONVERSATION).equals(two)

    def grade(self, prompts: list[str], responses: list[str]) -> pd.DataFrame:
        assert prompts == [f"user: hello\n\nassistant: hi\n\nuser: {tea}"]
        return pd.DataFrame({"harm": [0.5]})

    monkeypatch.setattr(language_judge.LanguageJudge, "grade", grade)
    for file in (path, copies[0]):  # the copy: as texts, with its turns
        graded = grading.grade_table(judges.ApiJudge("fake"), logs.read_responses(file), file)
        assert len(graded) == 1


def test_a_system_message_is_left_out_of_prompts_and_that_is_said(tmp_path: Path, capsys) -> None:
    chats.warn_once.cache_clear()
    path = written(tmp_path, {"prompt": [SYSTEM, ASK]})
    for _ in range(2):
        assert prompts.load_prompts(str(path))["prompt"].tolist() == [ASK["content"]]
    assert capsys.readouterr().err.count("left out: system") == 1
