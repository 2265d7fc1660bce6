"""Messages, which rows become, and the texts that cells and turns hold."""

import json
from collections.abc import Mapping
from typing import NotRequired, TypedDict


class Message(TypedDict):
    """A turn of a conversation, or the only one of a plain text."""

    role: str  # system, user, assistant, tool; text for a plain text; tools, which come first, for what may be called
    content: str
    weight: NotRequired[int]  # 0 where it is not learnt
    tool_calls: NotRequired[str | None]  # of the assistant's, as JSON (see tool_calls.py)
    name: NotRequired[str | None]  # of the tool whose result this is
    tool_call_id: NotRequired[str | None]


Messages = list[Message]
Columns = Mapping[str, object]  # a row by names in lower case

NOT_TEXT = "content is not text"
TOO_DEEP = "nested too deeply"
TEXT_KEYS = ("text", "value")  # of a part
TEXT_PARTS = ("text", "input_text", "output_text")
NOT_TEXT_KEYS = ("image", "image_url", "images", "audio", "input_audio", "video", "file")  # of a part


class UnusableRowError(Exception):
    """A row that cannot be trained on; its only argument is the reason."""


def said(message: Message) -> str:
    """Return all that a message says: its content, and what it calls, whatever the calls' ids."""
    if not (text := message.get("tool_calls")):
        return message["content"]
    calls = json.dumps([call["function"] for call in json.loads(text)], ensure_ascii=False)
    return f"{message['content']}\n{calls}".lstrip("\n")


def plain_name(name: object) -> str:
    """Return the name of a key or a role as it is compared: without case and the space around it."""
    return str(name).strip().lower()


def says_something(value: object) -> bool:
    """Return whether a value is there: not null, NaN, or empty."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value == value and value != [] and value != {}  # only NaN differs from itself


def parsed(value: object) -> object:
    """Return what a text is as JSON; any other value, and a text that is none, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def as_list(value: object) -> list[object] | None:
    """Return a list, also one that is written as JSON; None for anything else."""
    value = parsed(value)
    return value if isinstance(value, list) else None


def as_text(value: object) -> str:
    """Return a cell as text: nothing for null and NaN, the digits of a number.

    Raises:
        UnusableRowError: it is none.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:  # only NaN differs from itself
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UnusableRowError(NOT_TEXT)


def joined(content: object) -> str:
    """Return a content as text, which may come as a list of parts.

    Raises:
        UnusableRowError: a part is no text.
    """
    if not isinstance(content, list):
        return as_text(content)
    return "".join(part if isinstance(part, str) else _part(part) for part in content)


def is_unicode(text: str) -> bool:
    """Return False for half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_other_part(part: object) -> bool:
    """Return whether a part of a content is a picture, a sound or the like."""
    return isinstance(part, dict) and (
        part.get("type") in NOT_TEXT_KEYS
        or any(says_something(value) for key, value in part.items() if key in NOT_TEXT_KEYS)
    )


def _part(part: object) -> str:
    known = part if isinstance(part, dict) and part.get("type", "text") in TEXT_PARTS else {}
    text = next((known[key] for key in TEXT_KEYS if known.get(key) is not None), None)
    if not isinstance(text, str) or is_other_part(part):
        raise UnusableRowError(NOT_TEXT)
    return text
