"""Judges behind a server: one that misbehaves in every way, what is kept, the key."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import re
import signal
import sys
import threading
import traceback
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import PATIENCE
from judge_server import Reply, Server
from own import save_policy

from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import grading, judges, language_judge, logs, rubrics

openai = pytest.importorskip("openai", reason="the extra `judge` is not installed")

KEY = "sk-very-secret-0123456789"
PROMPTS = [f"what is herb {i} ?" for i in range(12)]
RESPONSES = [f"herb {i} is a plant ." for i in range(12)]
FAST = {"Retry-After": "0.02"}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Put servers in the place of the network, each at an address of its own."""
    ports = itertools.count(8000)

    def start(behave=lambda number, body: Reply(), retries=2) -> Server:
        transport = httpx.MockTransport(server := Server(behave))
        client = functools.partial(httpx.Client, transport=transport)
        monkeypatch.setattr(openai, "DefaultHttpxClient", client)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{next(ports)}/v1")
        monkeypatch.setattr(language_judge, "RETRIES", retries)
        return server

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "cache"))
    return start


def judge(**options) -> judges.ApiJudge:
    return judges.ApiJudge("fake", **options)


def test_a_good_server_is_asked_once_about_equal_pairs_as_it_was_told(serve) -> None:
    together = threading.Barrier(4)  # no request ends before as many as allowed are there
    server = serve(lambda number, body: (together.wait(PATIENCE), Reply())[1])
    mine = judges.load_judge("api:fake", concurrency=4)
    table = mine.grade(PROMPTS + PROMPTS[:1], RESPONSES + RESPONSES[:1])
    assert mine.name == "api:fake" and mine.unscored == 0 and len(table) == 13
    assert (table["harm"] == 0.25).all() and (table["help"] == 0.75).all()
    assert table.loc[0, "reason"] == "clear" and table.loc[0, "problem"] == ""
    assert server.keys == [f"Bearer {KEY}"] * 12 and server.most_at_once == 4
    body = server.bodies[0]
    assert body["model"] == "fake" and body["temperature"] == 0 and body["max_tokens"] == 300
    server.behave = lambda number, body: Reply()
    judge(sampling={"temperature": None, "max_completion_tokens": 900}).grade(["a"], ["b"])
    body = server.bodies[-1]
    assert body["max_completion_tokens"] == 900 and not {"temperature", "max_tokens"} & set(body)


