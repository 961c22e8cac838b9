"""Prompts and responses of a file's rows, be they texts or chat messages.

Messages are a list of ``{"role": "user", "content": "..."}`` (or ShareGPT's ``from`` and
``value``); a content is a text or a list of parts such as ``{"type": "text", "text": "..."}``. They
stand in a file as they are, as JSON, or as Python prints them, which a CSV file often has.

The user's last turn is the prompt, the assistant's last one after it the response. All turns before
the response make one text, the conversation: "user: hello", an empty line, "assistant: hi", ...
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.errors import BgkitError
from bgkit.progress import say
from bgkit.prompts.tables import shortened
from bgkit.texts import encodable

#: Columns of whole exchanges, for rows in which the prompt or the response has no cell of its own.
COLUMNS = ("messages", "conversations", "conversation")
SYSTEM = ("system", "developer")
_USER = ("user", "human", "prompter")
_ASSISTANT = ("assistant", "gpt", "chatgpt", "model", "bot", "ai")
_TOOLS = ("tool", "function", "function_call", "observation", "ipython")
_KNOWN = {*SYSTEM, *_USER, *_ASSISTANT, *_TOOLS}
_ROLES, _CONTENTS = ("role", "from"), ("content", "value", "parts", "refusal")
_TEXT_PARTS = ("text", "input_text", "output_text")
#: What is surely messages as Python prints them: brackets around it, and both keys of a message.
_PRINTED = re.compile(r"\s*\[?\{'.*\}\]?\s*", re.DOTALL)
_KEYS = [rf"'(?:{'|'.join(names)})': " for names in (_ROLES, _CONTENTS)]

Turn = tuple[str, str | None]  # role and text of a message; None: it has no text
Cell = str | list[Turn] | None  # of a column: a text, messages, or nothing


def pairs(
    table: pd.DataFrame,
    path: Path,
    prompt: str = "prompt",
    response: str | None = "response",
    *,
    leave_out: Collection[str] = (),
) -> pd.DataFrame:
    """The columns prompt, response and conversation of a file's rows; None where there is none.

    ``prompt`` and ``response`` (None: only prompts are wanted) are the file's columns for them; a
    row without a cell in one of them is read from :data:`COLUMNS`, and one name for both means
    whole exchanges. ``conversation`` is all that stands before the response, without the roles
    ``leave_out`` (the error stream is told if there were some). Raises BgkitError, with the row,
    for what is neither a text nor messages, for messages that are not text, and for a prompt or a
    response whose last message is not the user's or the assistant's.

    >>> chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    >>> pairs(pd.DataFrame({"messages": [chat]}), Path("log.jsonl")).iloc[0].tolist()
    ['hi', 'hello', 'hi']
    """
    names, wholes = (prompt, response), COLUMNS
    if prompt == response:  # one column of whole exchanges, by a name of the user's
        names, wholes = ("", ""), (prompt,)
    columns = [_cells(table, name, path) for name in names]
    wholes = [table[name].tolist() for name in wholes if name in table]
    rows, left_out = [], False
    for place, cells in enumerate(zip(*columns, strict=True)):
        if isinstance(cells[0], str) and isinstance(cells[1], str):
            rows.append((*cells, cells[0]))
            continue
        with _told(f"Row {place + 1} of {path}"):
            found = (_cell(column[place]) for column in wholes if None in cells)
            whole = next(filter(None, found), None)
            if isinstance(whole, str) or (wholes and cells == (None, None) and not whole):
                raise BgkitError(
                    f"{shortened(whole)} is no list of messages, and there is no prompt or "
                    "response beside it; write messages, or each text in its column."
                )
            rows.append(_pair(*cells, whole, leave_out))
        turns = [turn for cell in (cells[0], whole) if isinstance(cell, list) for turn in cell]
        left_out |= any(role in leave_out for role, _ in turns)
    if left_out:
        tell_once(f"Some rows of {path} have messages that are left out: {', '.join(leave_out)}.")
    names = ["prompt", "response", "conversation"]
    return pd.DataFrame(rows, table.index, columns=names, dtype=object)


@functools.cache
def tell_once(sentence: str) -> None:
    """Write a sentence to the error stream, unless it was written before."""
    say(sentence, sys.stderr)


def _pair(
    asked: Cell, given: Cell, whole: list[Turn] | None, leave_out: Collection[str]
) -> tuple[str | None, str | None, str | None]:
    """Prompt, response and conversation of a row; ``whole`` is for what is None."""
    before = None  # what tools said between prompt and response belongs to the conversation, too
    if given is None and whole:
        given, before = whole, whole[:-1]
    if isinstance(given, list):
        given = _last(given, _ASSISTANT, "response")
    if asked is None and whole:
        turns = whole if before is None else before
        users = [place for place, (role, _) in enumerate(turns, start=1) if role in _USER]
        if not users:
            roles = ", ".join(role for role, _ in turns) or "none before the response"
            raise BgkitError(
                f"no message is the user's (roles: {roles}); add the prompt, or delete the row."
            )
        asked = turns[: users[-1]]
    if not isinstance(asked, list):
        return asked, given, asked
    prompt = _last(asked, _USER, "prompt")
    turns = [f"{role}: {text}" for role, text in before or asked if text and role not in leave_out]
    return prompt, given, "\n\n".join(turns) if len(turns) > 1 else prompt


def _last(turns: list[Turn], who: Collection[str], what: str) -> str:
    role, text = turns[-1]
    if role not in who:
        raise BgkitError(
            f"the {what} must end with a message of the {who[0]}, not of {role!r}; cut it there, "
            "or delete the row."
        )
    if text is None:
        raise BgkitError(f"the {what}'s last message has no text; write it, or delete the row.")
    return text


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Name the place in what is raised inside."""
    try:
        yield
    except BgkitError as error:
        raise BgkitError(f"{place}: {error}") from error


