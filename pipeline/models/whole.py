"""Whether a rendered conversation has all that was said in it.

Twice, since each has a gap that the other closes: marks in the place of all words, once for each shape of a
conversation, show what a template leaves out whatever it is; the words themselves, one after another in each row,
show what it leaves out for what they are.
"""

import json
import re
from collections.abc import Iterator, Sequence

from llama.calls import TOOLS
from pipeline.models.refusal import Message, RefusedError

Spellings = tuple[str, ...]  # of one thing, in a text of its own or within JSON
Shape = tuple[tuple[str, bool, int], ...]  # of each message: who speaks, whether in words, how many calls

WHO = {
    "system": "the system message",
    "user": "what the user said",
    "assistant": "what the assistant said",
    "tool": "what the tool said",
    TOOLS: "the tools",
}
CALLS = "what the assistant called"
SWITCH = re.compile(r"/(?:no_)?think\b")  # that SmolLM3's template takes out of a system message, and goes by


def require_whole(text: str, messages: Sequence[Message]) -> None:
    """See that a text has the words of all messages, in their order; what comes first may stand anywhere.

    Raises:
        RefusedError: it lacks some; the reason says whose.
    """
    at = 0
    for message in messages:
        first = message["role"] in (TOOLS, "system")
        ends = [_end(text, piece, 0 if first else at) for piece in words(message)]
        calls = end_of_calls(text, message, at)
        if None in ends:
            raise RefusedError(_leaves_out(WHO[message["role"]]))
        at = at if first else max([at, calls, *(end for end in ends if end is not None)])


def end_of_calls(text: str, message: Message, start: int) -> int:
    """Return where the calls of a message end in a text, from a place on; that place where it calls nothing.

    Raises:
        RefusedError: it lacks a name or an argument of theirs.
    """
    ends = [_end(text, piece, start) for piece in called_words(message)]
    if None in ends:
        raise RefusedError(_leaves_out(CALLS))
    return max([start, *(end for end in ends if end is not None)])


def words(message: Message) -> Iterator[Spellings]:
    """Yield what a text must have of a message besides its calls: the names of tools, or its words less reasoning."""
    if message["role"] == TOOLS:
        yield from (_spelt(tool["function"]["name"]) for tool in json.loads(message["content"]))
    elif message["role"] == "system":
        yield from (_spelt(part.strip()) for part in SWITCH.split(message["content"]) if part.strip())
    elif content := _answer(message):
        yield _spelt(content)


def called_words(message: Message) -> Iterator[Spellings]:
    """Yield what a text must have of the calls of a message: names, and the keys and values of arguments."""
    for call in json.loads(message.get("tool_calls") or "[]"):
        yield _spelt(call["function"]["name"])
        yield from _leaves(call["function"]["arguments"])


def shape_of(messages: Sequence[Message]) -> Shape:
    """Return what all conversations share in which the same speak, or call, in the same order."""
    return tuple(
        (message["role"], bool(_answer(message)), len(json.loads(message.get("tool_calls") or "[]")))
        for message in messages
    )


def marked(shape: Shape) -> list[Message]:
    """Return a conversation of a shape with marks, of private use, in the place of all words."""
    return [_marked(place, *part) for place, part in enumerate(shape)]


def _marked(place: int, role: str, has_words: bool, calls: int) -> Message:
    if role == TOOLS:
        tool = {"type": "function", "function": {"name": _mark(place), "description": "d", "parameters": {}}}
        return {"role": role, "content": json.dumps([tool], ensure_ascii=False)}
    message: Message = {"role": role, "content": _mark(place) if has_words else ""}
    if calls:
        functions = [{"name": _mark(place, at), "arguments": {"of": _mark(place, at)}} for at in range(calls)]
        called = [{"type": "function", "function": function} for function in functions]
        message["tool_calls"] = json.dumps(called, ensure_ascii=False)
    return message


def _mark(*places: int) -> str:
    return f"\ue000{'-'.join(map(str, places))}\ue000"


def _answer(message: Message) -> str:
    """Return the words of a message, less the reasoning that templates leave out of the history."""
    content = str(message["content"])
    if message["role"] == "assistant" and content.lstrip().startswith("<think>") and "</think>" in content:
        content = content.partition("</think>")[2]
    return content.strip()


def _leaves(value: object) -> Iterator[Spellings]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield _spelt(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield _spelt(value) if isinstance(value, str) else (json.dumps(value), str(value))


def _spelt(text: str) -> Spellings:
    return (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])


def _end(text: str, spellings: Spellings, start: int) -> int | None:
    """Return where the first of the spellings that a text has from a place on ends; None where it has none."""
    found = ((text.find(spelling, start), len(spelling)) for spelling in spellings)
    return next((at + length for at, length in found if at >= 0), None)


def _leaves_out(what: str) -> str:
    return f"it leaves out {what}"