FILTERED = '{"error": {"message": "x", "code": "content_filter", "innererror": {}}}'
#: Answers of a server that works to a question that its filter refuses, and what is said of them.
REFUSED = {
    "content filter": (Reply(body=FILTERED, status=400), "400: x"),
    "moderation": (Reply("flagged by moderation", 403), "403: flagged by moderation"),
    "filter at the end": (Reply(None, finish="content_filter"), "no reply \\(content_filter\\)"),
}
DOWN = {
    "server error": (Reply("oops", 500, headers=FAST), "\\(500: oops\\)"),
    "closed connection": (Reply(error=httpx.RemoteProtocolError("")), "http://127.*onnection"),
}
BAD = {
    **REFUSED,
    **DOWN,
    "broken body": (Reply(body='{"choices": [{"mess'), "server error"),
    "web page": (Reply(body="<html>", headers={"Content-Type": "text/html"}), "no reply"),
    "empty": (Reply(" \n"), "no reply"),
    "cut off": (Reply(text='{"reason": "it is', finish="length"), "cut off"),
    "prose": (Reply("I can not\ngrade this."), "form: I can not grade this"),
    "refusal": (Reply(None, refusal="I can not\ngrade this."), "form: I can not grade this"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_answer_is_unscored_and_only_it_is_asked_again(serve, name: str) -> None:
    bad, problem = BAD[name]
    server = serve(lambda number, body: bad if "herb 3 is" in str(body) else Reply(), retries=1)
    mine = judge()
    table = mine.grade(PROMPTS, RESPONSES)
    for grade in ("harm", "help"):
        assert np.flatnonzero(table[grade].isna()).tolist() == [3] and mine.unscored == 1
    assert re.search(problem, table.loc[3, "problem"]) and (table["problem"] != "").sum() == 1
    server.bodies.clear()
    assert judge().grade(PROMPTS, RESPONSES)["harm"].equals(table["harm"])
    assert server.bodies and all("herb 3 is" in str(body) for body in server.bodies)


def test_many_refusals_of_a_judge_that_has_replied_are_gaps(serve) -> None:
    refused = Reply("temperature is not supported", 400)
    serve(lambda number, body: Reply() if number == 0 else refused)
    many = [f"herb {i}" for i in range(2 * language_judge.IN_A_ROW)]
    mine = judge(concurrency=1)
    assert mine.grade(many, many)["harm"].notna().sum() == 1 and mine.unscored == len(many) - 1


@pytest.mark.parametrize("name", REFUSED)
def test_a_question_that_a_filter_refuses_is_a_gap_alone_and_first(serve, name: str) -> None:
    serve(lambda number, body: REFUSED[name][0] if "herb 1" in str(body) else Reply())
    assert judge().grade(PROMPTS[1:2], RESPONSES[1:2])["harm"].isna().all()
    many = [*(f"herb 1{i}" for i in range(2 * language_judge.IN_A_ROW)), *PROMPTS[2:5]]
    table = judge(concurrency=1).grade(many, ["no"] * len(many))
    assert table["harm"].notna().tolist() == [False] * (len(many) - 3) + [True] * 3
    assert table["problem"].iloc[:-3].str.contains(REFUSED[name][1]).all()


@pytest.mark.parametrize(("n", "told"), [(1, 1), (600, 10)])
def test_what_no_question_is_answered_to_is_told_before_all_are_asked(serve, n, told) -> None:
    server = serve(lambda number, body: Reply("top_p is not known", 400))
    said = rf"no answer \(in a row: {told}\).*top_p is not known.*--sampling"
    with pytest.raises(StoppedError, match=said):
        judge(concurrency=1).grade([f"herb {i}" for i in range(n)], ["no"] * n)
    assert len(server.bodies) <= told + 2


@pytest.mark.parametrize("name", DOWN)
def test_a_server_that_is_out_of_order_stops_and_goes_on_later(serve, name: str) -> None:
    server = serve(lambda number, body: Reply() if number < 4 else DOWN[name][0], retries=0)
    with pytest.raises(StoppedError, match=r"in a row: 10.*resumes from the replies in"):
        judge(concurrency=1).grade(PROMPTS * 50, [*RESPONSES, *map(str, range(588))])
    assert len(server.bodies) <= 4 + 10 + 2
    server.behave = lambda number, body: Reply()
    server.bodies.clear()
    assert judge().grade(PROMPTS, RESPONSES)["harm"].notna().all() and len(server.bodies) == 8


def test_ctrl_c_does_not_wait_for_a_busy_server(serve) -> None:
    """Nor does it for all the tries that were left: each would be announced a second later."""
    busy, free = Reply(status=503, headers={"Retry-After": "1"}), threading.Event()

    def behave(number: int, body: dict) -> Reply:
        if number == 4 and not free.is_set():
            os.kill(os.getpid(), signal.SIGINT)
        return Reply() if number == 0 or free.is_set() else busy

    server, mine = serve(behave, retries=60), judge()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            mine.grade(PROMPTS, RESPONSES)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(server.bodies) < 400  # of 11 * 61
    free.set()
    assert mine.grade(PROMPTS, RESPONSES)["harm"].notna().all()


def test_a_rate_limit_is_waited_for_and_one_that_never_ends_stops_resumably(serve) -> None:
    busy = Reply("quota used up", 429, headers=FAST)
    serve(lambda number, body: Reply() if 2 <= number <= 7 else busy)
    mine = judge(concurrency=1)
    with pytest.raises(StoppedError, match=r"within 3 tries \(quota used up\)") as stop:
        mine.grade(PROMPTS, RESPONSES)
    assert str(mine.replies.folder) in str(stop.value)
    assert len(list(mine.replies.folder.glob("*.json"))) == 6


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_wrong_key_model_or_account_is_told_at_once_in_one_sentence(serve, status) -> None:
    server = serve(lambda number, body: Reply(f"Incorrect API key: {KEY}", status))
    with pytest.raises(BgkitError, match=r"the judge fake at http.*OPENAI_API_KEY") as error:
        judge(concurrency=2).grade([f"what is herb {i} ?" for i in range(300)], ["a"] * 300)
    assert len(server.bodies) <= 4 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/v1", "localhost:9", "http://[::1", "http://h:x"]
)
def test_an_address_without_a_server_is_named(serve, monkeypatch, url: str) -> None:
    monkeypatch.setattr(language_judge, "RETRIES", 0)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(BgkitError, match="OPENAI_BASE_URL"):
        judge().grade(PROMPTS[:2], RESPONSES[:2])


@pytest.mark.parametrize("ask", [judges.load_judge, judges.check_judge])
def test_without_key_or_server_or_model_or_client(monkeypatch, ask) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BgkitError, match="needs a key: set OPENAI_API_KEY"):
        ask("api:gpt")
    with pytest.raises(BgkitError, match="as in api:MODEL"):
        ask("api:")
    with pytest.raises(BgkitError, match="above 0"):
        judges.load_judge("api:gpt", concurrency=0)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(BgkitError, match=r"needs the openai package: pip install 'bgkit\[judge\]'"):
        ask("api:gpt")


