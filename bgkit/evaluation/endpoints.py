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
BUSY = (402, 408, 409, 425)  # below 500, and says nothing of the request


class Answer(NamedTuple):
    """What became of a question; tokens as the server counts them (0: not told).

    ``kind``: "reply"; "refused" by the judge or a content filter, which says so; "rejected", an
    empty reply or a bad request, which is this question's; "failed", which may pass.
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
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self.requests += 1
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
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url or OPENAI,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._begin]}),
        )

    def _begin(self, request) -> None:
        if self.ended:
            raise KeyboardInterrupt  # the client would repeat the request after any other error

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
        schema = rubric.schema()
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
        try:
            answer = _read(self._client.chat.completions.create(**request))
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            failure = error  # holds the request's headers: what is raised is not chained to it
        else:
            failure = None
        answer = answer if failure is None else self._outcome(failure)
        return answer._replace(reply=self._clean(answer.reply), problem=self._clean(answer.problem))

    def _outcome(self, error: Exception) -> Answer:
        """What a failed request means; raises BgkitError where no other could succeed."""
        status, reason = getattr(error, "status_code", None), self._reason(error)
        here = f"the judge {self.model} at {self.url}"
        told = f"({status or 'unreadable'}: {reason})"
        if status is not None and _filtered(error.response):
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


def _filtered(response) -> bool:
    """Whether an HTTP answer says that a content filter, not a fault, is why there is no reply."""
    return response.status_code not in (401, 429) and bool(FILTER.search(response.text[:2000]))


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
