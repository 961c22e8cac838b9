"""Prompts and responses of a file's rows, given as texts or as chat messages.

Messages are a list of ``{"role": "user", "content": "..."}`` (or ShareGPT's ``from`` and
``value``); a content is a text or a list of parts such as ``{"type": "text", "text": "..."}``. A
file may hold them as objects, as JSON strings, or as printed by Python, which is common in CSV.

The user's last turn is the prompt; the assistant's last turn after it is the response. All turns
before the response form the conversation: "user: hello", an empty line, "assistant: hi", ...
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
from bgkit.prompts.tables import short_repr
from bgkit.texts import replace_surrogates

#: Columns of whole exchanges, read in rows without their own prompt or response.
COLUMNS = ("messages", "conversations", "conversation")
SYSTEM = ("system", "developer")
_USER = ("user", "human", "prompter")
_ASSISTANT = ("assistant", "gpt", "chatgpt", "model", "bot", "ai")
_TOOLS = ("tool", "function", "function_call", "observation", "ipython")
_ALL_ROLES = {*SYSTEM, *_USER, *_ASSISTANT, *_TOOLS}
_ROLES, _CONTENTS = ("role", "from"), ("content", "value", "parts", "refusal")
_TEXT_PARTS = ("text", "input_text", "output_text")
#: Messages printed by Python: in brackets, with both keys of a message.
_PRINTED = re.compile(r"\s*\[?\{'.*\}\]?\s*", re.DOTALL)
_KEYS = [rf"'(?:{'|'.join(names)})': " for names in (_ROLES, _CONTENTS)]

Turn = tuple[str, str | None]  # role and text of a message, None without text
Cell = str | list[Turn] | None  # a text, messages, or nothing


def pairs(
    table: pd.DataFrame,
    path: Path,
    prompt: str = "prompt",
    response: str | None = "response",
    *,
    leave_out: Collection[str] = (),
) -> pd.DataFrame:
    """The columns prompt, response and conversation of a file's rows; missing cells are None.

    ``prompt`` and ``response`` (None: read only prompts) name the file's columns. A row without a
    cell in one of them is read from :data:`COLUMNS`; the same name for both means whole exchanges.
    ``conversation`` is all text before the response, without the roles ``leave_out`` (a note on
    stderr says so). Raises BgkitError, with the row, for a cell that is neither a text nor
    messages, for messages without text, and for a prompt or response whose last message is not the
    user's or the assistant's.

    >>> chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    >>> pairs(pd.DataFrame({"messages": [chat]}), Path("log.jsonl")).iloc[0].tolist()
    ['hi', 'hello', 'hi']
    """
    names, wholes = (prompt, response), COLUMNS
    if prompt == response:  # one column of whole exchanges
        names, wholes = ("", ""), (prompt,)
    columns = [_cells(table, name, path) for name in names]
    wholes = [table[name].tolist() for name in wholes if name in table]
    rows, left_out = [], False
    for index, cells in enumerate(zip(*columns, strict=True)):
        with _locate_errors(f"Row {index + 1} of {path}"):
            exchanges = (_cell(column[index]) for column in wholes if None in cells)
            whole = next(filter(None, exchanges), None)
            if isinstance(whole, str) or (wholes and cells == (None, None) and not whole):
                raise BgkitError(
                    f"{short_repr(whole)} is no list of messages, and the row has no prompt or "
                    "response; write messages, or each text in its column."
                )
            rows.append(_pair(*cells, whole, leave_out))
        turns = [turn for cell in (cells[0], whole) if isinstance(cell, list) for turn in cell]
        left_out |= any(role in leave_out for role, _ in turns)
    if left_out:
        warn_once(f"Some rows of {path} have messages that are left out: {', '.join(leave_out)}.")
    names = ["prompt", "response", "conversation"]
    return pd.DataFrame(rows, table.index, columns=names, dtype=object)


@functools.cache
def warn_once(sentence: str) -> None:
    """Write a sentence to stderr, only the first time."""
    say(sentence, sys.stderr)


def _pair(
    prompt: Cell, response: Cell, whole: list[Turn] | None, leave_out: Collection[str]
) -> tuple[str | None, str | None, str | None]:
    """Prompt, response and conversation of a row; ``whole`` replaces a None."""
    before = None  # includes the messages of tools between prompt and response
    if response is None and whole:
        response, before = whole, whole[:-1]
    if isinstance(response, list):
        response = _last_text(response, _ASSISTANT, "response")
    if prompt is None and whole:
        turns = whole if before is None else before
        users = [end for end, (role, _) in enumerate(turns, start=1) if role in _USER]
        if not users:
            roles = ", ".join(role for role, _ in turns) or "none before the response"
            raise BgkitError(
                f"no message is the user's (roles: {roles}); add the prompt, or delete the row."
            )
        prompt = turns[: users[-1]]
    if not isinstance(prompt, list):
        return prompt, response, prompt
    text, turns = _last_text(prompt, _USER, "prompt"), before or prompt
    lines = [f"{role}: {said}" for role, said in turns if said and role not in leave_out]
    return text, response, "\n\n".join(lines) if len(lines) > 1 else text


def _last_text(turns: list[Turn], roles: Collection[str], what: str) -> str:
    role, text = turns[-1]
    if role not in roles:
        raise BgkitError(
            f"the {what} must end with a message of the {roles[0]}, not of {role!r}; cut it there, "
            "or delete the row."
        )
    if text is None:
        raise BgkitError(f"the {what}'s last message has no text; write it, or delete the row.")
    return text


@contextmanager
def _locate_errors(place: str) -> Iterator[None]:
    """Prefix errors raised inside with a place."""
    try:
        yield
    except BgkitError as error:
        raise BgkitError(f"{place}: {error}") from error


def _cells(table: pd.DataFrame, name: str | None, path: Path) -> list[Cell]:
    """A column's cells: all None if the column is missing, empty texts if ``name`` is None.

    A column that mixes messages written as strings with plain texts is rejected: a text of a model
    could otherwise pass for messages, which would hide its other content.
    """
    if name not in table:
        return [None if name is not None else ""] * len(table)
    cells, written = table[name].tolist(), []
    for index, cell in enumerate(cells):
        with _locate_errors(f"Row {index + 1} of {path}, column {name!r}"):
            cells[index] = _cell(cell)
        if isinstance(cell, str) and cells[index] is not cell:
            written.append(index)
    if written and any(isinstance(cell, str) and cell.strip() for cell in cells):
        raise BgkitError(
            f"Row {written[0] + 1} of {path}, column {name!r}: messages written as a text, but "
            "other rows are plain texts; write all rows in one of these ways."
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
            "messages printed by Python that cannot be parsed; write them with json.dumps, or "
            "write only their text."
        ) from error
    return _turns(value) if _is_chat(value) else cell


def _is_chat(value: object) -> bool:
    """Whether a value is unmistakably a message or a list of messages."""
    turns = [value] if isinstance(value, dict) else value
    return bool(turns and isinstance(turns, list)) and all(
        isinstance(turn, dict)
        and str(_first(turn, _ROLES)).strip().lower() in _ALL_ROLES
        and not turn.keys().isdisjoint(_CONTENTS)
        for turn in turns
    )


def _first(message: dict, keys: Collection[str]) -> object:
    return next((message[key] for key in keys if message.get(key) is not None), None)


def _turns(value: object) -> list[Turn]:
    """Role and text of each message."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    value = [value] if isinstance(value, dict) else value
    if not (value and isinstance(value, list) and all(isinstance(turn, dict) for turn in value)):
        raise BgkitError(
            f"{short_repr(value)} is neither a text nor chat messages; write a text in quotes, or "
            'a list of messages such as {"role": "user", "content": "..."}.'
        )
    turns = [(_first(turn, _ROLES), _first(turn, _CONTENTS)) for turn in value]
    for number, (role, _) in enumerate(turns, start=1):
        if not isinstance(role, str):
            raise BgkitError(f"message {number} has no role; give each a role, such as user.")
    return [(role.strip().lower(), _text(content)) for role, content in turns]


def _text(content: object) -> str | None:
    """The text of a content, its parts joined as in chat templates."""
    content = content.tolist() if isinstance(content, np.ndarray) else content
    if content is None or content == []:
        return None
    parts = []
    for part in content if isinstance(content, list) else [content]:
        is_part = isinstance(part, dict) and (part.get("type") or "text") in _TEXT_PARTS
        text = part.get("text") if is_part else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else None
            what = f"a part of type {kind!r}" if kind else f"{short_repr(part)} as its content"
            raise BgkitError(
                f"a message has {what}, but only text is read; write the text, or delete the row."
            )
        parts.append(replace_surrogates(text))
    return "".join(parts)
