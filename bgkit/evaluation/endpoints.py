"""A judge behind an OpenAI-compatible server: one question, one answer, and what can go wrong.

The ``openai`` client repeats what may pass (429 with its Retry-After, 5xx, time-outs), with growing
pauses. What does not pass is told here in one sentence, and by its kind (:class:`Answer`), which
says what it means for the other questions. The server's key comes from the environment
(``OPENAI_API_KEY``; the server from ``OPENAI_BASE_URL``) and stays inside the client: errors of the
client hold the request with its headers, so they are never chained to the ones that are raised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from bgkit.errors import BgkitError, StoppedError
from bgkit.evaluation.rubrics import Rubric
from bgkit.texts import visible

OPENAI = "https://api.openai.com/v1"
SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "EMPTY", and a word in many texts
#: What a content filter says, in an error's text or code.
FILTER = re.compile(
    r"content.{0,3}(filter|policy|moderation|management)|filtered by|moderat|responsible.?ai|"
    r"data.?inspection|usage.polic|safety.(system|filter|setting|polic)|inappropriate|prohibited",
    re.IGNORECASE,
)
BUSY = (408, 409, 425, 429, 502, 503, 504, 529)  # what passes, and says nothing of the request
BROKEN = ("RemoteProtocolError", "ReadError", "WriteError")  # of a connection that there was
#: The kinds of an answer after which nothing more can be asked.
ENDS = {"fatal": BgkitError, "stopped": StoppedError}


class Answer(NamedTuple):
    """What became of a question; tokens as the server counts them (0: not told).

    ``kind``: "reply"; "refused" by the judge or a content filter, which says so; "rejected", an
    empty reply or a request that is taken for a bad one: a refusal, too, if the server takes
    others; "failed", which may pass; "stopped" and "fatal", after which nothing can be asked.
    """

    reply: str = ""
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kind: str = "reply"


@dataclass
class Usage:
    """What a judge was asked so far: requests, and tokens as the model or server counts them."""

    requests: int = 0
    untold: int = 0  # requests for which the server did not tell the tokens
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self.requests += 1
        self.untold += bool(answer.reply and not answer.prompt_tokens)
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens


class Endpoint:
    """A model behind a server. ``timeout`` is in seconds, ``retries`` counts repetitions.

    ``sampling`` changes the parameters of a request, which by default are temperature 0 and the
    rubric's ``max_tokens``; None removes one (some models take neither). Raises BgkitError if the
    client is not installed or there is no key.
    """

    def __init__(
        self,
        model: str,
        *,
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
        url = os.environ.get("OPENAI_BASE_URL", "").strip()
        self._secret = os.environ.get("OPENAI_API_KEY", "").strip()
        if not url and not self._secret:
            raise BgkitError(
                f"The judge api:{model} needs a key: set OPENAI_API_KEY, and OPENAI_BASE_URL for "
                "another server than OpenAI's (one of your own may need no key)."
            )
        self.model, self.url, self.tries = model, address(url or OPENAI), retries + 1
        self._sampling = dict(sampling or {})
        self._structured: bool | None = None  # whether the server takes a JSON schema, once known
        self.ended = False  # after an error or Ctrl-C: no request begins, and none is repeated
        self._openai, hooks = openai, {"request": [self._begin], "response": [self._look]}
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url or OPENAI,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks),
        )

    def _begin(self, request) -> None:
        if self.ended:
            raise KeyboardInterrupt  # the client would repeat the request after any other error

    def _look(self, response) -> None:
        """Keep the client from repeating what will not pass: a refusal, a schema's rejection."""
        if response.status_code < 400:
            return
        response.read()
        first = self._structured is None and b'"response_format"' in response.request.content
        if self.ended or filtered(response) or (first and response.status_code not in BUSY):
            response.headers["x-should-retry"] = "false"

    def sampling(self, rubric: Rubric) -> dict[str, object]:
        """The sampling parameters of a request.

        A limit under its newer name (``max_completion_tokens``) replaces ``max_tokens``.
        """
        values = {"temperature": 0.0, "max_tokens": rubric.max_tokens, **self._sampling}
        if values.get("max_completion_tokens") and "max_tokens" not in self._sampling:
            del values["max_tokens"]
        return {name: value for name, value in values.items() if value is not None}

    def ask(self, message: str, rubric: Rubric) -> Answer:
        """The answer to one message, of the rubric's JSON schema where the server supports that.

        A server that answers nothing to the schema, whatever its status says, is asked without it,
        and from then on if that helps. Raises BgkitError for a wrong key or model, and StoppedError
        for a rate limit that does not end or a server that can not be reached.
        """
        request = {"model": self.model, "messages": [{"role": "user", "content": message}]}
        request |= self.sampling(rubric)
        schema, answer = rubric.schema(), None
        if schema is not None and self._structured is not False:
            answer = self._send({**request, "response_format": schema})
            if answer.kind == "reply":
                self._structured = True
        unknown = self._structured is None and answer and answer.kind not in ("refused", "stopped")
        if answer is None or unknown:
            answer = self._send(request)
            if unknown and answer.kind == "reply" and self._structured is None:
                self._structured = False
        if answer.kind in ENDS:
            raise ENDS[answer.kind](answer.problem)
        return answer

    def _send(self, request: dict) -> Answer:
        try:
            answer = read(self._client.chat.completions.create(**request))
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            answer = self._outcome(error)
        return answer._replace(reply=self._clean(answer.reply), problem=self._clean(answer.problem))

    def _outcome(self, error: Exception) -> Answer:
        """What a failed request means."""
        status = getattr(error, "status_code", None)
        reason = self._reason(error)
        here = f"the judge {self.model} at {self.url}"
        told = f"({status or 'unreadable'}: {reason})"
        if status is not None and filtered(error.response):
            return Answer("", f"refused by the server {told}", kind="refused")
        if status in (401, 403):
            problem = f"The key for {here} is wrong ({reason}); check OPENAI_API_KEY."
            return Answer("", problem, kind="fatal")
        if status == 404:
            problem = (
                f"There is no such model or address: {here} ({reason}); check the model's name and "
                "OPENAI_BASE_URL (it often ends in /v1)."
            )
            return Answer("", problem, kind="fatal")
        if status == 429:
            problem = (
                f"The rate limit of {here} did not end within {self.tries} tries ({reason}); wait, "
                "or check the quota."
            )
            return Answer("", problem, kind="stopped")
        if isinstance(error, self._openai.APITimeoutError):
            return Answer("", "time-out", kind="failed")
        if isinstance(error, self._openai.APIConnectionError):
            if type(error.__cause__).__name__ in BROKEN:
                return Answer("", "the server closed the connection", kind="failed")
            problem = f"No connection to {here}; check OPENAI_BASE_URL and the network."
            return Answer("", problem, kind="stopped")
        if status is not None and status < 500 and status not in (402, *BUSY):
            return Answer("", f"refused by the server {told}", kind="rejected")
        return Answer("", f"error of the server {told}", kind="failed")

    def _reason(self, error: Exception) -> str:
        """The first words of an error's message, without the key."""
        body = getattr(error, "body", None)
        told = (body.get("message") or body.get("detail")) if isinstance(body, dict) else None
        text = self._clean(str(told or error) or type(error).__name__)
        return visible(text.strip().splitlines()[0] if text.strip() else "no reason given")[:200]

    def _clean(self, text: str) -> str:
        """A text without the key, should a server repeat it."""
        secret = self._secret
        return text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text


