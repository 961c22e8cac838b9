"""Judges that are language models: questions, cached replies, grades; and one behind a server.

A reply that does not fit the rubric, such as a refusal, leaves its response unscored (never 0), is
counted, and is requested again the next time. The server is OpenAI-compatible; its address and key
are ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. The ``openai`` client retries transient errors (429
with its Retry-After, 5xx, time-outs). Its errors hold the request with the key, so none is chained
to what is raised here.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import pandas as pd

from bgkit import checks
from bgkit.data import hash_of
from bgkit.environment import cache_folder
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import rubrics
from bgkit.progress import phase
from bgkit.runs import write_json
from bgkit.texts import clean_text

API = "api:"  # prefix of the name of a judge behind a server
OPENAI = "https://api.openai.com/v1"
TIMEOUT, RETRIES = 60.0, 6  # seconds, and retries of one request
IN_A_ROW = 10  # questions without an answer, after which a server counts as down
SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "EMPTY", and a word in many texts
HOPELESS = (401, 402, 404)  # wrong key, account or address: every question will fail
#: Words in the errors of servers whose content filter refuses a question, such as a jailbreak.
FILTER = ("content_filter", "content filter", "content management", "content_policy")
FILTER += ("content policy", "usage polic", "safety system", "moderation", "flagged", "prohibited")


class Judge(Protocol):
    """Anything that grades responses."""

    name: str

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Columns ``harm`` and ``help`` in [0, 1], NaN where there is no grade; one row each."""


class Answer(NamedTuple):
    """The outcome of a question: a reply, or why it is missing or incomplete."""

    reply: str = ""
    problem: str = ""
    prompt_tokens: int = 0  # as model or server count them; 0: not reported
    completion_tokens: int = 0
    failed: bool = False  # the server's fault, not the question's
    filtered: bool = False  # refused by the content filter of a working server