def _cells(table: pd.DataFrame, name: str | None, path: Path) -> list[Cell]:
    """A column's cells; all None if there is no such column, empty texts if none is wanted.

    Messages written as a text beside plain texts are refused: either these are no messages, or a
    text that a model wrote passes for some, which would hide what else it says.
    """
    if name not in table:
        return [None if name is not None else ""] * len(table)
    cells, written = table[name].tolist(), []
    for place, cell in enumerate(cells):
        with _told(f"Row {place + 1} of {path}, column {name!r}"):
            cells[place] = _cell(cell)
        if isinstance(cell, str) and cells[place] is not cell:
            written.append(place)
    if written and any(isinstance(cell, str) and cell.strip() for cell in cells):
        raise BgkitError(
            f"Row {written[0] + 1} of {path}, column {name!r}: messages written as a text, "
            "where other rows have a plain text; write all rows in one of these ways."
        )
    return cells


def _cell(cell: object) -> Cell:
    if cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)):
        return None
    if not isinstance(cell, str):
        return _turns(cell)
    printed = _PRINTED.fullmatch(cell) and all(re.search(key, cell) for key in _KEYS)
    try:
        value = ast.literal_eval(cell.strip()) if printed else json.loads(cell, strict=False)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        if not printed:
            return cell
        raise BgkitError(
            "messages as Python prints them, which can not be read back; write them by "
            "json.dumps, or write just the text that they say."
        ) from error
    return _turns(value) if _is_chat(value) else cell


def _is_chat(value: object) -> bool:
    """Whether it is unmistakable that messages are meant."""
    turns = [value] if isinstance(value, dict) else value
    return bool(turns and isinstance(turns, list)) and all(
        isinstance(one, dict)
        and str(_first(one, _ROLES)).strip().lower() in _KNOWN
        and not one.keys().isdisjoint(_CONTENTS)
        for one in turns
    )


def _first(message: dict, names: Collection[str]) -> object:
    return next((message[name] for name in names if message.get(name) is not None), None)


def _turns(value: object) -> list[Turn]:
    """Role and text of each message."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    value = [value] if isinstance(value, dict) else value
    if not (value and isinstance(value, list) and all(isinstance(one, dict) for one in value)):
        raise BgkitError(
            f"{shortened(value)} is neither a text nor chat messages; write a text in quotes, or "
            'a list of messages such as {"role": "user", "content": "..."}.'
        )
    turns = [(_first(one, _ROLES), _first(one, _CONTENTS)) for one in value]
    for number, (role, _) in enumerate(turns, start=1):
        if not isinstance(role, str):
            raise BgkitError(f"message {number} has no role; give each one, such as user.")
    return [(role.strip().lower(), _text(content)) for role, content in turns]


def _text(content: object) -> str | None:
    """The text of a content; its parts are joined as chat templates join them."""
    content = content.tolist() if isinstance(content, np.ndarray) else content
    if content is None or content == []:
        return None
    said = []
    for part in content if isinstance(content, list) else [content]:
        is_part = isinstance(part, dict) and (part.get("type") or "text") in _TEXT_PARTS
        text = part.get("text") if is_part else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else None
            what = f"a part of type {kind!r}" if kind else f"{shortened(part)} as its content"
            raise BgkitError(
                f"a message has {what}, where only text is read; write the text, or delete the row."
            )
        said.append(encodable(text))
    return "".join(said)
