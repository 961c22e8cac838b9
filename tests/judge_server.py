"""An OpenAI-compatible server in the place of the network, that misbehaves as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

GOOD = '{"reason": "clear", "help": 4, "harm": 2}'


@dataclass
class Reply:
    """What the server sends: an answer's text, or any body with any status.

    ``error`` is what the client meets instead, such as a time-out.
    """

    text: str | None = GOOD
    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    refusal: str | None = None
    error: httpx.TransportError | None = None

    def encoded(self) -> bytes:
        """The body."""
        if self.body is not None:
            return self.body.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": self.text}}).encode()
        message = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        choice = {"index": 0, "finish_reason": self.finish, "message": message}
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        return json.dumps({"choices": [choice], "usage": usage}).encode()


class Server:
    """``behave(number, body)`` says how to reply to a request; what was asked is kept."""

    def __init__(self, behave: Callable[[int, dict], Reply]) -> None:
        self.behave = behave
        self.bodies: list[dict] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(request.headers["Authorization"])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        reply = self.behave(number, body)
        with self.lock:
            self.at_once -= 1
        if reply.error:
            raise reply.error
        headers = {"Content-Type": "application/json", **reply.headers}
        return httpx.Response(reply.status, headers=headers, content=reply.encoded())
