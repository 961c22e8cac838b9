"""A small OpenAI-compatible server that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = '{"reason": "clear", "help": 4, "harm": 2}'


@dataclass
class Reply:
    """What the server sends: an answer's text, or any body with any status, after a pause.

    A status of 0 closes the connection without an answer.
    """

    text: str | None = GOOD
    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    finish: str = "stop"
    refusal: str | None = None

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
    """A server on a free port; ``behave(number, body)`` says how to reply to a request."""

    def __init__(self, behave: Callable[[int, dict], Reply]) -> None:
        self.behave = behave
        self.bodies: list[dict] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(server.bodies)
                    server.bodies.append(body)
                    server.keys.append(self.headers["Authorization"])
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                reply = server.behave(number, body)
                time.sleep(reply.pause)
                with lock:
                    server.at_once -= 1
                if reply.status:
                    with contextlib.suppress(OSError):  # the client did not wait
                        self._send(reply, reply.encoded())

            def _send(self, reply: Reply, content: bytes) -> None:
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", **reply.headers}
                for name, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        class Listening(ThreadingHTTPServer):
            request_queue_size = 64  # a connection that finds the queue full waits for a second

        self._http = Listening(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()
