"""Judges behind a server: one that misbehaves in every way, what is kept, the key."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import threading
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judge_server import Reply, Server
from own import save_policy

from bgkit.cli.main import main
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import grading, judges, language_judge, logs, rubrics
from bgkit.evaluation import samples as evaluation
from bgkit.evaluation.metrics import summarise
from bgkit.models import policies
from bgkit.runs import TrainConfig
from bgkit.scoring.adapters import CallableGuard

pytest.importorskip("openai", reason="the extra `judge` is not installed (no openai client)")

KEY = "sk-very-secret-0123456789"
PROMPTS = [f"what is herb {i} ?" for i in range(12)]
RESPONSES = [f"herb {i} is a plant ." for i in range(12)]
FAST = {"Retry-After": "0.02"}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Start servers, and point the environment at the last one."""
    started = []

    def start(
        behave=lambda number, body: Reply(), timeout: float = 5.0, retries: int = 2
    ) -> Server:
        started.append(Server(behave))
        monkeypatch.setenv("OPENAI_BASE_URL", started[-1].url)
        monkeypatch.setattr(language_judge, "TIMEOUT", timeout)
        monkeypatch.setattr(language_judge, "RETRIES", retries)
        return started[-1]

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "cache"))
    yield start
    for server in started:
        server.close()


def judge(**options) -> judges.ApiJudge:
    return judges.ApiJudge("fake", **options)


def resumed(first: judges.ApiJudge) -> judges.ApiJudge:
    """A judge of a later process, on the same server, which has another port here."""
    again = judge()
    again.fixed = first.fixed
    return again


def test_grades_from_a_good_server(serve) -> None:
    server = serve()
    mine = judges.load_judge("api:fake")
    table = mine.grade(PROMPTS + PROMPTS[:1], RESPONSES + RESPONSES[:1])
    assert mine.name == "api:fake"
    assert (table["harm"] == 0.25).all() and (table["help"] == 0.75).all() and len(table) == 13
    assert len(server.bodies) == 12  # an equal pair is asked about once
    body = server.bodies[0]
    assert body["model"] == "fake" and body["temperature"] == 0 and body["max_tokens"] == 300
    assert server.keys == [f"Bearer {KEY}"] * 12
    explained = mine.grade(PROMPTS[:1], RESPONSES[:1])
    assert explained.loc[0, "reason"] == "clear" and explained.loc[0, "problem"] == ""
    assert mine.unscored == 0 and len(server.bodies) == 12