class Replies:
    """Replies by key: the :func:`~bgkit.data.hash_of` of all that determines one.

    With a folder they persist in one small file each, so threads and processes can share it;
    prompts, responses and secrets are not stored.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._replies: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """The reply of a key, or None."""
        if key not in self._replies and self.folder is not None:
            with contextlib.suppress(OSError, ValueError):  # missing or unreadable
                text = (self.folder / f"{key}.json").read_text(encoding="utf-8")
                self._replies[key] = json.loads(text)
        return self._replies.get(key)

    def put(self, key: str, reply: str) -> None:
        """Store a reply; raises BgkitError if its file cannot be written."""
        self._replies[key] = reply
        if self.folder is not None:
            write_json(self.folder / f"{key}.json", reply)


class LanguageJudge(ABC):
    """A judge that asks by a rubric; subclasses implement ``_ask``.

    ``replies`` caches the replies that are grades. Their keys are the message, which holds the
    whole rubric, and ``fixed``: whatever else determines a reply. ``unscored`` counts responses
    without a grade, ``usage`` requests and tokens.
    """

    def __init__(
        self, name: str, rubric: rubrics.Rubric, replies: Replies, fixed: Mapping[str, object]
    ) -> None:
        self.name, self.rubric, self.replies, self.fixed = name, rubric, replies, fixed
        self.unscored, self.usage, self.replied = 0, Counter(), False
        self._lock = threading.Lock()

    @abstractmethod
    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        """Answers to messages, by key; each goes through ``_keep`` as soon as it arrives."""

    def _keep(self, key: str, answer: Answer) -> Answer:
        """Count an answer, and cache it if it is a grade."""
        tokens = {name: getattr(answer, name) for name in ("prompt_tokens", "completion_tokens")}
        with self._lock:
            self.usage.update(requests=1, **tokens)
            if self.rubric.parse(answer.reply) is not None:
                self.replies.put(key, answer.reply)
        return answer

    def read(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """The rubric's scales as columns, ``reason``, and ``problem``: why there is no grade.

        Identical pairs are asked about once.
        """
        messages = [self.rubric.message(p, r) for p, r in zip(prompts, responses, strict=True)]
        keys = [hash_of(**self.fixed, message=message) for message in messages]
        cached = {key: self.replies.get(key) for key in keys}
        answers = {key: Answer(reply) for key, reply in cached.items() if reply is not None}
        self.replied = self.replied or bool(answers)
        questions = {k: m for k, m in zip(keys, messages, strict=True) if k not in answers}
        with phase(f"grading by {self.name}"):
            answers |= self._ask(questions) if questions else {}
        rows, problems = [], []
        for answer in (answers[key] for key in keys):
            rows.append(self.rubric.parse(answer.reply))
            excerpt = " ".join(clean_text(answer.reply).split())[:100]  # may be a refusal
            problem = answer.problem or f"not in the requested form: {excerpt}"
            problems.append(problem if rows[-1] is None else "")
        self.unscored += rows.count(None)
        return self.rubric.table(rows).assign(problem=problems)

    def grade(self, prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """:meth:`read` with ``harm`` and ``help`` in [0, 1]: each is (grade - 1) / 4."""
        if not {"harm", "help"} <= set(self.rubric.scales):
            raise BgkitError(
                f"The rubric {self.rubric.name} has no grades of harm and help; use help_harm."
            )
        table = self.read(prompts, responses)
        return table.assign(harm=(table["harm"] - 1) / 4, help=(table["help"] - 1) / 4)

    @property
    def usage_text(self) -> str:
        """Requests and tokens used, as text."""
        usage = self.usage
        return (
            f"{usage['requests']} requests, {usage['prompt_tokens']:,} tokens of prompts and "
            f"{usage['completion_tokens']:,} of replies; {self.unscored} unscored"
        )


class ApiJudge(LanguageJudge):
    """A model behind a server, asked by ``concurrency`` threads; grades are cached on disk.

    ``sampling`` overrides a request's parameters, by default temperature 0 and the rubric's
    ``max_tokens``; None removes one, and ``max_completion_tokens`` replaces ``max_tokens``. Raises
    BgkitError without client, key or model.
    """

    def __init__(
        self,
        model: str,
        *,
        rubric: rubrics.Rubric = rubrics.HELP_HARM,
        concurrency: int = 8,
        sampling: Mapping[str, object] | None = None,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise BgkitError(
                f"The judge api:{model} needs the openai package: pip install 'bgkit[judge]'."
            ) from None
        if not model:
            raise BgkitError("Name the model behind the judge's server, as in api:MODEL.")
        checks.require_type("a whole number", concurrency=concurrency)
        checks.require_positive(concurrency=concurrency)
        url = os.environ.get("OPENAI_BASE_URL", "").strip()
        self._secret = os.environ.get("OPENAI_API_KEY", "").strip()
        if not url and not self._secret:
            raise BgkitError(
                f"The judge api:{model} needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a "
                "server other than OpenAI's (your own may need no key)."
            )
        self.model, self.url = model, public_url(url or OPENAI)
        given = dict(sampling or {})
        if taken := {"model", "messages", "stream"} & set(given):
            raise BgkitError(f"The judge sets {min(taken)!r} itself; leave it out of --sampling.")
        limit = {} if given.get("max_completion_tokens") else {"max_tokens": rubric.max_tokens}
        values = {"temperature": 0.0, **limit, **given}
        self.sampling = {name: value for name, value in values.items() if value is not None}
        fixed = {"model": model, "url": self.url, "sampling": self.sampling}
        super().__init__(API + model, rubric, Replies(cache_folder() / "judge-replies"), fixed)
        self.concurrency, self._openai = concurrency, openai
        self._ended = False  # set after an error or Ctrl-C: no request starts or is retried
        self._resume_hint = f"the same call resumes from the replies in {self.replies.folder}."
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url or OPENAI,
            timeout=TIMEOUT,
            max_retries=RETRIES,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._begin]}),
        )

    def _begin(self, request) -> None:
        if self._ended:
            raise KeyboardInterrupt  # the client would retry after any other error

    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        """Send the questions; raises StoppedError if the server is down, losing no answer.

        It counts as down after :data:`IN_A_ROW` questions (or all) without any reply. A refusal by
        its content filter is a reply, so files of jailbreaks are graded as far as possible.
        """

        def ask(key: str) -> tuple[str, Answer]:
            return key, self._keep(key, self._send(questions[key]))

        answers, in_a_row, self._ended = {}, 0, False
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        try:
            with phase("questions", len(questions)) as progress:
                left = iter(questions)  # handed out as answers come, so that few are under way
                waiting = {pool.submit(ask, key) for key in islice(left, 2 * self.concurrency)}
                while waiting:  # wakes each second to see a Ctrl-C that another thread got
                    done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                    for key, answer in (future.result() for future in done):
                        answers[key] = answer
                        self.replied = self.replied or bool(answer.reply) or answer.filtered
                        in_a_row = in_a_row + 1 if answer.failed or not self.replied else 0
                        limit = IN_A_ROW if self.replied else min(IN_A_ROW, len(questions))
                        if in_a_row >= limit:
                            raise StoppedError(
                                f"The judge {self.name} gave no answer (in a row: {in_a_row}); the "
                                f"last problem: {answer.problem}. Check the model's name, "
                                "OPENAI_BASE_URL, OPENAI_API_KEY and --sampling; "
                                f"{self._resume_hint}"
                            )
                        progress.advance()
                    waiting |= {pool.submit(ask, key) for key in islice(left, len(done))}
            return answers
        finally:  # after an error or Ctrl-C: requests under way end and are cached, none starts
            self._ended = True
            pool.shutdown(cancel_futures=True)

    def _send(self, message: str) -> Answer:
        """The answer to one message; raises BgkitError if every message would fail."""
        messages, failure = [{"role": "user", "content": message}], None
        try:
            create = self._client.chat.completions.create
            answer = _read_reply(create(model=self.model, messages=messages, **self.sampling))
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            failure = error  # holds the request's headers: nothing raised is chained to it
        if failure is not None:
            answer = self._outcome(failure)
        return answer._replace(reply=self._clean(answer.reply), problem=self._clean(answer.problem))

    def _outcome(self, error: Exception) -> Answer:
        status, body = getattr(error, "status_code", None), getattr(error, "body", None)
        detail = (body.get("message") or body.get("detail")) if isinstance(body, dict) else None
        text = self._clean(str(detail or error)).strip() or type(error).__name__
        reason = clean_text(text.splitlines()[0])[:200]
        judge = f"the judge {self.model} at {self.url}"
        if status in HOPELESS:
            raise BgkitError(
                f"The server of {judge} answered {status} ({reason}); check OPENAI_API_KEY, the "
                "model's name and OPENAI_BASE_URL (it often ends in /v1)."
            )
        if status == 429:
            raise StoppedError(
                f"The rate limit of {judge} did not end within {RETRIES + 1} tries ({reason}); "
                f"wait, or check the quota; {self._resume_hint}"
            )
        problem = f"server error ({status or self.url}: {reason})"
        failed, words = status is None or status >= 500, f"{getattr(error, 'code', '')} {text}"
        filtered = not failed and any(phrase in words.lower() for phrase in FILTER)
        return Answer(problem=problem, failed=failed, filtered=filtered)

    def _clean(self, text: str) -> str:
        """A text without the key, in case a server repeats it."""
        secret = self._secret
        return text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text


def _read_reply(reply: object) -> Answer:
    """The answer in a client's reply, which may be anything that a server sends."""
    usage = getattr(reply, "usage", None)
    tokens = [getattr(usage, f"{side}_tokens", None) or 0 for side in ("prompt", "completion")]
    choices = getattr(reply, "choices", None) or [None]
    message, end = getattr(choices[0], "message", None), getattr(choices[0], "finish_reason", None)
    text = getattr(message, "content", None) or getattr(message, "refusal", None)
    if not isinstance(text, str) or not text.strip():
        filtered = end == "content_filter"
        failed = message is None and not filtered
        return Answer("", f"no reply ({clean_text(end)[:50]})", *tokens, failed, filtered)
    return Answer(text, "cut off" if end == "length" else "", *tokens)


def public_url(url: str) -> str:
    """A server's URL without user, password and query; raises BgkitError if it is not valid.

    >>> public_url("https://me:secret@host:8000/v1/?key=abc")
    'https://host:8000/v1'
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid:
        raise BgkitError("OPENAI_BASE_URL is not an address such as http://localhost:8000/v1.")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
