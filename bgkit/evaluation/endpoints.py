"""A judge behind an OpenAI-compatible server, and what can go wrong with it.

The ``openai`` client repeats what may pass (429 with its Retry-After, 5xx, time-outs). The server
and its key come from the environment (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``). The key stays
inside the client: its errors hold the request with its headers, so they are never chained to the
ones that are raised.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
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
TIMEOUT, RETRIES = 60.0, 6  # seconds, and repetitions of one request
UNANSWERED = 20  # questions without any reply, after which something is wrong with all of them
FAILURES_IN_A_ROW = 5  # after so many, a server is taken to be out of order
SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "EMPTY", and a word in many texts
HOPELESS = (401, 402, 404)  # of the key, the account or the address, whatever is asked


class ApiJudge(LanguageJudge):
    """A model behind a server, asked by ``concurrency`` threads; grades are kept on disk.

    ``sampling`` changes the parameters of a request, by default temperature 0 and the rubric's
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
        self.model, self.url = model, address(url or OPENAI)
        changes = dict(sampling or {})
        if changes.get("max_completion_tokens"):
            changes = {"max_tokens": None, **changes}
        values = {"temperature": 0.0, "max_tokens": rubric.max_tokens, **changes}
        self.sampling = {name: value for name, value in values.items() if value is not None}
        fixed = {"model": model, "url": self.url, "sampling": self.sampling}
        super().__init__(API + model, rubric, Replies(default_folder() / "judge-replies"), fixed)
        self.concurrency, self._lock = concurrency, threading.Lock()
        self._ended = False  # after an error or Ctrl-C: no request begins, and none is repeated
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url or OPENAI,
            timeout=TIMEOUT,
            max_retries=RETRIES,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._begin]}),
        )

    def _begin(self, request) -> None:
        if self._ended:
            raise KeyboardInterrupt  # the client would repeat the request after any other error

    def _ask(self, questions: Mapping[str, str]) -> dict[str, Answer]:
        """Ask; a server that is out of order raises StoppedError, and nothing answered is lost."""

        def one(key: str) -> tuple[str, Answer]:
            answer = self._send(questions[key])
            with self._lock:
                return key, self._keep(key, answer)

        answers, in_a_row, replied, self._ended = {}, 0, self.replied, False
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        try:
            with phase("questions", len(questions)) as shown:
                waiting = {pool.submit(one, key) for key in questions}
                while waiting:  # a Ctrl-C that another thread got is seen when this one wakes
                    done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                    for key, answer in (answered.result() for answered in done):
                        answers[key] = answer
                        replied = replied or bool(answer.reply)
                        in_a_row = in_a_row + 1 if answer.failed else 0
                        if len(answers) >= UNANSWERED and not replied:
                            raise StoppedError(
                                f"The judge {self.name} answered none of {len(answers)} questions, "
                                f"the last time with: {answer.problem}."
                            )
                        if in_a_row >= FAILURES_IN_A_ROW:
                            raise StoppedError(
                                f"The judge {self.name} failed {in_a_row} times in a row, the last "
                                f"time with: {answer.problem}."
                            )
                        shown.advance()
            return answers
        except StoppedError as stop:
            problem = str(stop)
        finally:  # after an error or Ctrl-C: what is under way ends and is kept, no more begins
            self._ended = True
            pool.shutdown(cancel_futures=True)
        done = sum(self.replies.get(key) is not None for key in questions)
        raise StoppedError(
            f"{problem} {done} of {len(questions)} are graded and kept in {self.replies.folder}; "
            "the same call goes on from there."
        )

    def _send(self, message: str) -> Answer:
        """The answer to one message; raises BgkitError where no other could succeed."""
        asked, failure = [{"role": "user", "content": message}], None
        try:
            create = self._client.chat.completions.create
            answer = _read(create(model=self.model, messages=asked, **self.sampling))
        except (self._openai.OpenAIError, ValueError, TypeError) as error:
            failure = error  # holds the request's headers: what is raised is not chained to it
        if failure is not None:
            answer = self._outcome(failure)
        return answer._replace(reply=self._clean(answer.reply), problem=self._clean(answer.problem))

    def _outcome(self, error: Exception) -> Answer:
        status, body = getattr(error, "status_code", None), getattr(error, "body", None)
        told = (body.get("message") or body.get("detail")) if isinstance(body, dict) else None
        text = self._clean(str(told or error)).strip() or type(error).__name__
        reason = visible(text.splitlines()[0])[:200]
        here = f"the judge {self.model} at {self.url}"
        if status in HOPELESS:
            raise BgkitError(
                f"The server of {here} said {status} ({reason}); check OPENAI_API_KEY, the model's "
                "name and OPENAI_BASE_URL (it often ends in /v1)."
            )
        if status == 429:
            raise StoppedError(
                f"The rate limit of {here} did not end within {RETRIES + 1} tries ({reason}); "
                "wait, or check the quota."
            )
        problem = f"error of the server ({status or self.url}: {reason})"
        return Answer(problem=problem, failed=status is None or status >= 500)

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
    text = getattr(message, "content", None) or getattr(message, "refusal", None)
    if not isinstance(text, str) or not text.strip():
        return Answer("", f"no reply ({visible(end)[:50]})", *tokens, failed=message is None)
    return Answer(text, "cut off" if end == "length" else "", *tokens)


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