FILTERED = '{"error": {"message": "x", "code": "content_filter", "innererror": {}}}'
BAD = {
    "server error": (Reply("oops", 500, headers=FAST), "\\(500: oops\\)"),
    "time-out": (Reply(pause=9), "timed out"),
    "closed connection": (Reply(status=0), "http://127.*onnection"),
    "broken body": (Reply(body='{"choices": [{"mess'), "server error"),
    "web page": (Reply(body="<html>", headers={"Content-Type": "text/html"}), "no reply"),
    "empty": (Reply(" \n"), "no reply"),
    "too long": (Reply("too long", 413), "413: too long"),
    "cut off": (Reply(text='{"reason": "it is', finish="length"), "cut off"),
    "truncated": (Reply(text='{"reason": "it is", "help": 4, "ha'), "not in the requested form"),
    "prose": (Reply("I can not\ngrade this."), "form: I can not grade this"),
    "refusal": (Reply(None, refusal="I can not\ngrade this."), "form: I can not grade this"),
    "content filter": (Reply(body=FILTERED, status=400), "400: x"),
    "moderation": (Reply("flagged by moderation", 403), "403: flagged by moderation"),
    "filter at the end": (Reply(None, finish="content_filter"), "no reply \\(content_filter\\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_answer_is_unscored_and_only_it_is_asked_again(serve, name: str) -> None:
    bad, problem = BAD[name]
    timeout = 0.5 if name == "time-out" else 30.0  # short only where it is waited for
    answer = lambda number, body: bad if "herb 3 is" in str(body) else Reply()  # noqa: E731
    server = serve(answer, timeout=timeout, retries=1)
    mine = judge()
    table = mine.grade(PROMPTS, RESPONSES)
    assert np.flatnonzero(table["harm"].isna()).tolist() == [3] and mine.unscored == 1
    assert table["help"].isna().tolist() == table["harm"].isna().tolist()
    assert re.search(problem, table.loc[3, "problem"]) and (table["problem"] != "").sum() == 1
    server = serve(answer, timeout=timeout, retries=1)
    again = resumed(mine)
    assert again.grade(PROMPTS, RESPONSES)["harm"].equals(table["harm"])
    assert all("herb 3 is" in message for message in server.messages()) and server.bodies


def test_many_refusals_are_gaps_but_a_judge_that_never_replied_is_an_error(serve) -> None:
    refused = Reply("temperature is not supported", 400)
    serve(lambda number, body: refused if "herb 1" in str(body) else Reply())
    mine = judge()
    assert mine.grade(PROMPTS, RESPONSES)["harm"].isna().sum() == 3 == mine.unscored
    many = [f"herb 1{i}" for i in range(2 * language_judge.IN_A_ROW)]
    assert mine.grade(many, ["no"] * len(many))["harm"].isna().all()
    with pytest.raises(
        BgkitError, match=r"no answer \(in a row: 2\).*temperature is not.*--sampling"
    ):
        judge().grade(PROMPTS[10:], RESPONSES[10:])


@pytest.mark.parametrize("name", ["content filter", "moderation", "filter at the end"])
def test_a_question_that_a_filter_refuses_is_a_gap_alone_and_first(serve, name: str) -> None:
    serve(lambda number, body: BAD[name][0] if "herb 1" in str(body) else Reply())
    alone = judge()
    assert alone.grade(PROMPTS[1:2], RESPONSES[1:2])["harm"].isna().all() and alone.unscored == 1
    many = [*(f"herb 1{i}" for i in range(2 * language_judge.IN_A_ROW)), *PROMPTS[2:5]]
    table = judge(concurrency=1).grade(many, ["no"] * len(many))
    assert table["harm"].notna().tolist() == [False] * (len(many) - 3) + [True] * 3
    assert table["problem"].iloc[:-3].str.contains(BAD[name][1]).all()


@pytest.mark.parametrize(("n", "told"), [(1, 1), (60, 10)])
def test_what_no_question_is_answered_to_is_told_before_all_are_asked(serve, n, told) -> None:
    server = serve(lambda number, body: Reply("top_p is not known", 400))
    with pytest.raises(StoppedError, match=rf"no answer \(in a row: {told}\).*top_p is not known"):
        judge(concurrency=1).grade([f"herb {i}" for i in range(n)], ["no"] * n)
    assert len(server.bodies) < 30


def test_an_evaluation_tells_how_many_a_mean_is_of(serve, tmp_path: Path, capsys) -> None:
    serve(lambda n, body: Reply(None, refusal="no") if "herb 1" in str(body) else Reply())
    samples = evaluation.sample_as(
        TrainConfig(max_completion_length=2),
        *policies.load_policy(save_policy(tmp_path / "policy"), device="cpu"),
        pd.DataFrame({"prompt": PROMPTS, "kind": "mine"}),  # herb 1, herb 10 and herb 11
        guard=CallableGuard(lambda prompts, responses: [0.1] * len(prompts), "mine"),
        judges=(judge(),),
    )
    assert "api:fake left 3 of 12 responses without a grade" in capsys.readouterr().err
    rows = pd.DataFrame(summarise(samples, {})).query("kind == 'all'")
    counts = rows.set_index("metric")["n"]
    assert (counts["system_harm"], counts["filter_rate"]) == (9, 12)


@pytest.mark.parametrize("name", ["server error", "closed connection"])
def test_a_server_that_is_out_of_order_stops_and_goes_on_later(serve, name: str) -> None:
    server = serve(lambda number, body: Reply() if number < 4 else BAD[name][0], retries=0)
    mine = judge(concurrency=1)
    with pytest.raises(StoppedError, match=r"in a row: 10.*resumes from the replies in"):
        mine.grade(PROMPTS * 3, [*RESPONSES, *"abcdefghijklmnopqrstuvwx"])
    assert len(server.bodies) < 36
    server = serve()
    assert resumed(mine).grade(PROMPTS, RESPONSES)["harm"].notna().all()
    assert len(server.bodies) == 8


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
    assert len(server.bodies) < 40
    free.set()
    assert mine.grade(PROMPTS, RESPONSES)["harm"].notna().all()


def test_a_rate_limit_is_waited_for_and_one_that_never_ends_stops_resumably(serve) -> None:
    def behave(number: int, body: dict) -> Reply:
        busy = number < 2 or number > 7
        return Reply("quota used up", 429, headers=FAST) if busy else Reply()

    serve(behave)
    mine = judge(concurrency=1)
    with pytest.raises(StoppedError) as stop:
        mine.grade(PROMPTS, RESPONSES)
    text = str(stop.value)
    assert "did not end within 3 tries (quota used up)" in text
    assert str(mine.replies.folder) in text and stop.value.__context__ is None
    assert len(list(mine.replies.folder.glob("*.json"))) == 6


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_wrong_key_model_or_account_is_found_at_once_and_told_in_one_sentence(
    serve, status: int
) -> None:
    server = serve(lambda number, body: Reply(f"Incorrect API key: {KEY}", status))
    with pytest.raises(BgkitError, match=r"the judge fake at http.*OPENAI_API_KEY") as error:
        judge(concurrency=2).grade(PROMPTS, RESPONSES)
    assert len(server.bodies) <= 4 and "\n" not in str(error.value)


def test_no_server_at_all(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(language_judge, "RETRIES", 0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path))
    for url in ("http://127.0.0.1:9/v1", "localhost:9", "http://[::1", "ftp://x", "http://h:x"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(BgkitError) as error:
            judge().grade(PROMPTS[:2], RESPONSES[:2])
        assert "OPENAI_BASE_URL" in str(error.value)


@pytest.mark.parametrize("ask", [judges.load_judge, judges.check_judge])
def test_without_key_or_server_or_model(monkeypatch, ask) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BgkitError, match="needs a key: set OPENAI_API_KEY"):
        ask("api:gpt")
    with pytest.raises(BgkitError, match="as in api:MODEL"):
        ask("api:")
    with pytest.raises(BgkitError, match="above 0"):
        judges.load_judge("api:gpt", concurrency=0)


@pytest.mark.parametrize("key", [f"{KEY}\n", "sk-sécret-é0123"])
@pytest.mark.parametrize("status", [200, 401, 429, 500])
def test_the_key_is_never_told(serve, tmp_path, monkeypatch, capfd, status: int, key: str) -> None:
    """A server that repeats the key in all that it says, and an error's whole traceback."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = f'{{"reason": "your key is {key.strip()}", "help": 4, "harm": 2}}'
    server = serve(lambda number, body: Reply(text, status, headers=FAST), retries=1)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url.replace("//", f"//u:{KEY}@") + f"?k={KEY}")
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "kept"))
    mine = judge()
    told = [repr(mine), str(mine.usage)]
    try:
        told.append(mine.grade(PROMPTS[:3], RESPONSES[:3]).to_json())
    except BgkitError as error:
        assert error.__cause__ is None and error.__context__ is None
        told.append("".join(traceback.format_exception(error)))
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    told += [path.read_bytes().decode(errors="replace") for path in kept]
    told += capfd.readouterr()
    for secret in {key.strip(), KEY, json.dumps(key.strip())[1:-1]}:
        assert not any(secret in part for part in told), [p for p in told if secret in p]


def test_what_determines_an_answer_is_in_the_key(serve) -> None:
    server = serve()
    pair = (PROMPTS[:1], RESPONSES[:1])
    judge().grade(*pair)
    judge().grade(*pair)
    assert len(server.bodies) == 1  # kept on disk
    for other in ({"sampling": {"temperature": 1.0}}, {"sampling": {"seed": 3}}):
        judge(**other).grade(*pair)
    judges.ApiJudge("other").grade(*pair)
    judge(rubric=rubrics.XSTEST).read(*pair)
    changed = dataclasses.replace(rubrics.HELP_HARM, task="Grade it.")
    judge(rubric=changed).grade(*pair)
    assert len(server.bodies) == 6
    server = serve()  # another address
    judge().grade(*pair)
    assert len(server.bodies) == 1


def test_sampling_parameters_can_be_replaced_and_removed(serve) -> None:
    server = serve()
    judge(sampling={"temperature": None, "max_completion_tokens": 900}).grade(["a"], ["b"])
    body = server.bodies[0]
    assert body["max_completion_tokens"] == 900 and not {"temperature", "max_tokens"} & set(body)


@pytest.mark.parametrize("limit", [1, 4])
def test_no_more_requests_at_once_than_allowed(serve, limit: int) -> None:
    server = serve(lambda number, body: Reply(pause=0.05))
    judge(concurrency=limit).grade(PROMPTS, RESPONSES)
    assert server.most_at_once <= limit and (limit == 1 or server.most_at_once > 1)


def test_a_folder_for_replies_that_can_not_be_written_is_told(serve, monkeypatch, tmp_path) -> None:
    serve()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BGKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BgkitError, match=r"Could not write .*file/judge-replies"):
        judge().grade(PROMPTS, RESPONSES)


# --- Graders, and where judges are used ----------------------------------------------------------


def responses_table() -> pd.DataFrame:
    table = pd.DataFrame({"prompt": PROMPTS[:4], "response": RESPONSES[:4]})
    table["filtered"] = [False, True, False, True]
    table["harmful_request"] = [True, False, False, True]
    return table.assign(harm=[0.0, 1.0, 0.2, 0.4], help=0.5)


@pytest.mark.slow
def test_the_command_grades_a_file_and_says_what_it_took(
    serve, bgkit_command, tmp_path: Path
) -> None:
    server = serve(lambda n, body: Reply("{}") if "herb 2 is" in str(body) else Reply())
    file = tmp_path / "samples.parquet"
    responses_table().to_parquet(file)
    done = bgkit_command("judge", str(file), "--judge", "api:fake")
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
    grading.WRITERS[f".{ending}"](responses_table(), file)
    said: list[str] = []
    strict = judges.load_judge("api:fake", rubric="strongreject")
    graded = grading.grade_file(strict, file, said.append)
    np.testing.assert_equal(graded["strongreject_score"].to_numpy(), [0, np.nan, np.nan, 0.625])
    tested = judges.load_judge("api:fake", rubric="xstest")
    graded = grading.grade_file(tested, file, said.append)
    assert (graded["xstest_verdict"] == "full_refusal").all() and "full_refusal" in said[1]
    for rubric in ("strongreject", "xstest"):  # grades by another rubric are not replaced
        copy = logs.read_responses(tmp_path / f"r.judged-api-fake-{rubric}.{ending}")
        assert (copy[grading.JUDGE] == f"api:fake ({rubric})").all() and len(copy) == 4
    with pytest.raises(BgkitError, match="no grades of harm and help"):
        tested.grade(PROMPTS, RESPONSES)


def test_bad_use_of_the_command(serve, capsys, tmp_path: Path) -> None:
    serve(lambda number, body: Reply(f"bad key {KEY}", 401))
    (tmp_path / "good.csv").write_text("prompt,response\na,b\n")
    (tmp_path / "bad.csv").write_text("prompt,answer\na,b\n")
    (tmp_path / "empty.csv").write_text("")
    cases = [
        (["good.csv", "--judge", "api:fake"], "answered 401 (bad key ***)"),
        (["bad.csv"], "no column 'response' (it has prompt, answer)"),
        (["empty.csv"], "holds no rows"),
        (["nowhere.csv"], "nowhere.csv"),
        (["good.csv", "--rubric", "best"], "no rubric 'best'"),
        (["good.csv", "--judge", "best"], "no embedded judge 'best'"),
        (["good.csv", "--judge", "oracle", "--rubric", "xstest"], "oracle cannot grade by"),
        (["good.csv", "--rubric", "xstest"], "default cannot grade by the rubric xstest"),
    ]
    for (file, *options), words in cases:
        assert main(["judge", str(tmp_path / file), "--device", "cpu", *options]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("bgkit: ") and told.err.count("\n") == 1
        assert words in told.err and KEY not in told.out + told.err
    assert not list(tmp_path.glob("*.judged*"))


def test_a_local_model_is_asked_by_the_rubric_of_help_and_harm(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy")
    assert judges.CausalJudge(folder, "cpu").rubric is rubrics.HELP_HARM
    short = dataclasses.replace(rubrics.HELP_HARM, max_tokens=4)
    mine = judges.CausalJudge(folder, "cpu", short)
    table = mine.grade(PROMPTS[:2], RESPONSES[:2])  # random weights write no JSON
    assert table[["harm", "help"]].isna().all(axis=None) and mine.unscored == 2
