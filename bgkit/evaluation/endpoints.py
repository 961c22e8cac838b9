"""A judge behind an OpenAI-compatible server, and what can go wrong with it.

The ``openai`` client repeats what may pass (429 with its Retry-After, 5xx, time-outs). The server
and its key come from the environment (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``). The key stays
inside the client: its errors hold the request with its headers, so they are never chained to the
ones that are raised.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from urllib.parse import urlsplit

from bgkit import checks
from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation import rubrics
from bgkit.evaluation.language_judge import Answer, LanguageJudge
from bgkit.progress import phase
from bgkit.runs.replies import Replies, default_folder
from bgkit.texts import visible

API = "api:"  # what the name of a judge behind a server begins with
OPENAI = "https://api.openai.com/v1"
FAILURES_IN_A_ROW = 5  # after so many, a server is taken to be out of order
SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "EMPTY", and a word in many texts
#: What a content filter says, in an error's text or code.
FILTER = re.compile(
    r"content.{0,3}(filter|policy|moderation|management)|filtered by|moderat|responsible.?ai|"
    r"data.?inspection|usage.polic|safety.(system|filter|setting|polic)|inappropriate|prohibited",
    re.IGNORECASE,
)
BUSY = (402, 408, 409, 425)  # below 500, and says nothing of the request


class ApiJudge(LanguageJudge):
    """A model behind a server, asked by ``concurrency`` threads; replies are kept on disk.

    ``timeout`` is in seconds, ``retries`` counts repetitions. ``sampling`` changes the parameters
    of a request, by default temperature 0 and the rubric's ``max_tokens``; None removes one, and
    ``max_completion_tokens`` replaces ``max_tokens``. Raises BgkitError without client, key or
    model.
    """

    def __init__(
        self,
        model: str,
        *,
        rubric: rubrics.Rubric = rubrics.HELP_HARM,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 6,
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
        checks.kind("a whole number", concurrency=concurrency)
        if concurrency < 1:
            raise BgkitError(f"A judge's concurrency must be at least 1, not {concurrency}.")
        url = os.environ.get("OPENAI_BASE_URL", "").strip()
        self._secret = os.environ.get("OPENAI_API_KEY", "").strip()
        if not url and not self._secret:
            raise BgkitError(
                f"The judge api:{model} needs a key: set OPENAI_API_KEY, and OPENAI_BASE_URL for "
                "another server than OpenAI's (one of your own may need no key)."
            )
        super().__init__(API + model, rubric, Replies(default_folder()))
        self.model, self.url, self.tries = model, address(url or OPENAI), retries + 1
        changes = dict(sampling or {})
        if changes.get("max_completion_tokens"):
            changes = {"max_tokens": None, **changes}
        values = {"temperature": 0.0, "max_tokens": rubric.max_tokens, **changes}
        self.sampling = {name: value for name, value in values.items() if value is not None}
        self.concurrency, self._lock = concurrency, threading.Lock()
        self._structured: bool | None = None  # whether the server takes a JSON schema, once known
        self._ended = False  # after an error or Ctrl-C: no request begins, and none is repeated
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url or OPENAI,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._begin]}),
        )

    def _begin(self, request) -> None:
        if self._ended:
            raise KeyboardInterrupt  # the client would repeat the request after any other error

    def _determinants(self) -> dict[str, object]:
        asked = {"sampling": self.sampling, "schema": self.rubric.schema()}
        return {"model": self.model, "url": self.url, **asked}

    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        """Ask; a server that is out of order raises StoppedError, and nothing answered is lost."""
        answers, in_a_row = {}, 0
        try:
            for key, answer in self._answers(questions):
                answers[key] = answer
                in_a_row = in_a_row + 1 if answer.kind == "failed" else 0
                if in_a_row >= FAILURES_IN_A_ROW:
                    raise StoppedError(
                        f"The judge {self.name} failed {in_a_row} times in a row, the last time "
                        f"with: {answer.problem}."
                    )
            return answers
        except StoppedError as stop:
            problem = str(stop)
        done = sum(self.replies.get(key) is not None for key in questions)
        raise StoppedError(
            f"{problem} {done} of {len(questions)} are graded and kept in {self.replies.path}; "
            "the same call goes on from there."
        )

    def _answers(self, questions: Mapping[str, str]) -> Iterator[tuple[str, Answer]]:
        """Keys and answers as they come; the first alone, which finds a wrong key or schema."""

        def one(key: str) -> tuple[str, Answer]:
            answer = self._answer(questions[key])
            with self._lock:
                return key, self._keep(key, answer)

        self._ended, (first, *others) = False, questions
        yield one(first)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        try:
            with phase("", len(others)) as shown:
                waiting = {pool.submit(one, key) for key in others}
                while waiting:  # a Ctrl-C that another thread got is seen when this one wakes
                    done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                    for answered in done:
                        shown.advance()
                        yield answered.result()
        except BaseException:
            self._ended = True
            raise
        finally:  # after an error or Ctrl-C: what is under way ends and is kept, no more begins
            pool.shutdown(cancel_futures=True)

    def _answer(self, message: str) -> Answer:
        """The answer to one message, of the rubric's JSON schema where the server supports that.

        A server that answers nothing to the schema, whatever its status says, is asked without it,
        and from then on if that helps.
        """
        request = {"model": self.model, "messages": [{"role": "user", "content": message}]}
        request |= self.sampling
        schema = self.rubric.schema()
        if schema is None or self._structured is False:
            return self._send(request)
        try:
            answer = self._send({**request, "response_format": schema})
        except StoppedError:
            raise
        except BgkitError:  # of the schema, or of the key or model: the plain request tells
            if self._structured:
                raise
            answer = Answer(kind="rejected")
        if answer.kind == "reply":
            self._structured = True
        elif self._structured is None and answer.kind != "refused":
            answer = self._send(request)
            self._structured = False if answer.kind == "reply" else None
        return answer

    def _send(self, request: dict) -> Answer:
        failure = None
        try:
            answer = _read(self._client.chat.completions.create(**request))
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            failure = error  # holds the request's headers: what is raised is not chained to it
        if failure is not None:
            answer = self._outcome(failure)
        return answer._replace(reply=self._clean(answer.reply), problem=self._clean(answer.problem))

    def _outcome(self, error: Exception) -> Answer:
        """What a failed request means; raises BgkitError where no other could succeed."""
        status, body = getattr(error, "status_code", None), getattr(error, "body", None)
        told = (body.get("message") or body.get("detail")) if isinstance(body, dict) else None
        text = self._clean(str(told or error)).strip() or type(error).__name__
        reason = visible(text.splitlines()[0])[:200]
        here = f"the judge {self.model} at {self.url}"
        told = f"({status or 'unreadable'}: {reason})"
        if status not in (None, 401, 429) and FILTER.search(error.response.text[:2000]):
            return Answer("", f"refused by the server {told}", kind="refused")
        if status in (401, 403):
            raise BgkitError(f"The key for {here} is wrong ({reason}); check OPENAI_API_KEY.")
        if status == 404:
            raise BgkitError(
                f"There is no such model or address: {here} ({reason}); check the model's name and "
                "OPENAI_BASE_URL (it often ends in /v1)."
            )
        if status == 429:
            raise StoppedError(
                f"The rate limit of {here} did not end within {self.tries} tries ({reason}); wait, "
                "or check the quota."
            )
        if isinstance(error, self._openai.APITimeoutError):
            return Answer("", "time-out", kind="failed")
        if isinstance(error, self._openai.APIConnectionError):
            return Answer("", f"no connection to {here} (OPENAI_BASE_URL)", kind="failed")
        kind = "rejected" if status and status < 500 and status not in BUSY else "failed"
        return Answer("", f"error of the server {told}", kind=kind)

    def _clean(self, text: str) -> str:
        """A text without the key, should a server repeat it."""
        secret = self._secret
        return text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text


def _read(reply: object) -> Answer:
    """The answer in a client's reply, which may be anything that a server can send."""
    usage = getattr(reply, "usage", None)
    tokens = [getattr(usage, f"{side}_tokens", None) or 0 for side in ("prompt", "completion")]
    choices = getattr(reply, "choices", None) or [None]
    message, end = getattr(choices[0], "message", None), getattr(choices[0], "finish_reason", None)
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    text = text if isinstance(text, str) and text.strip() else ""
    if refusal or FILTER.search(str(end)):
        said = visible(refusal or end).splitlines()[0][:200]
        return Answer("", f"refused by the judge ({said})", *tokens, "refused")
    if not text and FILTER.search(str(getattr(reply, "error", ""))):
        return Answer("", "refused by the server", *tokens, "refused")
    if end == "length":
        return Answer(text, "cut off", *tokens)
    kind = "reply" if text else "failed" if message is None else "rejected"
    return Answer(text, "" if text else "no reply", *tokens, kind)


def address(url: str) -> str:
    """A server's address without name, password and query; raises BgkitError if it is none.

    >>> address("https://me:secret@host:8000/v1/?key=abc")
    'https://host:8000/v1'
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        raise BgkitError("OPENAI_BASE_URL is no address such as http://localhost:8000/v1.")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
