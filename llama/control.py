"""Control tokens that stand in people's words, such as an `<|im_end|>` that somebody wrote: as text they stay text.

They are disguised before the chat template writes the conversation; what still looks like one then is the template's
own. pipeline/models/control.py does so to what is learnt, prompts.py to what is asked.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar, cast

Message = TypeVar("Message")  # what a turn is to whoever has it: a mapping, of which all but the role is words

# A plane of private use, which no text has: a control token in words begins with a character of it.
WORDS = 0x100000
# Control tokens by their looks: some of DeepSeek's do not say that they are, and of gpt-oss' llama.cpp denies it.
PIPES = re.compile(r"<[|｜].*[|｜]>")  # noqa: RUF001
# Gemma 4's, which llama.cpp's converter writes down as other tokens, so that they are shown.
HALF_PIPES = re.compile(r"<\|\w+>|<\w+\|>")
# In which turns have reasoning, calls and results.
TAGS = {
    "assistant": {"<think>", "</think>", "<tool_call>", "</tool_call>"},
    "tool": {"<tool_response>", "</tool_response>"},
}


def disguised(messages: Sequence[Message], names: re.Pattern[str]) -> list[Message] | None:
    """Return messages whose words are without control tokens but the tags of their role; None where they are anyway.

    Args:
        messages: a conversation.
        names: finds control tokens.

    Raises ValueError where they are not, and have characters that would stand for such.
    """
    changed = [cast(Message, _disguised(message, names)) for message in messages]
    if changed == list(messages):
        return None
    if any(ord(char) >= WORDS for message in messages for text in _texts(message) for char in text):
        raise ValueError("they have names of control tokens, and characters of Unicode's last private plane")
    return changed


def disguise(text: str, names: re.Pattern[str], role: str) -> str:
    """Return a text without control tokens but the tags of its role; no other character changes, none moves."""
    tags = TAGS.get(role, set())
    return names.sub(lambda name: name[0] if name[0] in tags else chr(WORDS + ord(name[0][0])) + name[0][1:], text)


def as_written(text: str) -> str:
    """Return a text that was disguised as it was."""
    return "".join(chr(ord(char) - WORDS) if ord(char) >= WORDS else char for char in text)


def _disguised(value: object, names: re.Pattern[str], role: str = "") -> object:
    if isinstance(value, dict):
        role = str(value.get("role", role))
        return {key: inner if key == "role" else _disguised(inner, names, role) for key, inner in value.items()}
    if isinstance(value, list):
        return [_disguised(inner, names, role) for inner in value]
    return disguise(value, names, role) if isinstance(value, str) else value


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _texts(each)
