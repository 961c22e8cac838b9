"""A judge behind an OpenAI-compatible server: one question, one answer, and what can go wrong.

The ``openai`` client repeats what may pass (429 with its Retry-After, 5xx, time-outs), with growing
pauses. What does not pass is told here in one sentence. The server's key comes from the environment
(``OPENAI_API_KEY``; the server from ``OPENAI_BASE_URL``) and stays inside the client: errors of the
client hold the request with its headers, so they are never chained to the ones that are raised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from bgkit.errors import BgkitError, StoppedError
from bgkit.rubrics import Rubric
from bgkit.texts import visible

OPENAI = "https://api.openai.com/v1"
SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "EMPTY", and a word in many texts


class Answer(NamedTuple):
    """A reply, or the reason why there is none; tokens as the server counts them (0: not told)."""

    reply: str = ""
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: bool = False  # the server took the request for a bad one


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
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url or OPENAI,
            timeout=timeout,
            max_retries=retries,
        )

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

        A server that refuses the schema is asked without it from then on. Raises BgkitError for a
        wrong key or model, and StoppedError for a rate limit that does not end or a server that
        can not be reached.
        """
        request = {"model": self.model, "messages": [{"role": "user", "content": message}]}
        request |= self.sampling(rubric)
        schema = rubric.schema()
        if schema is None or self._structured is False:
            return self._send(request)
        answer = self._send({**request, "response_format": schema})
        if not answer.refused:
            self._structured = True
        elif self._structured is None:
            answer = self._send(request)
            if not answer.refused:
                self._structured = False
        return answer

    def _send(self, request: dict) -> Answer:
        try:
            reply = self._client.chat.completions.create(**request)
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            outcome = self._outcome(error)
        else:
            outcome = read(reply)
        if isinstance(outcome, BgkitError):
            raise outcome  # outside of the except block: nothing is chained to it
        return outcome._replace(reply=self._clean(outcome.reply))

    def _outcome(self, error: Exception) -> Answer | BgkitError:
        """What a failed request means: no answer to this one message, or the end."""
        status = getattr(error, "status_code", None)
        reason = self._reason(error)
        here = f"the judge {self.model} at {self.url}"
        if status in (401, 403):
            return BgkitError(f"The key for {here} is wrong ({reason}); check OPENAI_API_KEY.")
        if status == 404:
            return BgkitError(
                f"There is no such model or address: {here} ({reason}); check the model's name and "
                "OPENAI_BASE_URL (it often ends in /v1)."
            )
        if status == 429:
            return StoppedError(
                f"The rate limit of {here} did not end within {self.tries} tries ({reason}); wait, "
                "or check the quota."
            )
        if isinstance(error, self._openai.APITimeoutError):
            return Answer(problem="time-out")
        if isinstance(error, self._openai.APIConnectionError):
            return StoppedError(f"No connection to {here}; check OPENAI_BASE_URL and the network.")
        if status is not None and status < 500:
            return Answer(problem=f"refused by the server ({status}: {reason})", refused=True)
        return Answer(problem=f"error of the server ({status or 'unreadable'}: {reason})")

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
    choices = getattr(reply, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    text = getattr(getattr(first, "message", None), "content", None)
    if not isinstance(text, str) or not text.strip():
        return Answer("", "no reply", *tokens)
    cut = getattr(first, "finish_reason", None) == "length"
    return Answer(text, "", *tokens) if not cut else Answer(text, "cut off", *tokens)


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