def read(reply: object) -> Answer:
    """The answer in a client's reply, which may be anything that a server can send.

    >>> read("<html>").problem
    'no reply'
    """
    usage = getattr(reply, "usage", None)
    tokens = [getattr(usage, f"{side}_tokens", None) for side in ("prompt", "completion")]
    tokens = [count if isinstance(count, int) else 0 for count in tokens]
    choices, error = getattr(reply, "choices", None), getattr(reply, "error", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    message, end = getattr(first, "message", None), str(getattr(first, "finish_reason", None))
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    if isinstance(text, list):  # of parts, which may be thoughts
        parts = [part for part in text if isinstance(part, dict) and part.get("type") == "text"]
        text = "".join(str(part.get("text", "")) for part in parts)
    text = text if isinstance(text, str) and text.strip() else ""
    refused = isinstance(refusal, str) and refusal.strip()
    if refused or re.match("content_filter|safety|prohibited|refus|guardrail", end, re.IGNORECASE):
        said = visible(refused or end).splitlines()[0][:200]
        return Answer("", f"refused by the judge ({said})", *tokens, "refused")
    if error and not text and FILTER.search(str(error)):
        return Answer("", "refused by the server", *tokens, "refused")
    if end == "length":
        return Answer(text, "cut off", *tokens)
    if not text:
        kind = "failed" if message is None else "rejected"
        return Answer("", "no reply", *tokens, kind)
    return Answer(text, "", *tokens)


def filtered(response) -> bool:
    """Whether an HTTP answer says that a content filter, not a fault, is why there is no reply."""
    bad = response.status_code >= 400 and response.status_code not in (401, 429)
    return bad and FILTER.search(response.text[:2000]) is not None


def address(url: str) -> str:
    """A server's address without name, password and query, any of which may be secret.

    Raises BgkitError if it is none.

    >>> address("https://me:secret@host:8000/v1/?key=abc")
    'https://host:8000/v1'
    >>> address("localhost:8000/v1")
    Traceback (most recent call last):
    bgkit.errors.BgkitError: OPENAI_BASE_URL is no address such as http://localhost:8000/v1.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        raise BgkitError("OPENAI_BASE_URL is no address such as http://localhost:8000/v1.")
    host = re.sub(r".*@", "", parts.netloc)
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")