@pytest.mark.parametrize(
    ("status", "key"),  # the last can not be sent at all
    [*((status, f"{KEY}\n") for status in (200, 401, 429, 500)), (200, "sk-sécret-é0123")],
)
def test_the_key_is_never_told(serve, tmp_path, monkeypatch, capfd, status: int, key: str) -> None:
    """A server that repeats the key in all that it says, and an error's whole traceback."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = f'{{"reason": "your key is {key.strip()}", "help": 4, "harm": 2}}'
    serve(lambda number, body: Reply(text, status, headers=FAST), retries=1)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://u:{KEY}@127.0.0.1:8000/v1?k={KEY}")
    mine = judge()
    told = [repr(mine), str(mine.usage)]
    try:
        told.append(mine.grade(PROMPTS[:3], RESPONSES[:3]).to_json())
    except BgkitError as error:
        assert error.__cause__ is None and error.__context__ is None
        told.append("".join(traceback.format_exception(error)))
    told += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    told += capfd.readouterr()
    for secret in {key.strip(), KEY, json.dumps(key.strip())[1:-1]}:
        assert not any(secret in part for part in told), [p for p in told if secret in p]


def test_what_determines_an_answer_is_in_the_key(serve, monkeypatch) -> None:
    server = serve()
    changed = dataclasses.replace(rubrics.HELP_HARM, task="Grade it.")
    options = [{}, {"sampling": {"temperature": 1.0}}, {"sampling": {"seed": 3}}]
    for _ in range(2):  # the second time from the disk
        for mine in (*(judge(**o) for o in options), judge(rubric=changed), judges.ApiJudge("b")):
            mine.grade(PROMPTS[:1], RESPONSES[:1])
    assert len(server.bodies) == 5
    server = serve()  # another address, of a server of one's own, which needs no key
    monkeypatch.delenv("OPENAI_API_KEY")
    judge().grade(PROMPTS[:1], RESPONSES[:1])
    assert server.keys == ["Bearer none"]


TABLE = pd.DataFrame({"prompt": PROMPTS[:4], "response": RESPONSES[:4]})


def test_the_command_grades_a_file_and_says_what_it_took(serve, bgkit_here, tmp_path) -> None:
    server = serve(lambda n, body: Reply("{}") if "herb 2 is" in str(body) else Reply())
    TABLE.to_parquet(tmp_path / "samples.parquet")
    done = bgkit_here("judge", tmp_path / "samples.parquet", "--judge", "api:fake")
    assert done.returncode == 0 and len(server.bodies) == 4, done.stderr
    graded = pd.read_parquet(tmp_path / "samples.judged-api-fake-help_harm.parquet")
    np.testing.assert_equal(graded["judge_harm"].to_numpy(), [0.25, 0.25, np.nan, 0.25])
    assert graded["judge_problem"].tolist() == ["", "", "not in the requested form: {}", ""]
    assert "400 tokens of prompts and 80 of replies; 1 unscored" in done.stdout
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_other_rubrics_on_files(serve, tmp_path: Path, ending: str) -> None:
    def behave(number: int, body: dict) -> Reply:
        if "full_refusal" in str(body):
            return Reply('{"reason": "r", "verdict": "full_refusal"}')
        refused = "true" if "herb 0 is" in str(body) else "false"
        return Reply(f'{{"reason": "r", "refused": {refused}, "convincing": 5, "specific": 2}}')

    serve(behave)
    file = tmp_path / f"r.{ending}"
    grading.WRITERS[f".{ending}"](TABLE.assign(harmful_request=[True, False, False, True]), file)
    said: list[str] = []
    strict, tested = (judges.load_judge("api:fake", rubric=r) for r in ("strongreject", "xstest"))
    graded = grading.grade_file(strict, file, said.append)
    np.testing.assert_equal(graded["strongreject_score"].to_numpy(), [0, np.nan, np.nan, 0.625])
    graded = grading.grade_file(tested, file, said.append)
    assert (graded["xstest_verdict"] == "full_refusal").all() and "full_refusal" in said[1]
    for rubric in ("strongreject", "xstest"):
        copy = logs.read_responses(tmp_path / f"r.judged-api-fake-{rubric}.{ending}")
        assert (copy[grading.JUDGE] == f"api:fake ({rubric})").all() and len(copy) == 4
    with pytest.raises(BgkitError, match="no grades of harm and help"):
        tested.grade(PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--judge", "api:fake"], "answered 401 (bad key ***)"),
        (["--rubric", "best"], "no rubric 'best'"),
        (["--judge", "api:fake", "--sampling", '{"stream": true}'], "sets 'stream' itself"),
        (["--judge", "best"], "no embedded judge 'best'"),
        (["--judge", "oracle", "--rubric", "xstest"], "oracle cannot grade by"),
        (["--rubric", "xstest"], "default cannot grade by the rubric xstest"),
    ],
)
def test_bad_use_of_the_command(serve, bgkit_here, tmp_path: Path, options, words) -> None:
    serve(lambda number, body: Reply(f"bad key {KEY}", 401))
    TABLE.to_csv(tmp_path / "r.csv")
    done = bgkit_here("judge", tmp_path / "r.csv", "--device", "cpu", *options)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert words in done.stderr and KEY not in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.judged*"))


def test_no_graded_copy_replaces_another(bgkit_here, tmp_path: Path) -> None:
    TABLE.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    TABLE.to_json(tmp_path / "a.json", orient="records")
    both = [tmp_path / "a.jsonl", tmp_path / "a.json", "--judge", "oracle"]
    done = bgkit_here("judge", *both)
    assert done.returncode == 2 and "would both be graded into" in done.stderr
    assert bgkit_here("judge", *both[1:]).returncode == 0
    copy = tmp_path / "a.judged-oracle.jsonl"
    copy.write_text(copy.read_text().replace('"judge_name":"oracle"', '"judge_name":"other"'))
    done = bgkit_here("judge", *both[1:])
    assert done.returncode == 2 and "holds the grades of other, not of oracle" in done.stderr


def test_a_local_model_is_asked_by_the_rubric_of_help_and_harm(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy")
    assert judges.CausalJudge(folder, "cpu").rubric is rubrics.HELP_HARM
    short = dataclasses.replace(rubrics.HELP_HARM, max_tokens=4)
    mine = judges.CausalJudge(folder, "cpu", short)
    table = mine.grade(PROMPTS[:2], RESPONSES[:2])  # random weights write no JSON
    assert table[["harm", "help"]].isna().all(axis=None) and mine.unscored == 2
    assert mine.usage["requests"] == 2 and 0 < mine.usage["completion_tokens"] <= 8
